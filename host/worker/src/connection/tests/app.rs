//! What answers in an app's place.

use super::*;

/// Answers by path, in an app's place.
#[derive(Clone)]
pub struct TestApp {
    /// A permit lets one request to `/hold` go on.
    pub gate: Arc<Semaphore>,
    /// Chunks that `/endless` has made.
    pub made: Arc<AtomicUsize>,
}

pub const CHUNK: Bytes = Bytes::from_static(&[b'x'; 1024]);

/// A body without end.
struct Endless(Arc<AtomicUsize>);

impl Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.fetch_add(1, Relaxed);
        std::task::Poll::Ready(Some(Ok(Frame::data(CHUNK))))
    }
}

fn full(text: impl Into<Bytes>) -> BoxBody<Bytes, io::Error> {
    Full::new(text.into()).map_err(|never| match never {}).boxed()
}

impl TestApp {
    /// Grants a WebSocket whose bytes come back as they are, a few at a time, and lets it be resumed.
    fn resumable(self, path: &str, request: &mut Request<RequestBody>) -> Response<BoxBody<Bytes, io::Error>> {
        let mut response = app_abi::resumable(Response::new(full("")));
        if path == "/resumable/once" && self.made.fetch_add(1, Relaxed) > 0 {
            *response.status_mut() = http::StatusCode::NOT_FOUND;
            return response;
        }
        if path == "/resumable/deflate" {
            response.headers_mut().insert("sec-websocket-extensions", "permessage-deflate".parse().unwrap());
        }
        *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
        let closes = path == "/resumable/closes";
        if path == "/resumable/hint"
            && let Some((interim, number)) = request.body_mut().interim()
        {
            let mut fields = http::HeaderMap::new();
            fields.insert("link", "</a>".parse().unwrap());
            interim.hint(number, &fields);
        }
        if let Some(upgrade) = request.body_mut().upgrade() {
            tokio::spawn(async move {
                let mut tunnel = upgrade.tunnel().await.unwrap();
                if closes {
                    tunnel.write_all(&[0x88, 0]).await.unwrap();
                }
                let mut some = [0; 700];
                while let Ok(read @ 1..) = tunnel.read(&mut some).await {
                    // As an app that has something to think about.
                    tokio::time::sleep(Duration::from_micros(300)).await;
                    tunnel.write_all(&some[..read]).await.unwrap();
                }
            });
        }
        response
    }

    /// Events that are numbered from the one behind `Last-Event-ID`, a few bytes at a time, and lets them go on elsewhere.
    fn events(self, path: &str, request: &mut Request<RequestBody>) -> Response<BoxBody<Bytes, io::Error>> {
        let asked = self.made.fetch_add(1, Relaxed) + 1;
        let keepsake = request.body_mut().keepsake();
        if path == "/events/kept" {
            let keepsake = keepsake.unwrap();
            let found = keepsake.found().map(|found| found[0]);
            // Every third handler leaves nothing, and so what it has found.
            assert_eq!(
                found.map(usize::from),
                [None, Some(asked - 1), Some(asked - 1), Some(asked - 2)][match asked {
                    1 => 0,
                    _ => 1 + (asked - 2) % 3,
                }]
            );
            if !asked.is_multiple_of(3) {
                assert!(keepsake.leave(&[0]) && keepsake.leave(&[u8::try_from(asked).unwrap()]));
            }
        }
        let last = request.headers().get("last-event-id").map_or(0, |id| id.to_str().unwrap().parse().unwrap());
        let body = Numbered { next: last + 1, text: String::new(), sent: 0, pause: None, path: path.to_owned() };
        let mut response = app_abi::resumable(Response::new(body.boxed()));
        let headers = response.headers_mut();
        headers.insert("content-type", "text/event-stream; charset=utf-8".parse().unwrap());
        // What only the first answer says.
        headers.insert("x-asked", asked.into());
        match path {
            "/events/once" if asked > 1 => *response.status_mut() = http::StatusCode::NO_CONTENT,
            "/events/page" if asked > 1 => drop(headers.insert("content-type", "text/html".parse().unwrap())),
            "/events/coded" => drop(headers.insert("content-encoding", "gzip".parse().unwrap())),
            "/events/without" => drop(headers.remove(app_abi::RESUMABLE)),
            _ => {}
        }
        response
    }

