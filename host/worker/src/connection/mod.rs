//! Serves HTTP on one connection, from its first byte to a close that loses nothing.
//!
//! Owns the choice between HTTP/1.1 and HTTP/2, the driving of hyper's connections, their time-outs and their drain. Knows
//! nothing of workers, listeners, signals or how the app is loaded: it gets a transport, an [`Application`] that answers
//! requests, a thread's statistics to count in, and a [`DrainSignal`].
//!
//! HTTP/1 is hyper's own connection, and not its ready-made automatic server, because that exposes neither the moment of a
//! response nor the parts of a connection. HTTP/2 is [ours](http2) on the crate h2.
//!
//! # Drain
//! By [`Ending::HandOver`] a connection is [suspended](Suspended) between two requests, with what has been read of
//! the next one, for another worker to go on with: an idle one at once, a busy one when its response is out. Connections
//! that can't be suspended, and all by [`Ending::Close`], go through this:
//! ```text
//! HTTP/1   busy ── response, closing announced ─────────────────────────────────▶ lingering close
//!           │ └─── response, a further request may lie behind it ──▶ busy or idle
//!          idle ── next request ──▶ busy
//!             └─── `linger` over ───────────────────────────────────────────────▶ lingering close
//! HTTP/2   no stream, or `linger` over ── GOAWAY in two steps ── all streams done ──▶ lingering close
//! ```
//! From `linger` after the drain's begin every HTTP/1 response announces the close, whatever lies
//! behind it, and an HTTP/2 connection without a stream is closed. [`Phase::Cut`] ends a connection
//! wherever it is.
//!
//! # Parking
//! An HTTP/1 connection that has waited for its next request for 30 to 60 s ([`Limits::look`]) is suspended, too: it
//! needs no task, timers and buffers until something comes.
//!
//! # Upgrades
//! A connection that the app upgrades to another protocol leaves hyper and becomes a [`Tunnel`](tunnel::Tunnel): bytes for
//! the app, no time-outs, in flight until the app drops it or the cut comes. A WebSocket that the app calls
//! [resumable](resumable) is suspended between two messages, with the head of its request: another worker asks for it once
//! more, and swallows the answer. An [event stream](event_stream) goes the same way, in the midst of its response.

mod again;
mod bounds;
mod detect;
mod drain;
mod driver;
mod event_stream;
mod events;
mod framing;
mod going_on;
mod http2;
mod interim;
mod keepsake;
mod messages;
mod refusal;
mod request;
mod request_body;
mod response_body;
mod resumable;
mod rules;
mod shared;
mod state;
mod suspended;
#[cfg(test)]
mod tests;
mod transport;
mod tunnel;
mod upgrade;

use std::error::Error;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use app_host_core::error::chain;
use app_host_core::refused::Refused;
use app_host_platform::sys::stats::ThreadStats;

use crate::access::ConnectionLog;
use driver::{Driven, Ended, Wakeups};
use shared::{Shared, refuse};
use state::{ConnState, Early, Protocol, Timeouts};
use transport::Transport;

pub use drain::{DrainControl, DrainSignal, drain_signal};
pub use http2::{Http2Snapshot, Settings as Http2Settings, self_test, settings as http2_settings};
pub use interim::Interim;
pub use keepsake::{Keepsake, Legacy};
pub use request_body::RequestBody;
#[cfg(test)]
pub use state::HEAD_TIMEOUT;
pub use state::{Detected, Ending, History, Limits, MAX_UNREAD, Phase};
pub use suspended::{Leaving, Suspended};

/// Answers requests. A trait, because the tests of this module answer with something else than an app.
pub trait Application: Clone + Send + Sync + 'static {
    /// The body of the responses.
    type Body: Body<Data = Bytes, Error: Error + Send + Sync + 'static> + Send + Unpin + 'static;
    /// Why there is no response.
    type Error: Error + Send + 'static;

    /// Looks at a request before it is logged, and at its header fields.
    fn receive<B>(&self, _request: &mut Request<B>) {}

    /// Answers one request.
    fn call(
        self,
        request: Request<RequestBody>,
    ) -> impl Future<Output = Result<Response<Self::Body>, Self::Error>> + Send;

    /// Whether a body can be sent without running any code of the app's.
    fn is_whole(body: &Self::Body) -> bool {
        body.is_end_stream()
    }
}

