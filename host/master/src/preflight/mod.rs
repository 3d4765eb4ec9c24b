//! Preflight: everything that can be known of a generation before anything is touched.
//!
//! Owns the order of the checks, the throw-away processes that make some of them, and the words of a
//! refusal. Used by the master for its first
//! generation and for each restart, and by `check`. What it prepares is complete: a generation's
//! workers need nothing from the file system that may still change.

mod patience;
mod prepared;
mod probe;
mod secrets;
mod snapshot;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use app_abi::Magic;

use app_host_core::config::databank::{Making, Setup};
use app_host_core::config::{self, Config, Variables};
use app_host_core::error::chain;
use app_host_core::foreign;
use app_host_core::ids::VersionId;
use app_host_core::message::Library;
use app_host_core::restart::history::{History, Kept, OnDisk};
use app_host_core::restart::{Judged, Pair, Refusal};
use app_host_platform::artifact::{self, ArtifactError, Look, Store, UNLINKED, Version};
use app_host_platform::children::{Children, Surroundings};
use app_host_platform::disk_thread::DiskThread;
use app_host_platform::held::Directory;
use app_host_platform::identity::{self, Identity};
use app_host_platform::state_dir;
use app_host_platform::sys;

use crate::history_file::config_id;
use crate::listeners::{AdminListener, BindError, Listeners, Loopback};
pub use prepared::Prepared;
pub use secrets::{Failed, Secrets};
use secrets::{read_file, read_secrets};
pub use snapshot::{Snapshot, read_config};

/// How long the disk may take for the configuration, or for the copy of a library.
const DISK_TIMEOUT: Duration = Duration::from_mins(1);

/// How long a preflight may take: the configuration, the copy, the probe and the databank.
pub fn longest(config: &Config) -> Duration {
    let disk = DISK_TIMEOUT * 3;
    disk.saturating_add(config.restart.start_timeout)
        .saturating_add(config.databank.timeout)
        .saturating_add(CHECK_MARGIN)
        .saturating_add(if config.has_tls() { TLS_TIMEOUT } else { Duration::ZERO })
}

/// How long the check of certificates may take.
const TLS_TIMEOUT: Duration = Duration::from_secs(10);

/// How much longer than one call of the databank its check may take: an exec and a connection.
const CHECK_MARGIN: Duration = Duration::from_secs(5);

/// A refusal, and what it is about: the same version or configuration would be refused again. Nothing
/// when the reason may go by itself.
#[derive(Debug, thiserror::Error)]
#[error("{refusal}")]
pub struct Refused {
    pub refusal: Refusal,
    pub judged: Option<Judged>,
}

impl Refused {
    const fn judged(refusal: Refusal, judged: Judged) -> Self {
        Self { refusal, judged: Some(judged) }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, judged: None }
    }
}

fn library(version: &Version) -> Library {
    let (path, name) = (version.path.clone(), version.library.clone());
    let app_version = foreign::line(&version.manifest.app_version, foreign::MAX_NAME);
    Library { path, name, version: version.id, magic: version.magic().0, app_version }
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
    /// What `app-host dev` has built, if it is the one who serves.
    pub dev_library: Option<PathBuf>,
    pub store: Store,
    /// The state directory that the master holds; absent where none is used.
    pub state_dir: Option<Arc<Directory>>,
    pub disk: DiskThread,
    pub children: Children,
    pub identity: Option<Identity>,
    pub failed: Failed,
}

/// What a child of a generation is told, and finds.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    pub config: &'a Config,
    pub home: &'a Directory,
    pub environment: &'a Variables,
}

impl<'a> Place<'a> {
    const fn surroundings(self) -> Surroundings<'a> {
        let Self { config, home, environment } = self;
        Surroundings { environment, limits: config.limits, cpus: &[], directory: Some(home) }
    }
}

/// Where a generation's library comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The path that its configuration names.
    Path,
    /// The copy of a version that was admitted before.
    Copy(VersionId),
}

impl Preflight {
    /// The version at the path that `config` names, if it fits this host and, where one is given, the
    /// magic that the master started with. The first library and every later one go this way.
    pub async fn version(&self, place: Place<'_>, beside: Option<Magic>) -> Result<(Version, Took), Refused> {
        let begin = Instant::now();
        let version = self.admit(place.config, Source::Path).await?;
        let copy = begin.elapsed();
        let probe = self.examine(place, &version, beside).await?;
        Ok((version, Took { copy, probe }))
    }

