//! Locks of which at most one worker of the service holds each: for work that must run once.
//!
//! Owns the app's end: [`Host::only_one`] and its types. Who gets a lock is the master's to say.
#![expect(unsafe_code, reason = "calls into the table of the host")]

use crate::Host;
use crate::abi::{FfiFault, FfiLock, FfiLockState};
use abi_stable::std_types::{RErr, ROk, RStr};
use async_ffi::ContextExt;
use std::{
    fmt,
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
};

/// Why a lock can't be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OnlyOneError {
    /// This worker drains: another one goes on. Nothing is wrong; end the work.
    #[error("{0}")]
    Draining(String),
    /// The worker holds, and waits for, 256 locks already. Let some go.
    #[error("{0}")]
    Full(String),
    /// The name isn't as it must be: the same call will fail again.
    #[error("{0}")]
    Invalid(String),
    /// This worker can't reach its master any more: it is about to drain.
    #[error("{0}")]
    Unavailable(String),
}

impl From<FfiFault> for OnlyOneError {
    fn from(FfiFault { code, text }: FfiFault) -> Self {
        match code {
            5 => Self::Invalid(text.into()),
            6 => Self::Full(text.into()),
            7 => Self::Draining(text.into()),
            // 4, and whatever a later host may add.
            _ => Self::Unavailable(text.into()),
        }
    }
}

impl Host {
    /// Waits until this worker is the only one, of all slots and generations, that holds the lock of this name, which is
    /// a text of 1 to 255 bytes; for a job that every worker starts and that must run once.
    ///
    /// The master grants it, to one place in the queue at a time: to a worker of the newest generation first, and among
    /// those in the order in which they asked. It is given back when the [`OnlyOne`] is dropped or its worker dies,
    /// however it dies. Dropping the future gives the place up. Within one worker the same holds: two calls are
    /// two places.
    ///
    /// In a restart the old worker must let go for the new one to go on, so end the job with the drain. A worker that
    /// drains is granted no lock any more: what waits ends with [`OnlyOneError::Draining`].
    ///
    /// ```
    /// use app_abi::Host;
    /// use std::time::Duration;
    /// # async fn send_what_is_due() {}
    ///
    /// /// Spawned once by the start of every worker.
    /// async fn mailer(host: Host) {
    ///     let Ok(_only_one) = host.only_one("mailer").await else { return };
    ///     // Once a minute, until this worker is about to end.
    ///     while tokio::time::timeout(Duration::from_secs(60), host.draining()).await.is_err() {
    ///         send_what_is_due().await;
    ///     }
    /// }
    /// ```
    ///
    /// It orders who works, not what the work has written: there is no order between giving a lock back and messages of
    /// [`Self::publish`]. While
    /// the service stops nothing is granted. If the master is killed, its workers keep what they hold until they have
    /// drained, and one that is started meanwhile grants nothing until the last of them has gone, however long that takes.
    pub async fn only_one(&self, name: &str) -> Result<OnlyOne, OnlyOneError> {
        // SAFETY: `data` came together with the table, and the name is only lent for the call.
        let lock = match unsafe { (self.locks.acquire())(self.ffi.data, RStr::from_str(name)) } {
            ROk(lock) => lock,
            RErr(fault) => return Err(fault.into()),
        };
        let held = poll_fn(|context| lock.poll_held(context));
        held.await.map(|()| OnlyOne { name: name.into(), _lock: lock })
    }
}

/// A lock that this worker alone holds. Its drop gives it back.
#[must_use = "the lock is given back when this is dropped"]
pub struct OnlyOne {
    name: Arc<str>,
    _lock: FfiLock,
}

impl OnlyOne {
    /// The lock's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Debug for OnlyOne {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnlyOne").field("name", &self.name).finish_non_exhaustive()
    }
}

// SAFETY: by the rules of the line a place's owner may be on any thread.
unsafe impl Send for FfiLock {}
// SAFETY: a shared place offers nothing that could be called.
unsafe impl Sync for FfiLock {}

impl FfiLock {
    fn poll_held(&self, context: &mut Context<'_>) -> Poll<Result<(), OnlyOneError>> {
        // SAFETY: the place is ours and isn't polled elsewhere; the context lives for this call.
        let state = context.with_ffi_context(|context| unsafe { (self.vtable.poll_held)(self.state, context) });
        match state {
            FfiLockState::Pending => Poll::Pending,
            FfiLockState::Held => Poll::Ready(Ok(())),
            FfiLockState::Failed(fault) => Poll::Ready(Err(fault.into())),
        }
    }
}

impl Drop for FfiLock {
    fn drop(&mut self) {
        // SAFETY: the place owns its state, and this is the one call.
        unsafe { (self.vtable.drop)(self.state) }
    }
}
