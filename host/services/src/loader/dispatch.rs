//! The service `dispatch` of the ABI: its table, and the values that cross it.

use std::task::{Context, Poll};

use abi_stable::prefix_type::WithMetadata;
use abi_stable::std_types::{RErr, ROk, RResult, RStr};
use app_abi::abi::{DispatchService, FfiChunk, FfiFault, FfiHeard, FfiMessage, FfiMessages, FfiMessagesVtable};
use async_ffi::FfiContext;

use super::services::info;
use crate::dispatch::{Delivery, DispatchFault, Subscription};

pub(super) const TABLE: &WithMetadata<DispatchService> = &WithMetadata::new(DispatchService { publish, subscribe });

pub(super) fn describe(fault: &DispatchFault) -> FfiFault {
    let code = match fault {
        DispatchFault::Gone => 4,
        DispatchFault::Topic(_) | DispatchFault::TooLong(_) | DispatchFault::Lock(_) => 5,
        DispatchFault::OutgoingFull
        | DispatchFault::TooManySubscriptions
        | DispatchFault::TooManyTopics
        | DispatchFault::TooManyLocks => 6,
        DispatchFault::Draining => 7,
    };
    FfiFault { code, text: fault.to_string().into() }
}

unsafe extern "C" fn publish(data: *const (), topic: RStr<'_>, message: FfiChunk) -> RResult<(), FfiFault> {
    // SAFETY: the app passes the `data` that it got at its start.
    let info = unsafe { info(data) };
    match info.dispatch.publish(topic.as_str(), message.as_ref()) {
        Ok(()) => ROk(()),
        Err(fault) => RErr(describe(&fault)),
    }
}

unsafe extern "C" fn subscribe(data: *const (), topic: RStr<'_>) -> RResult<FfiMessages, FfiFault> {
    // SAFETY: see `publish`.
    let info = unsafe { info(data) };
    match info.dispatch.subscribe(topic.as_str()) {
        Ok(subscription) => ROk(FfiMessages { state: Box::into_raw(Box::new(subscription)).cast(), vtable: VTABLE }),
        Err(fault) => RErr(describe(&fault)),
    }
}

const VTABLE: &FfiMessagesVtable = &FfiMessagesVtable { poll_next, drop: drop_subscription };

unsafe extern "C" fn poll_next(state: *mut (), context: *mut FfiContext<'_>) -> FfiHeard {
    // SAFETY: the app passes the state that it got, one call at a time.
    let subscription = unsafe { &mut *state.cast::<Subscription>() };
    // SAFETY: the context lives for this call.
    let delivery = unsafe { (*context).with_context(|context: &mut Context<'_>| subscription.poll_next(context)) };
    match delivery {
        Poll::Pending => FfiHeard::Pending,
        Poll::Ready(None) => FfiHeard::End,
        Poll::Ready(Some(Delivery::Lost(count))) => FfiHeard::Lost(count),
        Poll::Ready(Some(Delivery::Message { origin, bytes })) => {
            FfiHeard::Message(FfiMessage { slot: origin.slot, generation: origin.generation, bytes: bytes.into() })
        }
    }
}

unsafe extern "C" fn drop_subscription(state: *mut ()) {
    // SAFETY: called once, with the box that `subscribe` made.
    drop(unsafe { Box::from_raw(state.cast::<Subscription>()) });
}
