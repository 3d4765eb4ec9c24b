//! One connection of HTTP/2, on the crate h2.
//!
//! Owns what lies between h2's streams and [`answer`](super::request::answer): each request is a task of its own, which
//! pipes bodies, and ends when its client resets the stream. hyper does the same for HTTP/1; for HTTP/2 it has no way to
//! send early hints (1.12), and browsers take them from no other version of HTTP.
//!
//! ```text
//! handshake ──▶ open ── each request ──▶ a task: answer, hints, response, body or tunnel
//!                │ └── nothing received for 30 to 60 s: PING ── nothing for another 20 s ──▶ dead
//!                ├── GOAWAY in two steps, all streams done ──▶ done
//!                └── a gap between streams, while it is to leave ──▶ moves
//! ```

mod body;
mod keep_alive;
mod moving;
mod self_test;
mod stream;
mod upgraded;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::{self, Connection, Handshake, SendResponse};
use http::{Method, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::Application;
use super::driver::{Driven, Ended, Failure};
use super::interim::Interim;
use super::refusal;
use super::request::{Way, answer};
use super::request_body::Incoming;
use super::shared::Shared;
use super::state::Timeouts;
use super::suspended::{Leaving, Suspended};
use super::transport::Transport;
use super::upgrade::PendingUpgrade;
use keep_alive::KeepAlive;
use moving::{Moving, Slot};

pub(super) use body::StreamBody;
pub use moving::{Dropped, Http2Snapshot, Settings};
pub use self_test::{self_test, settings};

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
    /// Whether it is to shut down as soon as it can.
    shuts_down: bool,
    /// What is [missing](Http2Snapshot::missing) until the connection is where its client is.
    missing: &'static [u8],
}

enum State<T> {
    Handshake(Handshake<Moving<T>, Bytes>),
    Open { connection: Connection<Moving<T>, Bytes>, keep_alive: KeepAlive },
}

impl<T, A> Http2<T, A>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    /// A connection from its beginning, or one that has come with this snapshot; and where it is found when it has been
    /// dropped.
    pub(super) fn new(
        transport: Transport<T>,
        app: A,
        shared: Arc<Shared>,
        snapshot: Option<&Http2Snapshot>,
    ) -> (Self, Slot<T>) {
        let limits = &shared.limits.http;
        let mut builder = server::Builder::new();
        builder
            .enable_connect_protocol()
            .initial_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_send_buffer_size(SEND_BUFFER)
            .max_concurrent_streams(limits.max_streams)
            .max_header_list_size(limits.max_head.saturating_mul(UNSEEN));
        let moving = Moving::new(transport, snapshot, Arc::clone(&shared));
        let slot = moving.slot();
        let state = State::Handshake(builder.handshake(moving));
        (Self { state, app, shared, shuts_down: false, missing: snapshot.map_or(&[], Http2Snapshot::missing) }, slot)
    }

    /// Tells the client to go, which it may do when its streams have ended.
    pub(super) fn graceful_shutdown(self: Pin<&mut Self>) {
        let this = self.get_mut();
        this.shuts_down = true;
        this.shared.count_drained();
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
        if let State::Handshake(handshake) = &mut this.state {
            let mut connection = ready!(Pin::new(handshake).poll(cx))?;
            let keep_alive = KeepAlive::new(connection.ping_pong());
            this.state = State::Open { connection, keep_alive };
        }
        let State::Open { connection, keep_alive } = &mut this.state else { return Poll::Pending };
        loop {
            if keep_alive.poll(cx, &this.shared.state).is_ready() {
                return Poll::Ready(Err(Failure::Unanswered));
            }
            // What it says then must reach the client.
            if this.shuts_down && !this.shared.state.is_arriving() {
                this.shuts_down = false;
                connection.graceful_shutdown();
            }
            match ready!(connection.poll_accept(cx)) {
                Some(Ok((request, reply))) if this.shared.state.is_arriving() => {
                    arrive(this.missing, request, reply)?;
                }
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

/// What becomes of a connection that h2 has dropped, and which may have been left for something else.
pub(super) async fn driven<T>(
    dropped: Option<Dropped<T>>,
    ended: Ended,
    shared: &Arc<Shared>,
    timeouts: &Timeouts,
) -> Driven<T>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    match dropped {
        Some(Dropped::Left { transport, snapshot, unread }) => {
            let history = timeouts.http2_history(&shared.state, Instant::now().into_std());
            let (opened, snapshot) = (timeouts.opened(), Some(Box::new(snapshot)));
            Driven::Leaves(Leaving::Transfer(Suspended { transport, opened, unread, history, left: None, snapshot }))
        }
        Some(Dropped::Mismatch { transport, goaway }) => {
            shared.state.on_wrong_bytes();
            // A transport of its own, which waits for the client to read it.
            refusal::say(Transport::new(transport, Bytes::new(), Arc::clone(shared)), &goaway).await;
            Driven::Ended(Ended::Done)
        }
        None => Driven::Ended(ended),
    }
}

/// Answers the request with which h2 gets to where the client is.
fn arrive(
    missing: &'static [u8],
    request: Request<RecvStream>,
    mut reply: SendResponse<Bytes>,
) -> Result<(), h2::Error> {
    // No field but the status: it would be in h2's table, and not in the client's.
    let mut send = reply.send_response(Response::new(()), missing.is_empty())?;
    if !missing.is_empty() {
        send.send_data(Bytes::from_static(missing), true)?;
    }
    drop(request);
    Ok(())
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
