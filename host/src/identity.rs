//! Whom workers and probes run as.
//!
//! Owns the step from the configured names to ids. Taking an identity on is `sys`' business.

use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User};

use crate::config::Config;

/// A user and a group. Supplementary groups are dropped with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub uid: Uid,
    pub gid: Gid,
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
        let own = Self { uid: Uid::effective(), gid: Gid::effective() };
        let mut identity = own;
        if let Some(name) = &config.user {
            let failed = |source| IdentityError::LookUp { key: "user", name: name.clone(), source };
            let user = User::from_name(name).map_err(failed)?.ok_or_else(|| IdentityError::NoUser(name.clone()))?;
            identity = Self { uid: user.uid, gid: user.gid };
        }
        if let Some(name) = &config.group {
            let failed = |source| IdentityError::LookUp { key: "group", name: name.clone(), source };
            let group = Group::from_name(name).map_err(failed)?;
            identity.gid = group.ok_or_else(|| IdentityError::NoGroup(name.clone()))?.gid;
        }
        if identity == own {
            Ok(None)
        } else if own.uid.is_root() {
            Ok(Some(identity))
        } else {
            Err(IdentityError::NotRoot)
        }
    }
}
