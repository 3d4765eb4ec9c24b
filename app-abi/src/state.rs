//! What an app keeps in memory and leaves to the one that comes after it.
//!
//! Owns [`StateWriter`] and [`LeftState`], and the table by which the host asks for both.
#![expect(unsafe_code, reason = "functions that the host calls, and calls into its table")]

use crate::abi::{FfiApp, FfiIoError, FfiLeftState, FfiMoved, FfiState, FfiStateWriter};
use crate::export::running;
use crate::panics::{self, Caught, Panic};
use crate::runtime::Runs;
use crate::{App, StartError};
use abi_stable::std_types::{RErr, ROk, RResult, RString};
use async_ffi::FfiFuture;
use bytes::Bytes;
use std::{
    error::Error,
    fmt,
    future::Future,
    io::{self, BufWriter, Write},
    sync::Arc,
};

/// Any error. What [`App::leave`] and [`App::inherit`] fail with.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Where [`App::leave`] writes what the app keeps in memory. Nothing is left if nothing is written.
///
/// Writes are gathered, so that each may be small. They go to memory that both workers share, and fail beyond
/// `restart.state_limit` ([`io::ErrorKind::FileTooLarge`]).
pub struct StateWriter {
    out: BufWriter<Raw>,
}

/// What the app of another worker has left, for [`App::inherit`]. The bytes are in memory that both workers have shared; it is
/// given back when the last clone of them is dropped.
#[derive(Clone, Debug)]
pub struct LeftState {
    pub(crate) bytes: Bytes,
    pub(crate) version: String,
    pub(crate) generation: u64,
}

impl LeftState {
    /// What an app of this version and generation has written; the host makes it, and tests do.
    #[must_use]
    pub fn new(bytes: impl Into<Bytes>, version: &str, generation: u64) -> Self {
        Self { bytes: bytes.into(), version: version.to_owned(), generation }
    }

    /// All that was written.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The version of the app that has written it, from its `Cargo.toml`. It may be older than this one, the same, or, after a
    /// rollback, newer.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The generation of the worker that has written it.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }
}

impl AsRef<[u8]> for LeftState {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// What `export_axum!(…, state = …)` and `export_tower!(…, state = …)` hand on: see [`App::leave`] and [`App::inherit`].
pub trait KeepsState: Send + Sync + 'static {
    /// Writes it, while requests are answered.
    fn leave(&self, state: &mut StateWriter) -> impl Future<Output = Result<(), BoxError>> + Send;

    /// Takes what another worker has left, while requests are answered.
    fn inherit(&self, state: LeftState) -> impl Future<Output = Result<(), BoxError>> + Send;
}

/// What the function gives that `state` names: an `Arc` or a `&'static` of what handlers use as well.
#[diagnostic::on_unimplemented(
    message = "`{Self}` shares nothing with the app's handlers that can be handed on",
    note = "`state` names a function that gives what handlers use as well: an `Arc<T>` or a `&'static T`, where `T` implements \
            `app_abi::KeepsState`"
)]
pub trait SharedState: Send + Sync + 'static {
    /// Whether there is anything to hand on.
    const IS_KEPT: bool = true;

    /// What is shared.
    type Kept: KeepsState;

    /// It.
    fn kept(&self) -> &Self::Kept;
}

impl<T: KeepsState> SharedState for Arc<T> {
    type Kept = T;

    fn kept(&self) -> &T {
        self
    }
}

impl<T: KeepsState> SharedState for &'static T {
    type Kept = T;

    fn kept(&self) -> &T {
        self
    }
}

impl Write for StateWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl fmt::Debug for StateWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StateWriter")
    }
}

impl fmt::Debug for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Raw")
    }
}

/// How much is gathered before it crosses the line.
const GATHERED: usize = 64 * 1024;

struct Raw(FfiStateWriter);

// SAFETY: by the rules of the line its one owner may call it on any thread.
unsafe impl Send for FfiStateWriter {}
// SAFETY: nothing can be done with a shared one.
unsafe impl Sync for FfiStateWriter {}

impl Drop for FfiStateWriter {
    fn drop(&mut self) {
        // SAFETY: the writer owns its state, and this is the one call.
        unsafe { (self.vtable.drop)(self.state) }
    }
}

impl Write for Raw {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // SAFETY: the writer is owned, and the bytes are borrowed for the call.
        match unsafe { (self.0.vtable.write)(self.0.state, bytes.into()) } {
            FfiMoved::Done(count) => Ok(count),
            FfiMoved::Error(FfiIoError { code: 0, text }) => Err(io::Error::other(text.into_string())),
            FfiMoved::Error(FfiIoError { code, text }) => {
                let kind = io::Error::from_raw_os_error(code).kind();
                Err(io::Error::new(kind, text.into_string()))
            }
            FfiMoved::Pending => Err(io::Error::other("a writer of the host's waits, which none does")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The host's table.
pub(crate) const fn table<A: App, R: Runs>() -> FfiState {
    FfiState { leave: leave::<A, R>, inherit: inherit::<A, R> }
}

unsafe extern "C" fn leave<A: App, R: Runs>(app: FfiApp, into: FfiStateWriter) -> FfiFuture<RResult<(), RString>> {
    // SAFETY: the host calls with what `start` gave it.
    let (app, runs) = unsafe { running::<A, R>(app) };
    let leave = async move {
        let mut state = StateWriter { out: BufWriter::with_capacity(GATHERED, Raw(into)) };
        let left = Caught::new(async { app.leave(&mut state).await.map_err(told) }).await;
        let left = answer(left, "app panicked in its leave");
        // What the writer gathers is no use to anybody if the app has failed.
        let (mut raw, gathered) = state.out.into_parts();
        match (left, gathered) {
            (ROk(()), Ok(gathered)) => match raw.write_all(&gathered) {
                Ok(()) => ROk(()),
                Err(error) => RErr(error.to_string().into()),
            },
            (ROk(()), Err(_)) => RErr("the app panicked in a write".into()),
            (failed, _) => failed,
        }
    };
    runs.here(leave)
}

unsafe extern "C" fn inherit<A: App, R: Runs>(app: FfiApp, state: FfiLeftState) -> FfiFuture<RResult<(), RString>> {
    // SAFETY: the host calls with what `start` gave it.
    let (app, runs) = unsafe { running::<A, R>(app) };
    let FfiLeftState { bytes, version, generation } = state;
    let state = LeftState { bytes: bytes.into(), version: version.into(), generation };
    let inherit = async move {
        let inherited = Caught::new(async move { app.inherit(state).await.map_err(told) }).await;
        answer(inherited, "app panicked in its inherit")
    };
    runs.here(inherit)
}

/// The text of an error, which is the app's code and may panic.
#[expect(clippy::needless_pass_by_value, reason = "its drop is the app's code as well")]
fn told(error: BoxError) -> String {
    StartError::of(&*error).to_string()
}

/// What became of it, as the host is told it.
fn answer(outcome: Result<Result<(), String>, Panic>, message: &str) -> RResult<(), RString> {
    match outcome {
        Ok(Ok(())) => ROk(()),
        Ok(Err(error)) => RErr(error.into()),
        Err(panic) => {
            panics::log(&panic, message);
            let Panic { message, place, .. } = panic;
            RErr(format!("the app panicked: {message} ({place})").into())
        }
    }
}