    /// The master's own copy of a library, of which nothing is known yet but that it is one.
    async fn admit(&self, config: &Config, source: Source) -> Result<Version, Refused> {
        let (store, path) = (self.store.clone(), config.app.library.clone());
        let take = move || match source {
            Source::Path => store.admit(&path),
            Source::Copy(version) => store.reopen(version, &path),
        };
        let version = self
            .on_disk("the disk: the copy of the library", take)
            .await
            .map_err(|error| Refusal::BadArtifact(error.to_string()))?
            .map_err(|error| Refused { judged: judged_by(&error), refusal: Refusal::BadArtifact(chain(&error)) })?;
        if version.is_unlinked {
            let library = version.library.display().to_string();
            tracing::warn!(library = %foreign::printable(&library), advice = UNLINKED, "the library is an old one");
        }
        Ok(version)
    }

    /// What `config` names by its file. Where it forbids core dumps, this process makes none from now on: it may have been
    /// started with a configuration that had nothing to hide.
    pub async fn secrets(&self, config: &Arc<Config>) -> Result<Secrets, Refusal> {
        sys::process::allow_core_dumps(config.core_dumps);
        let (config, path) = (Arc::clone(config), self.config_path.clone());
        let read = move || read_secrets(&config, path.parent().unwrap_or(Path::new("/")));
        let read = self.on_disk("the disk: files with secrets", read).await;
        read.map_err(|error| Refusal::BadConfig(error.to_string()))?
    }

    /// As [`Self::version`], while the databank is reached for. `may_take` has the first look at the copy.
    pub async fn version_and_databank(
        &self,
        place: Place<'_>,
        databank: &Setup,
        beside: Option<Magic>,
        source: Source,
        may_take: impl FnOnce(VersionId) -> Result<(), Refused>,
    ) -> Result<(Version, Took), Refused> {
        let version = async {
            let begin = Instant::now();
            let version = self.admit(place.config, source).await?;
            may_take(version.id)?;
            let copy = begin.elapsed();
            let probe = self.examine(place, &version, beside).await?;
            Ok::<_, Refused>((version, Took { copy, probe }))
        };
        // What is wrong with the library is said first, whichever of the two was faster.
        // Beside running workers it is the store that they have had all the time, or none.
        let making = if beside.is_some() { Making::Never } else { Making::IfMissing };
        let reached = async { Ok(self.reach(place, databank, making).await) };
        let ((version, took), reached) = tokio::try_join!(version, reached)?;
        reached?;
        Ok((version, took))
    }

    /// What lies at the paths of `config` and of the configuration itself. Nothing of it is taken.
    pub async fn lies_there(&self, config: &Config) -> Result<OnDisk, Refusal> {
        let (path, library) = (self.config_path.clone(), config.app.library.clone());
        let look = move || OnDisk {
            // What can't be read is nothing that a restart could take.
            version: artifact::look(&library).ok().and_then(|look| match look {
                Look::Whole(version) => Some(version),
                Look::Partial => None,
            }),
            config: read_file(&path, config::MAX_FILE_BYTES).ok().map(|bytes| config_id(&bytes)),
        };
        let look = self.on_disk("the disk: what lies there", look).await;
        look.map_err(|error| Refusal::BadArtifact(error.to_string()))
    }

    /// Prepares the next generation beside `running`, whose listeners it shares; `magic` is that of
    /// the library loaded when the master started. What `history` has in quarantine is refused.
    pub async fn next(&self, running: &Prepared, magic: Magic, history: &History) -> Result<(Prepared, Took), Refused> {
        let (path, dev_library) = (self.config_path.clone(), self.dev_library.clone());
        let snapshot = self
            .on_disk("the disk: the configuration", move || read_config(&path, dev_library.as_deref()))
            .await
            .map_err(|error| Refusal::BadConfig(error.to_string()))??;
        self.beside(running, snapshot, Source::Path, magic, history).await
    }

    /// As [`Self::next`], with an earlier generation's version and configuration in the place of those on
    /// disk, which are held back from now on.
    pub async fn back_to(
        &self,
        kept: &Kept,
        running: &Prepared,
        magic: Magic,
        history: &History,
    ) -> Result<(Prepared, Took), Refused> {
        let (path, dev_library) = (self.config_path.clone(), self.dev_library.clone());
        let snapshot = self
            .on_disk("the disk: the configuration", move || read_config(&path, dev_library.as_deref()))
            .await
            .map_err(|error| Refusal::BadConfig(error.to_string()))?;
        // Where the configuration on disk is no good, the library that it would name isn't known; a
        // restart would take nothing of it.
        let named = snapshot.as_ref().map_or(&running.config, |snapshot| &snapshot.config);
        let found = self.lies_there(named).await?;
        let snapshot = Snapshot::parse(kept.config.as_bytes(), &self.config_path, self.dev_library.as_deref())?;
        let source = Source::Copy(kept.pair.version);
        let (mut prepared, took) = self.beside(running, snapshot, source, magic, history).await?;
        prepared.held = Some(found);
        Ok((prepared, took))
    }

