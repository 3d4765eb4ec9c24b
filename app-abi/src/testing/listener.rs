//! Listeners of the app's own, as a test has made them.

use super::{TestWorker, lock};
use crate::abi::{FfiFault, FfiListener, ListenerService};
use crate::listener::AppListener;
use abi_stable::{
    prefix_type::WithMetadata,
    std_types::{RErr, ROk, RResult, RStr},
};
use std::os::fd::{AsFd, IntoRawFd};

pub(super) const TABLE: &WithMetadata<ListenerService> = &WithMetadata::new(ListenerService { take });

unsafe extern "C" fn take(data: *const (), name: RStr<'_>) -> RResult<FfiListener, FfiFault> {
    // SAFETY: the app passes what it was handed.
    let place = unsafe { TestWorker::of(data) };
    let fault = |code, text: String| RErr(FfiFault { code, text: text.into() });
    let Some((_, listener)) = place.host.listeners.iter().find(|(known, _)| known == name.as_str()) else {
        return fault(1, format!("the test has no listener \"{name}\""));
    };
    let mut taken = lock(&place.taken);
    if taken.iter().any(|taken| taken == name.as_str()) {
        return fault(2, format!("listener \"{name}\" was taken before"));
    }
    match listener.as_fd().try_clone_to_owned() {
        Ok(socket) => {
            taken.push(name.to_string());
            let kind = if matches!(**listener, AppListener::Unix(_)) { 2 } else { 1 };
            ROk(FfiListener { descriptor: socket.into_raw_fd(), kind })
        }
        Err(error) => fault(4, format!("listener \"{name}\" can't be taken: {error}")),
    }
}
