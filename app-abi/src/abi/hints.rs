//! Responses that come before the final one.

use abi_stable::StableAbi;
use abi_stable::std_types::{RSlice, RStr};

use super::FfiRequest;

/// The number of [`FfiEarlyHints`] among the extensions of a request.
pub const EXTENSION_EARLY_HINTS: u32 = 4;

/// What a request has whose client can be sent a response of status 103 (RFC 8297) before the final one.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct FfiEarlyHints {
    /// Gives the way to send them. Lives on its own: the request may be dropped before.
    pub sender: unsafe extern "C" fn(request: FfiRequest) -> FfiHintSender,
}

/// Sends early hints. Its owner calls `drop` once.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiHintSender {
    pub state: *mut (),
    pub vtable: &'static FfiHintSenderVtable,
}

/// What can be done with a sender of early hints, on any thread and by several at once.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiHintSenderVtable {
    /// Sends one response with these fields. Returns false if it is too late for it, or the fields are none.
    pub send: unsafe extern "C" fn(state: *const (), fields: RSlice<'_, FfiHint<'_>>) -> bool,
    pub drop: unsafe extern "C" fn(state: *mut ()),
}

/// One field of early hints.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct FfiHint<'a> {
    /// In lower case.
    pub name: RStr<'a>,
    pub value: RSlice<'a, u8>,
}
