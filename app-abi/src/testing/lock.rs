//! Locks among the apps that one [`TestHost`](super::TestHost) and its clones start: first come, first served. None of
//! them drains by itself, so nobody is refused for that.

use super::{TestWorker, lock};
use crate::abi::{FfiFault, FfiLock, FfiLockState, FfiLockVtable, LockService};
use abi_stable::{
    prefix_type::WithMetadata,
    std_types::{RErr, ROk, RResult, RStr},
};
use async_ffi::FfiContext;
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
    task::Waker,
};

/// The longest name, in bytes.
const MAX_NAME: usize = 255;

pub(super) const TABLE: &WithMetadata<LockService> = &WithMetadata::new(LockService { acquire });

/// Who waits for each lock; the first one holds it. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Locks(Arc<Mutex<HashMap<String, VecDeque<Arc<Waiter>>>>>);

#[derive(Debug, Default)]
struct Waiter(Mutex<Option<Waker>>);

/// A place in one queue.
struct Queued {
    locks: Locks,
    name: String,
    waiter: Arc<Waiter>,
}

impl Queued {
    fn is_first(&self) -> bool {
        let locks = lock(&self.locks.0);
        locks.get(&self.name).and_then(VecDeque::front).is_some_and(|first| Arc::ptr_eq(first, &self.waiter))
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        let next = {
            let mut locks = lock(&self.locks.0);
            let Some(queue) = locks.get_mut(&self.name) else { return };
            queue.retain(|waiter| !Arc::ptr_eq(waiter, &self.waiter));
            let next = queue.front().map(Arc::clone);
            if next.is_none() {
                locks.remove(&self.name);
            }
            next
        };
        // Outside the lock: a waker is the app's, and may drop a task that has a place.
        if let Some(waker) = next.and_then(|next| lock(&next.0).take()) {
            waker.wake();
        }
    }
}

unsafe extern "C" fn acquire(data: *const (), name: RStr<'_>) -> RResult<FfiLock, FfiFault> {
    if !(1..=MAX_NAME).contains(&name.len()) {
        let text = format!("a lock's name of {} bytes, expected 1 to {MAX_NAME}", name.len());
        return RErr(FfiFault { code: 5, text: text.into() });
    }
    // SAFETY: the app passes what it was handed.
    let locks = unsafe { TestWorker::of(data) }.host.locks.clone();
    let waiter = Arc::new(Waiter::default());
    lock(&locks.0).entry(name.to_string()).or_default().push_back(Arc::clone(&waiter));
    let queued = Queued { locks, name: name.to_string(), waiter };
    ROk(FfiLock { state: Box::into_raw(Box::new(queued)).cast(), vtable: VTABLE })
}

const VTABLE: &FfiLockVtable = &FfiLockVtable { poll_held, drop: drop_place };

unsafe extern "C" fn poll_held(state: *mut (), context: *mut FfiContext<'_>) -> FfiLockState {
    // SAFETY: the app calls with the state that it was handed, which it owns.
    let queued = unsafe { &*state.cast::<Queued>() };
    // Before it is looked at, so that who becomes the first meanwhile is woken.
    // SAFETY: the context lives for this call.
    *lock(&queued.waiter.0) = Some(unsafe { (*context).with_context(|context| context.waker().clone()) });
    if queued.is_first() { FfiLockState::Held } else { FfiLockState::Pending }
}

unsafe extern "C" fn drop_place(state: *mut ()) {
    // SAFETY: called once, with the box that `acquire` made.
    drop(unsafe { Box::from_raw(state.cast::<Queued>()) });
}
