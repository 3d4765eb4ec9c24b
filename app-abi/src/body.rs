//! Bodies of requests and responses, as the app sees them.
//!
//! Owns [`Body`], a stream of frames of data and trailers. Nothing is read ahead: the next frame is
//! asked for when the other side can take it.

use crate::abi::{FfiBody, FfiStream};
use crate::client::ClientInfo;
use crate::request::{ConnectionInfo, EarlyHints, Handle, Resume};
use crate::tls::TlsInfo;
use crate::upgrade::Upgrade;
use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use serde::de::DeserializeOwned;
use std::{
    error::Error,
    fmt,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

/// The body of a request or a response.
///
/// It is a [`http_body::Body`], so everything that works with those works with it. The methods here
/// are for apps that want no other crate.
#[derive(Default)]
pub struct Body {
    inner: Inner,
}

#[derive(Default)]
enum Inner {
    #[default]
    Empty,
    Full(Bytes),
    Host {
        handle: Handle,
        ended: bool,
    },
    Stream(Stream),
}

/// A body of the app's.
pub(crate) type Stream = Pin<Box<dyn http_body::Body<Data = Bytes, Error = BodyError> + Send>>;

/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The body broke off: the client has gone, or sent what is no valid body.
    #[error("the body broke off: {0}")]
    Broken(String),
    /// The body is longer than the app wanted to take.
    #[error("the body is longer than {limit} bytes")]
    TooLarge {
        /// What the app wanted to take, in bytes.
        limit: usize,
    },
    /// The body is not the JSON that the app expected.
    #[error("the body is not the JSON that was expected")]
    Json(#[from] serde_json::Error),
    /// A stream of the app's own failed.
    #[error(transparent)]
    Stream(Box<dyn Error + Send + Sync>),
}

impl Body {
    /// A body without any bytes.
    #[must_use]
    pub const fn empty() -> Self {
        Self { inner: Inner::Empty }
    }

    /// A body that is produced while it is sent.
    pub fn stream<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        Self { inner: Inner::Stream(Box::pin(OwnErrors(Box::pin(body)))) }
    }

    /// The next frame, data or trailers; `None` at the end.
    pub async fn frame(&mut self) -> Option<Result<Frame<Bytes>, BodyError>> {
        poll_fn(|context| http_body::Body::poll_frame(Pin::new(self), context)).await
    }

    /// All of the data, at most `limit` bytes. Trailers are skipped.
    pub async fn bytes(mut self, limit: usize) -> Result<Bytes, BodyError> {
        let too_large = || BodyError::TooLarge { limit };
        let announced = http_body::Body::size_hint(&self).lower();
        if usize::try_from(announced).map_or(true, |announced| announced > limit) {
            return Err(too_large());
        }
        let mut first = Bytes::new();
        let mut rest = BytesMut::new();
        while let Some(frame) = self.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            if first.len() + rest.len() + data.len() > limit {
                return Err(too_large());
            }
            if first.is_empty() {
                // A body of one chunk is handed on without a copy.
                first = data;
            } else {
                rest.extend_from_slice(&data);
            }
        }
        if rest.is_empty() {
            return Ok(first);
        }
        let mut all = BytesMut::with_capacity(first.len() + rest.len());
        all.extend_from_slice(&first);
        all.extend_from_slice(&rest);
        Ok(all.freeze())
    }

    /// The data as JSON, at most `limit` bytes of it.
    pub async fn json<T: DeserializeOwned>(self, limit: usize) -> Result<T, BodyError> {
        Ok(serde_json::from_slice(&self.bytes(limit).await?)?)
    }

    pub(crate) const fn from_host(handle: Handle, ended: bool) -> Self {
        Self { inner: Inner::Host { handle, ended } }
    }

    pub(crate) fn upgrade(&mut self) -> Option<Upgrade> {
        match &mut self.inner {
            Inner::Host { handle, .. } => handle.upgrade(),
            Inner::Empty | Inner::Full(_) | Inner::Stream(_) => None,
        }
    }

    pub(crate) fn tls(&self) -> Option<TlsInfo> {
        match &self.inner {
            Inner::Host { handle, .. } => handle.tls(),
            Inner::Empty | Inner::Full(_) | Inner::Stream(_) => None,
        }
    }

    pub(crate) fn early_hints(&self) -> Option<EarlyHints> {
        match &self.inner {
            Inner::Host { handle, .. } => handle.early_hints(),
            Inner::Empty | Inner::Full(_) | Inner::Stream(_) => None,
        }
    }

    pub(crate) fn resume(&self) -> Option<Resume> {
        match &self.inner {
            Inner::Host { handle, .. } => handle.resume(),
            Inner::Empty | Inner::Full(_) | Inner::Stream(_) => None,
        }
    }

    /// The client, if a proxy has told of it.
    pub(crate) fn told_client(&self) -> Option<ClientInfo> {
        match &self.inner {
            Inner::Host { handle, .. } => handle.client(),
            Inner::Empty | Inner::Full(_) | Inner::Stream(_) => None,
        }
    }

    pub(crate) fn connection(&self) -> Option<ConnectionInfo> {
        match &self.inner {
            Inner::Host { handle, .. } => Some(handle.connection()),
            Inner::Empty | Inner::Full(_) | Inner::Stream(_) => None,
        }
    }
}

impl Body {
    /// Hands the body to the host; `stream` does so with one that the app's code makes.
    pub(crate) fn hand_over(self, stream: impl FnOnce(Stream) -> FfiStream) -> FfiBody {
        match self.inner {
            Inner::Empty => FfiBody::Empty,
            Inner::Full(bytes) if bytes.is_empty() => FfiBody::Empty,
            Inner::Full(bytes) => FfiBody::Full(bytes.into()),
            Inner::Host { .. } => FfiBody::Stream(FfiStream::new(self)),
            Inner::Stream(made) => FfiBody::Stream(stream(made)),
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let inner = &mut self.get_mut().inner;
        match inner {
            Inner::Empty | Inner::Host { ended: true, .. } => Poll::Ready(None),
            Inner::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *inner = Inner::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Inner::Host { handle, ended } => {
                let polled = handle.poll(context);
                *ended = matches!(polled, Poll::Ready(None | Some(Err(_))));
                polled.map(|frame| frame.map(|frame| frame.map_err(BodyError::Broken)))
            }
            Inner::Stream(stream) => stream.as_mut().poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Empty => true,
            Inner::Full(bytes) => bytes.is_empty(),
            Inner::Host { ended, .. } => *ended,
            Inner::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Empty | Inner::Host { ended: true, .. } => SizeHint::with_exact(0),
            Inner::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Inner::Host { handle, .. } => handle.size_hint(),
            Inner::Stream(stream) => stream.size_hint(),
        }
    }
}

/// A stream of the app's whose errors became ours.
struct OwnErrors<B>(Pin<Box<B>>);

impl<B> http_body::Body for OwnErrors<B>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = self.0.as_mut().poll_frame(context);
        polled.map(|frame| frame.map(|frame| frame.map_err(|e| BodyError::Stream(e.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self { inner: Inner::Full(bytes) }
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.inner {
            Inner::Empty => "Body::Empty",
            Inner::Full(_) => "Body::Full",
            Inner::Host { .. } => "Body::Host",
            Inner::Stream(_) => "Body::Stream",
        })
    }
}
