//! Whom workers and probes run as.
//!
//! Owns the step from the configured names to ids. Taking an identity on is `sys`' business.

use std::ffi::OsString;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User};

use crate::config::Config;
use crate::held::{self, PathTrust};

/// A user and a group. Supplementary groups are dropped with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub uid: Uid,
    pub gid: Gid,
    /// The user's name and home, where the user isn't ours.
    account: Option<(String, PathBuf)>,
}

/// Names that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("user: there is no user \"{0}\"")]
    NoUser(String),
    #[error("group: there is no group \"{0}\"")]
    NoGroup(String),
    #[error("{key}: \"{name}\" can't be looked up")]
    LookUp { key: &'static str, name: String, source: Errno },
    #[error("user, group: only root can run workers as somebody else")]
    NotRoot,
    #[error("{key}: \"{name}\" has the number {id}, which this process's user namespace doesn't know ({map})")]
    NotMapped { key: &'static str, name: String, id: u32, map: &'static str },
}

impl Identity {
    /// The configured identity; `None` when it is that of this process.
    pub fn configured(config: &Config) -> Result<Option<Self>, IdentityError> {
        let own = (Uid::effective(), Gid::effective());
        let mut identity = Self { uid: own.0, gid: own.1, account: None };
        if let Some(name) = &config.user {
            let failed = |source| IdentityError::LookUp { key: "user", name: name.clone(), source };
            let user = User::from_name(name).map_err(failed)?.ok_or_else(|| IdentityError::NoUser(name.clone()))?;
            let account = (user.uid != own.0).then_some((user.name, user.dir));
            identity = Self { uid: user.uid, gid: user.gid, account };
        }
        if let Some(name) = &config.group {
            let failed = |source| IdentityError::LookUp { key: "group", name: name.clone(), source };
            let group = Group::from_name(name).map_err(failed)?;
            identity.gid = group.ok_or_else(|| IdentityError::NoGroup(name.clone()))?.gid;
        }
        if (identity.uid, identity.gid) == own {
            Ok(None)
        } else if own.0.is_root() {
            // Becoming somebody whom the kernel can't name fails with "invalid argument", and only at a spawn.
            for (key, name, id, map) in [
                ("user", &config.user, identity.uid.as_raw(), "/proc/self/uid_map"),
                ("group", &config.group, identity.gid.as_raw(), "/proc/self/gid_map"),
            ] {
                if std::fs::read_to_string(map).is_ok_and(|text| !is_mapped(&text, id)) {
                    let name = name.clone().or_else(|| config.user.clone()).unwrap_or_default();
                    return Err(IdentityError::NotMapped { key, name, id, map });
                }
            }
            held::distrust_group(identity.gid);
            Ok(Some(identity))
        } else {
            Err(IdentityError::NotRoot)
        }
    }

    /// How far the paths of a master's directories must be trusted whose workers are this user.
    pub const fn path_trust(workers: Option<&Self>) -> PathTrust {
        if workers.is_some() { PathTrust::Required } else { PathTrust::Any }
    }

    /// The variables that name the user (`environ(7)`): with ours, programs would look for their files in our home.
    pub fn variables(&self) -> Vec<(&'static str, OsString)> {
        let Some((name, home)) = &self.account else { return Vec::new() };
        vec![("HOME", home.into()), ("USER", name.into()), ("LOGNAME", name.into())]
    }
}

/// Whether an id is in one of the ranges of `/proc/PID/uid_map`, or `gid_map` (`user_namespaces(7)`).
fn is_mapped(map: &str, id: u32) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_ascii_whitespace().map(str::parse::<u64>);
        let (Some(Ok(first)), Some(Ok(_)), Some(Ok(length))) = (numbers.next(), numbers.next(), numbers.next()) else {
            return false;
        };
        (first..first.saturating_add(length)).contains(&u64::from(id))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_mapped_where_a_range_has_it() {
        let map = "         0       1000          1\n         1     100000      65534\n";
        for (id, expected) in [(0, true), (1, true), (65534, true), (65535, false), (u32::MAX, false)] {
            assert_eq!(is_mapped(map, id), expected, "{id}");
        }
        assert!(is_mapped("0 0 4294967295", 65534) && !is_mapped("", 0) && !is_mapped("x y z", 0));
    }
}
