//! The process that serves metrics and page: spawned, given its listener, answered, and respawned.
//!
//! Owns its life. What it serves is the role `admin`'s business, and what it is told the loop's: here its
//! questions are only put to the loop's inbox, one at a time and no more often than [`PACE`] allows. So
//! whatever its clients do, or it does itself, costs the loop a bounded part of its time, and nothing ever
//! waits for it: neither a restart nor the workers.

use std::io;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{info, warn};

use app_host_core::config::{Address, Limits, Log, Variables};
use app_host_core::error::chain;
use app_host_core::message::{AdminListens, AdminSetup, FromAdmin};
use app_host_platform::channel::{ChannelError, MasterEnd};
use app_host_platform::children::{Child, Children, Leash, Role, Streams, Surroundings};
use app_host_platform::identity::Identity;
use app_host_platform::logging::{self, ChildPipe, LoggingError, RelayGuard};

use super::Input;
use crate::listeners::AdminListener;

/// How much time at least lies between two answers.
const PACE: Duration = Duration::from_millis(50);

/// How long a process that is not needed any more may take to give its last answers.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// After how long a process that has died is respawned: at first, and at most when it happens again and again.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How long one must have lived for its death to be no repetition.
const STEADY: Duration = Duration::from_mins(1);

/// What is served, if anything is.
#[derive(Debug)]
pub(super) struct Admin {
    children: Children,
    identity: Option<Identity>,
    inbox: mpsc::Sender<Input>,
    service: Option<Service>,
}

#[derive(Debug)]
struct Service {
    listener: AdminListener,
    /// What its process logs for as long as it lives.
    log: Log,
    attendant: JoinHandle<()>,
    /// Dropped when the process isn't needed any more.
    needed: oneshot::Sender<()>,
}

/// Why a process is to be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replace {
    /// It has another listener, or logs in another form. Where to is its relay's business.
    IfChanged,
    /// Its listener is another one, or has been revived.
    Anyway,
}

