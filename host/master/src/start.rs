//! How a master starts: configuration, pid file, first version, orphans, listeners.
//!
//! Whatever goes wrong here is the operator's to mend: it is said once, and the master exits.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::stat::Mode;
use nix::unistd::Uid;
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use app_host_core::config::Config;
use app_host_core::config::databank::Store as DatabankStore;
use app_host_core::error::chain;
use app_host_core::foreign::printable;
use app_host_core::restart::history::{First, History, Kept, OnDisk, Why};
use app_host_core::status::millis;
use app_host_platform::artifact::Store;
use app_host_platform::children::Children;
use app_host_platform::disk_thread::DiskThread;
use app_host_platform::held::{self, Directory};
use app_host_platform::identity::{self, Identity};
use app_host_platform::logging::Logging;
use app_host_platform::state_dir::StateDir;
use app_host_platform::{paths, sys};

use super::Input;
use super::dispatch::{Dispatch, Granter};
use super::effects::{Effects, Equipment};
use super::history::RecordedHistory;
use super::own_files::OwnFiles;
use super::workers::Workers;
use crate::control::{Control, ControlRequest};
use crate::history_file::HistoryFile;
use crate::listeners::{AdminListener, BindError, Listeners, Loopback, Passed};
use crate::locks::{self, LockError, MagicLock, Orphans, PidFile, StateLock, StopMark};
use crate::preflight::{Failed, Place, Preflight, Prepared, Refused, Secrets, Snapshot, Source, read_config};
use crate::systemd::{self, Systemd};

/// How much longer than one drain a new master waits for the orphans of the last one.
pub(super) const ORPHANS_MARGIN: Duration = Duration::from_secs(5);

/// How long a master may take to notice a signal that tells it to stop.
const STOP_NOTICE: Duration = Duration::from_millis(200);

/// How often it looks for their locks while it serves, and says that they are there.
const ORPHANS_LOOK: Duration = Duration::from_millis(250);
const ORPHANS_WARNED: Duration = Duration::from_mins(1);

/// How often it looks whether they have gone.
const ORPHANS_POLL: Duration = Duration::from_millis(50);

/// Prepares everything up to the first spawn.
pub(super) async fn start(
    config_path: &Path,
    dev_library: Option<PathBuf>,
    passed: Passed,
    systemd: Rc<Systemd>,
    (inbox, questions): (mpsc::Sender<Input>, mpsc::Sender<ControlRequest>),
    stop_mark: &OnceCell<StopMark>,
) -> anyhow::Result<Effects> {
    let config_path = paths::absolute(config_path)
        .with_context(|| format!("the path {} can't be made absolute", config_path.display()))?;
    let snapshot = read_config(&config_path, dev_library.as_deref())?;
    let config = Arc::clone(&snapshot.config);
    systemd.expect(systemd::reports::deadlines(&[&config], None));
    systemd.extend();
    // Before the log, which must not lie where the workers' group may write.
    let identity = Identity::configured(&config).with_context(|| config_path.display().to_string())?;
    let mut logging = Logging::init(&config.log)?;
    if identity.is_none() && Uid::effective().is_root() {
        warn!("workers run as root, like the master; set \"user\" in the configuration");
    }
    if let Some(identity) = &identity
        && identity::owner(&config.control_socket.rights)?.gid.is_some_and(|group| identity.has_group(group))
    {
        warn!("the workers' user may command the master: control_socket has one of its groups");
    }
    sys::process::allow_core_dumps(config.core_dumps);
    let state = StateDir::open(&config, Identity::path_trust(identity.as_ref()))?;
    let pid_file = lock_pid_file(&config).await?;
    let mark = pid_file.stop_mark().with_context(|| format!("{} can't be locked", config.pid_file.display()))?;
    stop_mark.get_or_init(|| mark);
    let state_lock = StateLock::acquire(&state.directory, &config.state_dir)?;
    let control = Control::open(&config.control_socket, questions)?;
    info!(
        config = %printable(&config_path.to_string_lossy()),
        pid_file = %printable(&config.pid_file.to_string_lossy()),
        control_socket = %printable(&config.control_socket.path.to_string_lossy()),
        app_host_version = env!("CARGO_PKG_VERSION"),
        "master starting"
    );
    let (history_file, history) = open_history(Arc::clone(&state.directory), &config.state_dir, &state_lock)?;
    let preflight = Preflight {
        state_dir: Some(state.directory),
        store: Store::open(config.versions_dir(), state.versions)
            .with_context(|| format!("the versions in {} can't be read", config.versions_dir().display()))?,
        config_path,
        dev_library,
        disk: DiskThread::open().context("the thread that waits for the disk can't be made")?,
        children: Children::watch()?,
        identity,
        failed: Failed::default(),
    };
    if let Some(error) = systemd.why_silent() {
        // Whoever waits for us will say so in time; clients shouldn't wait for that.
        warn!(error = chain(error), "the service manager is told nothing");
    }
    let dispatch = Dispatch::open().context("the thread that carries messages between workers can't be made")?;
    let Choice { snapshot, source, held } = choose(&preflight, snapshot, &history).await?;
    if snapshot.config.log != config.log {
        logging.change(&snapshot.config.log)?;
    }
    let Snapshot { config, home, id: config_id, text } = snapshot;
    let Secrets { databank, app_config, environment, tls } = preflight.secrets(&config).await?;
    if !databank.store.is_shared() {
        let driver = databank.store.driver();
        warn!(driver, "each worker has a databank of its own, which ends with it; restarts will be refused");
    }
    if let DatabankStore::Sqlite { path } = &databank.store
        && let Some(directory) = path.parent()
    {
        make_data_directory(directory, preflight.identity.as_ref())?;
    }
    let place = Place { config: &config, home: &home, environment: &environment };
    let certificates = preflight.certificates(place, &tls).await?;
    let (version, _) = preflight
        .version_and_databank(place, &databank, None, source, |_| Ok(()))
        .await
        .context("the first generation is refused")?;
    let databank_place = databank.place();
    info!(driver = databank_place.driver, place = databank_place.place, "databank in use");
    let passed = Listeners::with_passed(passed);
    let (listeners, admin) = bind(&config, &state.locks, &version.magic().to_string(), passed).await?;
    listeners.addresses().for_each(|(listener, address)| info!(listener, address, "listening"));
    let lock = MagicLock::hold(&state.locks, &config.locks_dir(), version.magic())?;
    let orphans = lock.orphans().context("the locks of workers can't be looked at")?;
    if orphans.live() {
        info!("workers of an earlier master still drain: until they have gone no lock is granted");
        tokio::task::spawn_local(grant_after(orphans, dispatch.grant_locks_later()));
    }
    let first = Prepared {
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
        held,
    };
    let history = RecordedHistory::new(history_file, history, preflight.disk.clone());
    let workers = Workers::new(preflight.children.clone(), preflight.identity.clone(), lock, inbox.clone(), dispatch);
    let own_files = OwnFiles::new(control, state_lock, pid_file);
    Ok(Effects::new(first, preflight, Equipment { logging, systemd, own_files, history, workers }, inbox))
}