    /// Answers with something before the response, or tries to.
    async fn hint(self, path: &str, request: &mut Request<RequestBody>) -> BoxBody<Bytes, io::Error> {
        let Some((interim, number)) = request.body_mut().interim() else { return full("no hints") };
        let made = Arc::clone(&self.made);
        let hint = move || {
            let mut fields = http::HeaderMap::new();
            fields.insert("link", "</a>".parse().unwrap());
            interim.hint(number, &fields)
        };
        match path {
            "/hint/hold" => drop(hint()),
            "/hint/later" => drop(tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(10)).await;
                hint();
            })),
            "/hint/late" => {
                let body = async move {
                    let hint = move || made.fetch_add(usize::from(hint()), Relaxed);
                    hint();
                    tokio::spawn(async move {
                        tokio::time::sleep(Duration::from_micros(500)).await;
                        hint();
                    });
                    Ok::<_, io::Error>(Bytes::from_static(b"late"))
                };
                return Late(Some(Box::pin(body))).boxed();
            }
            _ => {
                hint();
                hint();
                return full("hinted");
            }
        }
        self.gate.acquire().await.unwrap().forget();
        full("held")
    }
}

impl Application for TestApp {
    type Body = BoxBody<Bytes, io::Error>;
    type Error = io::Error;

    async fn call(self, mut request: Request<RequestBody>) -> Result<Response<Self::Body>, io::Error> {
        let path = request.uri().path().to_owned();
        let connects = request.method() == http::Method::CONNECT;
        if path.starts_with("/events") {
            if path == "/events/slow" && self.made.load(Relaxed) > 0 {
                std::future::pending::<()>().await;
            }
            return Ok(self.events(&path, &mut request));
        }
        if path.starts_with("/resumable") {
            return Ok(self.resumable(&path, &mut request));
        }
        if path == "/tunnel" {
            if let Some(upgrade) = request.body_mut().upgrade() {
                tokio::spawn(async move {
                    let mut tunnel = upgrade.tunnel().await.unwrap();
                    let mut byte = [0];
                    while let Ok(1) = tunnel.read(&mut byte).await {
                        tunnel.write_all(&byte).await.unwrap();
                    }
                });
            }
            let mut response = Response::new(full(""));
            if connects {
                return Ok(response);
            }
            *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
            return Ok(response);
        }
        if path.starts_with("/hint/") {
            return Ok(Response::new(self.hint(&path, &mut request).await));
        }
        if path.starts_with("/fields") {
            // Each field of the request's that begins so, and its body.
            let mut response = Response::new(full(""));
            let fields = request.headers().iter().filter(|(name, _)| name.as_str().starts_with("x-"));
            fields.for_each(|(name, value)| _ = response.headers_mut().append(name, value.clone()));
            *response.body_mut() = request.into_body().map_err(io::Error::other).boxed();
            return Ok(response);
        }
        Ok(Response::new(match path.as_str() {
            "/hold" => {
                self.gate.acquire().await.unwrap().forget();
                full("held")
            }
            // The head goes out at once, the rest when the gate opens.
            "/late" => {
                let gate = Arc::clone(&self.gate);
                let stream = async move {
                    gate.acquire_owned().await.map_err(io::Error::other)?.forget();
                    Ok::<_, io::Error>(Bytes::from_static(b"late"))
                };
                Late(Some(Box::pin(stream))).boxed()
            }
            "/echo" => {
                let body = request.into_body().collect().await.map_err(io::Error::other)?;
                full(body.to_bytes())
            }
            "/stream" => request.into_body().map_err(io::Error::other).boxed(),
            "/read" => {
                let body = request.into_body().collect().await.map_err(io::Error::other)?;
                self.gate.acquire().await.unwrap().forget();
                full(body.to_bytes())
            }
            "/ignore" => {
                self.gate.acquire().await.unwrap().forget();
                drop(request);
                full("ignored")
            }
            // More than any window, handed over at once.
            "/big" => full(vec![b'x'; BIG]),
            // A response that an app passes on with a length that is another body's.
            "/wrong" | "/right" | "/empty" => {
                let mut response = Response::new(full("body"));
                let length = if path == "/right" { "4" } else { "5" };
                response.headers_mut().insert("content-length", length.parse().unwrap());
                if path == "/empty" {
                    *response.body_mut() = full("");
                    *response.status_mut() = http::StatusCode::NOT_MODIFIED;
                }
                return Ok(response);
            }
            "/103" => {
                let mut response = Response::new(full(""));
                *response.status_mut() = http::StatusCode::EARLY_HINTS;
                return Ok(response);
            }
            "/204" | "/205" => {
                let mut response = Response::new(full(if path == "/205" { "body" } else { "" }));
                *response.status_mut() = path[1..].parse().unwrap();
                let length = if path == "/205" { 4 } else { 0 };
                response.headers_mut().insert("content-length", length.into());
                return Ok(response);
            }
            "/host" => full(request.headers()["host"].as_bytes().to_vec()),
            "/endless" => Endless(Arc::clone(&self.made)).map_err(|never| match never {}).boxed(),
            "/fail" => return Err(io::Error::other("the app's head is missing")),
            path => full(path.to_owned()),
        }))
    }
}