#[derive(Debug, thiserror::Error)]
enum AdminError {
    #[error("its log can't be opened")]
    Log(#[from] LoggingError),
    #[error("its process can't be made")]
    Process(#[source] io::Error),
    #[error("its setup can't be sent")]
    Setup(#[source] ChannelError),
}

impl Admin {
    pub(super) const fn new(children: Children, identity: Option<Identity>, inbox: mpsc::Sender<Input>) -> Self {
        Self { children, identity, inbox, service: None }
    }

    /// Serves on `listener` from now on, or nowhere. Returns at once: a process that isn't needed any more
    /// gives its last answers meanwhile, and clients of one that comes wait in the listener's queue. Must be
    /// called inside a `LocalSet`.
    pub(super) fn follow(&mut self, listener: Option<&AdminListener>, log: &Log, replace: Replace) {
        let same = |service: &Service| {
            replace == Replace::IfChanged
                && service.log.format == log.format
                && listener.is_some_and(|listener| listener.is(&service.listener))
        };
        if self.service.as_ref().is_some_and(same) {
            return;
        }
        let before = self.service.take();
        let Some(listener) = listener else {
            if before.is_some() {
                info!("metrics are served no longer");
            }
            return;
        };
        if !before.is_some_and(|before| before.listener.is(listener)) {
            info!(address = listener.local_address(), "admin listening");
            if listens(listener) == AdminListens::Network {
                let advice = "it asks nobody who they are: let only those reach it who may see it";
                warn!(address = listener.local_address(), advice, "admin listens beyond this machine");
            }
        }
        let attendant = Attendant {
            children: self.children.clone(),
            identity: self.identity.clone(),
            inbox: self.inbox.clone(),
            listener: listener.clone(),
            log: log.clone(),
        };
        let (needed, until) = oneshot::channel();
        let attendant = tokio::task::spawn_local(attendant.serve(until));
        self.service = Some(Service { listener: listener.clone(), log: log.clone(), attendant, needed });
    }

    /// Ends it, before the master does: whoever comes after it finds the address free.
    pub(super) async fn end(&mut self) {
        if let Some(Service { attendant, needed, .. }) = self.service.take() {
            drop(needed);
            // It bounds itself.
            let _ = attendant.await;
        }
    }
}

fn listens(listener: &AdminListener) -> AdminListens {
    match listener.address() {
        Address::Tcp(address) if address.ip().to_canonical().is_loopback() => AdminListens::Loopback,
        Address::Localhost(_) => AdminListens::Loopback,
        Address::Tcp(_) | Address::Everywhere(_) => AdminListens::Network,
        Address::Unix(_) => AdminListens::Unix,
    }
}

/// Sees to one process after the other.
struct Attendant {
    children: Children,
    identity: Option<Identity>,
    inbox: mpsc::Sender<Input>,
    listener: AdminListener,
    log: Log,
}

impl Attendant {
    /// Until nobody needs it.
    async fn serve(self, mut until: oneshot::Receiver<()>) {
        let mut pause = FIRST_PAUSE;
        loop {
            let begin = Instant::now();
            match self.spawn().await {
                // The leash is for when the whole master is dropped.
                Ok((child, _leash, _relay)) => {
                    let pid = child.pid;
                    let Some(how) = self.supervise(child, &mut until).await else { return };
                    warn!(admin_pid = pid.as_raw(), status = how, "the process that serves metrics has ended");
                }
                Err(error) => warn!(error = chain(&error), "metrics can't be served"),
            }
            if begin.elapsed() >= STEADY {
                pause = FIRST_PAUSE;
            }
            if timeout(pause, &mut until).await.is_ok() {
                return;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn spawn(&self) -> Result<(Child, Leash, RelayGuard), AdminError> {
        let log = ChildPipe::open(&self.log)?;
        let streams = Streams::from(log.ends().map_err(AdminError::Process)?);
        // The app's user can read what its environment was, and it needs nothing there.
        let surroundings =
            Surroundings { environment: &Variables::NONE, limits: Limits::default(), cpus: &[], directory: None };
        let spawned = self.children.spawn(Role::Admin, streams, self.identity.as_ref(), surroundings);
        let child = spawned.map_err(AdminError::Process)?;
        let leash = self.children.leash(child.pid);
        let relay = log.follow(child.pid, &self.log).map_err(AdminError::Process)?;
        let setup = AdminSetup { listens: listens(&self.listener), log: logging::for_child(&self.log) };
        child.channel.to.send_with(&setup, &[self.listener.as_fd()]).await.map_err(AdminError::Setup)?;
        Ok((child, leash, relay))
    }

    /// Answers a process until it has ended, and says how it did; `None` when it isn't needed any more.
    async fn supervise(&self, child: Child, until: &mut oneshot::Receiver<()>) -> Option<String> {
        let Child { pid, channel: MasterEnd { to, mut from }, mut ended } = child;
        let needed = {
            let answers = async {
                loop {
                    match from.receive::<FromAdmin>().await {
                        Ok(Some(FromAdmin::Ask)) => {}
                        // It ends, or is no process of ours any more in what it says.
                        Ok(None) => break,
                        Err(error) => {
                            warn!(
                                admin_pid = pid.as_raw(),
                                error = chain(&error),
                                "unreadable question from the admin process"
                            );
                            break;
                        }
                    }
                    let (reply, snapshot) = oneshot::channel();
                    // The loop has ended, here and below: it needs nothing any more.
                    if self.inbox.send(Input::Snapshot { reply }).await.is_err() {
                        break;
                    }
                    let Ok(snapshot) = snapshot.await else { break };
                    if to.send(&snapshot).await.is_err() {
                        break;
                    }
                    tokio::time::sleep(PACE).await;
                }
            };
            tokio::select! {
                how = &mut ended => return Some(how.map_or_else(|_| String::new(), |reaped| reaped.how.to_string())),
                () = answers => Needed::ByNobody,
                _ = &mut *until => Needed::NoMore,
            }
        };
        // It sees the end, gives its last answers and exits.
        drop((to, from));
        let how = if let Ok(how) = timeout(LAST_ANSWERS, &mut ended).await {
            how
        } else {
            self.children.kill(pid);
            ended.await
        };
        (needed == Needed::ByNobody).then(|| how.map_or_else(|_| String::new(), |reaped| reaped.how.to_string()))
    }
}

/// Why a process is given up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needed {
    /// The master has no more use for it.
    NoMore,
    /// It doesn't speak with its master.
    ByNobody,
}
