//! A response, and bodies in both directions.

use abi_stable::StableAbi;
use abi_stable::std_types::{RString, RVec};
use async_ffi::FfiContext;

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
