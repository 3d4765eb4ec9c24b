//! Connections on their way from one worker to another, which neither counts.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::Ordering::Relaxed;

use super::{StatsPage, ThreadStats, add, subtract};

impl ThreadStats {
    /// Counts connections that are sent to another worker, until it is known what [became](Self::left) of them.
    pub fn leaves(&self, connections: u64) {
        add(&self.leaving, connections);
    }

    /// Ends what [`ThreadStats::leaves`] began.
    pub fn left(&self, connections: u64) {
        subtract(&self.leaving, connections);
    }
}

impl StatsPage {
    /// Opens the page of another worker, only to look at it; a descriptor [to read](Self::to_read) will do.
    pub fn look_at(file: &OwnedFd) -> io::Result<Self> {
        Self::mapped(file, |options| options.map_raw_read_only(file))
    }

    /// A descriptor of the page by which nobody can write to it.
    pub fn to_read(file: &OwnedFd) -> io::Result<OwnedFd> {
        Ok(File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?.into())
    }

    /// Says that the worker has no connection any more. It must have ended: it is the one who writes otherwise.
    pub fn has_ended(&self) {
        for thread in &self.page().threads {
            thread.connections.store(0, Relaxed);
            thread.leaving.store(0, Relaxed);
        }
    }

    /// How many connections the worker has, those included that are on their way to another.
    pub fn held(&self) -> u64 {
        let leaving = self.page().threads.iter().map(|thread| thread.leaving.load(Relaxed));
        leaving.fold(self.connections(), u64::saturating_add)
    }
}
