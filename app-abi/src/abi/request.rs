//! A request and the connection it came on.

use abi_stable::StableAbi;
use abi_stable::std_types::{RSlice, RStr};
use async_ffi::FfiContext;

use super::{FfiFrame, FfiSizeHint};

/// A request of the host's, owned by the app until it calls [`RequestService`]'s `drop`.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy)]
pub struct FfiRequest(pub *mut ());

/// The number of [`RequestService`].
pub const SERVICE_REQUEST: u32 = 3;

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

/// The number of [`FfiClient`] among the extensions of a request.
pub const EXTENSION_CLIENT: u32 = 3;

/// What a request has whose client is not, or not only, what its connection says: a trusted proxy has told of it.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct FfiClient {
    /// Fills in what is known; its slices live as long as the request.
    pub info: unsafe extern "C" fn(request: FfiRequest, info: *mut FfiClientInfo),
}

/// Who is asking. What wasn't told is empty.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct FfiClientInfo {
    /// The port is 0 where only the IP address was told.
    pub address: FfiAddress,
    /// `http` or `https`.
    pub scheme: RStr<'static>,
    pub host: RStr<'static>,
    /// Whether something was told of the client's TLS: what follows.
    pub has_tls: bool,
    /// In the proxy's words: `TLSv1.3`.
    pub tls_version: RStr<'static>,
    pub server_name: RStr<'static>,
    pub alpn: RSlice<'static, u8>,
    /// The common name of the client's certificate, which the proxy has verified.
    pub client_name: RStr<'static>,
}
