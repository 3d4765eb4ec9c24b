//! The line between host and app. **Frozen text**: the layout check compares every name here, the
//! names of parameters included, so even a renaming makes every library built before it
//! incompatible. What may change, and what then has to rise, is said at [`ABI`](crate::ABI).
//!
//! Owns every type that crosses. What host and app make of them is left to the host's `loader` and
//! to this crate's other modules.
//!
//! Rules of the line, for both sides:
//! - Every function may be called on any thread, and at the same time on several, except that what
//!   belongs to one handle or one stream is called by its one owner, one call at a time.
//! - No function blocks and none unwinds. What may panic in the app is caught on the app's side.
//! - A pointer that comes as a borrowed text lives as long as its handle does; texts of the host
//!   itself live as long as the process. Nothing is ever unloaded and an app is never freed.
//! - A table of functions grows at its end only, behind its `last_prefix_field`.
#![expect(
    missing_docs,
    clippy::must_use_candidate,
    clippy::expl_impl_clone_on_copy,
    reason = "the derived prefix types are not ours to word"
)]

use abi_stable::StableAbi;
use abi_stable::library::RootModule;
use abi_stable::sabi_types::VersionStrings;
use abi_stable::std_types::{RResult, RSlice, RStr, RString, RVec};
use abi_stable::type_layout::TypeLayout;
use async_ffi::{FfiContext, FfiFuture};

// What the two sides rely on of async-ffi, as it is in 0.5.1 (src/lib.rs): a future is a pointer and two functions,
// and a context a pointer that is borrowed for the call. Each side calls functions that the other one has compiled,
// so neither layout may change under one number. The layouts are compared once more when a library is loaded
// (`StableAbi`), the number in the manifest. A panic in a future's `poll` comes as a value, and one in its `drop`
// or in a waker ends the process, which is why [`panics`](crate::panics) catches both before.
const _: () = assert!(
    async_ffi::ABI_VERSION == 2
        && size_of::<FfiFuture<()>>() == 3 * size_of::<usize>()
        && size_of::<FfiFuture<FfiResponse>>() == 3 * size_of::<usize>()
        && size_of::<FfiContext<'_>>() == size_of::<usize>(),
    "this release of `async-ffi` has another layout"
);

/// What every app exports.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = AppModuleRef)))]
#[sabi(missing_field(panic))]
pub struct AppModule {
    /// What the app needs of its host; called and checked before anything else.
    pub required_host: extern "C" fn() -> RSlice<'static, Required>,
    /// Starts the app, once a process. The error is for people.
    pub start: unsafe extern "C" fn(host: FfiHost) -> FfiFuture<RResult<FfiApp, RString>>,
    /// Answers one request. The app owns the request from here on and drops it when done.
    pub call: unsafe extern "C" fn(app: FfiApp, request: FfiRequest) -> FfiFuture<FfiResponse>,
    /// Notice that the worker drains: no new connections, the last requests are being finished.
    pub drain: unsafe extern "C" fn(app: FfiApp),
    /// Ends the app; the worker exits when the future is ready.
    pub stop: unsafe extern "C" fn(app: FfiApp) -> FfiFuture<()>,
    /// A later hook of the app by its number, null if the app has none.
    #[sabi(last_prefix_field)]
    pub extension: extern "C" fn(id: u32) -> *const (),
}

impl RootModule for AppModuleRef {
    abi_stable::declare_root_module_statics! {AppModuleRef}
    const BASE_NAME: &'static str = "app";
    const NAME: &'static str = "app";
    const VERSION_STRINGS: VersionStrings = abi_stable::package_version_strings!();
}

/// A service that the app needs of its host.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct Required {
    /// The service's number, one of the `SERVICE_` constants.
    pub id: u32,
    /// The least minor of the service.
    pub minor: u32,
    /// The service's name, for messages.
    pub name: RStr<'static>,
    /// The layout of the service's table as the app knows it.
    pub layout: &'static TypeLayout,
}

/// What the host hands to an app at its start.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct FfiHost {
    /// The host's own; the first argument of its functions.
    pub data: *const (),
    /// The table of a service, null if the host doesn't have it or only an older minor of it.
    pub service: unsafe extern "C" fn(data: *const (), id: u32, min_minor: u32) -> *const (),
}

