//! HTTP on one connection: from its first byte to a close that loses nothing.
//!
//! Owns the choice between HTTP/1.1 and HTTP/2, the driving of hyper's connections, their time-outs
//! and their drain. Knows nothing of workers, listeners, signals or how the app is loaded: it gets a
//! transport, something that answers requests, a lane for its figures and a signal.
//!
//! hyper's own connections are driven, rather than a ready-made automatic server, because that would
//! expose neither the moment of a response nor the parts of a connection.
//!
//! # Drain
//! By [`Ending::HandOver`] an HTTP/1 connection is given back between two requests, with what has been read
//! of the next one, for another worker to go on with: an idle one at once, a busy one when its response is
//! out. For those that can't be given back, and by [`Ending::Close`]:
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
//! # Rest
//! An HTTP/1 connection that has waited for its next request for 30 to 60 s ([`state::HEAD_TIMEOUT`]) is given back, too: it
//! needs no task, timers and buffers until something comes.
//!
//! A connection that the app upgrades to another protocol leaves hyper and becomes a [`Tunnel`](tunnel::Tunnel): bytes for
//! the app, no time-outs, in flight until the app lets go of it or the cut comes.

mod activity;
mod boundary;
mod drain;
mod driver;
mod handover;
mod io;
mod request;
mod sniff;
mod state;
#[cfg(test)]
mod tests;
mod tunnel;
mod upload;

use std::error::Error;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use app_host_platform::sys::stats::Lane;

use crate::access::Visitor;
use activity::{Activity, Opened};
pub use drain::{DrainControl, DrainSignal, drain_signal};
use driver::{Ended, Outcome, Wakes};
pub use handover::{Handover, Leaving};
use io::Io;
#[cfg(test)]
pub use state::HEAD_TIMEOUT;
use state::{ConnState, Early, Protocol, Timeouts};
pub use state::{Ending, History, MAX_UNREAD, Phase, Spoken};
pub use upload::Upload;

/// What answers requests. A trait because tests of this room answer with something else than an app.
pub trait Application: Clone + Send + Sync + 'static {
    /// The body of its responses.
    type Body: Body<Data = Bytes, Error: Error + Send + Sync + 'static> + Send + Unpin + 'static;
    /// Why there is no response.
    type Error: Error + Send + 'static;

    /// Answers one request.
    fn call(self, request: Request<Upload>) -> impl Future<Output = Result<Response<Self::Body>, Self::Error>> + Send;

    /// Whether a body needs none of the app's code to be sent.
    fn is_whole(body: &Self::Body) -> bool {
        body.is_end_stream()
    }
}

/// Serves one connection to its end, or until it is to be handed over or to rest: then it is returned. What is asked
/// is logged if there is a visitor. Must run inside a runtime with timers.
pub async fn serve_connection<T, A>(
    connection: Handover<T>,
    app: A,
    lane: &'static Lane,
    drain: DrainSignal,
    visitor: Option<Arc<Visitor>>,
) -> Option<Leaving<T>>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Application,
{
    let _opened = Opened::new(lane);
    let Handover { mut transport, unread, history } = connection;
    let timeouts = Timeouts::resume(&history, Instant::now().into_std());
    let due = timeouts.due().into();
    let change = pin!(drain.clone().changed());
    let sleep = pin!(tokio::time::sleep_until(due));
    let mut wakes = Wakes::new(drain, DrainSignal::changed, change, sleep);
    let (protocol, first) = match history.spoken {
        Spoken::Http1 => (Protocol::Http1, unread),
        Spoken::Nothing => match sniff::first_bytes(&mut transport, &unread, due, &mut wakes).await {
            (Ok(protocol), first) => (protocol, first),
            (Err(Early::Leaves), unread) => {
                let history = timeouts.first_history(Instant::now().into_std());
                return Some(Leaving::Moves(Handover { transport, unread, history }));
            }
            (Err(Early::Dismissed), _) => {
                lane.dismissed();
                return None;
            }
            (Err(Early::Gone), _) => return None,
        },
    };
    let activity = Arc::new(Activity::new(ConnState::new(protocol, history.requests), lane, visitor));
    let io = Io::new(transport, first, Arc::clone(&activity));
    let outcome = match protocol {
        Protocol::Http1 => driver::http1(io, app, &activity, timeouts, &mut wakes).await,
        // Boxed, so that the many connections that are none don't take its room.
        Protocol::Http2 => Outcome::Ended(Box::pin(driver::http2(io, app, &activity, timeouts, &mut wakes)).await),
    };
    let ended = match outcome {
        Outcome::Leaves(leaving) => return Some(leaving),
        Outcome::Ended(ended) => ended,
    };
    if activity.state.is_dismissed() {
        lane.dismissed();
    }
    match ended {
        Ended::Done => {}
        Ended::Failed(error) => tracing::debug!(error = &error as &dyn Error, "connection failed"),
        Ended::TimedOut => tracing::debug!("connection timed out"),
        Ended::Cut => tracing::debug!("connection was cut"),
    }
    None
}
