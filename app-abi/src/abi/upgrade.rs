//! A connection or a stream that goes on with another protocol.

use abi_stable::StableAbi;
use abi_stable::std_types::{RResult, RStr, RString};
use async_ffi::{FfiContext, FfiFuture};

use super::FfiRequest;

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
