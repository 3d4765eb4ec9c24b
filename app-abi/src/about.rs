//! Which request this thread is at work on, for the log line of a panic.
//!
//! Owns what is remembered of a request, and the wrapper that names it for as long as the app's code runs: while a
//! handler is polled or dropped, and while its body is. What is done in tasks and threads of the app's own is nobody's.
#![expect(unsafe_code, reason = "pinning through a wrapper, and a pointer to what is on this thread's stack")]

use http::{HeaderValue, Method, Request, Uri, header::HeaderName};
use http_body::{Body, Frame, SizeHint};
use std::{
    cell::Cell,
    future::Future,
    mem::{self, ManuallyDrop},
    pin::Pin,
    ptr,
    task::{Context, Poll},
};

/// The header by which the host tells the id.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// More of a path, or of an id, isn't logged.
const MAX_TEXT: usize = 1024;

/// A field of a log line.
pub(crate) type RequestField = (&'static str, RequestValue);

/// What a field says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RequestValue {
    Text(String),
    Number(u64),
}

/// What is remembered of a request.
#[derive(Debug, Default)]
pub(crate) struct About {
    method: Method,
    uri: Uri,
    id: Option<HeaderValue>,
    slot: u16,
}

thread_local! {
    /// Null, or what is borrowed by a [`Named`] further up on this thread's stack.
    static CURRENT: Cell<*const About> = const { Cell::new(ptr::null()) };
}

impl About {
    pub(crate) fn of<B>(request: &Request<B>, slot: u16) -> Self {
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            id: request.headers().get(REQUEST_ID).cloned(),
            slot,
        }
    }

    /// The fields of a log line, without the query: it may hold what nobody is to read.
    pub(crate) fn fields(&self) -> Vec<RequestField> {
        let text = |key, text| (key, RequestValue::Text(cut(text, MAX_TEXT)));
        let mut fields = vec![
            text("method", self.method.as_str()),
            text("path", self.uri.path()),
            ("slot", RequestValue::Number(self.slot.into())),
        ];
        if let Some(id) = &self.id {
            fields.push(text("request_id", &String::from_utf8_lossy(id.as_bytes())));
        }
        fields
    }

    /// Names this request for as long as `call` runs.
    fn named<T>(&self, call: impl FnOnce() -> T) -> T {
        struct Named(*const About);
        impl Drop for Named {
            fn drop(&mut self) {
                // Nothing is named while a thread ends.
                let _ = CURRENT.try_with(|current| current.set(self.0));
            }
        }
        let before = CURRENT.try_with(|current| current.replace(self)).unwrap_or(ptr::null());
        let _named = Named(before);
        call()
    }
}

/// The fields of the request that this thread is at work on, if there is one.
pub(crate) fn current() -> Vec<RequestField> {
    let about = CURRENT.try_with(Cell::get).unwrap_or(ptr::null());
    // SAFETY: it was set by `named`, whose borrow lives until it is set back, on this thread.
    unsafe { about.as_ref() }.map(About::fields).unwrap_or_default()
}

/// The beginning of a text, up to so many bytes.
pub(crate) fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let mut end = most;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

/// A handler or a body of the app's, with the request that it is about.
pub(crate) struct For<T> {
    about: About,
    inner: ManuallyDrop<T>,
}

impl<T> For<T> {
    pub(crate) const fn new(about: About, inner: T) -> Self {
        Self { about, inner: ManuallyDrop::new(inner) }
    }

    fn parts(self: Pin<&mut Self>) -> (&mut About, Pin<&mut T>) {
        // SAFETY: `inner` is pinned with the wrapper: it is used in place here and dropped in place below. `about` isn't.
        unsafe {
            let this = self.get_unchecked_mut();
            (&mut this.about, Pin::new_unchecked(&mut *this.inner))
        }
    }
}

impl<T> Drop for For<T> {
    fn drop(&mut self) {
        let Self { about, inner } = self;
        // SAFETY: it is dropped here, once, and not touched afterwards.
        about.named(|| unsafe { ManuallyDrop::drop(inner) });
    }
}

impl<F: Future> Future for For<F> {
    /// Who made the output may have something that comes later.
    type Output = (F::Output, About);

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let (about, future) = self.parts();
        about.named(|| future.poll(context)).map(|output| (output, mem::take(about)))
    }
}

impl<B: Body> Body for For<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let (about, body) = self.parts();
        about.named(|| body.poll_frame(context))
    }

    fn is_end_stream(&self) -> bool {
        self.about.named(|| self.inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.about.named(|| self.inner.size_hint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(uri: &str) -> About {
        let request = Request::builder().method("PUT").uri(uri).header("x-request-id", "7f");
        About::of(&request.body(()).unwrap(), 3)
    }

    #[test]
    fn a_request_is_named_while_its_handler_runs_and_is_dropped_without_its_query() {
        struct Asks(std::rc::Rc<std::cell::RefCell<Vec<usize>>>);
        impl Drop for Asks {
            fn drop(&mut self) {
                self.0.borrow_mut().push(current().len());
            }
        }
        let seen = std::rc::Rc::default();
        let asks = Asks(std::rc::Rc::clone(&seen));
        let mut handler = Box::pin(For::new(about("/a/b?secret=1"), async move {
            let _asks = asks;
            let inner = For::new(about("/inner"), async { current() }).await;
            (current(), inner.0)
        }));
        let mut context = Context::from_waker(std::task::Waker::noop());
        let Poll::Ready(((outer, inner), _)) = handler.as_mut().poll(&mut context) else {
            panic!("it waits for nothing")
        };
        let expected = |path: &str| {
            let text = |text: &str| RequestValue::Text(text.to_owned());
            [
                ("method", text("PUT")),
                ("path", text(path)),
                ("slot", RequestValue::Number(3)),
                ("request_id", text("7f")),
            ]
        };
        assert_eq!(outer, expected("/a/b"));
        assert_eq!(inner, expected("/inner"));
        assert_eq!(current(), [], "nothing is named outside");
        drop(handler);
        assert_eq!(*seen.borrow(), [4]);
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(cut("aéb", 4), "aéb");
        assert_eq!(cut("aéb", 2), "a…");
        assert_eq!(cut("aéb", 3), "aé…");
    }
}