/// A started app. Lives as long as the process.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy)]
pub struct FfiApp(pub *const ());

/// A request of the host's, owned by the app until it calls [`RequestService`]'s `drop`.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy)]
pub struct FfiRequest(pub *mut ());

/// The number of [`InfoService`].
pub const SERVICE_INFO: u32 = 1;
/// The number of [`LogService`].
pub const SERVICE_LOG: u32 = 2;
/// The number of [`RequestService`].
pub const SERVICE_REQUEST: u32 = 3;
/// The number of [`DatabankService`].
pub const SERVICE_DATABANK: u32 = 4;

/// Who the app is within the service: configuration and place.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = InfoServiceRef)))]
#[sabi(missing_field(panic))]
pub struct InfoService {
    /// `app.config` as JSON text.
    pub config: unsafe extern "C" fn(data: *const ()) -> RStr<'static>,
    pub slot: unsafe extern "C" fn(data: *const ()) -> u16,
    pub generation: unsafe extern "C" fn(data: *const ()) -> u64,
    #[sabi(last_prefix_field)]
    pub worker_pid: unsafe extern "C" fn(data: *const ()) -> u32,
}

/// The host's log. Levels: 1 error, 2 warn, 3 info, 4 debug, 5 trace.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = LogServiceRef)))]
#[sabi(missing_field(panic))]
pub struct LogService {
    pub enabled: extern "C" fn(level: u8) -> bool,
    #[sabi(last_prefix_field)]
    pub log: unsafe extern "C" fn(record: *const FfiRecord<'_>),
}

/// One event for the log.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiRecord<'a> {
    pub level: u8,
    /// Where in the app the event comes from; empty when it didn't say.
    pub target: RStr<'a>,
    pub message: RStr<'a>,
    pub fields: RSlice<'a, FfiField<'a>>,
}

/// One field of an event.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiField<'a> {
    pub key: RStr<'a>,
    pub value: RStr<'a>,
}

/// What can be done with a request. One table serves all requests.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = RequestServiceRef)))]
#[sabi(missing_field(panic))]
pub struct RequestService {
    /// Fills in the fixed part of the head and the sizes that `fill` needs.
    pub head: unsafe extern "C" fn(request: FfiRequest, head: *mut FfiHead),
    /// Copies the texts of the head, one behind the other, to `buffer`, which has room for
    /// [`FfiHead::text_len`] bytes: method (only when its code is 0), scheme, authority, path and
    /// query, then name (in lower case) and value of each header, all of them valid by RFC 9110 and
    /// RFC 3986. Writes the length of each name and value to
    /// `spans`, which has room for [`FfiHead::header_count`] items.
    pub fill: unsafe extern "C" fn(request: FfiRequest, buffer: *mut u8, spans: *mut FfiSpan),
    /// Fills in what is known of the connection.
    pub connection: unsafe extern "C" fn(request: FfiRequest, connection: *mut FfiConnection),
    /// The next frame of the body.
    pub poll_frame: unsafe extern "C" fn(request: FfiRequest, context: *mut FfiContext<'_>) -> FfiFrame,
    pub size_hint: unsafe extern "C" fn(request: FfiRequest) -> FfiSizeHint,
    /// Something of the request that came later than this table, by its number; null if the host
    /// has none.
    pub extension: unsafe extern "C" fn(request: FfiRequest, id: u32) -> *const (),
    #[sabi(last_prefix_field)]
    pub drop: unsafe extern "C" fn(request: FfiRequest),
}

/// The fixed part of a request's head.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Default)]
pub struct FfiHead {
    /// 1 GET, 2 HEAD, 3 POST, 4 PUT, 5 DELETE, 6 OPTIONS, 7 PATCH, 8 CONNECT, 9 TRACE; 0 another
    /// one, whose name is in the texts.
    pub method: u8,
    /// 9, 10, 11, 20, 30: HTTP/0.9 to HTTP/3.
    pub version: u8,
    /// Whether it is known already that the body has no frames.
    pub ended: bool,
    pub method_len: u32,
    pub scheme_len: u32,
    pub authority_len: u32,
    pub path_len: u32,
    pub header_count: u32,
    /// The sum of the lengths of all texts.
    pub text_len: usize,
}

/// The lengths of one header's name and value.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Default)]
pub struct FfiSpan {
    pub name_len: u32,
    /// The highest bit marks a value that is sensitive (RFC 7541, section 7.1.3).
    pub value_len: u32,
}

/// What is known of the connection that a request came on.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct FfiConnection {
    pub peer: FfiAddress,
    pub local: FfiAddress,
    /// The listener as the configuration names it.
    pub listener: RStr<'static>,
    /// `http` or `https`.
    pub scheme: RStr<'static>,
}

