//! What workers of one service share: messages and locks.

use abi_stable::StableAbi;
use abi_stable::std_types::{RResult, RStr};
use async_ffi::FfiContext;

use super::FfiChunk;
use super::FfiFault;

/// The number of [`DispatchService`].
pub const SERVICE_DISPATCH: u32 = 6;

/// Messages between the workers of one service. What a topic and a message may be is said in this
/// crate's `dispatch`. Codes of its faults: 4 unavailable, the way between the workers is broken; 5
/// invalid, the same call will fail again; 6 full, too much waits already.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = DispatchServiceRef)))]
#[sabi(missing_field(panic))]
pub struct DispatchService {
    /// Gives a message on its way to every worker that has subscribed to the topic.
    pub publish: unsafe extern "C" fn(data: *const (), topic: RStr<'_>, message: FfiChunk) -> RResult<(), FfiFault>,
    /// Everything that is published on the topic from now on.
    #[sabi(last_prefix_field)]
    pub subscribe: unsafe extern "C" fn(data: *const (), topic: RStr<'_>) -> RResult<FfiMessages, FfiFault>,
}

/// One message of another worker's, or of this one's.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiMessage {
    /// The publisher's seat.
    pub slot: u16,
    /// The publisher's generation.
    pub generation: u64,
    pub bytes: FfiChunk,
}

/// The messages of one subscription. Their owner calls `drop` once.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiMessages {
    pub state: *mut (),
    pub vtable: &'static FfiMessagesVtable,
}

/// What can be done with a subscription.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiMessagesVtable {
    pub poll_next: unsafe extern "C" fn(state: *mut (), context: *mut FfiContext<'_>) -> FfiHeard,
    pub drop: unsafe extern "C" fn(state: *mut ()),
}

/// What a poll of a subscription gives.
#[repr(u8)]
#[derive(StableAbi)]
pub enum FfiHeard {
    Pending,
    Message(FfiMessage),
    /// In this place so many messages of the topic were dropped for this subscriber.
    Lost(u64),
    /// No message will come any more.
    End,
}

/// The number of [`LockService`].
pub const SERVICE_LOCK: u32 = 8;

/// Locks of which at most one worker of the service holds each. What a name may be is said in this crate's
/// `only_one`. Codes of its faults: 4 unavailable, the way to the master is broken; 5 invalid, the same call will fail
/// again; 6 full, this worker waits for or holds too many; 7 this worker drains and gets none any more.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = LockServiceRef)))]
#[sabi(missing_field(panic))]
pub struct LockService {
    /// Takes a place in the queue for the lock of this name.
    #[sabi(last_prefix_field)]
    pub acquire: unsafe extern "C" fn(data: *const (), name: RStr<'_>) -> RResult<FfiLock, FfiFault>,
}

/// A place in the queue for a lock, and the lock itself from then on. Its owner calls `drop` once, which gives it back.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiLock {
    pub state: *mut (),
    pub vtable: &'static FfiLockVtable,
}

/// What can be done with a place in the queue.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiLockVtable {
    pub poll_held: unsafe extern "C" fn(state: *mut (), context: *mut FfiContext<'_>) -> FfiLockState,
    pub drop: unsafe extern "C" fn(state: *mut ()),
}

/// What a poll of a place in the queue gives.
#[repr(u8)]
#[derive(StableAbi)]
pub enum FfiLockState {
    Pending,
    /// This worker holds the lock until the place is dropped.
    Held,
    /// It never will.
    Failed(FfiFault),
}
