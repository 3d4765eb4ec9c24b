//! What goes on in another worker, counted where it goes on, and what does not, where it ends.

use app_host_core::not_moved::NotMoved;
use app_host_core::not_resumed::{LongLived, NotResumed};

use super::{ThreadStats, add};

impl ThreadStats {
    /// Counts what goes on here, from another worker.
    pub fn went_on(&self, what: LongLived) {
        add(&self.went_on[what as usize], 1);
    }

    /// Counts what could have gone on in another worker and did not.
    pub fn not_resumed(&self, what: LongLived, why: NotResumed) {
        add(&self.not_resumed[what as usize][why as usize], 1);
    }

    /// Counts an HTTP/2 connection that goes on here, from another worker.
    pub fn moved_http2(&self) {
        add(&self.moved_http2, 1);
    }

    /// Counts an HTTP/2 connection that was to go on in another worker and did not.
    pub fn not_moved(&self, why: NotMoved) {
        add(&self.not_moved[why as usize], 1);
    }
}
