//! What the handler of a connection that goes on elsewhere leaves for the next one.

use abi_stable::StableAbi;
use abi_stable::std_types::{ROption, RSlice, RVec};

use super::FfiRequest;

/// The number of [`FfiResume`] among the extensions of a request.
pub const EXTENSION_RESUME: u32 = 5;

/// What a request has that may be asked again of another worker.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct FfiResume {
    /// Gives the way to leave something. Lives on its own: the request may be dropped before.
    pub keepsake: unsafe extern "C" fn(request: FfiRequest) -> FfiKeepsake,
}

/// Holds what one handler leaves for the next. Its owner calls `drop` once.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiKeepsake {
    pub state: *mut (),
    pub vtable: &'static FfiKeepsakeVtable,
}

/// What can be done with a keepsake, on any thread and by several at once.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiKeepsakeVtable {
    /// What the handler before this one has left, if there was one and it did.
    pub saved: unsafe extern "C" fn(state: *const ()) -> ROption<RVec<u8>>,
    /// Leaves these bytes in the place of others. Returns one of the numbers `SAVE_…`.
    pub save: unsafe extern "C" fn(state: *const (), bytes: RSlice<'_, u8>) -> u8,
    pub drop: unsafe extern "C" fn(state: *mut ()),
}

/// The bytes are kept.
pub const SAVE_DONE: u8 = 0;
/// They are too many.
pub const SAVE_TOO_LONG: u8 = 1;
/// The connection has gone, or goes on elsewhere already.
pub const SAVE_TOO_LATE: u8 = 2;
