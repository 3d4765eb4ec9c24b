//! The body of a request, as it comes on a stream.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::{Body, Frame, SizeHint};

/// The body of a request.
pub(in super::super) struct StreamBody {
    /// `None` if there is no body.
    stream: Option<RecvStream>,
    /// How many bytes are still to come, if that is known.
    left: Option<u64>,
    /// Whether only the trailers are left.
    is_read: bool,
}

/// What the request says of its body's length. h2 sees to it that a body which comes to its end has it.
pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

impl StreamBody {
    pub(super) fn new(stream: RecvStream, length: Option<u64>) -> Self {
        let left = if stream.is_end_stream() { length.or(Some(0)) } else { length };
        Self { stream: Some(stream), left, is_read: false }
    }

    pub(super) const fn empty() -> Self {
        Self { stream: None, left: Some(0), is_read: true }
    }
}

impl Body for StreamBody {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let this = self.get_mut();
        let Some(stream) = &mut this.stream else { return Poll::Ready(None) };
        if !this.is_read {
            match ready!(stream.poll_data(cx)) {
                Some(Ok(bytes)) => {
                    // An error says that the stream is over, which the next poll finds.
                    let _ = stream.flow_control().release_capacity(bytes.len());
                    this.left = this.left.map(|left| left.saturating_sub(bytes.len() as u64));
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                // Whatever the client gives as its reason: what comes before its end is not the whole body.
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => this.is_read = true,
            }
        }
        Poll::Ready(match ready!(stream.poll_trailers(cx)) {
            Ok(trailers) => trailers.map(|trailers| Ok(Frame::trailers(trailers))),
            Err(error) => Some(Err(error)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.stream.as_ref().is_none_or(RecvStream::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
