//! Locks as an app reaches them: the table, and what crosses it.

use super::dispatch::describe;
use super::services::info;
use crate::dispatch::Place;
use abi_stable::{
    prefix_type::WithMetadata,
    std_types::{RErr, ROk, RResult, RStr},
};
use app_abi::abi::{FfiFault, FfiLock, FfiLockState, FfiLockVtable, LockService};
use async_ffi::FfiContext;
use std::task::{Context, Poll};

pub(super) const TABLE: &WithMetadata<LockService> = &WithMetadata::new(LockService { acquire });

unsafe extern "C" fn acquire(data: *const (), name: RStr<'_>) -> RResult<FfiLock, FfiFault> {
    // SAFETY: the app passes what it was handed at its start.
    let info = unsafe { info(data) };
    match info.dispatch.acquire(name.as_str()) {
        Ok(place) => ROk(FfiLock { state: Box::into_raw(Box::new(place)).cast(), vtable: VTABLE }),
        Err(fault) => RErr(describe(&fault)),
    }
}

const VTABLE: &FfiLockVtable = &FfiLockVtable { poll_held, drop: drop_place };

unsafe extern "C" fn poll_held(state: *mut (), context: *mut FfiContext<'_>) -> FfiLockState {
    // SAFETY: the app calls with the state that it was handed, one call at a time.
    let place = unsafe { &*state.cast::<Place>() };
    // SAFETY: the context lives for this call.
    let held = unsafe { (*context).with_context(|context: &mut Context<'_>| place.poll_held(context)) };
    match held {
        Poll::Pending => FfiLockState::Pending,
        Poll::Ready(Ok(())) => FfiLockState::Held,
        Poll::Ready(Err(fault)) => FfiLockState::Failed(describe(&fault)),
    }
}

unsafe extern "C" fn drop_place(state: *mut ()) {
    // SAFETY: called once, with the box that `acquire` made.
    drop(unsafe { Box::from_raw(state.cast::<Place>()) });
}
