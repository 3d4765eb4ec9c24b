//! The page that reloads: a server before the app that adds a script to each page of HTML.
//!
//! Owns the reverse proxy on the loopback interface and the script, which asks it for the version that is
//! live and reloads when that is another one. Everything else goes through as it is, upgraded connections
//! included; what the app forbids in a `Content-Security-Policy` stays forbidden, the script too.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, UPGRADE};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper::upgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use app_host_core::hosts;

/// Paths of our own: no app has a path like them by accident.
const SCRIPT_PATH: &str = "/.app-host-dev/reload.js";
const EVENTS_PATH: &str = "/.app-host-dev/events";

const SCRIPT: &str = r#"let seen;
new EventSource("/.app-host-dev/events").onmessage = ({ data }) => {
  if (seen !== undefined && seen !== data) location.reload();
  seen = data;
};
"#;

/// What a page of somebody else's is told.
const FOREIGN: &str = "app-host dev: only localhost and addresses are names of this page\n";

/// Behind the end of the page: browsers take it there, and nobody needs to know where the page's parts are.
const TAG: &str = "\n<script src=\"/.app-host-dev/reload.js\"></script>\n";

/// How long the app may take to accept.
const CONNECTING: Duration = Duration::from_secs(5);

type Error = Box<dyn std::error::Error + Send + Sync>;
type Answer = UnsyncBoxBody<Bytes, Error>;

/// The server, which ends with the runtime.
pub struct Page {
    address: SocketAddr,
    app: watch::Sender<Option<SocketAddr>>,
    version: watch::Sender<String>,
}

impl Page {
    /// Serves on a free port. Must be called within a `LocalSet`.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn open() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (app, to) = watch::channel(None);
        let (version, live) = watch::channel(String::new());
        let proxy = Rc::new(Proxy { to, live });
        tokio::task::spawn_local(async move {
            // A connection that broke before it was taken is no reason to end.
            loop {
                match listener.accept().await {
                    Ok((connection, _)) => drop(tokio::task::spawn_local(serve(connection, Rc::clone(&proxy)))),
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        });
        Ok(Self { address, app, version })
    }

    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The app is reached here. The first time, a browser is opened.
    pub fn serve(&self, app: SocketAddr) {
        let reachable = match app.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        let first = self.app.send_replace(Some(SocketAddr::new(reachable, app.port()))).is_none();
        if first && let Err(error) = open::that_detached(format!("http://{}", self.address)) {
            tracing::debug!(%error, "no browser");
        }
    }

    /// Another version is live: pages that are open are to be loaded again.
    pub fn reload(&self, version: &str) {
        self.version.send_replace(version.to_owned());
    }
}

/// What a connection needs.
struct Proxy {
    to: watch::Receiver<Option<SocketAddr>>,
    live: watch::Receiver<String>,
}

async fn serve(connection: TcpStream, proxy: Rc<Proxy>) {
    let service = service_fn(move |request| {
        let proxy = Rc::clone(&proxy);
        async move { Ok::<_, Infallible>(proxy.answer(request).await) }
    });
    let server = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(connection), service)
        .with_upgrades();
    // A browser that has gone is nobody's business.
    let _ = server.await;
}

impl Proxy {
    async fn answer(&self, request: Request<Incoming>) -> Response<Answer> {
        if !is_for_us(&request) {
            let mut response = text("text/plain; charset=utf-8", FOREIGN);
            *response.status_mut() = StatusCode::FORBIDDEN;
            return response;
        }
        match request.uri().path() {
            SCRIPT_PATH => text("text/javascript; charset=utf-8", SCRIPT),
            EVENTS_PATH => events(self.live.clone()),
            _ => self.forward(request).await.unwrap_or_else(|error| {
                let mut response = text("text/plain; charset=utf-8", &format!("app-host dev: {error}\n"));
                *response.status_mut() = StatusCode::BAD_GATEWAY;
                response
            }),
        }
    }

    async fn forward(&self, mut request: Request<Incoming>) -> Result<Response<Answer>, Error> {
        let to = *self.to.borrow();
        let to = to.ok_or("the app isn't served yet")?;
        let connection = timeout(CONNECTING, TcpStream::connect(to)).await??;
        let (mut app, driver) = hyper::client::conn::http1::handshake(TokioIo::new(connection)).await?;
        tokio::task::spawn_local(async move {
            // What goes wrong is told to whoever waits for the answer.
            let _ = driver.with_upgrades().await;
        });
        let ours = request.headers().contains_key(UPGRADE).then(|| upgrade::on(&mut request));
        let head = request.method() == Method::HEAD;
        // A script can't be put behind what is compressed.
        request.headers_mut().remove(ACCEPT_ENCODING);
        let mut response = app.send_request(request).await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS
            && let Some(ours) = ours
        {
            let theirs = upgrade::on(&mut response);
            tokio::task::spawn_local(async move {
                if let (Ok(ours), Ok(theirs)) = (ours.await, theirs.await) {
                    // Its end is the end of both.
                    let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(ours), &mut TokioIo::new(theirs)).await;
                }
            });
        }
        let adds = !head && response.status().is_success() && is_page(response.headers());
        let (mut parts, body) = response.into_parts();
        let body = if adds {
            parts.headers.remove(CONTENT_LENGTH);
            WithTag { body, tag: Some(TAG) }.boxed_unsync()
        } else {
            body.map_err(Into::into).boxed_unsync()
        };
        Ok(Response::from_parts(parts, body))
    }
}

/// Whether a browser that is led here by somebody else's page would have said another name.
fn is_for_us<B>(request: &Request<B>) -> bool {
    // The names in the request line and in the header are both there at times.
    let named = request.uri().authority().is_none_or(|authority| hosts::is_ours(authority.as_str()));
    let header = |value: &http::HeaderValue| value.to_str().is_ok_and(hosts::is_ours);
    named && request.headers().get_all(HOST).iter().all(header)
}

fn is_page(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.trim_start().to_ascii_lowercase().starts_with("text/html") && !headers.contains_key(CONTENT_ENCODING)
}

fn text(kind: &'static str, text: &str) -> Response<Answer> {
    let body = Full::new(Bytes::copy_from_slice(text.as_bytes())).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
    response
}

/// The version that is live, and each that follows it.
fn events(mut live: watch::Receiver<String>) -> Response<Answer> {
    live.mark_changed();
    let events = stream::unfold(live, |mut live| async {
        // Whoever connects hears at once what is live, so that it can tell what comes later from that.
        let version = loop {
            live.changed().await.ok()?;
            let version = live.borrow_and_update().clone();
            if !version.is_empty() {
                break version;
            }
        };
        Some((Ok::<_, Error>(Frame::data(Bytes::from(format!("data: {version}\n\n")))), live))
    });
    let mut response = text("text/event-stream", "");
    *response.body_mut() = StreamBody::new(events).boxed_unsync();
    response
}

/// A page with the script behind it.
struct WithTag {
    body: Incoming,
    tag: Option<&'static str>,
}

impl Body for WithTag {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match ready!(Pin::new(&mut self.body).poll_frame(context)) {
            // Trailers of a page mean nothing to a browser, and nothing may come behind them.
            Some(Ok(frame)) if frame.is_data() => Poll::Ready(Some(Ok(frame))),
            Some(Err(error)) => Poll::Ready(Some(Err(error.into()))),
            Some(Ok(_)) | None => {
                Poll::Ready(self.tag.take().map(|tag| Ok(Frame::data(Bytes::from_static(tag.as_bytes())))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.tag.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