    /// Everything that a generation beside `running` has to pass.
    async fn beside(
        &self,
        running: &Prepared,
        Snapshot { config, home, id: config_id, text }: Snapshot,
        source: Source,
        magic: Magic,
        history: &History,
    ) -> Result<(Prepared, Took), Refused> {
        // Whatever it is refused for: it has been read, and may have a password in it.
        sys::process::allow_core_dumps(config.core_dumps);
        let misfit = |refusal| Refused::judged(refusal, Judged::Config(config_id));
        let fixed = |key| {
            Refusal::Incompatibility(match source {
                Source::Path => format!("{key} can't change while workers run; restart the master to change it"),
                // A start would take what lies on disk.
                Source::Copy(_) => format!("that generation had another {key}, which can't change while workers run"),
            })
        };
        let store = &config.databank.store;
        // Before the difference that it is from the running one: it would be refused in any case.
        if !store.is_shared() {
            let driver = store.driver();
            return Err(misfit(Refusal::BadDriver(format!("\"{driver}\" can't be shared between processes"))));
        }
        if let Some(key) = config.fixed_difference(&running.config) {
            // What no master could start with isn't brought in by a restart of the master.
            let accounts = Identity::configured(&config).and_then(|_| identity::owner(&config.control_socket.rights));
            if let Err(error) = accounts {
                let text = format!("{}: {}", self.config_path.display(), chain(&error));
                return Err(misfit(Refusal::BadConfig(text)));
            }
            return Err(misfit(fixed(key)));
        }
        self.state_dir_is_there(&config).await?;
        let secrets = self.secrets(&config).await?;
        let Secrets { databank, app_config, environment, tls } = secrets.clone();
        if let Some(key) = databank.difference(&running.databank) {
            // A secret in a file of its own may change, and the configuration doesn't.
            return Err(if config.databank.has_secret_file() { fixed(key).into() } else { misfit(fixed(key)) });
        }
        let may_take = |version| match history.quarantined(Pair { version, config: config_id }) {
            None => Ok(()),
            Some(_) if self.failed.differs(Pair { version, config: config_id }, &config, &secrets) => Ok(()),
            Some(known) => {
                // Whichever of the two changes may help.
                let since = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(known.since));
                Err(misfit(Refusal::BadArtifact(format!(
                    "version {} with this configuration is quarantined since {since}: it has failed: {}",
                    version.short(),
                    known.reason
                ))))
            }
        };
        let place = Place { config: &config, home: &home, environment: &environment };
        let certificates = self.certificates(place, &tls).await?;
        let (version, took) = self.version_and_databank(place, &databank, Some(magic), source, may_take).await?;
        let cannot_bind = |error: BindError| {
            let ours = config.addresses().chain(running.config.addresses());
            Refusal::CannotBind(chain(&error.explained(ours)))
        };
        let admin = AdminListener::for_config(&config, running.admin.as_ref()).map_err(cannot_bind)?;
        let loopback = Loopback::find(&config, &running.listeners).await.map_err(cannot_bind)?;
        let listeners = Listeners::bind(&config, &running.listeners, &loopback).map_err(cannot_bind)?;
        Ok((
            Prepared {
                config,
                config_id,
                text,
                version,
                listeners,
                admin,
                databank,
                app_config,
                environment,
                tls,
                certificates,
                home,
                held: None,
            },
            took,
        ))
    }

    /// Whether the state directory of `config` is the one that the master holds, and a library can be loaded from it:
    /// what was so at its start may have been moved away or mounted anew.
    async fn state_dir_is_there(&self, config: &Config) -> Result<(), Refusal> {
        let Some(held) = self.state_dir.clone() else { return Ok(()) };
        let (path, versions, store) = (config.state_dir.clone(), config.versions_dir(), self.store.clone());
        let look = move || {
            state_dir::is_still_at(&held, &path)
                .map_err(|error| Refusal::Incompatibility(chain(&error)))
                // Nothing is wrong with the library, nor will be with the next one.
                .and_then(|()| {
                    state_dir::can_load_from(store.directory(), versions)
                        .map_err(|error| Refusal::BadConfig(chain(&error)))
                })
        };
        let look = self.on_disk("the disk: the state directory", look).await;
        look.map_err(|error| Refusal::BadConfig(error.to_string()))?
    }
}

/// What an artifact that can't be taken is refused for, when that is its own bytes.
fn judged_by(error: &ArtifactError) -> Option<Judged> {
    match error {
        ArtifactError::Elf { version, .. } => Some(Judged::Version(*version)),
        _ => None,
    }
}
