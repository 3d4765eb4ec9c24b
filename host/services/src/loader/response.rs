//! An app's response, decoded from the ABI.
//!
//! Owns the conversion from the ABI's types to an ordinary [`http::Response`]. A response that isn't valid is an error,
//! never undefined behaviour.

use std::pin::Pin;
use std::task::{Context, Poll};

use app_abi::abi::{FfiBody, FfiResponse, FfiStream};
use app_abi::arena::{self, ArenaError};
use bytes::Bytes;
use http::{Response, StatusCode};
use http_body::{Body, Frame, SizeHint};

/// Why an app's response can't be sent. Answer with 500 instead.
#[derive(Debug, thiserror::Error)]
pub enum AppResponseError {
    /// There is no such status.
    #[error("the app answered with status {status}, expected 100 to 999")]
    Status {
        /// What the app gave.
        status: u16,
    },
    /// The headers are not valid.
    #[error("the app's headers are not valid")]
    Headers(#[from] ArenaError),
}

/// An app's body broke off.
#[derive(Debug, thiserror::Error)]
#[error("the app's body broke off: {reason}")]
pub struct AppBodyError {
    /// What the app said.
    pub reason: String,
}

/// The body of an app's response. The app is asked for frames when the client can take them.
pub struct AppBody(Inner);

enum Inner {
    Empty,
    Full(Bytes),
    Stream(FfiStream),
}

/// Decodes the app's response.
pub(super) fn decode(response: FfiResponse) -> Result<Response<AppBody>, AppResponseError> {
    let FfiResponse { status, headers, body } = response;
    let mut response = Response::new(AppBody(match body {
        FfiBody::Empty => Inner::Empty,
        FfiBody::Full(chunk) => Inner::Full(chunk.into()),
        FfiBody::Stream(stream) => Inner::Stream(stream),
    }));
    *response.status_mut() = StatusCode::from_u16(status).map_err(|_| AppResponseError::Status { status })?;
    *response.headers_mut() = arena::decode(headers)?;
    Ok(response)
}

impl From<Bytes> for AppBody {
    /// The body of what the host answers in the app's place.
    fn from(whole: Bytes) -> Self {
        Self(if whole.is_empty() { Inner::Empty } else { Inner::Full(whole) })
    }
}

impl AppBody {
    /// Whether all of it is here, so that sending it doesn't call the app.
    pub fn is_whole(&self) -> bool {
        !matches!(self.0, Inner::Stream(_))
    }
}

impl Body for AppBody {
    type Data = Bytes;
    type Error = AppBodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AppBodyError>>> {
        let inner = &mut self.get_mut().0;
        match inner {
            Inner::Empty => Poll::Ready(None),
            Inner::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *inner = Inner::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Inner::Stream(stream) => {
                let polled = stream.poll(context);
                if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
                    // Drops the app's stream at once, and not when the connection has sent all.
                    *inner = Inner::Empty;
                }
                polled.map(|frame| frame.map(|frame| frame.map_err(|reason| AppBodyError { reason })))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Empty => true,
            Inner::Full(bytes) => bytes.is_empty(),
            Inner::Stream(stream) => stream.is_ended(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Empty => SizeHint::with_exact(0),
            Inner::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Inner::Stream(stream) => stream.size_hint(),
        }
    }
}
