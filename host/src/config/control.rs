//! The key `control_socket`: where the operator steers the master.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{ConfigError, databank, defaults, without_place};

/// The path of the socket: under the state directory, when none is given.
pub(super) fn path(given: Option<PathBuf>, directory: &Path, state_dir: &Path) -> PathBuf {
    given.map_or_else(|| state_dir.join(defaults::CONTROL_SOCKET), |path| directory.join(path))
}

/// The control socket of the master that runs with the file at `path`, which must be absolute, whatever
/// else is wrong in its bytes: a master goes on with what it has read, and must be reached meanwhile.
pub fn find(bytes: &[u8], path: &Path) -> Result<PathBuf, ConfigError> {
    #[derive(Deserialize)]
    struct Where {
        #[serde(default = "defaults::state_dir")]
        state_dir: PathBuf,
        control_socket: Option<PathBuf>,
    }
    let found: Where = serde_json::from_slice(bytes).map_err(|error| ConfigError::Invalid {
        path: path.to_owned(),
        line: error.line(),
        column: error.column(),
        key: ".".to_owned(),
        message: databank::redact(&without_place(&error)),
    })?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    Ok(self::path(found.control_socket, directory, &directory.join(found.state_dir)))
}
