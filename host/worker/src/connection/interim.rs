//! Responses that the app sends before its final one: early hints (RFC 8297).
//!
//! On HTTP/1.1 hyper has no way to send them (1.12), so they go past it: the [transport](super::transport) writes them when
//! hyper has flushed all that it had, which is between two responses or before one. On HTTP/2 the request's own
//! [task](super::http2) gives them to h2. Whether it is too late is decided here: the response's head is made when the app
//! has answered, and nothing may be queued after that.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use http::HeaderMap;

/// How many bytes of them a request may have.
const MOST_BYTES: usize = 16 * 1024;

const STATUS_LINE: &[u8] = b"HTTP/1.1 103 Early Hints\r\n";

/// What lies between a request and its response. One a connection of HTTP/1.1, where there is one request at a time, and
/// one a request of HTTP/2.
#[derive(Debug, Default)]
pub struct Interim {
    /// How many requests there have been.
    requests: AtomicU64,
    /// The number of the one that the app works on; 0 if there is none.
    request: AtomicU64,
    queue: Mutex<Queued>,
    /// Whether something is.
    queued: AtomicBool,
    /// Wakes who sends what is queued, while there is somebody.
    waker: Mutex<Option<Waker>>,
    /// Whether there is: each poll asks.
    is_awaited: AtomicBool,
}

#[derive(Debug, Default)]
struct Queued {
    /// What is to be sent.
    hints: Vec<HeaderMap>,
    /// How many bytes the request has had.
    bytes: usize,
}

impl Interim {
    fn queue(&self) -> MutexGuard<'_, Queued> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waker(&self) -> MutexGuard<'_, Option<Waker>> {
        self.waker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says which task writes what is queued.
    pub(super) fn set_waker(&self, waker: &Waker) {
        if !self.is_awaited.load(Relaxed) {
            self.is_awaited.store(true, Relaxed);
            *self.waker() = Some(waker.clone());
        }
    }

    /// Nobody sends anything any more. An app may keep this for as long as it likes, and must not keep the task.
    pub(super) fn end(&self) {
        *self.waker() = None;
    }

    /// The app begins to work on a request. Returns the request's number.
    pub(super) fn open(&self) -> u64 {
        let number = self.requests.load(Relaxed) + 1;
        if number > 1 {
            self.queue().bytes = 0;
        }
        self.requests.store(number, Relaxed);
        self.request.store(number, Relaxed);
        number
    }

    /// The app has answered the request with this number, or it was given up.
    pub(super) fn close(&self, request: u64) {
        // Under the lock, so that nobody who has found the request open queues something after this.
        let _queue = self.queue();
        if self.request.load(Relaxed) == request {
            self.request.store(0, Relaxed);
        }
    }

    /// Whether the app still works on a request.
    pub(super) fn is_open(&self) -> bool {
        self.request.load(Relaxed) != 0
    }

    /// Queues a response of status 103 for the request with this number. Returns whether it will be sent; the client may
    /// go before.
    pub fn hint(&self, request: u64, fields: &HeaderMap) -> bool {
        let mut queue = self.queue();
        let fields_length = fields.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>();
        let length = STATUS_LINE.len() + fields_length + 2;
        if self.request.load(Relaxed) != request || queue.bytes + length > MOST_BYTES {
            return false;
        }
        queue.bytes += length;
        queue.hints.push(fields.clone());
        self.queued.store(true, Relaxed);
        drop(queue);
        self.waker().iter().for_each(Waker::wake_by_ref);
        true
    }

    /// Whether something is queued.
    pub(super) fn is_queued(&self) -> bool {
        self.queued.load(Relaxed)
    }

    /// Takes the fields of each that is queued.
    pub(super) fn take(&self) -> Vec<HeaderMap> {
        if !self.is_queued() {
            return Vec::new();
        }
        let mut queue = self.queue();
        self.queued.store(false, Relaxed);
        std::mem::take(&mut queue.hints)
    }
}

/// Responses of status 103 as HTTP/1.1 has them.
pub(super) fn written(hints: &[HeaderMap]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for fields in hints {
        bytes.extend_from_slice(STATUS_LINE);
        for (name, value) in fields {
            // Writing to a `Vec` never fails.
            let _ = write!(bytes, "{name}: ");
            bytes.extend_from_slice(value.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}
