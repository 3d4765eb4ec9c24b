//! Clients that write to the databank at full speed, through `apps/databank.rs`, and keep account of
//! what they were told is written.
//!
//! Each creates documents with ids of its own, and adds to a counter that all share. They never try
//! again: what got no answer, or was told to be unavailable, may or may not have been done.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::request;
use crate::databank::{Answer, Client};
use crate::host::Host;
use crate::load::{Caller, Kind};

/// The type of the documents.
const KIND: &str = "written";

/// Where the counter is: in a type of its own.
const COUNTER: (&str, &str, &str) = ("counted", "all", "in.total");

/// Writers that run.
#[derive(Debug)]
pub struct Writers {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Ledger>>,
}

/// What writers were told.
#[derive(Debug, Default)]
pub struct Ledger {
    /// The documents that are written.
    created: BTreeSet<String>,
    /// Those that may be.
    uncertain: BTreeSet<String>,
    /// What was added to the counter.
    counted: u64,
    /// What may have been added besides.
    maybe_counted: u64,
    /// How often the databank was said to be unavailable.
    pub unavailable: u64,
    /// What else went wrong, the first few.
    pub failures: Vec<String>,
    /// How often.
    pub failed: u64,
    /// The longest that an answer took.
    pub slowest: Duration,
}

impl Writers {
    /// Starts so many on kept-alive connections, and as many with a connection a request.
    pub fn start(host: &Host, of_each_kind: usize) -> Self {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let kinds = [Kind::KeepAlive, Kind::ConnectionPerRequest];
        let threads = (0..of_each_kind * kinds.len())
            .map(|number| {
                let mut writer = Writer {
                    caller: Caller::new(host.address(), kinds[number % kinds.len()]),
                    acknowledged: Arc::clone(&acknowledged),
                    ledger: Ledger::default(),
                };
                let stop = Arc::clone(&stop);
                std::thread::spawn(move || {
                    let mut count = 0_u64;
                    while !stop.load(Ordering::Relaxed) {
                        writer.create(&format!("writer {number}, document {count}"));
                        writer.count();
                        count += 1;
                    }
                    writer.ledger
                })
            })
            .collect();
        Self { stop, acknowledged, threads }
    }

    /// How many writes have been acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until so many more have been.
    pub fn wait_for_more(&self, host: &Host, count: u64) {
        let target = self.acknowledged() + count;
        host.wait(&format!("{count} more acknowledged writes"), || (self.acknowledged() >= target).then_some(()));
    }

    /// Ends them and adds up what they were told.
    pub fn stop(self) -> Ledger {
        self.stop.store(true, Ordering::Relaxed);
        let mut total = Ledger::default();
        for thread in self.threads {
            total.add(thread.join().expect("a writer doesn't panic"));
        }
        total
    }
}

/// What became of one write.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Written,
    Nothing,
}

struct Writer {
    caller: Caller,
    acknowledged: Arc<AtomicU64>,
    ledger: Ledger,
}

impl Writer {
    fn create(&mut self, id: &str) {
        let body = json!({ "type": KIND, "id": id, "document": { "by": id } });
        match self.ask("create", &body.to_string()) {
            Told::Written => self.ledger.created.insert(id.to_owned()),
            Told::Nothing => self.ledger.uncertain.insert(id.to_owned()),
        };
    }

    fn count(&mut self) {
        let (kind, id, path) = COUNTER;
        let body = json!({ "type": kind, "id": id, "path": path, "by": 1 });
        match self.ask("increment", &body.to_string()) {
            Told::Written => self.ledger.counted += 1,
            Told::Nothing => self.ledger.maybe_counted += 1,
        }
    }

    fn ask(&mut self, method: &str, body: &str) -> Told {
        let request = request("POST", &format!("/{method}"), &[&format!("content-length: {}", body.len())]) + body;
        let asked = self.caller.exchange(request.as_bytes(), Instant::now, |began, status, connection| {
            Ok((began.elapsed(), Answer::of(status, connection)))
        });
        let failure = match asked {
            Ok((took, answer)) => {
                self.ledger.slowest = self.ledger.slowest.max(took);
                match answer.status {
                    200 => {
                        self.acknowledged.fetch_add(1, Ordering::Relaxed);
                        return Told::Written;
                    }
                    503 => {
                        self.ledger.unavailable += 1;
                        return Told::Nothing;
                    }
                    _ => format!("{method}: {answer}"),
                }
            }
            Err(failure) => format!("{method}: {failure}"),
        };
        self.ledger.failed += 1;
        self.ledger.failures.push(failure);
        self.ledger.failures.truncate(10);
        Told::Nothing
    }
}

impl Ledger {
    fn add(&mut self, other: Self) {
        self.created.extend(other.created);
        self.uncertain.extend(other.uncertain);
        self.counted += other.counted;
        self.maybe_counted += other.maybe_counted;
        self.unavailable += other.unavailable;
        self.failed += other.failed;
        self.failures.extend(other.failures);
        self.failures.truncate(10);
        self.slowest = self.slowest.max(other.slowest);
    }

    /// How many writes were acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.created.len() as u64 + self.counted
    }

    /// Checks that the store holds every acknowledged write, and nothing but these and those that got
    /// no answer.
    pub fn assert_holds(&self, host: &Host) {
        let mut client = Client::new(host);
        let stored: BTreeSet<_> = client.search(KIND, "").into_iter().collect();
        let lost: Vec<_> = self.created.difference(&stored).take(10).collect();
        assert!(lost.is_empty(), "acknowledged and not there: {lost:?}");
        let unasked = stored.iter().filter(|id| !self.created.contains(*id) && !self.uncertain.contains(*id)).take(10);
        let unasked: Vec<_> = unasked.collect();
        assert!(unasked.is_empty(), "there and never asked for: {unasked:?}");
        let (kind, id, path) = COUNTER;
        let total = client.increment(kind, id, path, 0).done()["sum"].as_u64().expect("a sum");
        let most = self.counted + self.maybe_counted;
        assert!((self.counted..=most).contains(&total), "the counter is {total}, expected {} to {most}", self.counted);
        println!(
            "{} documents and {total} counted; acknowledged {} and {}; {} unavailable, {} without an answer, slowest {:?}",
            stored.len(),
            self.created.len(),
            self.counted,
            self.unavailable,
            self.failed,
            self.slowest,
        );
    }
}
