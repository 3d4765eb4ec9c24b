//! Bodies that are counted, and those that are made while they are sent.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use app_abi::http_body::{Frame, SizeHint};
use app_abi::{Body, Bytes, Response};

pub(crate) async fn upload(mut body: Body) -> Response<Body> {
    let mut total = 0;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => total += frame.data_ref().map_or(0, Bytes::len),
            Err(error) => return Response::new(format!("error: {error}").into()),
        }
    }
    Response::new(total.to_string().into())
}

/// How many bytes of bodies this worker has made.
pub(crate) static MADE: AtomicU64 = AtomicU64::new(0);

/// A body that is made while it is sent. Each chunk has memory of its own, so that reading ahead
/// would show.
pub(crate) struct Made {
    pub(crate) left: u64,
    pub(crate) sized: bool,
}

impl app_abi::http_body::Body for Made {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        const CHUNK: usize = 64 * 1024;
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(CHUNK);
        self.left -= length as u64;
        MADE.fetch_add(length as u64, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(vec![b'x'; length].into()))))
    }

    fn size_hint(&self) -> SizeHint {
        if self.sized { SizeHint::with_exact(self.left) } else { SizeHint::default() }
    }
}