/// One end of a connection.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct FfiAddress {
    /// 4: the first four bytes of `ip` are an IPv4 address; 6: `ip` is an IPv6 address; anything
    /// else: a Unix socket, and the rest means nothing.
    pub family: u8,
    pub port: u16,
    pub ip: [u8; 16],
    pub flow_info: u32,
    pub scope_id: u32,
}

/// The app's answer.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiResponse {
    pub status: u16,
    pub headers: FfiHeaders,
    pub body: FfiBody,
}

/// A set of headers in one buffer. For each header, one behind the other: the length of the name
/// (u16), the length of the value (u32, the highest bit marks it as sensitive), name, value; numbers
/// in native order, unaligned.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiHeaders {
    pub count: u32,
    pub arena: RVec<u8>,
}

/// The body of a response.
#[repr(u8)]
#[derive(StableAbi)]
pub enum FfiBody {
    Empty,
    /// All of it at once.
    Full(FfiChunk),
    Stream(FfiStream),
}

/// Bytes of the other side's, not copied. `drop` is called with a pointer to `owner` once, on any
/// thread, when they are no longer needed; the struct may have been moved meanwhile.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiChunk {
    pub ptr: *const u8,
    pub len: usize,
    pub owner: [*mut (); 4],
    pub drop: unsafe extern "C" fn(owner: *mut [*mut (); 4]),
}

/// A stream of frames. Its owner calls `drop` once.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiStream {
    pub state: *mut (),
    pub vtable: &'static FfiStreamVtable,
}

/// What can be done with a stream.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiStreamVtable {
    pub poll_frame: unsafe extern "C" fn(state: *mut (), context: *mut FfiContext<'_>) -> FfiFrame,
    pub size_hint: unsafe extern "C" fn(state: *mut ()) -> FfiSizeHint,
    /// Whether it is known that no frame will come any more.
    pub ended: unsafe extern "C" fn(state: *mut ()) -> bool,
    pub drop: unsafe extern "C" fn(state: *mut ()),
}

/// What a poll of a body gives.
#[repr(u8)]
#[derive(StableAbi)]
pub enum FfiFrame {
    Pending,
    Data(FfiChunk),
    Trailers(FfiHeaders),
    End,
    /// The body broke; the text is for people. No frame comes after it.
    Error(RString),
}

/// How many bytes of data are still to come.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct FfiSizeHint {
    pub lower: u64,
    /// `u64::MAX` when there is no bound.
    pub upper: u64,
}