/// Has locks be granted when the last worker of an earlier master has gone, however long that takes: one that is stopped,
/// or that has a longer time to drain than is configured now, may hold what is claimed.
async fn grant_after(orphans: Orphans, granter: Granter) {
    let mut warn_at = Instant::now() + ORPHANS_WARNED;
    while orphans.live() {
        if Instant::now() >= warn_at {
            warn!("workers of an earlier master still live: no lock is granted; kill them if they have hung");
            warn_at = Instant::now() + ORPHANS_WARNED;
        }
        tokio::time::sleep(ORPHANS_LOOK).await;
    }
    info!("the last worker of an earlier master has gone: locks are granted");
    granter.grant();
}

/// Locks the pid file. Waits for a master that is stopping to go, as long as for its orphans; one that runs, and isn't,
/// is an error.
async fn lock_pid_file(config: &Config) -> Result<PidFile, LockError> {
    let limit = config.shutdown_delay + config.restart.shutdown_timeout + ORPHANS_MARGIN;
    let begin = Instant::now();
    // A master that ends lets go of its mark before its lock: who finds only the lock then has found no other master.
    let mut marked = begin;
    let mut said = false;
    loop {
        let error = match PidFile::acquire(&config.pid_file) {
            Err(error) => error,
            acquired => return acquired,
        };
        let (since, limit) = match error {
            LockError::Running { .. } => (marked, STOP_NOTICE),
            LockError::Stopping { .. } => {
                marked = Instant::now();
                (begin, limit)
            }
            _ => return Err(error),
        };
        if since.elapsed() >= limit {
            return Err(error);
        }
        if matches!(error, LockError::Stopping { .. }) && !std::mem::replace(&mut said, true) {
            info!(obstacle = %error, wait_ms = millis(limit), "waiting for a master that is stopping");
        }
        tokio::time::sleep(ORPHANS_POLL).await;
    }
}

/// Reads what the last master has written down. One that can't be read keeps nobody from starting.
fn open_history(held: Arc<Directory>, state_dir: &Path, lock: &StateLock) -> anyhow::Result<(HistoryFile, History)> {
    let file = HistoryFile::open(held, state_dir, lock)
        .with_context(|| format!("the state directory {} can't be read", state_dir.display()))?;
    let history = file.load().unwrap_or_else(|error| {
        let advice = "nothing is known of earlier generations, nor of what was quarantined or rolled back";
        let aside = file.set_aside().map_or_else(|error| format!("it stays: {error}"), |to| to.display().to_string());
        error!(error = chain(&error), set_aside = aside, advice, "the history of generations is lost");
        History::default()
    });
    Ok((file, history))
}

/// What a master starts with.
struct Choice {
    snapshot: Snapshot,
    source: Source,
    held: Option<OnDisk>,
}

