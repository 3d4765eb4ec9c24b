//! The service `request` of the ABI: a request, as the app gets it.
//!
//! Owns the handle that the app gets for a request, and the table of functions that work on it. The head is encoded at
//! once, in the form that the app needs, and copied into a buffer of the app's when it asks; the body is polled when the
//! app asks.
//!
//! hyper's own head keeps the buffer alive that it was read into. As long as it lives, hyper must read into a new one of
//! 8 KiB, and it does so before the app is first polled: so the head is dropped here.

use std::error::Error;
use std::pin::Pin;
use std::ptr;
use std::sync::Arc;
use std::task::Context;

use abi_stable::prefix_type::WithMetadata;
use abi_stable::std_types::{RSlice, RStr};
use app_abi::abi::{
    EXTENSION_CLIENT, EXTENSION_EARLY_HINTS, EXTENSION_RESUME, EXTENSION_TLS, EXTENSION_UPGRADE, FfiClient,
    FfiClientInfo, FfiConnection, FfiFrame, FfiHead, FfiRequest, FfiSizeHint, FfiSpan, FfiTls, FfiTlsInfo,
    RequestService,
};
use app_abi::head;
use async_ffi::FfiContext;
use bytes::Bytes;
use http::Request;
use http_body::{Body, SizeHint};

use app_host_core::error::chain;
use app_host_core::proxied::ProxiedTls;

pub use app_abi::Address;

use super::hints::{self, Hints};
use super::resume::{self, Keep};
use super::upgrade::{self, Upgrade};

/// The facts of a connection, shared by all its requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// The other end.
    pub peer: Address,
    /// This end.
    pub local: Address,
    /// The listener as the configuration names it.
    pub listener: &'static str,
    /// What was agreed on, if it came by TLS.
    pub tls: Option<Arc<TlsInfo>>,
    /// The client, if a trusted peer has told of it when the connection began.
    pub client: Option<Arc<Client>>,
}

/// Who is asking, as trusted peers have told: for a connection, or, among its extensions, for one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Its port is 0 where only the IP address was told.
    pub address: Address,
    /// Whether it speaks TLS, to the host or to its proxy.
    pub encrypted: bool,
    /// The host that it has asked its proxy for.
    pub host: Option<Box<str>>,
    /// What was told of its TLS.
    pub tls: Option<Arc<ProxiedTls>>,
}

impl Client {
    /// `http` or `https`.
    pub const fn scheme(&self) -> &'static str {
        scheme(self.encrypted)
    }
}

const fn scheme(encrypted: bool) -> &'static str {
    if encrypted { "https" } else { "http" }
}

/// What is known of the TLS of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsInfo {
    /// The protocol's number of its version.
    pub version: u16,
    /// The name that the client asked for.
    pub server_name: Option<Box<str>>,
    /// The client's certificate in DER form.
    pub client_certificate: Option<Box<[u8]>>,
}

impl Connection {
    /// `http` or `https`.
    pub const fn scheme(&self) -> &'static str {
        scheme(self.tls.is_some())
    }
}

/// The table of functions on a request.
pub(super) const TABLE: &WithMetadata<RequestService> =
    &WithMetadata::new(RequestService { head, fill, connection, poll_frame, size_hint, extension, drop: drop_request });

/// The value behind a handle. It starts with what is the same for every type of body, so that one table serves all.
#[repr(C)]
struct RequestState<B> {
    common: Common,
    body: B,
}

struct Common {
    head: Head,
    connection: Arc<Connection>,
    /// The client, if a trusted peer has told of it with this request.
    client: Option<Arc<Client>>,
    /// Until the app begins it. Boxed, because it is mostly absent.
    upgrade: Option<Box<Upgrade>>,
    hints: Option<Hints>,
    keep: Option<Arc<dyn Keep>>,
    vtable: &'static BodyVtable,
}

/// What a request offers besides itself.
#[derive(Default)]
pub struct Offers {
    /// What its connection may be upgraded to.
    pub upgrade: Option<Upgrade>,
    /// Where something can be sent before the response.
    pub hints: Option<Hints>,
    /// Where something can be left for whoever is asked again.
    pub keep: Option<Arc<dyn Keep>>,
}

impl Common {
    /// Who is asking, if a trusted peer has told.
    fn client(&self) -> Option<&Client> {
        self.client.as_deref().or(self.connection.client.as_deref())
    }
}

/// A head in the form that the app gets.
struct Head {
    fixed: FfiHead,
    /// Has no elements, only capacity: the spans of the headers, and behind them the texts.
    room: Vec<FfiSpan>,
}

