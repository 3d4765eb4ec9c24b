//! Whom workers and probes run as, and whose sockets are.
//!
//! Owns the step from the configured users and groups to their numbers. Taking an identity on is `sys`' business.

use std::ffi::{CString, OsString};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, Gid, Group, Uid, User, access, getgrouplist};

use app_host_core::config::{Account, Config, Rights};

use crate::held::{self, Owner, PathTrust};

/// A user, a group, and the supplementary groups: those of the user, unless the configuration says which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub uid: Uid,
    pub gid: Gid,
    pub groups: Vec<Gid>,
    /// The user's name and home, where the user isn't ours.
    account: Option<(String, PathBuf)>,
}

/// Users and groups that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("{key}: there is no user {name}; hint: make it (useradd --system), or leave \"{key}\" out")]
    NoUser { key: &'static str, name: Account },
    #[error("{key}: there is no group {name}; hint: make it (groupadd --system), or leave \"{key}\" out")]
    NoGroup { key: &'static str, name: Account },
    #[error("{key}: {name} can't be looked up")]
    LookUp { key: &'static str, name: Account, source: Errno },
    #[error("user: {0} has no entry in the user database, which would name its group; set \"group\" as well")]
    NoAccount(Account),
    #[error("groups: those of user {0} can't be looked up; say them with \"groups\"")]
    GroupsOf(Account, #[source] Errno),
    #[error("user, group, groups: only root can run workers as somebody else")]
    NotRoot,
    #[error("{key}: {name} has the number {id}, which this process's user namespace doesn't know ({map})")]
    NotMapped { key: &'static str, name: Account, id: u32, map: &'static str },
}

impl Identity {
    /// The configured identity; `None` when it is that of this process.
    pub fn configured(config: &Config) -> Result<Option<Self>, IdentityError> {
        let own = (Uid::effective(), Gid::effective());
        let mut identity = Self { uid: own.0, gid: own.1, groups: Vec::new(), account: None };
        if let Some(name) = &config.user {
            let (uid, user) = find_user("user", name)?;
            identity.uid = uid;
            if let Some(user) = &user {
                identity.gid = user.gid;
            } else if config.group.is_none() {
                return Err(IdentityError::NoAccount(name.clone()));
            }
            // Programs look for their files in HOME: without an account that isn't ours.
            let account = user.map_or_else(|| (uid.to_string(), PathBuf::from("/")), |user| (user.name, user.dir));
            identity.account = (uid != own.0).then_some(account);
        }
        if let Some(name) = &config.group {
            identity.gid = find_group("group", name)?;
        }
        identity.groups = match (&config.groups, &config.user, &identity.account) {
            (Some(groups), ..) => groups.iter().map(|name| find_group("groups", name)).collect::<Result<_, _>>()?,
            (None, Some(user), Some((name, _))) => groups_of(user, name, identity.gid)?,
            (None, ..) => Vec::new(),
        };
        if (identity.uid, identity.gid) == own && config.groups.is_none() {
            return Ok(None);
        }
        if !own.0.is_root() {
            return Err(IdentityError::NotRoot);
        }
        identity.is_mapped(config)?;
        let groups = identity.groups.iter().copied().chain([identity.gid]);
        held::distrust_groups(groups.filter(|group| *group != own.1).collect());
        Ok(Some(identity))
    }

    /// Whether the kernel can name all of them: becoming somebody else fails with "invalid argument", and only at a spawn.
    fn is_mapped(&self, config: &Config) -> Result<(), IdentityError> {
        let (users, groups) = ("/proc/self/uid_map", "/proc/self/gid_map");
        let numbers = [("user", self.uid.as_raw(), users), ("group", self.gid.as_raw(), groups)];
        let supplementary = self.groups.iter().map(|gid| ("groups", gid.as_raw(), groups));
        for (key, id, map) in numbers.into_iter().chain(supplementary) {
            if std::fs::read_to_string(map).is_ok_and(|text| !is_mapped(&text, id)) {
                let name = match key {
                    "user" => config.user.clone(),
                    "group" => config.group.clone().or_else(|| config.user.clone()),
                    _ => None,
                };
                return Err(IdentityError::NotMapped { key, name: name.unwrap_or(Account::Id(id)), id, map });
            }
        }
        Ok(())
    }

    pub fn has_group(&self, group: Gid) -> bool {
        self.gid == group || self.groups.contains(&group)
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

/// Whose the file of a socket is to be.
///
/// # Errors
/// When the system knows no such user or group.
pub fn owner(rights: &Rights) -> Result<Owner, IdentityError> {
    Ok(Owner {
        uid: rights.owner.as_ref().map(|name| find_user("owner", name).map(|(uid, _)| uid)).transpose()?,
        gid: rights.group.as_ref().map(|name| find_group("group", name)).transpose()?,
    })
}

/// What a user and a group are called; their numbers where nobody knows.
pub fn names(uid: u32, gid: u32) -> (String, String) {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
    let group = Group::from_gid(Gid::from_raw(gid)).ok().flatten().map_or_else(|| gid.to_string(), |group| group.name);
    (user, group)
}

/// The first directory on the way to `path` that this process may not pass, if it is one.
pub fn obstacle(path: &Path) -> Option<PathBuf> {
    first_impassable(path.ancestors().skip(1))
}

/// As [`obstacle`], with `path` itself, which is a directory.
pub fn obstacle_into(path: &Path) -> Option<PathBuf> {
    first_impassable(path.ancestors())
}

fn first_impassable<'a>(path: impl Iterator<Item = &'a Path>) -> Option<PathBuf> {
    let mut directories: Vec<&Path> = path.filter(|path| !path.as_os_str().is_empty()).collect();
    directories.reverse();
    directories.into_iter().find(|it| access(*it, AccessFlags::X_OK) == Err(Errno::EACCES)).map(Path::to_owned)
}

/// A user by its name, or by its number, which needs no entry.
fn find_user(key: &'static str, name: &Account) -> Result<(Uid, Option<User>), IdentityError> {
    let failed = |source| IdentityError::LookUp { key, name: name.clone(), source };
    if let Account::Name(text) = name
        && let Some(user) = User::from_name(text).map_err(failed)?
    {
        return Ok((user.uid, Some(user)));
    }
    let Some(id) = name.id() else { return Err(IdentityError::NoUser { key, name: name.clone() }) };
    let uid = Uid::from_raw(id);
    Ok((uid, User::from_uid(uid).map_err(failed)?))
}

/// A group by its name, or by its number, which needs no entry.
fn find_group(key: &'static str, name: &Account) -> Result<Gid, IdentityError> {
    let failed = |source| IdentityError::LookUp { key, name: name.clone(), source };
    if let Account::Name(text) = name
        && let Some(group) = Group::from_name(text).map_err(failed)?
    {
        return Ok(group.gid);
    }
    name.id().map(Gid::from_raw).ok_or_else(|| IdentityError::NoGroup { key, name: name.clone() })
}

/// The groups that have the user as a member, and `gid` (`getgrouplist(3)`); what a login gives.
fn groups_of(user: &Account, name: &str, gid: Gid) -> Result<Vec<Gid>, IdentityError> {
    let failed = |errno| IdentityError::GroupsOf(user.clone(), errno);
    let name = CString::new(name).map_err(|_| failed(Errno::EINVAL))?;
    getgrouplist(&name, gid).map_err(failed)
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
