//! Streams of frames across the line, in both directions.
//!
//! Owns both ends of an [`FfiStream`], and what turns an [`FfiFrame`] into an ordinary frame. Each
//! poll is guarded: a panic in a stream of the app's ends the stream with an error.
#![expect(unsafe_code, reason = "a stream is a pointer and a table of the other library's")]

use crate::abi::{FfiFrame, FfiSizeHint, FfiStream, FfiStreamVtable};
use crate::{arena, panics};
use async_ffi::{ContextExt, FfiContext};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::{
    fmt::Display,
    pin::Pin,
    task::{Context, Poll},
};

/// What a poll of the other side's stream gives; errors are texts.
pub type Polled = Poll<Option<Result<Frame<Bytes>, String>>>;

impl FfiStream {
    /// Hands a body to the other side.
    pub fn new<B>(body: B) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Display,
    {
        let state = Box::into_raw(Box::new(BodyState { body, panicked: false }));
        Self { state: state.cast(), vtable: BodyState::<B>::VTABLE }
    }

    /// The next frame.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Polled {
        // SAFETY: `state` belongs to this stream, which is borrowed for this one call.
        context.with_ffi_context(|context| unsafe { (self.vtable.poll_frame)(self.state, context) }).into()
    }

    /// How much data is still to come.
    #[must_use]
    pub fn size_hint(&self) -> SizeHint {
        // SAFETY: `state` belongs to this stream; the stream isn't `Sync`, so no other call runs.
        unsafe { (self.vtable.size_hint)(self.state) }.into()
    }

    /// Whether it is known that no frame will come any more.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        // SAFETY: as above.
        unsafe { (self.vtable.ended)(self.state) }
    }
}

// SAFETY: only bodies that are `Send` become streams, and the rules of the line allow every thread.
unsafe impl Send for FfiStream {}

impl Drop for FfiStream {
    fn drop(&mut self) {
        // SAFETY: the stream owns its state, and this is the one call.
        unsafe { (self.vtable.drop)(self.state) }
    }
}

/// A body that was handed to the other side.
struct BodyState<B> {
    body: B,
    /// What has panicked is not asked again: whoever asks is told that it is broken.
    panicked: bool,
}

impl<B> BodyState<B>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Display,
{
    const VTABLE: &'static FfiStreamVtable = &FfiStreamVtable {
        poll_frame: Self::poll_frame,
        size_hint: Self::size_hint,
        ended: Self::ended,
        drop: Self::drop,
    };

    /// Runs one call on the body; `None` if it panics now or has panicked before.
    ///
    /// # Safety
    /// `state` comes from `FfiStream::new::<B>`, and no other call on it is running.
    unsafe fn with<T>(state: *mut (), call: impl FnOnce(Pin<&mut B>) -> T) -> Option<T> {
        // SAFETY: the caller's promise.
        let state = unsafe { &mut *state.cast::<Self>() };
        if state.panicked {
            return None;
        }
        // SAFETY: the body stays in its box until it is dropped there.
        let body = unsafe { Pin::new_unchecked(&mut state.body) };
        match panics::catch(|| call(body)) {
            Ok(value) => Some(value),
            Err(panic) => {
                panics::log(&panic, "app panicked in a body");
                state.panicked = true;
                None
            }
        }
    }

    unsafe extern "C" fn poll_frame(state: *mut (), context: *mut FfiContext<'_>) -> FfiFrame {
        // SAFETY: the host calls with a context that lives for this call, and with our own state.
        unsafe {
            let polled = Self::with(state, |body| (*context).with_context(|context| body.poll_frame(context).into()));
            polled.unwrap_or_else(|| FfiFrame::Error("the app panicked while it produced the body".into()))
        }
    }

    unsafe extern "C" fn size_hint(state: *mut ()) -> FfiSizeHint {
        // SAFETY: called with our own state.
        unsafe { Self::with(state, |body| body.as_ref().size_hint()) }.unwrap_or_default().into()
    }

    unsafe extern "C" fn ended(state: *mut ()) -> bool {
        // SAFETY: called with our own state.
        unsafe { Self::with(state, |body| body.as_ref().is_end_stream()) }.unwrap_or(false)
    }

    unsafe extern "C" fn drop(state: *mut ()) {
        // SAFETY: called once, with the box that `FfiStream::new` made.
        panics::drop_guarded(unsafe { Box::from_raw(state.cast::<Self>()) });
    }
}

impl<E: Display> From<Poll<Option<Result<Frame<Bytes>, E>>>> for FfiFrame {
    fn from(polled: Poll<Option<Result<Frame<Bytes>, E>>>) -> Self {
        match polled {
            Poll::Pending => Self::Pending,
            Poll::Ready(None) => Self::End,
            Poll::Ready(Some(Err(error))) => Self::Error(error.to_string().into()),
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => Self::Data(data.into()),
                Err(frame) => match frame.into_trailers() {
                    Ok(trailers) => Self::Trailers(arena::encode(&trailers)),
                    Err(_) => Self::Error("a frame is neither data nor trailers".into()),
                },
            },
        }
    }
}

impl From<FfiFrame> for Polled {
    fn from(frame: FfiFrame) -> Self {
        Poll::Ready(match frame {
            FfiFrame::Pending => return Poll::Pending,
            FfiFrame::End => None,
            FfiFrame::Data(chunk) => Some(Ok(Frame::data(chunk.into()))),
            FfiFrame::Trailers(trailers) => {
                Some(arena::decode(trailers).map(Frame::trailers).map_err(|error| format!("invalid trailers: {error}")))
            }
            FfiFrame::Error(text) => Some(Err(text.into())),
        })
    }
}

impl From<SizeHint> for FfiSizeHint {
    fn from(hint: SizeHint) -> Self {
        Self { lower: hint.lower(), upper: hint.upper().unwrap_or(u64::MAX) }
    }
}

impl From<FfiSizeHint> for SizeHint {
    fn from(hint: FfiSizeHint) -> Self {
        let mut size = Self::default();
        // A hint that contradicts itself must not panic: the lower bound gives way.
        size.set_lower(hint.lower.min(hint.upper));
        if hint.upper != u64::MAX {
            size.set_upper(hint.upper);
        }
        size
    }
}
