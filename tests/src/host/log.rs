//! What a master has logged, and waits for it to log something.

use std::time::Instant;

use super::{Host, lock, wait_until};
use crate::log::Line;

impl Host {
    /// How many lines the log has by now; waits can begin there.
    pub fn mark(&self) -> usize {
        lock(&self.log).lines().len()
    }

    /// All log lines so far.
    pub fn lines(&self) -> Vec<Line> {
        lock(&self.log).lines().to_vec()
    }

    /// Looks at the log lines from this one on, without a copy of them.
    pub fn look<T>(&self, mark: usize, at: impl FnOnce(&[Line]) -> T) -> T {
        at(lock(&self.log).lines().get(mark..).unwrap_or_default())
    }

    /// The log lines with this message so far.
    pub fn lines_with(&self, msg: &str) -> Vec<Line> {
        lock(&self.log).lines().iter().filter(|line| line.msg() == msg).cloned().collect()
    }

    /// Waits for the first line of the whole log with this message that fits.
    pub fn wait_for(&self, msg: &str, fits: impl Fn(&Line) -> bool) -> Line {
        self.wait_after(0, msg, fits)
    }

    /// Waits for the first fitting line behind a mark.
    pub fn wait_after(&self, mark: usize, msg: &str, fits: impl Fn(&Line) -> bool) -> Line {
        self.wait(&format!("the log line \"{msg}\""), || {
            self.look(mark, |new| new.iter().find(|line| line.msg() == msg && fits(line)).cloned())
        })
    }

    /// Waits until the condition gives something.
    pub fn wait<T>(&self, what: &str, condition: impl FnMut() -> Option<T>) -> T {
        let began = Instant::now();
        wait_until(condition).unwrap_or_else(|| {
            panic!("waited {:?} in vain for {what} in {}", began.elapsed(), self.directory().display())
        })
    }
}
