//! Listeners of the app's own.

use abi_stable::StableAbi;
use abi_stable::std_types::{RResult, RStr};

use super::FfiFault;

/// The number of [`ListenerService`].
pub const SERVICE_LISTENER: u32 = 7;

/// The listeners of the app's own, which the configuration names and the master has bound. Codes of
/// its faults: 1 there is none of this name; 2 it was taken before; 4 it can't be used.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = ListenerServiceRef)))]
#[sabi(missing_field(panic))]
pub struct ListenerService {
    /// Hands the listener of this name to the app, once a worker.
    #[sabi(last_prefix_field)]
    pub take: unsafe extern "C" fn(data: *const (), name: RStr<'_>) -> RResult<FfiListener, FfiFault>,
}

/// A listening socket, not blocking and closed on exec. The app owns the descriptor and closes it.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct FfiListener {
    pub descriptor: i32,
    /// 1: TCP, 2: Unix.
    pub kind: u8,
}
