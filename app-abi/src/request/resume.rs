//! What the handler of a connection that goes on elsewhere leaves for the next one.
#![expect(unsafe_code, reason = "calls into the host's table")]

use super::Handle;
use crate::abi::{EXTENSION_RESUME, FfiKeepsake, FfiResume, SAVE_DONE, SAVE_TOO_LONG};
use std::{fmt, sync::Arc};

/// What the handler of a connection that [may go on elsewhere](crate::resumable) has from the one before it, in another
/// worker, and leaves for the one after it. From [`RequestExt::resume`](crate::RequestExt::resume).
///
/// It is bytes in memory, and theirs alone: a handler of the version before may have left them, or, after a rollback, one of
/// the version after. They are gone with the connection. What must not be lost belongs into the databank.
///
/// ```
/// use app_abi::{Body, Request, RequestExt};
///
/// fn count(request: &Request<Body>) -> u64 {
///     let Some(resume) = request.resume() else { return 1 };
///     let before = resume.saved().and_then(|saved| saved.try_into().ok()).map_or(0, u64::from_le_bytes);
///     // The connection may leave at any time: whatever was saved last counts.
///     let _ = resume.save(&(before + 1).to_le_bytes());
///     before + 1
/// }
/// ```
///
/// With feature `axum`, `Option<Resume>` is an extractor.
#[derive(Clone)]
pub struct Resume {
    keepsake: Arc<FfiKeepsake>,
}

/// Why bytes were not saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SaveError {
    /// They are more than [`Resume::MOST`].
    #[error("{0} bytes are too many to be saved: {most} are the most", most = Resume::MOST)]
    TooLong(usize),
    /// The connection has gone, or goes on elsewhere already.
    #[error("the connection has gone, or goes on elsewhere already")]
    TooLate,
}

// SAFETY: by the rules of the line a keepsake is used on any thread, by several at once.
unsafe impl Send for FfiKeepsake {}
// SAFETY: as above.
unsafe impl Sync for FfiKeepsake {}

impl Drop for FfiKeepsake {
    fn drop(&mut self) {
        // SAFETY: the keepsake owns its state, and this is the one call.
        unsafe { (self.vtable.drop)(self.state) }
    }
}

impl Resume {
    /// How many bytes may be saved: 64 KiB.
    pub const MOST: usize = 64 * 1024;

    /// What the handler before this one has saved last, or has had itself from one before it. `None` if nothing was saved, or
    /// if the client has just come.
    #[must_use]
    pub fn saved(&self) -> Option<Vec<u8>> {
        // SAFETY: the keepsake is owned.
        unsafe { (self.keepsake.vtable.saved)(self.keepsake.state) }.into_option().map(Into::into)
    }

    /// Leaves these bytes for the handler after this one, in the place of those before.
    ///
    /// # Errors
    /// They are too many, or it is too late. What was saved before stays.
    pub fn save(&self, bytes: &[u8]) -> Result<(), SaveError> {
        // SAFETY: the keepsake is owned, and the bytes are borrowed for the call.
        match unsafe { (self.keepsake.vtable.save)(self.keepsake.state, bytes.into()) } {
            SAVE_DONE => Ok(()),
            SAVE_TOO_LONG => Err(SaveError::TooLong(bytes.len())),
            _ => Err(SaveError::TooLate),
        }
    }
}

impl Handle {
    pub(crate) fn resume(&self) -> Option<Resume> {
        // SAFETY: the handle is owned and borrowed for this one call.
        let table = unsafe { (self.table.extension())(self.request, EXTENSION_RESUME) };
        // SAFETY: the number stands for this type, and what the host gives by it lives as long as the process.
        let table = unsafe { table.cast::<FfiResume>().as_ref() }?;
        // SAFETY: the handle is owned.
        let keepsake = unsafe { (table.keepsake)(self.request) };
        Some(Resume { keepsake: Arc::new(keepsake) })
    }
}

impl fmt::Debug for Resume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resume")
    }
}