/// The document store that the host gives the app. Documents and values are JSON text; what a
/// document, an id, a type and a path may be is said in this crate's `databank`.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = DatabankServiceRef)))]
#[sabi(missing_field(panic))]
pub struct DatabankService {
    /// The four that write a whole document give its new revision.
    pub create:
        unsafe extern "C" fn(data: *const (), key: FfiKey, document: FfiChunk) -> FfiFuture<RResult<u64, FfiFault>>,
    pub update:
        unsafe extern "C" fn(data: *const (), key: FfiKey, document: FfiChunk) -> FfiFuture<RResult<u64, FfiFault>>,
    pub save:
        unsafe extern "C" fn(data: *const (), key: FfiKey, document: FfiChunk) -> FfiFuture<RResult<u64, FfiFault>>,
    pub compare_and_save: unsafe extern "C" fn(
        data: *const (),
        key: FfiKey,
        revision: u64,
        document: FfiChunk,
    ) -> FfiFuture<RResult<u64, FfiFault>>,
    pub read: unsafe extern "C" fn(data: *const (), key: FfiKey) -> FfiFuture<RResult<FfiDocument, FfiFault>>,
    pub remove: unsafe extern "C" fn(data: *const (), key: FfiKey) -> FfiFuture<RResult<(), FfiFault>>,
    /// Adds to the whole number at the path; gives the sum.
    pub increment:
        unsafe extern "C" fn(data: *const (), key: FfiKey, path: RString, by: i64) -> FfiFuture<RResult<i64, FfiFault>>,
    /// Puts a value at the end of the list at the path; gives the document's new revision.
    pub append: unsafe extern "C" fn(
        data: *const (),
        key: FfiKey,
        path: RString,
        value: FfiChunk,
    ) -> FfiFuture<RResult<u64, FfiFault>>,
    /// Those of the documents that exist, in the order of the ids.
    pub read_many: unsafe extern "C" fn(data: *const (), kind: RString, ids: RVec<RString>) -> FfiDocuments,
    #[sabi(last_prefix_field)]
    pub search: unsafe extern "C" fn(data: *const (), search: FfiSearch) -> FfiDocuments,
}

/// A document's type and id.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiKey {
    pub kind: RString,
    pub id: RString,
}

/// A document as it is stored.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiDocument {
    pub id: RString,
    pub revision: u64,
    pub text: FfiChunk,
}

/// Why the databank didn't do what it was asked to.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiFault {
    /// 1 not found, 2 already exists, 3 conflict, 4 unavailable, 5 invalid.
    pub code: u8,
    /// The cause, for people.
    pub text: RString,
}

/// What is searched for.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiSearch {
    pub kind: RString,
    /// All of them must hold.
    pub equals: RVec<FfiEquals>,
    /// The first one counts most; the id decides last.
    pub sort: RVec<FfiSort>,
    pub skip: u64,
    /// `u64::MAX` when there is no limit.
    pub limit: u64,
}

/// A path and the JSON text of the value that must be there.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiEquals {
    pub path: RString,
    pub value: FfiChunk,
}

/// A path to sort by.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiSort {
    pub path: RString,
    pub descending: bool,
}

/// Documents that are read while they are asked for. Their owner calls `drop` once.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiDocuments {
    pub state: *mut (),
    pub vtable: &'static FfiDocumentsVtable,
}

/// What can be done with a stream of documents.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiDocumentsVtable {
    pub poll_next: unsafe extern "C" fn(state: *mut (), context: *mut FfiContext<'_>) -> FfiNext,
    pub drop: unsafe extern "C" fn(state: *mut ()),
}

/// What a poll of a stream of documents gives.
#[repr(u8)]
#[derive(StableAbi)]
pub enum FfiNext {
    Pending,
    Document(FfiDocument),
    End,
    /// The stream broke. Nothing comes after it.
    Error(FfiFault),
}

/// The number of [`DispatchService`].
pub const SERVICE_DISPATCH: u32 = 6;
/// The number of [`ListenerService`].
pub const SERVICE_LISTENER: u32 = 7;

/// Messages between the workers of one service. What a topic and a message may be is said in this
/// crate's `dispatch`. Codes of its faults: 4 unavailable, the way between the workers is broken; 5
/// invalid, the same call will fail again; 6 full, too much waits already.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = DispatchServiceRef)))]
#[sabi(missing_field(panic))]
pub struct DispatchService {
    /// Gives a message on its way to every worker that has subscribed to the topic.
    pub publish: unsafe extern "C" fn(data: *const (), topic: RStr<'_>, message: FfiChunk) -> RResult<(), FfiFault>,
    /// Everything that is published on the topic from now on.
    #[sabi(last_prefix_field)]
    pub subscribe: unsafe extern "C" fn(data: *const (), topic: RStr<'_>) -> RResult<FfiMessages, FfiFault>,
}

/// One message of another worker's, or of this one's.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiMessage {
    /// The publisher's seat.
    pub slot: u16,
    /// The publisher's generation.
    pub generation: u64,
    pub bytes: FfiChunk,
}

/// The messages of one subscription. Their owner calls `drop` once.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiMessages {
    pub state: *mut (),
    pub vtable: &'static FfiMessagesVtable,
}