/// Serves one connection until it ends. Returns it if it is to be transferred or parked. Logs its requests if there is a
/// log. Must run inside a runtime with timers.
pub async fn serve_connection<T, A>(
    connection: Suspended<T>,
    app: A,
    stats: &'static ThreadStats,
    drain: DrainSignal,
    log: Option<Arc<ConnectionLog>>,
    limits: &'static Limits,
) -> Option<Leaving<T>>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Application,
{
    let Suspended { mut transport, opened, unread, history, left, snapshot } = connection;
    let timeouts = Timeouts::resume(&history, opened, limits, Instant::now().into_std());
    let due = timeouts.due().into();
    let change = pin!(drain.clone().changed());
    let sleep = pin!(tokio::time::sleep_until(due));
    let mut wakeups = Wakeups::new(drain, DrainSignal::changed, change, sleep);
    let (protocol, first) = match history.detected {
        Detected::Http1 | Detected::Resumed(_) => (Protocol::Http1, unread),
        Detected::Http2 => (Protocol::Http2, unread),
        Detected::Nothing | Detected::Unannounced => {
            match detect::first_bytes(&mut transport, &unread, timeouts.first().into(), &mut wakeups).await {
                (Ok(protocol), first) => {
                    wakeups.set(due);
                    (protocol, first)
                }
                (Err(Early::Leaves), unread) => {
                    let history = timeouts.first_history(Instant::now().into_std());
                    return Some(Leaving::Transfer(Suspended { transport, opened, unread, history, left, snapshot }));
                }
                (Err(Early::Dismissed), _) => {
                    stats.dismissed();
                    return None;
                }
                (Err(Early::Late), read) => {
                    // A client that has sent nothing has asked for nothing.
                    if !read.is_empty() {
                        refuse(stats, log.as_deref(), Refused::HeadTimedOut, refusal::detail(Refused::HeadTimedOut));
                    }
                    return None;
                }
                (Err(Early::Gone), _) => return None,
            }
        }
    };
    let mut machine = ConnState::new(protocol, history.requests)
        .with_most_requests(limits.http.max_requests)
        .with_most_resets(limits.http.max_reset_streams)
        .with_moves(limits);
    let resumed = match history.detected {
        Detected::Resumed(what) => Some(what),
        _ => None,
    };
    if resumed.is_some() {
        machine = machine.replaying();
    }
    if snapshot.is_some() {
        machine = machine.arriving();
    }
    let shared = Arc::new(Shared::new(machine, stats, log, limits, resumed.map(|what| (what, left))));
    let mut transport = Transport::new(transport, first, Arc::clone(&shared));
    if resumed.is_some() {
        transport = transport.swallowing();
    }
    let driven = match protocol {
        Protocol::Http1 => driver::http1(transport, app, &shared, timeouts, &mut wakeups).await,
        // Boxed, so that the future of an HTTP/1 connection has no room for one of HTTP/2.
        Protocol::Http2 => Box::pin(driver::http2(transport, app, &shared, (timeouts, snapshot), &mut wakeups)).await,
    };
    let ended = match driven {
        Driven::Leaves(leaving) => return Some(leaving),
        Driven::Ended(ended) => ended,
    };
    if shared.state.is_dismissed() {
        stats.dismissed();
    }
    match ended {
        Ended::Done | Ended::LetGo | Ended::Left => {}
        Ended::Failed(error) => {
            if let Some(why) = refusal::of(&error) {
                shared.refuse(why, &chain(&error));
            }
            tracing::debug!(error = &error as &dyn Error, "connection failed");
        }
        Ended::Refused(why) => tracing::debug!(%why, "client was refused"),
        Ended::TimedOut => tracing::debug!("connection timed out"),
        Ended::Cut => tracing::debug!("connection was cut"),
    }
    None
}
