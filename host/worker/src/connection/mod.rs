//! Serves HTTP on one connection, from its first byte to a close that loses nothing.
//!
//! Owns the choice between HTTP/1.1 and HTTP/2, the driving of hyper's connections, their time-outs and their drain. Knows
//! nothing of workers, listeners, signals or how the app is loaded: it gets a transport, an [`Application`] that answers
//! requests, a thread's statistics to count in, and a [`DrainSignal`].
//!
//! It drives hyper's own connections, and not its ready-made automatic server, because that exposes neither the moment of
//! a response nor the parts of a connection.
//!
//! # Drain
//! By [`Ending::HandOver`] an HTTP/1 connection is [suspended](Suspended) between two requests, with what has been read of
//! the next one, for another worker to go on with: an idle one at once, a busy one when its response is out. Connections
//! that can't be suspended, and all by [`Ending::Close`], go through this:
//! ```text
//! HTTP/1   busy ── response, closing announced ─────────────────────────────────▶ lingering close
//!           │ └─── response, a further request may lie behind it ──▶ busy or idle
//!          idle ── next request ──▶ busy
//!             └─── `linger` over ───────────────────────────────────────────────▶ lingering close
//! HTTP/2   GOAWAY in two steps ── all streams done ─────────────────────────────▶ lingering close
//! ```
//! From `linger` after the drain's begin every HTTP/1 response announces the close, whatever lies
//! behind it, and an HTTP/2 connection without a stream is closed. [`Phase::Cut`] ends a connection
//! wherever it is.
//!
//! # Parking
//! An HTTP/1 connection that has waited for its next request for 30 to 60 s ([`state::HEAD_TIMEOUT`]) is suspended, too: it
//! needs no task, timers and buffers until something comes.
//!
//! # Upgrades
//! A connection that the app upgrades to another protocol leaves hyper and becomes a [`Tunnel`](tunnel::Tunnel): bytes for
//! the app, no time-outs, in flight until the app drops it or the cut comes.

mod detect;
mod drain;
mod driver;
mod framing;
mod request;
mod request_body;
mod shared;
mod state;
mod suspended;
#[cfg(test)]
mod tests;
mod transport;
mod tunnel;

use std::error::Error;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use app_host_platform::sys::stats::ThreadStats;

use crate::access::ConnectionLog;
use driver::{Driven, Ended, Wakeups};
use shared::{Opened, Shared};
use state::{ConnState, Early, Protocol, Timeouts};
use transport::Transport;

pub use drain::{DrainControl, DrainSignal, drain_signal};
pub use request_body::RequestBody;
#[cfg(test)]
pub use state::HEAD_TIMEOUT;
pub use state::{Detected, Ending, History, MAX_UNREAD, Phase};
pub use suspended::{Leaving, Suspended};

/// Answers requests. A trait, because the tests of this module answer with something else than an app.
pub trait Application: Clone + Send + Sync + 'static {
    /// The body of the responses.
    type Body: Body<Data = Bytes, Error: Error + Send + Sync + 'static> + Send + Unpin + 'static;
    /// Why there is no response.
    type Error: Error + Send + 'static;

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
) -> Option<Leaving<T>>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Application,
{
    let _opened = Opened::new(stats);
    let Suspended { mut transport, unread, history } = connection;
    let timeouts = Timeouts::resume(&history, Instant::now().into_std());
    let due = timeouts.due().into();
    let change = pin!(drain.clone().changed());
    let sleep = pin!(tokio::time::sleep_until(due));
    let mut wakeups = Wakeups::new(drain, DrainSignal::changed, change, sleep);
    let (protocol, first) = match history.detected {
        Detected::Http1 => (Protocol::Http1, unread),
        Detected::Nothing => match detect::first_bytes(&mut transport, &unread, due, &mut wakeups).await {
            (Ok(protocol), first) => (protocol, first),
            (Err(Early::Leaves), unread) => {
                let history = timeouts.first_history(Instant::now().into_std());
                return Some(Leaving::Transfer(Suspended { transport, unread, history }));
            }
            (Err(Early::Dismissed), _) => {
                stats.dismissed();
                return None;
            }
            (Err(Early::Gone), _) => return None,
        },
    };
    let shared = Arc::new(Shared::new(ConnState::new(protocol, history.requests), stats, log));
    let transport = Transport::new(transport, first, Arc::clone(&shared));
    let driven = match protocol {
        Protocol::Http1 => driver::http1(transport, app, &shared, timeouts, &mut wakeups).await,
        // Boxed, so that the future of an HTTP/1 connection has no room for one of HTTP/2.
        Protocol::Http2 => {
            Driven::Ended(Box::pin(driver::http2(transport, app, &shared, timeouts, &mut wakeups)).await)
        }
    };
    let ended = match driven {
        Driven::Leaves(leaving) => return Some(leaving),
        Driven::Ended(ended) => ended,
    };
    if shared.state.is_dismissed() {
        stats.dismissed();
    }
    match ended {
        Ended::Done => {}
        Ended::Failed(error) => tracing::debug!(error = &error as &dyn Error, "connection failed"),
        Ended::TimedOut => tracing::debug!("connection timed out"),
        Ended::Cut => tracing::debug!("connection was cut"),
    }
    None
}
