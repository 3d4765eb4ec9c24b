//! What an app keeps in memory and leaves to the one that comes after it.
//!
//! Owns the host's end of an [`FfiStateWriter`], and the calls by which an app leaves and inherits.

use std::io;

use abi_stable::std_types::{RResult, RSlice, RString};
use app_abi::abi::{FfiIoError, FfiLeftState, FfiMoved, FfiStateWriter, FfiStateWriterVtable};
use bytes::Bytes;
use nix::errno::Errno;

use super::LoadedApp;

/// Where an app's state goes.
pub trait StateSink: Send {
    /// Takes all of these bytes, or none.
    fn take(&mut self, bytes: &[u8]) -> io::Result<()>;
}

type Sink = Box<dyn StateSink>;

static WRITER: FfiStateWriterVtable = FfiStateWriterVtable { write, drop: drop_writer };

impl LoadedApp {
    /// Has the app write what it keeps in memory.
    pub async fn leave(self, sink: Box<dyn StateSink>) -> Result<(), String> {
        let Some(table) = self.state else { return Ok(()) };
        let state = Box::into_raw(Box::new(sink)).cast();
        // SAFETY: the app is the module's own, and owns the writer.
        let leave = unsafe { (table.leave)(self.app, FfiStateWriter { state, vtable: &WRITER }) };
        said(leave.await)
    }

    /// Has the app take what another worker's has left.
    pub async fn inherit(self, bytes: Bytes, version: String, generation: u64) -> Result<(), String> {
        let Some(table) = self.state else { return Ok(()) };
        let state = FfiLeftState { bytes: bytes.into(), version: version.into(), generation };
        // SAFETY: the app is the module's own.
        let inherit = unsafe { (table.inherit)(self.app, state) };
        said(inherit.await)
    }

    /// Whether the app can do either. One can't that says so, or was built before it could.
    pub const fn keeps_state(&self) -> bool {
        self.state.is_some()
    }
}

fn said(outcome: RResult<(), RString>) -> Result<(), String> {
    outcome.into_result().map_err(Into::into)
}

unsafe extern "C" fn write(state: *mut (), bytes: RSlice<'_, u8>) -> FfiMoved {
    // SAFETY: the app owns the writer, of which `leave` made the state.
    let sink = unsafe { &mut *state.cast::<Sink>() };
    match sink.take(&bytes) {
        Ok(()) => FfiMoved::Done(bytes.len()),
        Err(error) => {
            let code = if error.kind() == io::ErrorKind::FileTooLarge { Errno::EFBIG as i32 } else { 0 };
            FfiMoved::Error(FfiIoError { code: error.raw_os_error().unwrap_or(code), text: error.to_string().into() })
        }
    }
}

unsafe extern "C" fn drop_writer(state: *mut ()) {
    // SAFETY: the app drops a writer once; `leave` made the box.
    drop(unsafe { Box::from_raw(state.cast::<Sink>()) });
}