/// What can be done with a subscription.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiMessagesVtable {
    pub poll_next: unsafe extern "C" fn(state: *mut (), context: *mut FfiContext<'_>) -> FfiHeard,
    pub drop: unsafe extern "C" fn(state: *mut ()),
}

/// What a poll of a subscription gives.
#[repr(u8)]
#[derive(StableAbi)]
pub enum FfiHeard {
    Pending,
    Message(FfiMessage),
    /// In this place so many messages of the topic were dropped for this subscriber.
    Lost(u64),
    /// No message will come any more.
    End,
}

/// The listeners of the app's own, which the configuration names and the master has bound. Codes of
/// its faults: 1 there is none of this name; 2 it was taken before; 4 it can't be used.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = ListenerServiceRef)))]
#[sabi(missing_field(panic))]
pub struct ListenerService {
    /// Hands the listener of this name to the app, once a worker.
    #[sabi(last_prefix_field)]
    pub take: unsafe extern "C" fn(data: *const (), name: RStr<'_>) -> RResult<FfiListener, FfiFault>,
}

/// A listening socket, not blocking and closed on exec. The app owns the descriptor and closes it.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct FfiListener {
    pub descriptor: i32,
    /// 1: TCP, 2: Unix.
    pub kind: u8,
}

/// The number of [`TraceService`].
pub const SERVICE_TRACE: u32 = 5;

/// The host's log for events with typed fields and spans. Levels as in [`LogService`].
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = TraceServiceRef)))]
#[sabi(missing_field(panic))]
pub struct TraceService {
    /// The highest level that is written for any target; 0 when nothing is.
    pub max_level: unsafe extern "C" fn(data: *const ()) -> u8,
    /// Whether an event of this level and target would be written. The answer may be kept until
    /// `changed` is called.
    pub enabled: unsafe extern "C" fn(data: *const (), level: u8, target: RStr<'_>) -> bool,
    /// Has `changed` called, on any thread, after each change of what the two above answer.
    pub on_change: unsafe extern "C" fn(data: *const (), changed: FfiNotice),
    #[sabi(last_prefix_field)]
    pub event: unsafe extern "C" fn(data: *const (), event: *const FfiEvent<'_>),
}

/// A function of the app's that is called when something has changed.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy)]
pub struct FfiNotice {
    pub call: extern "C" fn(),
}

/// One event for the log, with everything around it.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiEvent<'a> {
    pub level: u8,
    /// Where in the app the event comes from.
    pub target: RStr<'a>,
    pub message: RStr<'a>,
    pub fields: RSlice<'a, FfiTraceField<'a>>,
    /// The spans that it is in, the outermost first.
    pub spans: RSlice<'a, FfiTraceSpan<'a>>,
}

/// A span around an event.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiTraceSpan<'a> {
    pub name: RStr<'a>,
    pub fields: RSlice<'a, FfiTraceField<'a>>,
}

/// One field of an event or of a span.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiTraceField<'a> {
    pub key: RStr<'a>,
    pub value: FfiTraceValue<'a>,
}

/// What a field says.
#[repr(u8)]
#[derive(StableAbi, Clone, Copy)]
pub enum FfiTraceValue<'a> {
    Text(RStr<'a>),
    Int(i64),
    Uint(u64),
    Float(f64),
    Bool(bool),
}

/// The number of [`FfiUpgrade`] among the extensions of a request.
pub const EXTENSION_UPGRADE: u32 = 1;

/// What a request has whose client asks to go on with another protocol on the connection (RFC 9110,
/// section 7.8, and CONNECT), or on the stream (RFC 8441). The host has none of it for other requests,
/// nor once `begin` has been called.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct FfiUpgrade {
    /// Gives the connection once the app has answered 101, or 2xx to CONNECT, and the client has been
    /// sent that. Lives on its own: the request may be dropped before. The error is for people.
    pub begin: unsafe extern "C" fn(request: FfiRequest) -> FfiFuture<RResult<FfiIo, RString>>,
    /// The pseudo header `:protocol` of HTTP/2's extended CONNECT; empty if there is none.
    pub protocol: unsafe extern "C" fn(request: FfiRequest) -> RStr<'static>,
}

