//! Where answers come from: the master, asked once for however many clients.
//!
//! Owns the one connection to it. An answer was always asked for after its question came, so whoever asks
//! sees what it did before; it waits for up to [`INTERVAL`] for that, because the master is asked no more
//! often, and not while it owes an answer.

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use app_host_core::message::FromAdmin;
use app_host_core::status::Measured;
use app_host_platform::channel::Channel;
use app_host_platform::metrics::Snapshot;
use app_host_platform::usage;

use super::CONNECTIONS;

/// How much time lies between two questions.
pub(super) const INTERVAL: Duration = Duration::from_millis(200);

/// How long the master may take to answer.
const SILENCE: Duration = Duration::from_secs(2);

/// How things stand.
#[derive(Debug)]
pub(super) struct Standing {
    /// With what the kernel says of the workers.
    pub(super) snapshot: Snapshot,
    /// What it says of the master.
    pub(super) master: Measured,
}

/// Who waits for an answer.
type Waiting = oneshot::Sender<Rc<Standing>>;

/// Where one asks. Cheap to clone.
#[derive(Clone)]
pub(super) struct Source(mpsc::Sender<Waiting>);

/// What was asked and is to be put to the master.
pub(super) struct Questions(mpsc::Receiver<Waiting>);

/// Both ends.
pub(super) fn open() -> (Source, Questions) {
    // Each connection asks one question at a time, and so does what pushes to the pages.
    let (sender, receiver) = mpsc::channel(CONNECTIONS + 1);
    (Source(sender), Questions(receiver))
}

impl Source {
    /// How things stand; `None` when the master doesn't answer in time.
    pub(super) async fn ask(&self) -> Option<Rc<Standing>> {
        let (waiting, standing) = oneshot::channel();
        let answer = async {
            // Those that have gone without their answers may be in front.
            self.0.send(waiting).await.ok()?;
            standing.await.ok()
        };
        timeout(SILENCE, answer).await.ok()?
    }
}

impl Questions {
    /// Puts them to the master until it has closed the channel, or says what nobody understands.
    pub(super) async fn put_to(mut self, channel: &Channel) {
        let mut earliest = Instant::now();
        loop {
            let first = tokio::select! {
                Some(first) = self.0.recv() => first,
                // Nothing was asked, so this is the end.
                _ = channel.receive::<Snapshot>() => return,
            };
            sleep_until(earliest).await;
            let mut waiting = vec![first];
            while let Ok(more) = self.0.try_recv() {
                waiting.push(more);
            }
            earliest = Instant::now() + INTERVAL;
            if channel.send(&FromAdmin::Ask).await.is_err() {
                return;
            }
            let mut snapshot = match channel.receive::<Snapshot>().await {
                Ok(Some((snapshot, _))) => snapshot,
                Ok(None) => return,
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "unreadable answer from the master");
                    return;
                }
            };
            usage::measure(&mut snapshot.status);
            let master = i32::try_from(snapshot.status.pid).map_or_else(|_| Measured::default(), usage::of);
            let standing = Rc::new(Standing { snapshot, master });
            for each in waiting {
                // Some have given up.
                let _ = each.send(Rc::clone(&standing));
            }
        }
    }
}
