use super::*;
use std::collections::VecDeque;

/// Frames one by one, and an exact length.
struct Frames(VecDeque<&'static [u8]>);

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(self.0.pop_front().map(|data| Ok(Frame::data(Bytes::from_static(data)))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|data| data.len() as u64).sum())
    }
}

#[test]
fn a_body_that_is_there_as_a_whole_crosses_as_a_whole() {
    assert_eq!(format!("{:?}", begin(Frames(VecDeque::new()))), "Body::Empty");
    assert_eq!(format!("{:?}", begin(Frames([&b"all"[..]].into()))), "Body::Full");
}

#[test]
fn a_body_in_pieces_loses_none_of_them() {
    let mut body = begin(Frames([&b"one"[..], b"", b"two"].into()));
    assert_eq!(format!("{body:?}"), "Body::Stream");
    let mut seen = Vec::new();
    let mut context = Context::from_waker(Waker::noop());
    loop {
        assert_eq!(http_body::Body::size_hint(&body).exact(), Some(6 - seen.len() as u64));
        match http_body::Body::poll_frame(Pin::new(&mut body), &mut context) {
            Poll::Ready(Some(Ok(frame))) => seen.extend_from_slice(&frame.into_data().unwrap()),
            Poll::Ready(None) => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen, b"onetwo");
}
