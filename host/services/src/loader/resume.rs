//! What the handler of a connection that goes on elsewhere leaves for the next one.
//!
//! Owns the host's end of an [`FfiKeepsake`].

use std::ptr;
use std::sync::Arc;

use abi_stable::std_types::{RNone, ROption, RSlice, RSome, RVec};
use app_abi::Resume;
use app_abi::abi::{FfiKeepsake, FfiKeepsakeVtable, FfiRequest, FfiResume, SAVE_DONE, SAVE_TOO_LATE, SAVE_TOO_LONG};

/// Where one handler leaves something for the next.
pub trait Keep: Send + Sync {
    /// What the one before has left.
    fn found(&self) -> Option<Arc<[u8]>>;

    /// Leaves these bytes, unless it is too late. Returns whether they are kept.
    fn leave(&self, bytes: &[u8]) -> bool;
}

/// The table by which an app asks for a keepsake.
static TABLE: FfiResume = FfiResume { keepsake };

static KEEPSAKE: FfiKeepsakeVtable = FfiKeepsakeVtable { saved, save, drop: drop_keepsake };

unsafe extern "C" fn keepsake(request: FfiRequest) -> FfiKeepsake {
    // SAFETY: the app owns the handle.
    let keep: Option<Arc<dyn Keep>> = unsafe { super::request::keep(request) }.cloned();
    FfiKeepsake { state: Box::into_raw(Box::new(keep)).cast(), vtable: &KEEPSAKE }
}

/// What is behind a keepsake.
///
/// # Safety
/// `keepsake` made the state, and the app has not dropped it.
const unsafe fn kept<'a>(state: *const ()) -> Option<&'a Arc<dyn Keep>> {
    // SAFETY: the caller guarantees it.
    unsafe { &*state.cast::<Option<Arc<dyn Keep>>>() }.as_ref()
}

unsafe extern "C" fn saved(state: *const ()) -> ROption<RVec<u8>> {
    // SAFETY: the app owns the keepsake.
    let found = unsafe { kept(state) }.and_then(|keep| keep.found());
    found.map_or(RNone, |bytes| RSome(RVec::from(&bytes[..])))
}

unsafe extern "C" fn save(state: *const (), bytes: RSlice<'_, u8>) -> u8 {
    if bytes.len() > Resume::MOST {
        return SAVE_TOO_LONG;
    }
    // SAFETY: the app owns the keepsake.
    let is_kept = unsafe { kept(state) }.is_some_and(|keep| keep.leave(&bytes));
    if is_kept { SAVE_DONE } else { SAVE_TOO_LATE }
}

unsafe extern "C" fn drop_keepsake(state: *mut ()) {
    // SAFETY: the app drops a keepsake once; `keepsake` made the box.
    drop(unsafe { Box::from_raw(state.cast::<Option<Arc<dyn Keep>>>()) });
}

/// The table as the app gets it: null if nobody comes after.
pub(super) fn table(keep: Option<&Arc<dyn Keep>>) -> *const () {
    keep.map_or(ptr::null(), |_| ptr::from_ref(&TABLE).cast())
}
