//! Upgraded streams, as the app gets them.
//!
//! Owns the host's end of an [`FfiIo`]: the table of functions by which the app reads and writes a stream, on any thread.

use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::{ptr, slice};

use abi_stable::std_types::{RErr, ROk, RResult, RStr, RString};
use app_abi::abi::{FfiIo, FfiIoVtable, FfiMoved, FfiRequest, FfiUpgrade};
use async_ffi::{FfiContext, FfiFuture};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Asks for the stream, as the app gets it.
type Begin = dyn FnOnce() -> FfiFuture<RResult<FfiIo, RString>> + Send;

/// What a request can be upgraded to.
pub struct Upgrade {
    protocol: String,
    /// Until the app has called it. The protocol lives as long as the request.
    begin: Option<Box<Begin>>,
}

impl Upgrade {
    /// `protocol` is the pseudo header of that name, or empty. `stream` completes when the app's response has been sent. The
    /// app may use it on any thread, where there is no runtime of the host's.
    pub fn new<F, S, E>(protocol: String, stream: F) -> Self
    where
        F: Future<Output = Result<S, E>> + Send + 'static,
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        E: std::error::Error,
    {
        let begin = move || {
            FfiFuture::new(async move {
                match stream.await {
                    Ok(stream) => ROk(into_ffi(stream)),
                    Err(error) => RErr(error.to_string().into()),
                }
            })
        };
        Self { protocol, begin: Some(Box::new(begin)) }
    }
}

/// The table by which an app asks for an upgrade.
static TABLE: FfiUpgrade = FfiUpgrade { begin, protocol };

/// The table as the app gets it: null if there is no upgrade.
pub(super) fn table(upgrade: Option<&Upgrade>) -> *const () {
    upgrade.filter(|upgrade| upgrade.begin.is_some()).map_or(ptr::null(), |_| ptr::from_ref(&TABLE).cast())
}

unsafe extern "C" fn begin(request: FfiRequest) -> FfiFuture<RResult<FfiIo, RString>> {
    // SAFETY: the app owns the handle, and makes one call at a time.
    match unsafe { super::request::upgrade(request) }.as_mut().and_then(|upgrade| upgrade.begin.take()) {
        Some(begin) => begin(),
        None => FfiFuture::new(async { RErr("the request asks for no upgrade, or it was begun before".into()) }),
    }
}

unsafe extern "C" fn protocol(request: FfiRequest) -> RStr<'static> {
    // SAFETY: as above. The app keeps the text no longer than the handle, by the rules of the ABI.
    unsafe { super::request::upgrade(request) }
        .as_deref()
        .map_or(RStr::empty(), |upgrade| RStr::from_str(&upgrade.protocol))
}

/// Makes a stream for the app, which must drop it.
fn into_ffi<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(stream: S) -> FfiIo {
    FfiIo { state: Box::into_raw(Box::new(stream)).cast(), vtable: StreamTable::<S>::VTABLE }
}

/// The table for streams of the type `S`.
struct StreamTable<S>(PhantomData<S>);

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> StreamTable<S> {
    const VTABLE: &'static FfiIoVtable = &FfiIoVtable {
        poll_read: Self::poll_read,
        poll_write: Self::poll_write,
        poll_flush: Self::poll_flush,
        poll_shutdown: Self::poll_shutdown,
        drop: Self::drop,
    };

    /// # Safety
    /// `state` is from `into_ffi::<S>` and has not been dropped, no other call on it runs, and `context`
    /// lives for this call.
    unsafe fn with(
        state: *mut (),
        context: *mut FfiContext<'_>,
        call: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> FfiMoved {
        // SAFETY: the caller guarantees it.
        let polled = unsafe {
            let stream = Pin::new(&mut *state.cast::<S>());
            (*context).with_context(|context| call(stream, context))
        };
        match polled {
            Poll::Pending => FfiMoved::Pending,
            Poll::Ready(Ok(bytes)) => FfiMoved::Done(bytes),
            Poll::Ready(Err(error)) => FfiMoved::Error(error.into()),
        }
    }

    unsafe extern "C" fn poll_read(
        state: *mut (),
        context: *mut FfiContext<'_>,
        buffer: *mut u8,
        len: usize,
    ) -> FfiMoved {
        // SAFETY: the app passes its own stream, lends the context, and room for `len` bytes.
        unsafe {
            Self::with(state, context, |stream, context| {
                let room =
                    if len == 0 { &mut [] } else { slice::from_raw_parts_mut(buffer.cast::<MaybeUninit<u8>>(), len) };
                let mut room = ReadBuf::uninit(room);
                stream.poll_read(context, &mut room).map_ok(|()| room.filled().len())
            })
        }
    }

    unsafe extern "C" fn poll_write(
        state: *mut (),
        context: *mut FfiContext<'_>,
        bytes: *const u8,
        len: usize,
    ) -> FfiMoved {
        // SAFETY: the app passes its own stream and lends the context and `len` bytes.
        unsafe {
            Self::with(state, context, |stream, context| {
                let bytes = if len == 0 { &[] } else { slice::from_raw_parts(bytes, len) };
                stream.poll_write(context, bytes)
            })
        }
    }

    unsafe extern "C" fn poll_flush(state: *mut (), context: *mut FfiContext<'_>) -> FfiMoved {
        // SAFETY: the app passes its own stream and lends the context.
        unsafe { Self::with(state, context, |stream, context| stream.poll_flush(context).map_ok(|()| 0)) }
    }

    unsafe extern "C" fn poll_shutdown(state: *mut (), context: *mut FfiContext<'_>) -> FfiMoved {
        // SAFETY: the app passes its own stream and lends the context.
        unsafe { Self::with(state, context, |stream, context| stream.poll_shutdown(context).map_ok(|()| 0)) }
    }

    unsafe extern "C" fn drop(state: *mut ()) {
        // SAFETY: the app drops a stream once; `into_ffi` made the box.
        drop(unsafe { Box::from_raw(state.cast::<S>()) });
    }
}
