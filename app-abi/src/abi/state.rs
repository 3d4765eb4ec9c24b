//! What an app keeps in memory and leaves to the one that comes after it.

use abi_stable::StableAbi;
use abi_stable::std_types::{RResult, RSlice, RString};
use async_ffi::FfiFuture;

use super::{FfiApp, FfiChunk, FfiMoved};

/// The number of [`FfiState`] among the extensions of an app.
pub const APP_EXTENSION_STATE: u32 = 1;

/// How an app hands on what it keeps in memory. Its functions and futures are called on threads that serve nobody, and may block
/// them, while `call` is called on others. A future that waits when the worker is ordered to drain is dropped; one that blocks
/// may go on beside `drain` and `stop`.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct FfiState {
    /// Writes it. The app owns the writer and drops it before the future is ready. The error is for people.
    pub leave: unsafe extern "C" fn(app: FfiApp, into: FfiStateWriter) -> FfiFuture<RResult<(), RString>>,
    /// Takes what another worker's app has left. The error is for people; the app goes on.
    pub inherit: unsafe extern "C" fn(app: FfiApp, state: FfiLeftState) -> FfiFuture<RResult<(), RString>>,
}

/// Where an app writes what it leaves. Its owner calls `drop` once.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiStateWriter {
    pub state: *mut (),
    pub vtable: &'static FfiStateWriterVtable,
}

/// What can be done with a writer.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiStateWriterVtable {
    /// Appends all of these bytes, or fails. May block.
    pub write: unsafe extern "C" fn(state: *mut (), bytes: RSlice<'_, u8>) -> FfiMoved,
    pub drop: unsafe extern "C" fn(state: *mut ()),
}

/// What an app has left.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiLeftState {
    pub bytes: FfiChunk,
    /// The version of the app that has left it.
    pub version: RString,
    /// That one's generation.
    pub generation: u64,
}
