//! What an app under test keeps in memory, left and inherited.

use super::{Routed, TestApp, lock};
use crate::abi::{
    APP_EXTENSION_STATE, FfiIoError, FfiLeftState, FfiMoved, FfiState, FfiStateWriter, FfiStateWriterVtable,
};
use crate::{App, BoxError, LeftState};
use abi_stable::std_types::{RErr, ROk, RSlice};
use std::{
    future::Future,
    sync::{Arc, Mutex},
};

type Written = Arc<Mutex<(Vec<u8>, usize)>>;

impl<A: App> TestApp<A> {
    /// What the app leaves to the one that comes after it, of `limit` bytes at most; `None` if it writes nothing. Its version is
    /// "1.0.0".
    ///
    /// # Errors
    /// What the app's `leave` says; what it panicked with; a write beyond the limit that the app passes on.
    ///
    /// # Panics
    /// For an app whose [`KEEPS_STATE`](App::KEEPS_STATE) is false, and a service that was started without `state = …`.
    pub fn leave(&self, limit: usize) -> impl Future<Output = Result<Option<LeftState>, BoxError>> + Send + use<A> {
        let written = Written::new(Mutex::new((Vec::new(), limit)));
        let state = Box::into_raw(Box::new(Arc::clone(&written))).cast();
        // SAFETY: the app is the module's own, and owns the writer.
        let leave = unsafe { (self.state_table().leave)(self.app, FfiStateWriter { state, vtable: &WRITER }) };
        let generation = self.place.host.generation;
        let leave = Routed { log: self.place.log(), future: Box::pin(leave) };
        async move {
            match leave.await {
                ROk(()) => {
                    let bytes = std::mem::take(&mut lock(&written).0);
                    Ok((!bytes.is_empty()).then(|| LeftState::new(bytes, "1.0.0", generation)))
                }
                RErr(text) => Err(text.into_string().into()),
            }
        }
    }

    /// Has the app inherit what another one has left.
    ///
    /// # Errors
    /// What the app's `inherit` says; what it panicked with.
    ///
    /// # Panics
    /// For an app whose [`KEEPS_STATE`](App::KEEPS_STATE) is false, and a service that was started without `state = …`.
    pub fn inherit(&self, state: LeftState) -> impl Future<Output = Result<(), BoxError>> + Send + use<A> {
        let LeftState { bytes, version, generation } = state;
        let state = FfiLeftState { bytes: bytes.into(), version: version.into(), generation };
        // SAFETY: the app is the module's own.
        let inherit = unsafe { (self.state_table().inherit)(self.app, state) };
        let inherit = Routed { log: self.place.log(), future: Box::pin(inherit) };
        async move { inherit.await.into_result().map_err(|text| text.into_string().into()) }
    }

    fn state_table(&self) -> &'static FfiState {
        let table = self.module.extension()(APP_EXTENSION_STATE).cast::<FfiState>();
        // SAFETY: the number stands for this type, the app is of this very build, and its tables are static.
        unsafe { table.as_ref() }.expect("`KEEPS_STATE` is false, or `state = …` isn't there: a host would not ask")
    }
}

static WRITER: FfiStateWriterVtable = FfiStateWriterVtable { write, drop: drop_writer };

unsafe extern "C" fn write(state: *mut (), bytes: RSlice<'_, u8>) -> FfiMoved {
    /// `EFBIG`, `errno(3)`.
    const TOO_LARGE: i32 = 27;
    // SAFETY: the app owns the writer, which `leave` made.
    let written = unsafe { &*state.cast::<Written>() };
    let mut written = lock(written);
    let (all, limit) = &mut *written;
    if all.len() + bytes.len() > *limit {
        let text = format!("more than {limit} bytes of state").into();
        return FfiMoved::Error(FfiIoError { code: TOO_LARGE, text });
    }
    all.extend_from_slice(&bytes);
    FfiMoved::Done(bytes.len())
}

unsafe extern "C" fn drop_writer(state: *mut ()) {
    // SAFETY: the app drops a writer once; `leave` made the box.
    drop(unsafe { Box::from_raw(state.cast::<Written>()) });
}
