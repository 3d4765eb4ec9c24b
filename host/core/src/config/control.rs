//! The key `control_socket`: where the operator commands the master, and who may.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use super::account::{Account, Rights};
use super::defaults;
use super::forms::{Forms, Written};

/// Where it is, and whose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlSocket {
    pub path: PathBuf,
    /// Always with a mode.
    pub rights: Rights,
}

/// Its owner alone, and with a group that one as well.
const MODE: u32 = 0o600;
const MODE_OF_A_GROUP: u32 = 0o660;

#[derive(Default)]
pub(super) struct RawControl {
    path: Option<PathBuf>,
    rights: Rights,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ControlObject {
    path: Option<PathBuf>,
    mode: Option<String>,
    owner: Option<Account>,
    group: Option<Account>,
}

/// Checks it while its line is still known.
pub(super) fn control<'de, D: Deserializer<'de>>(deserializer: D) -> Result<RawControl, D::Error> {
    const FORMS: Forms = Forms { expected: "a path or an object with the keys path, mode, owner, group", port: false };
    let ControlObject { path, mode, owner, group } = match FORMS.read(deserializer)? {
        Written::Object(object) => object,
        Written::Text(path) => return Ok(RawControl { path: Some(path.into()), rights: Rights::NONE }),
        Written::Port(_) => unreachable!("no port is asked for"),
    };
    let rights = Rights::parse(mode.as_deref(), owner, group).map_err(D::Error::custom)?;
    if let Some(mode) = rights.mode.filter(|mode| mode & 0o007 != 0) {
        return Err(D::Error::custom(format!(
            "\"mode\" is \"{mode:o}\", which lets everybody command the master; expected nothing for others, as \"660\""
        )));
    }
    Ok(RawControl { path, rights })
}

impl RawControl {
    pub(super) fn resolve(self, directory: &Path, state_dir: &Path) -> ControlSocket {
        let mut rights = self.rights;
        rights.mode.get_or_insert(if rights.group.is_some() { MODE_OF_A_GROUP } else { MODE });
        ControlSocket { path: path(self.path, directory, state_dir), rights }
    }
}

/// The path of the socket: under the state directory, when none is given.
pub(super) fn path(given: Option<PathBuf>, directory: &Path, state_dir: &Path) -> PathBuf {
    given.map_or_else(|| state_dir.join(defaults::CONTROL_SOCKET), |path| directory.join(path))
}
