//! Early hints: what a client may begin to load while its response is made.
#![expect(unsafe_code, reason = "calls into the host's table")]

use super::Handle;
use crate::HeaderMap;
use crate::abi::{EXTENSION_EARLY_HINTS, FfiEarlyHints, FfiHint, FfiHintSender};
use std::{fmt, sync::Arc};

/// Sends a client responses of status 103 (RFC 8297), early hints, before the final one: with `link` fields it begins to
/// load what the page will need. From [`RequestExt::early_hints`](crate::RequestExt::early_hints).
///
/// ```
/// use app_abi::{Body, HeaderMap, Request, RequestExt, Response, header::{HeaderValue, LINK}};
///
/// fn hint(request: &Request<Body>) {
///     let Some(hints) = request.early_hints() else { return };
///     let style = HeaderValue::from_static("</style.css>; rel=preload; as=style");
///     hints.send(&HeaderMap::from_iter([(LINK, style)]));
/// }
/// ```
///
/// With feature `axum`, `Option<EarlyHints>` is an extractor in a Router that
/// [`with_early_hints`](crate::tower::with_early_hints) was called with.
#[derive(Clone)]
pub struct EarlyHints {
    sender: Arc<FfiHintSender>,
}

// SAFETY: by the rules of the line a sender is used on any thread, by several at once.
unsafe impl Send for FfiHintSender {}
// SAFETY: as above.
unsafe impl Sync for FfiHintSender {}

impl Drop for FfiHintSender {
    fn drop(&mut self) {
        // SAFETY: the sender owns its state, and this is the one call.
        unsafe { (self.vtable.drop)(self.state) }
    }
}

impl EarlyHints {
    /// Sends one response of status 103 with these fields. Returns whether it is on its way: it isn't once the app has
    /// answered, if there are no fields, or if the request would have had more than 16 KiB of them.
    ///
    /// Fields that say something of the message itself or of the connection (`content-length`, `transfer-encoding`,
    /// `connection` and their like) are left out.
    #[allow(clippy::must_use_candidate, reason = "a hint that comes too late harms nobody")]
    pub fn send(&self, fields: &HeaderMap) -> bool {
        let mut hints = Vec::with_capacity(fields.len());
        for (name, value) in fields {
            hints.push(FfiHint { name: name.as_str().into(), value: value.as_bytes().into() });
        }
        // SAFETY: the sender is owned, and the fields are borrowed for the call.
        unsafe { (self.sender.vtable.send)(self.sender.state, hints.as_slice().into()) }
    }
}

impl Handle {
    pub(crate) fn early_hints(&self) -> Option<EarlyHints> {
        // SAFETY: the handle is owned and borrowed for this one call.
        let table = unsafe { (self.table.extension())(self.request, EXTENSION_EARLY_HINTS) };
        // SAFETY: the number stands for this type, and what the host gives by it lives as long as the process.
        let table = unsafe { table.cast::<FfiEarlyHints>().as_ref() }?;
        // SAFETY: the handle is owned.
        let sender = unsafe { (table.sender)(self.request) };
        Some(EarlyHints { sender: Arc::new(sender) })
    }
}

impl fmt::Debug for EarlyHints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EarlyHints")
    }
}