impl Head {
    fn encode<B>(request: Request<B>) -> (Self, B)
    where
        B: Body,
    {
        let (parts, body) = request.into_parts();
        let known = head::describe(&parts, body.is_end_stream());
        let count = known.header_count as usize;
        let mut room = Vec::<FfiSpan>::with_capacity(count + known.text_len.div_ceil(size_of::<FfiSpan>()));
        let spans = room.as_mut_ptr();
        // SAFETY: there is room for `count` spans, and behind them for `text_len` bytes, as `fill` wants it.
        unsafe { head::fill(&parts, spans.add(count).cast(), spans) }
        (Self { fixed: known, room }, body)
    }

    /// Copies the head to buffers of the app's.
    ///
    /// # Safety
    /// `buffer` has room for `text_len` bytes, and `spans` for `header_count` spans.
    unsafe fn copy(&self, buffer: *mut u8, spans: *mut FfiSpan) {
        let (count, encoded) = (self.fixed.header_count as usize, self.room.as_ptr());
        // SAFETY: `encode` has written as many spans, and as many bytes behind them; the caller guarantees the room.
        unsafe {
            ptr::copy_nonoverlapping(encoded, spans, count);
            ptr::copy_nonoverlapping(encoded.add(count).cast(), buffer, self.fixed.text_len);
        }
    }
}

/// What depends on the type of the body. Each function takes the handle.
struct BodyVtable {
    poll_frame: unsafe fn(*mut (), &mut Context<'_>) -> FfiFrame,
    size_hint: unsafe fn(*mut ()) -> SizeHint,
    drop: unsafe fn(*mut ()),
}

/// Makes a handle for the app, which must drop it.
pub(super) fn into_ffi<B>(
    mut request: Request<B>,
    connection: Arc<Connection>,
    Offers { upgrade, hints, keep }: Offers,
) -> FfiRequest
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let client = request.extensions_mut().remove();
    let (head, body) = Head::encode(request);
    let upgrade = upgrade.map(Box::new);
    let common = Common { head, connection, client, upgrade, hints, keep, vtable: RequestState::<B>::VTABLE };
    FfiRequest(Box::into_raw(Box::new(RequestState { common, body })).cast())
}

impl<B> RequestState<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    const VTABLE: &'static BodyVtable = &BodyVtable {
        poll_frame: |handle, context| {
            // SAFETY: only a handle of `RequestState<B>` has this table; the app makes one call at a time.
            let state = unsafe { &mut *handle.cast::<Self>() };
            let polled = Pin::new(&mut state.body).poll_frame(context);
            polled.map(|frame| frame.map(|frame| frame.map_err(|e| chain(&*e.into())))).into()
        },
        size_hint: |handle| {
            // SAFETY: as above.
            let state = unsafe { &*handle.cast::<Self>() };
            state.body.size_hint()
        },
        drop: |handle| {
            // SAFETY: as above, and the app drops a handle once.
            drop(unsafe { Box::from_raw(handle.cast::<Self>()) });
        },
    };
}

/// The common part of what is behind a handle.
///
/// # Safety
/// `request` is from `into_ffi` and has not been dropped.
unsafe fn common<'a>(request: FfiRequest) -> &'a Common {
    // SAFETY: the caller guarantees it; `RequestState` is `repr(C)` and starts with its common part.
    unsafe { &*request.0.cast::<Common>() }
}

/// What a request can be upgraded to.
///
/// # Safety
/// As for `common`; and no other call on the request runs while this is borrowed.
pub(super) unsafe fn upgrade<'a>(request: FfiRequest) -> &'a mut Option<Box<Upgrade>> {
    // SAFETY: the caller guarantees it; `RequestState` is `repr(C)` and starts with its common part.
    unsafe { &mut (*request.0.cast::<Common>()).upgrade }
}

/// Where early hints go.
///
/// # Safety
/// As for `common`.
pub(super) unsafe fn hints<'a>(request: FfiRequest) -> Option<&'a Hints> {
    // SAFETY: the caller guarantees it.
    unsafe { common(request).hints.as_ref() }
}

/// Where something is left for whoever is asked again.
///
/// # Safety
/// As for `common`.
pub(super) unsafe fn keep<'a>(request: FfiRequest) -> Option<&'a Arc<dyn Keep>> {
    // SAFETY: the caller guarantees it.
    unsafe { common(request).keep.as_ref() }
}

unsafe extern "C" fn head(request: FfiRequest, head: *mut FfiHead) {
    // SAFETY: the app owns the handle, and lends room for the head.
    unsafe { head.write(common(request).head.fixed) }
}

