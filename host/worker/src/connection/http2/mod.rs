//! One connection of HTTP/2, on the crate h2.
//!
//! Owns what lies between h2's streams and [`answer`](super::request::answer): each request is a task of its own, which
//! pipes bodies, and ends when its client resets the stream. hyper does the same for HTTP/1; for HTTP/2 it has no way to
//! send early hints (1.12), and browsers take them from no other version of HTTP.
//!
//! ```text
//! handshake ──▶ open ── each request ──▶ a task: answer, hints, response, body or tunnel
//!                │ └── nothing received for 30 to 60 s: PING ── nothing for another 20 s ──▶ dead
//!                └── GOAWAY in two steps, all streams done ──▶ done
//! ```

mod body;
mod keep_alive;
mod stream;
mod upgraded;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::{self, Connection, Handshake, SendResponse};
use http::{Method, Request};
use tokio::io::{AsyncRead, AsyncWrite};

use super::Application;
use super::driver::Failure;
use super::interim::Interim;
use super::request::{Way, answer};
use super::request_body::Incoming;
use super::shared::Shared;
use super::transport::Transport;
use super::upgrade::PendingUpgrade;
use keep_alive::KeepAlive;

pub(super) use body::StreamBody;

/// How much of a request's body, and of all bodies of a connection, a client may send before the app takes it.
const WINDOW: u32 = 1024 * 1024;

/// How much of a response h2 keeps for a client that doesn't take it.
const SEND_BUFFER: usize = 400 * 1024;

/// h2 refuses heads that are so many times as long as they may be: it tells nobody of it, and all others are
/// [refused](super::bounds) where they are seen.
const UNSEEN: u32 = 4;

/// A connection, which serves its requests while it is polled.
pub(super) struct Http2<T, A> {
    state: State<T>,
    app: A,
    shared: Arc<Shared>,
}

enum State<T> {
    Handshake {
        handshake: Handshake<Transport<T>, Bytes>,
        /// Whether it is to shut down as soon as it can.
        shuts_down: bool,
    },
    Open {
        connection: Connection<Transport<T>, Bytes>,
        keep_alive: KeepAlive,
    },
}

impl<T, A> Http2<T, A>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    pub(super) fn new(transport: Transport<T>, app: A, shared: Arc<Shared>) -> Self {
        let limits = &shared.limits.http;
        let mut builder = server::Builder::new();
        builder
            .enable_connect_protocol()
            .initial_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_send_buffer_size(SEND_BUFFER)
            .max_concurrent_streams(limits.max_streams)
            .max_header_list_size(limits.max_head.saturating_mul(UNSEEN));
        let handshake = builder.handshake(transport);
        Self { state: State::Handshake { handshake, shuts_down: false }, app, shared }
    }

    /// Tells the client to go, which it may do when its streams have ended.
    pub(super) fn graceful_shutdown(self: Pin<&mut Self>) {
        match &mut self.get_mut().state {
            State::Handshake { shuts_down, .. } => *shuts_down = true,
            State::Open { connection, .. } => connection.graceful_shutdown(),
        }
    }
}

// Nothing in it is pinned.
impl<T, A> Unpin for Http2<T, A> {}

impl<T, A> Future for Http2<T, A>
where
    T: AsyncRead + AsyncWrite + Unpin,
    A: Application,
{
    type Output = Result<(), Failure>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let State::Handshake { handshake, shuts_down } = &mut this.state {
            let mut connection = ready!(Pin::new(handshake).poll(cx))?;
            if *shuts_down {
                connection.graceful_shutdown();
            }
            let keep_alive = KeepAlive::new(connection.ping_pong());
            this.state = State::Open { connection, keep_alive };
        }
        let State::Open { connection, keep_alive } = &mut this.state else { return Poll::Pending };
        loop {
            if keep_alive.poll(cx, &this.shared.state).is_ready() {
                return Poll::Ready(Err(Failure::Unanswered));
            }
            match ready!(connection.poll_accept(cx)) {
                Some(Ok((request, mut reply))) => {
                    // One that is given up already is no work for the app.
                    if reply.poll_reset(cx).is_pending() {
                        begin(&this.app, &this.shared, request, reply);
                    }
                }
                Some(Err(error)) => return Poll::Ready(Err(error.into())),
                None => return Poll::Ready(Ok(())),
            }
        }
    }
}

/// Begins to serve one request.
fn begin<A: Application>(app: &A, shared: &Arc<Shared>, request: Request<RecvStream>, reply: SendResponse<Bytes>) {
    let interim = Arc::new(Interim::default());
    let head_only = request.method() == Method::HEAD;
    // Of a tunnel the bytes are no body.
    let (request, tunnel) = if request.method() == Method::CONNECT {
        let (head, stream) = request.into_parts();
        (Request::from_parts(head, StreamBody::empty()), Some(stream))
    } else {
        let length = body::content_length(request.headers());
        (request.map(|stream| StreamBody::new(stream, length)), None)
    };
    let pending = PendingUpgrade::default();
    let way = Way { interim: Some(Arc::clone(&interim)), pending: &pending };
    let answer = answer(app.clone(), Arc::clone(shared), way, request.map(Incoming::Http2));
    let tunnel = tunnel.map(|stream| (stream, pending));
    tokio::spawn(stream::serve(answer, reply, interim, head_only, tunnel));
}