/// The events of [`TestApp::events`], each in some frames.
struct Numbered {
    next: u64,
    text: String,
    /// How much of the text has been sent.
    sent: usize,
    pause: Option<std::pin::Pin<Box<tokio::time::Sleep>>>,
    path: String,
}

impl Body for Numbered {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        if let Some(pause) = &mut this.pause {
            std::task::ready!(pause.as_mut().poll(cx));
            this.pause = None;
        }
        if this.sent == this.text.len() {
            let number = this.next;
            match this.path.as_str() {
                "/events/three" if number > 3 => return std::task::Poll::Ready(None),
                "/events/big" => this.text = format!("id: {number}\ndata: {}\n\n", "x".repeat(100_000)),
                "/events/blank" => this.text = format!("id:  {number}\n\n"),
                "/events/control" => this.text = format!("id: {number}\u{7}\n\n"),
                "/events/long" => this.text = format!("id: {number}{}\n\n", "0".repeat(40_000)),
                _ => this.text = format!("id: {number}\ndata: event {number}\n\n"),
            }
            (this.next, this.sent) = (number + 1, 0);
        }
        let length = (this.text.len() - this.sent).min(if this.text.len() > 1000 { 50_000 } else { 9 });
        let piece = Bytes::copy_from_slice(&this.text.as_bytes()[this.sent..this.sent + length]);
        this.sent += length;
        let within = this.sent < this.text.len();
        // One that is silent in the midst of its second event, or behind it.
        let stops =
            this.next == 3 && (this.path == "/events/half" && within || this.path == "/events/rests" && !within);
        let pause = if stops { Duration::from_hours(1) } else { Duration::from_micros(300) };
        this.pause = Some(Box::pin(tokio::time::sleep(pause)));
        std::task::Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}

/// A body of one chunk that comes later.
struct Late<F>(Option<std::pin::Pin<Box<F>>>);

impl<F: Future<Output = Result<Bytes, io::Error>>> Body for Late<F> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let Some(chunk) = &mut self.0 else { return std::task::Poll::Ready(None) };
        let chunk = std::task::ready!(chunk.as_mut().poll(cx));
        self.0 = None;
        std::task::Poll::Ready(Some(chunk.map(Frame::data)))
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(4)
    }
}
