//! Preflight: everything that can be known of a generation before anything is touched.
//!
//! Owns the order of the checks and the words of a refusal. Used by the master for its first
//! generation and for each restart, and by `check`. What it prepares is complete: a generation's
//! workers need nothing from the file system that may still change.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use app_abi::Magic;
use tokio::time::timeout;

use crate::artifact::{Store, Version};
use crate::causes::chain;
use crate::children::{Children, Role};
use crate::config::{self, Config};
use crate::desk::Desk;
use crate::identity::Identity;
use crate::ids::Ended;
use crate::listeners::Listeners;
use crate::logging;
use crate::message::{FromProbe, Library, ProbeSetup};
use crate::restart::Refusal;

/// How long the disk may take for the configuration, or for the copy of a library.
const DISK_TIMEOUT: Duration = Duration::from_mins(1);

/// A generation before it has a number: configuration, version and listeners.
#[derive(Clone, Debug)]
pub struct Prepared {
    pub config: Arc<Config>,
    pub version: Version,
    pub listeners: Listeners,
}

impl Prepared {
    /// What a child needs to load this version.
    pub fn library(&self) -> Library {
        library(&self.version)
    }
}

fn library(version: &Version) -> Library {
    Library { path: version.path.clone(), version: version.id, magic: version.magic().0 }
}

/// How long the stages took that are worth knowing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Took {
    pub copy: Duration,
    pub probe: Duration,
}

/// What a preflight works with; the same for all of one master.
#[derive(Clone, Debug)]
pub struct Preflight {
    pub config_path: PathBuf,
    pub store: Store,
    pub desk: Desk,
    pub children: Children,
    pub identity: Option<Identity>,
}

/// Reads and checks the configuration at `path`, which must be absolute. Blocks on the disk.
pub fn read_config(path: &Path) -> Result<Config, Refusal> {
    let unreadable = |error: &io::Error| Refusal::BadConfig(format!("{} can't be read: {error}", path.display()));
    let mut bytes = Vec::new();
    // Non-blocking, so that a FIFO without a writer is an empty file and not a hang.
    File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .and_then(|file| file.take(config::MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| unreadable(&error))?;
    if bytes.len() as u64 > config::MAX_FILE_BYTES {
        let most = config::MAX_FILE_BYTES;
        return Err(Refusal::BadConfig(format!("{} has more than {most} bytes", path.display())));
    }
    Config::parse(&bytes, path).map_err(|error| Refusal::BadConfig(chain(&error)))
}

impl Preflight {
    /// The version at the path that `config` names, if it fits this host and, where one is given, the
    /// magic that the master started with. The first library and every later one go this way.
    pub async fn version(&self, config: &Config, beside: Option<Magic>) -> Result<(Version, Took), Refusal> {
        let begin = Instant::now();
        let (store, path) = (self.store.clone(), config.app.library.clone());
        let version = self
            .desk
            .run(DISK_TIMEOUT, move || store.admit(&path))
            .await
            .map_err(|error| Refusal::BadArtifact(error.to_string()))?
            .map_err(|error| Refusal::BadArtifact(chain(&error)))?;
        let copy = begin.elapsed();
        version.manifest.fits_host().map_err(|misfit| Refusal::Incompatibility(misfit.to_string()))?;
        if let Some(started_with) = beside {
            same_magic(version.magic(), started_with)?;
        }
        // Last, because it runs the library's constructors; beside it the copy reaches the disk.
        let (store, copied) = (self.store.clone(), version.clone());
        let sync = async {
            self.desk
                .run(DISK_TIMEOUT, move || store.sync(&copied))
                .await
                .map_err(|error| Refusal::BadArtifact(error.to_string()))?
                .map_err(|error| Refusal::BadArtifact(chain(&error)))
        };
        let (probe, ()) = tokio::try_join!(self.probe(config, &version), sync)?;
        Ok((version, Took { copy, probe }))
    }

    /// Prepares the next generation beside `running`, whose listeners it shares; `magic` is that of
    /// the library loaded when the master started.
    pub async fn next(&self, running: &Prepared, magic: Magic) -> Result<(Prepared, Took), Refusal> {
        let path = self.config_path.clone();
        let config = self
            .desk
            .run(DISK_TIMEOUT, move || read_config(&path))
            .await
            .map_err(|error| Refusal::BadConfig(error.to_string()))??;
        if let Some(key) = config.fixed_difference(&running.config) {
            let text = format!("{key} can't change while workers run; restart the master to change it");
            return Err(Refusal::Incompatibility(text));
        }
        let (version, took) = self.version(&config, Some(magic)).await?;
        let listeners =
            Listeners::for_config(&config, &running.listeners).map_err(|error| Refusal::CannotBind(chain(&error)))?;
        Ok((Prepared { config: Arc::new(config), version, listeners }, took))
    }

    /// Lets a throw-away process do the first `dlopen`; says how long it took.
    async fn probe(&self, config: &Config, version: &Version) -> Result<Duration, Refusal> {
        let begin = Instant::now();
        let limit = config.restart.start_timeout;
        // So that its last words stand in the log.
        let stderr = logging::open_for_child(&config.log).map_err(|error| Refusal::BadConfig(chain(&error)))?;
        let child = self
            .children
            .spawn(Role::Probe, stderr, self.identity)
            .map_err(|error| Refusal::BadArtifact(format!("the probe can't be spawned: {error}")))?;
        let _killed_when_dropped = Leash { children: &self.children, pid: child.pid };
        let setup = ProbeSetup { library: library(version), log: logging::for_child(&config.log) };
        let answer = async {
            // A probe that is gone already is noticed by its silence.
            let _ = child.channel.send(&setup).await;
            child.channel.receive::<FromProbe>().await
        };
        match timeout(limit, answer).await {
            Ok(Ok(Some((FromProbe::Fits, _)))) => Ok(begin.elapsed()),
            Ok(Ok(Some((FromProbe::Incompatible { error }, _)))) => Err(Refusal::Incompatibility(error)),
            Ok(Ok(Some((FromProbe::Bad { error }, _)))) => Err(Refusal::BadArtifact(error)),
            Ok(Ok(None) | Err(_)) => {
                let ended = timeout(limit, child.ended).await.ok().and_then(Result::ok);
                Err(Refusal::BadArtifact(format!("the probe died loading it: {}", ended_text(ended))))
            }
            Err(_) => Err(Refusal::BadArtifact(format!("the probe hung loading it, for {limit:?}"))),
        }
    }
}

fn ended_text(ended: Option<Ended>) -> String {
    ended.map_or_else(|| "it closed its socket and runs on".to_owned(), |ended| ended.to_string())
}

/// Kills a probe whatever becomes of the preflight.
struct Leash<'a> {
    children: &'a Children,
    pid: nix::unistd::Pid,
}

impl Drop for Leash<'_> {
    fn drop(&mut self) {
        self.children.kill(self.pid);
    }
}

/// Checks that two libraries may run side by side.
fn same_magic(found: Magic, started_with: Magic) -> Result<(), Refusal> {
    if found == started_with {
        return Ok(());
    }
    let half = if found.abi() == started_with.abi() {
        "the low half differs, the app's epoch"
    } else {
        "the high half differs, the ABI"
    };
    Err(Refusal::Incompatibility(format!("its magic is {found}, and the master started with {started_with} ({half})")))
}