/// What lies on disk, unless that has failed or was rolled back: then the last active generation.
async fn choose(preflight: &Preflight, found: Snapshot, history: &History) -> anyhow::Result<Choice> {
    let as_found = |snapshot| Choice { snapshot, source: Source::Path, held: None };
    if !history.depends_on_disk() {
        return Ok(as_found(found));
    }
    let on_disk = preflight.lies_there(&found.config).await?;
    let First::Instead(kept, why) = history.first(on_disk) else {
        if on_disk.pair().is_some_and(|pair| history.quarantined(pair).is_some()) {
            error!("what lies on disk is quarantined, and nothing else is known: it is tried");
        }
        return Ok(as_found(found));
    };
    let chosen = match instead(preflight, kept) {
        Ok(snapshot) => snapshot,
        Err(error) => {
            error!(error = format!("{error:#}"), "the last active generation can't be had: what lies on disk is tried");
            return Ok(as_found(found));
        }
    };
    let name = |text: &str| app_host_core::foreign::line(text, app_host_core::foreign::MAX_NAME);
    let (version, app, app_version) = (kept.pair.version.short(), name(&kept.app), name(&kept.app_version));
    let advice =
        "the library and the configuration on disk are not in use; change either of them, or restart into them";
    match why {
        Why::RolledBack => {
            warn!(version, app, app_version, reason = "rolled back", advice, "an earlier generation is started");
        }
        Why::Quarantined(it) => {
            let reason = format!("quarantined: {}", it.reason);
            error!(version, app, app_version, reason, advice, "an earlier generation is started");
        }
    }
    let source = Source::Copy(kept.pair.version);
    Ok(Choice { snapshot: chosen, source, held: history.held() })
}

/// An earlier generation's configuration, if its version's copy is still what it was.
fn instead(preflight: &Preflight, kept: &Kept) -> anyhow::Result<Snapshot> {
    preflight.store.reopen(kept.pair.version, Path::new(""))?;
    let parsed = Snapshot::parse(kept.config.as_bytes(), &preflight.config_path, preflight.dev_library.as_deref());
    Ok(parsed.map_err(|Refused { refusal, .. }| refusal)?)
}

/// Binds the listeners. While workers that a dead master left behind still drain, waits for those
/// of another magic to go, and for those that still hold an address.
async fn bind(
    config: &Config,
    held_locks: &Directory,
    magic: &str,
    passed: Listeners,
) -> anyhow::Result<(Listeners, Option<AdminListener>)> {
    let left_over = passed.left_over(config);
    if !left_over.is_empty() {
        // Said now, when somebody looks: clients would wait there for ever.
        anyhow::bail!(
            "no listener is for what was passed to us: {}; give one its name, or its address",
            left_over.join(", ")
        );
    }
    let loopback = Loopback::find(config, &passed).await?;
    let limit = config.restart.shutdown_timeout + ORPHANS_MARGIN;
    let begin = Instant::now();
    let mut said = false;
    loop {
        let held = locks::held_magics(held_locks, &config.locks_dir())?;
        let foreign = held.iter().find(|each| *each != magic);
        let bind_all = || {
            let admin = AdminListener::for_config(config, None)?;
            Ok::<_, BindError>((Listeners::bind(config, &passed, &loopback)?, admin))
        };
        let bind_all = || bind_all().map_err(|error| error.explained(config.addresses()));
        let obstacle = match (foreign, bind_all()) {
            (None, Ok(bound)) => return Ok(bound),
            (None, Err(error)) if held.is_empty() || !error.is_in_use() => return Err(error.into()),
            (None, Err(error)) => Obstacle::Address(error),
            (Some(foreign), _) => Obstacle::Magic(foreign.clone()),
        };
        if begin.elapsed() >= limit {
            return Err(obstacle.into_error(config, limit));
        }
        if !said {
            said = true;
            warn!(obstacle = %obstacle, "waiting for workers that an earlier master left behind");
        }
        tokio::time::sleep(ORPHANS_POLL).await;
    }
}

/// What keeps a master from binding while orphans drain.
#[derive(Debug, thiserror::Error)]
enum Obstacle {
    #[error("workers with magic {0} still run")]
    Magic(String),
    #[error("{0}")]
    Address(#[source] BindError),
}

impl Obstacle {
    fn into_error(self, config: &Config, waited: Duration) -> anyhow::Error {
        let locks = config.locks_dir();
        anyhow::Error::new(self).context(format!(
            "workers of an earlier master still run after {waited:?} (they hold locks in {})",
            locks.display()
        ))
    }
}

/// The workers' own: the master doesn't look into it. Made and given away by descriptor, because who owns the
/// directory that it lies in may put something else there at any moment.
fn make_data_directory(path: &Path, identity: Option<&Identity>) -> anyhow::Result<()> {
    let give = |made: &Directory| identity.map_or(Ok(()), |identity| made.give_to(identity.uid, identity.gid));
    let made = held::make_path(path, Mode::S_IRWXU, Identity::path_trust(identity), give);
    made.map(drop).with_context(|| format!("the databank's directory {} can't be made", path.display()))
}
