//! What is pushed to open pages: how things stand, as soon as that has changed.
//!
//! Owns who listens, and looks only while somebody does. However many pages are open, the master is asked
//! once for all of them, and a page that reads slowly gets the newest and skips what was in between.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};

use app_host_core::status::{Status, VerdictRecord, WorkerStatus};
use app_host_platform::metrics::{Figures, Snapshot};

use super::answer::{Body, is_ready};
use super::source::{INTERVAL, Source};

/// How many pages may be open at the same time. Others are admitted beside them.
const PAGES: usize = 32;

/// How often figures are pushed that change all the time.
const FIGURES: Duration = Duration::from_secs(1);

/// How many verdicts a page shows.
const VERDICTS: usize = 12;

/// What is sent when the master doesn't answer.
const SILENT: &str = "event: silent\ndata: \n\n";

/// After how many milliseconds a browser comes back.
const RETRY: &str = "retry: 1000\n\n";

/// See the module.
pub(super) struct Live {
    source: Source,
    /// The event that is newest; empty before the first.
    news: watch::Sender<Arc<str>>,
    opened: Notify,
    close: watch::Receiver<bool>,
}

impl Live {
    pub(super) fn new(source: Source, close: watch::Receiver<bool>) -> Self {
        Self { source, news: watch::Sender::new(Arc::from("")), opened: Notify::new(), close }
    }

    /// The stream for one more page; `None` when there are too many.
    pub(super) fn listen(&self) -> Option<Body> {
        if self.news.receiver_count() >= PAGES {
            return None;
        }
        let mut news = self.news.subscribe();
        news.mark_changed();
        self.opened.notify_one();
        let first = Some(Arc::from(RETRY));
        let events = stream::unfold((first, news, self.close.clone()), |(first, mut news, mut close)| async move {
            let event: Arc<str> = match first {
                Some(first) => first,
                None => loop {
                    tokio::select! {
                        // The page comes back, to whoever comes next.
                        _ = close.wait_for(|close| *close) => return None,
                        changed = news.changed() => changed.ok()?,
                    }
                    let event = Arc::clone(&news.borrow_and_update());
                    if !event.is_empty() {
                        break event;
                    }
                },
            };
            let frame = Frame::data(Bytes::copy_from_slice(event.as_bytes()));
            Some((Ok(frame), (None, news, close)))
        });
        Some(StreamBody::new(events).boxed_unsync())
    }

    /// Looks and pushes, for ever.
    pub(super) async fn run(&self) {
        let mut last = (String::new(), Instant::now());
        loop {
            while self.news.receiver_count() == 0 {
                // Whoever comes next is not to see what was.
                self.news.send_replace(Arc::from(""));
                last.0.clear();
                self.opened.notified().await;
            }
            if let Some(standing) = self.source.ask().await {
                let page = PageData::new(&standing.snapshot);
                let outline = page.outline();
                if outline != last.0 || last.1.elapsed() >= FIGURES {
                    self.news.send_replace(Arc::from(format!("data: {}\n\n", to_json(&page))));
                    last = (outline, Instant::now());
                }
            } else {
                self.news.send_replace(Arc::from(SILENT));
                last.0.clear();
            }
            sleep(INTERVAL).await;
        }
    }
}

fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("texts and numbers can always be written")
}

/// What a page gets.
#[derive(Serialize)]
struct PageData<'a> {
    /// Milliseconds since the epoch, by the master's machine.
    now: u64,
    ready: bool,
    app: &'a str,
    app_version: &'a str,
    app_host: &'a str,
    pid: u32,
    uptime_ms: u64,
    phase: &'a str,
    magic: &'a str,
    generation: u64,
    version: &'a str,
    serving: usize,
    workers_configured: u16,
    workers: &'a [WorkerStatus],
    /// The newest first.
    verdicts: Vec<&'a VerdictRecord>,
    versions: &'a Value,
    totals: Totals,
}

/// What was counted since the master started.
#[derive(Serialize)]
struct Totals {
    requests: u64,
    cut: u64,
    errors: u64,
    respawns: u64,
    complete: u64,
    refused: u64,
    failed: u64,
}

impl<'a> PageData<'a> {
    fn new(snapshot: &'a Snapshot) -> Self {
        let Snapshot { status, figures, versions } = snapshot;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let Status { app, app_version, app_host, pid, uptime_ms, phase, magic, generation, version, .. } = status;
        Self {
            now: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            ready: is_ready(status),
            app,
            app_version,
            app_host,
            pid: *pid,
            uptime_ms: *uptime_ms,
            phase,
            magic,
            generation: generation.0,
            version,
            serving: status.serving(),
            workers_configured: status.workers_configured,
            workers: &status.workers,
            verdicts: status.verdicts.iter().rev().take(VERDICTS).collect(),
            versions,
            totals: Totals::new(figures),
        }
    }

    /// What of it is pushed as soon as it changes.
    fn outline(&self) -> String {
        let workers: Vec<_> =
            self.workers.iter().map(|worker| (worker.slot, worker.generation, worker.pid, &worker.state)).collect();
        let last = self.verdicts.first().map(|verdict| verdict.request);
        let restarts = (self.totals.complete, self.totals.refused, self.totals.failed);
        to_json(&(self.phase, self.generation, self.workers_configured, workers, last, restarts, self.versions))
    }
}

impl Totals {
    fn new(figures: &Figures) -> Self {
        Self {
            requests: figures.counter("requests"),
            cut: figures.counter("requests_cut"),
            errors: figures.responses[4],
            respawns: figures.respawns,
            complete: figures.restarts("complete"),
            refused: figures.restarts("refused"),
            failed: figures.restarts("failed"),
        }
    }
}
