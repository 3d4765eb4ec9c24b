//! What a configuration names by a file: read as it is at one moment, in bounds.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use app_host_core::config::databank::Setup;
use app_host_core::config::{AppConfig, Config, Variables};
use app_host_core::message::TlsByListener;
use app_host_core::restart::{Pair, Refusal};

/// The largest file of a secret, in bytes.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// The largest file of certificates, in bytes: a list of authorities has a few hundred.
const MAX_PEM_BYTES: u64 = 1024 * 1024;

/// What the configuration names by its file, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secrets {
    pub databank: Arc<Setup>,
    pub app_config: Arc<AppConfig>,
    pub environment: Arc<Variables>,
    /// What the handshakes of its listeners are made with.
    pub tls: Arc<TlsByListener>,
}

/// With which secrets generations have failed: with others they may be tried again. As long as the master lives, because
/// they are written down nowhere.
#[derive(Clone, Debug, Default)]
pub struct Failed(Rc<RefCell<VecDeque<(Pair, Secrets)>>>);

/// How many are remembered, as in the history.
const MAX_FAILED: usize = 32;

impl Failed {
    pub fn remember(&self, pair: Pair, secrets: Secrets) {
        let mut failed = self.0.borrow_mut();
        failed.retain(|(known, _)| *known != pair);
        failed.push_back((pair, secrets));
        if failed.len() > MAX_FAILED {
            failed.pop_front();
        }
    }

    /// Whether a generation that has failed would now have other secrets. If that was another master's, those may be
    /// others.
    pub(super) fn differs(&self, pair: Pair, config: &Config, secrets: &Secrets) -> bool {
        match self.0.borrow().iter().find(|(known, _)| *known == pair) {
            Some((_, failed)) => failed != secrets,
            None => config.names_files(),
        }
    }
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
    let tls = Arc::new(read_tls(config).map_err(Refusal::BadConfig)?);
    Ok(Secrets {
        databank: Arc::new(databank),
        app_config: Arc::new(app_config),
        environment: Arc::new(environment),
        tls,
    })
}

/// Reads the certificates and keys of every listener. What is in them is for others to look at.
pub(super) fn read_tls(config: &Config) -> Result<TlsByListener, String> {
    let mut tls = TlsByListener::new();
    for listen in &config.listen {
        if let Some(files) = &listen.tls {
            let settings = files.read(read_pem, |path| read_file(path, MAX_SECRET_BYTES));
            let settings = settings.map_err(|error| format!("listen: {}: tls: {error}", listen.name))?;
            tls.push((listen.name.clone(), Arc::new(settings)));
        }
    }
    Ok(tls)
}

/// The text of a certificate or key, with its chain.
fn read_pem(path: &Path) -> Result<String, String> {
    read_text_of(path, MAX_PEM_BYTES)
}

/// The text of a file that is read at each restart.
fn read_text(path: &Path) -> Result<String, String> {
    read_text_of(path, MAX_SECRET_BYTES)
}

fn read_text_of(path: &Path, most: u64) -> Result<String, String> {
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
    let bytes = read(file, path, most)?;
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
