//! The service `lock` of the ABI: its table, and the values that cross it.

use std::task::{Context, Poll};

use abi_stable::prefix_type::WithMetadata;
use abi_stable::std_types::{RErr, ROk, RResult, RStr};
use app_abi::abi::{FfiFault, FfiLock, FfiLockState, FfiLockVtable, LockService};
use async_ffi::FfiContext;

use super::dispatch::describe;
use super::services::info;
use crate::dispatch::LockClaim;

pub(super) const TABLE: &WithMetadata<LockService> = &WithMetadata::new(LockService { acquire });

unsafe extern "C" fn acquire(data: *const (), name: RStr<'_>) -> RResult<FfiLock, FfiFault> {
    // SAFETY: the app passes the `data` that it got at its start.
    let info = unsafe { info(data) };
    match info.dispatch.acquire(name.as_str()) {
        Ok(claim) => ROk(FfiLock { state: Box::into_raw(Box::new(claim)).cast(), vtable: VTABLE }),
        Err(fault) => RErr(describe(&fault)),
    }
}

const VTABLE: &FfiLockVtable = &FfiLockVtable { poll_held, drop: drop_claim };

unsafe extern "C" fn poll_held(state: *mut (), context: *mut FfiContext<'_>) -> FfiLockState {
    // SAFETY: the app passes the state that it got, one call at a time.
    let claim = unsafe { &*state.cast::<LockClaim>() };
    // SAFETY: the context lives for this call.
    let held = unsafe { (*context).with_context(|context: &mut Context<'_>| claim.poll_held(context)) };
    match held {
        Poll::Pending => FfiLockState::Pending,
        Poll::Ready(Ok(())) => FfiLockState::Held,
        Poll::Ready(Err(fault)) => FfiLockState::Failed(describe(&fault)),
    }
}

unsafe extern "C" fn drop_claim(state: *mut ()) {
    // SAFETY: called once, with the box that `acquire` made.
    drop(unsafe { Box::from_raw(state.cast::<LockClaim>()) });
}
