//! Whom workers and probes run as.
//!
//! Owns the step from the configured names to ids. Taking an identity on is `sys`' business.

use std::ffi::OsString;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User};

use crate::config::Config;

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
            Ok(Some(identity))
        } else {
            Err(IdentityError::NotRoot)
        }
    }

    /// The variables that name the user (`environ(7)`): with ours, programs would look for their files in our home.
    pub fn variables(&self) -> Vec<(&'static str, OsString)> {
        let Some((name, home)) = &self.account else { return Vec::new() };
        vec![("HOME", home.into()), ("USER", name.into()), ("LOGNAME", name.into())]
    }
}
