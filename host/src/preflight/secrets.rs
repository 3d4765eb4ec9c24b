//! What a configuration names by a file: read as it is at one moment, in bounds.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use crate::config::databank::Setup;
use crate::config::{AppConfig, Config, Variables};
use crate::restart::Refusal;

/// The largest file of a secret, in bytes.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// What the configuration names by its file, read.
#[derive(Clone, Debug)]
pub struct Secrets {
    pub databank: Arc<Setup>,
    pub app_config: Arc<AppConfig>,
    pub environment: Arc<Variables>,
}

/// Reads the secrets that a configuration names, of which relative ones are in `directory`. Blocks on the disk.
pub(super) fn read_secrets(config: &Config, directory: &Path) -> Result<Secrets, Refusal> {
    let secret = |path: &Path| {
        let text = read_text(path)?;
        if text.trim_end().is_empty() {
            return Err(format!("{} is empty", path.display()));
        }
        Ok(text)
    };
    let databank =
        config.databank.setup(secret).map_err(|error| Refusal::BadConfig(format!("databank.uri: {error}")))?;
    let mut app_config =
        config.app.resolve(directory, secret).map_err(|error| Refusal::BadConfig(error.to_string()))?;
    // A file with nothing in it is one without variables.
    let environment = config.environment.resolve(directory, read_text).map_err(Refusal::BadConfig)?;
    app_config.hide_also(environment.own.iter().map(|(_, value)| value));
    Ok(Secrets { databank: Arc::new(databank), app_config: Arc::new(app_config), environment: Arc::new(environment) })
}

/// The text of a file that is read at each restart.
fn read_text(path: &Path) -> Result<String, String> {
    if path.file_name().is_none() || path.as_os_str().as_encoded_bytes().ends_with(b"/") {
        return Err(format!("{} is no path of a file", path.display()));
    }
    let file = open(path)?;
    match file.metadata().map(|found| found.file_type()) {
        Ok(found) if found.is_dir() => return Err(format!("{} is a directory, expected a file", path.display())),
        Ok(found) if found.is_fifo() => {
            return Err(format!("{} is a FIFO, expected a file: it is read again at each restart", path.display()));
        }
        _ => {}
    }
    let bytes = read(file, path, MAX_SECRET_BYTES)?;
    String::from_utf8(bytes).map_err(|_| format!("{} is not UTF-8", path.display()))
}

pub(super) fn read_file(path: &Path, most: u64) -> Result<Vec<u8>, String> {
    read(open(path)?, path, most)
}

fn open(path: &Path) -> Result<File, String> {
    // Non-blocking, so that a FIFO without a writer is an empty file and not a hang.
    let opened = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    opened.map_err(|error| format!("{} can't be read: {error}", path.display()))
}

fn read(file: File, path: &Path, most: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    file.take(most + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("{} can't be read: {error}", path.display()))?;
    if bytes.len() as u64 > most {
        return Err(format!("{} has more than {most} bytes", path.display()));
    }
    Ok(bytes)
}