/// The number of [`FfiTls`] among the extensions of a request.
pub const EXTENSION_TLS: u32 = 2;

/// What a request has that came by TLS to the host itself.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct FfiTls {
    /// Fills in what is known; its slices live as long as the request.
    pub info: unsafe extern "C" fn(request: FfiRequest, info: *mut FfiTlsInfo),
}

/// What is known of the TLS of a connection.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct FfiTlsInfo {
    /// The protocol's number of its version: 0x0303 is TLS 1.2, 0x0304 TLS 1.3.
    pub version: u16,
    /// The name that the client asked for; empty if it asked for none.
    pub server_name: RStr<'static>,
    /// The client's certificate in DER form; empty if it has shown none.
    pub client_certificate: RSlice<'static, u8>,
}

/// A stream of bytes in both directions. Its owner calls `drop` once, which ends it properly.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiIo {
    pub state: *mut (),
    pub vtable: &'static FfiIoVtable,
}

/// What can be done with a stream of bytes. One call at a time; who waits to read and who waits to
/// write may be different tasks.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiIoVtable {
    /// Reads into memory that need not be initialized; 0 bytes at the end of the stream.
    pub poll_read:
        unsafe extern "C" fn(state: *mut (), context: *mut FfiContext<'_>, buffer: *mut u8, len: usize) -> FfiMoved,
    pub poll_write:
        unsafe extern "C" fn(state: *mut (), context: *mut FfiContext<'_>, bytes: *const u8, len: usize) -> FfiMoved,
    pub poll_flush: unsafe extern "C" fn(state: *mut (), context: *mut FfiContext<'_>) -> FfiMoved,
    /// Ends the direction to the client; the other one goes on.
    pub poll_shutdown: unsafe extern "C" fn(state: *mut (), context: *mut FfiContext<'_>) -> FfiMoved,
    pub drop: unsafe extern "C" fn(state: *mut ()),
}

/// What a poll of a stream of bytes gives.
#[repr(u8)]
#[derive(StableAbi)]
pub enum FfiMoved {
    Pending,
    /// So many bytes were moved; 0 for what moves none.
    Done(usize),
    Error(FfiIoError),
}

/// Why a stream of bytes failed.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiIoError {
    /// The system's number of the error, 0 if it has none.
    pub code: i32,
    /// The cause, for people.
    pub text: RString,
}

/// The number of [`LockService`].
pub const SERVICE_LOCK: u32 = 8;

/// Locks of which at most one worker of the service holds each. What a name may be is said in this crate's
/// `only_one`. Codes of its faults: 4 unavailable, the way to the master is broken; 5 invalid, the same call will fail
/// again; 6 full, this worker waits for or holds too many; 7 this worker drains and gets none any more.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = LockServiceRef)))]
#[sabi(missing_field(panic))]
pub struct LockService {
    /// Takes a place in the queue for the lock of this name.
    #[sabi(last_prefix_field)]
    pub acquire: unsafe extern "C" fn(data: *const (), name: RStr<'_>) -> RResult<FfiLock, FfiFault>,
}

/// A place in the queue for a lock, and the lock itself from then on. Its owner calls `drop` once, which gives it back.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiLock {
    pub state: *mut (),
    pub vtable: &'static FfiLockVtable,
}

/// What can be done with a place in the queue.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiLockVtable {
    pub poll_held: unsafe extern "C" fn(state: *mut (), context: *mut FfiContext<'_>) -> FfiLockState,
    pub drop: unsafe extern "C" fn(state: *mut ()),
}

/// What a poll of a place in the queue gives.
#[repr(u8)]
#[derive(StableAbi)]
pub enum FfiLockState {
    Pending,
    /// This worker holds the lock until the place is dropped.
    Held,
    /// It never will.
    Failed(FfiFault),
}