unsafe extern "C" fn fill(request: FfiRequest, buffer: *mut u8, spans: *mut FfiSpan) {
    // SAFETY: the app owns the handle, and lends as much room as `head` has said.
    unsafe { common(request).head.copy(buffer, spans) }
}

unsafe extern "C" fn connection(request: FfiRequest, connection: *mut FfiConnection) {
    // SAFETY: the app owns the handle.
    let known = unsafe { &common(request).connection };
    let value = FfiConnection {
        peer: known.peer.into(),
        local: known.local.into(),
        listener: RStr::from_str(known.listener),
        scheme: RStr::from_str(known.scheme()),
    };
    // SAFETY: the app lends room for the struct.
    unsafe { connection.write(value) }
}

unsafe extern "C" fn poll_frame(request: FfiRequest, context: *mut FfiContext<'_>) -> FfiFrame {
    // SAFETY: the app owns the handle and lends the context for this call.
    unsafe {
        let poll_frame = common(request).vtable.poll_frame;
        (*context).with_context(|context| poll_frame(request.0, context))
    }
}

unsafe extern "C" fn size_hint(request: FfiRequest) -> FfiSizeHint {
    // SAFETY: the app owns the handle.
    unsafe { (common(request).vtable.size_hint)(request.0) }.into()
}

unsafe extern "C" fn extension(request: FfiRequest, id: u32) -> *const () {
    match id {
        // SAFETY: the app owns the handle.
        EXTENSION_UPGRADE => upgrade::table(unsafe { common(request) }.upgrade.as_deref()),
        // SAFETY: the app owns the handle.
        EXTENSION_TLS => match unsafe { common(request) }.connection.tls {
            Some(_) => ptr::from_ref(&TLS).cast(),
            None => ptr::null(),
        },
        // SAFETY: the app owns the handle.
        EXTENSION_EARLY_HINTS => hints::table(unsafe { common(request) }.hints.as_ref()),
        // SAFETY: the app owns the handle.
        EXTENSION_RESUME => resume::table(unsafe { common(request) }.keep.as_ref()),
        // SAFETY: the app owns the handle.
        EXTENSION_CLIENT => match unsafe { common(request) }.client() {
            Some(_) => ptr::from_ref(&CLIENT).cast(),
            None => ptr::null(),
        },
        _ => ptr::null(),
    }
}

/// The table of what is known of a client.
static CLIENT: FfiClient = FfiClient { info: client_info };

unsafe extern "C" fn client_info(request: FfiRequest, info: *mut FfiClientInfo) {
    // SAFETY: the app owns the handle. What it gets borrows from the client, which the handle holds.
    let common = unsafe { common::<'static>(request) };
    let known = common.client();
    let tls = known.and_then(|known| known.tls.as_deref());
    let text = |text: Option<&'static str>| RStr::from_str(text.unwrap_or_default());
    let value = FfiClientInfo {
        address: known.map_or(common.connection.peer, |known| known.address).into(),
        scheme: RStr::from_str(known.map_or(common.connection.scheme(), Client::scheme)),
        host: text(known.and_then(|known| known.host.as_deref())),
        has_tls: tls.is_some(),
        tls_version: text(tls.and_then(|tls| tls.version.as_deref())),
        server_name: text(tls.and_then(|tls| tls.server_name.as_deref())),
        alpn: RSlice::from_slice(tls.and_then(|tls| tls.alpn.as_deref()).unwrap_or_default()),
        client_name: text(tls.and_then(|tls| tls.client_name.as_deref())),
    };
    // SAFETY: the app lends room for the struct.
    unsafe { info.write(value) }
}

/// The table of what is known of a connection's TLS.
static TLS: FfiTls = FfiTls { info: tls_info };

unsafe extern "C" fn tls_info(request: FfiRequest, info: *mut FfiTlsInfo) {
    // SAFETY: the app owns the handle. What it gets borrows from the connection, which the handle holds.
    let known: Option<&'static TlsInfo> = unsafe { common::<'static>(request) }.connection.tls.as_deref();
    let value = FfiTlsInfo {
        version: known.map_or(0, |known| known.version),
        server_name: RStr::from_str(known.and_then(|known| known.server_name.as_deref()).unwrap_or_default()),
        client_certificate: RSlice::from_slice(
            known.and_then(|known| known.client_certificate.as_deref()).unwrap_or_default(),
        ),
    };
    // SAFETY: the app lends room for the struct.
    unsafe { info.write(value) }
}

unsafe extern "C" fn drop_request(request: FfiRequest) {
    // SAFETY: the app owns the handle and gives it up.
    unsafe { (common(request).vtable.drop)(request.0) }
}
