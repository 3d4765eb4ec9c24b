//! What a configuration names by a file: read as it is at one moment, in bounds.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use crate::config::databank::Setup;
use crate::config::{AppConfig, Config};
use crate::restart::Refusal;

/// The largest file of a secret, in bytes.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// What the configuration names by its file, read.
#[derive(Clone, Debug)]
pub struct Secrets {
    pub databank: Arc<Setup>,
    pub app_config: Arc<AppConfig>,
}

/// Reads the secrets that a configuration names, of which relative ones are in `directory`. Blocks on the disk.
pub(super) fn read_secrets(config: &Config, directory: &Path) -> Result<Secrets, Refusal> {
    let read = |path: &Path| {
        let bytes = read_file(path, MAX_SECRET_BYTES)?;
        let text = String::from_utf8(bytes).map_err(|_| format!("{} is not UTF-8", path.display()))?;
        if text.trim_end().is_empty() {
            return Err(format!("{} is empty", path.display()));
        }
        Ok(text)
    };
    let databank = config.databank.setup(read).map_err(|error| Refusal::BadConfig(format!("databank.uri: {error}")))?;
    let app_config = config.app.resolve(directory, read).map_err(|error| Refusal::BadConfig(error.to_string()))?;
    Ok(Secrets { databank: Arc::new(databank), app_config: Arc::new(app_config) })
}

pub(super) fn read_file(path: &Path, most: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    // Non-blocking, so that a FIFO without a writer is an empty file and not a hang.
    File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .and_then(|file| file.take(most + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("{} can't be read: {error}", path.display()))?;
    if bytes.len() as u64 > most {
        return Err(format!("{} has more than {most} bytes", path.display()));
    }
    Ok(bytes)
}
