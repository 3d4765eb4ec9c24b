//! Restarts of the master under test: asked for, awaited and judged.
//!
//! Owns what a verdict is to a test, and the count of serving workers that every restart is held to.

use std::collections::BTreeMap;

use nix::sys::signal::Signal;

use crate::host::Host;
use crate::log::Line;
use crate::said;

/// What became of one request for a restart.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The request's number.
    pub request: u64,
    /// `complete`, `refused: REASON` or `failed: REASON`.
    pub verdict: String,
    /// The line that said so.
    pub line: Line,
}

impl Host {
    /// Asks for a restart by SIGUSR2 and waits for its verdict.
    pub fn restart(&self) -> Verdict {
        let request = self.last_request() + 1;
        self.signal(Signal::SIGUSR2);
        self.verdict(request)
    }

    /// The number of the last request for a restart that the log knows of.
    pub fn last_request(&self) -> u64 {
        self.look(0, |lines| lines.iter().filter_map(|line| line.number("request")).max()).unwrap_or(0)
    }

    /// Waits for the verdict on a request.
    pub fn verdict(&self, request: u64) -> Verdict {
        let mut seen = 0;
        let is_verdict =
            |line: &&Line| line.msg().starts_with("zero-downtime restart") && line.number("request") == Some(request);
        let line = self.wait(&format!("the verdict on request {request}"), || {
            let gone = self.try_exit();
            let verdict = self.look(seen, |new| {
                seen += new.len();
                new.iter().find(is_verdict).cloned()
            });
            assert!(verdict.is_some() || gone.is_none(), "the master has gone without a verdict: {gone:?}");
            verdict
        });
        Verdict { request, verdict: line.str("verdict").to_owned(), line }
    }

    /// Asks for a restart that must complete, and in which no drain may leave fewer workers serving
    /// than there were, or than are configured if those are fewer.
    pub fn restart_completes(&self) -> Verdict {
        let mark = self.mark();
        let verdict = self.restart();
        assert_eq!(verdict.verdict, "complete", "{}", verdict.line.text());
        self.assert_served_since(mark);
        verdict
    }

    /// Waits until, since a mark in the log, so many workers have begun to drain.
    pub fn wait_draining(&self, mark: usize, workers: usize) {
        self.wait("drains in all workers", || {
            let draining = self.look(mark, |new| new.iter().filter(|line| line.msg() == "draining").count());
            (draining == workers).then_some(())
        });
    }

    /// Checks that, since a mark in the log, no ordered drain has left fewer workers serving than
    /// there were at the mark, or than are configured if those are fewer.
    pub fn assert_served_since(&self, mark: usize) {
        let configured = self.configured_workers();
        let mut serving = Serving::default();
        let mut least = 0;
        for (number, line) in self.lines().iter().enumerate() {
            if number == mark {
                least = serving.count().min(usize::try_from(configured).unwrap_or(usize::MAX));
            }
            serving.see(line);
            if number >= mark && line.msg() == said::WORKER_DRAINS {
                assert!(serving.count() >= least, "{} of {least} serve after: {}", serving.count(), line.text());
            }
        }
    }

    /// Asks for a restart that must be refused for this reason, and after which every worker that
    /// served before must still serve; the detail is returned.
    pub fn restart_is_refused(&self, reason: &str) -> String {
        let before = self.serving();
        let verdict = self.restart();
        assert_eq!(verdict.verdict, format!("refused: {reason}"), "{}", verdict.line.text());
        assert_eq!(self.serving(), before, "a refused restart touches no worker");
        self.assert_all_serve(&before);
        verdict.line.str("detail").to_owned()
    }

    /// Asks for a restart that must fail for this reason, and lock the master.
    pub fn restart_fails(&self, reason: &str) -> String {
        let mark = self.mark();
        let verdict = self.restart();
        assert_eq!(verdict.verdict, format!("failed: {reason}"), "{}", verdict.line.text());
        self.wait_after(mark, "locked", |_| true);
        verdict.line.str("detail").to_owned()
    }
}

/// Counts the serving workers, log line by log line.
#[derive(Debug, Default)]
pub struct Serving {
    workers: BTreeMap<(u64, u64), u32>,
}

impl Serving {
    /// Takes one line into account.
    pub fn see(&mut self, line: &Line) {
        let key = || Some((line.number("slot")?, line.number("generation")?));
        match line.msg() {
            "worker ready" => {
                if let Some(key) = key() {
                    self.workers.insert(key, line.worker_pid());
                }
            }
            "worker ordered to drain" | "worker exited" => {
                let pid = line.worker_pid();
                self.workers.retain(|_, worker| *worker != pid);
            }
            _ => {}
        }
    }

    /// The process ids of those that serve now, by slot.
    pub fn pids(&self) -> Vec<u32> {
        self.workers.values().copied().collect()
    }

    /// How many serve now.
    pub fn count(&self) -> usize {
        self.workers.len()
    }
}
