//! Whether h2 goes on in the midst of a connection as it must for connections to move: tried when a worker begins, because
//! nothing that h2 promises says so.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use tokio::io::{AsyncRead, ReadBuf, duplex};

use app_host_platform::sys::stats::ThreadStats;

use super::super::Application;
use super::super::driver::Failure;
use super::super::request_body::RequestBody;
use super::super::shared::Shared;
use super::super::state::{ConnState, Limits, Protocol};
use super::super::transport::Transport;
use super::moving::{FIRST_WINDOW, HEADER_TABLE_SIZE, Http2Snapshot, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, Settings};
use super::{Http2, UNSEEN, WINDOW};

/// How many turns it may take.
const TURNS: usize = 100;

/// Why connections can't move.
#[derive(Debug, thiserror::Error)]
pub enum SelfTestError {
    #[error(transparent)]
    Failed(#[from] Failure),
    #[error("it is not where the client is")]
    Stays,
    #[error("the client got {0} bytes that were not for it")]
    Says(usize),
}

/// What is not asked.
#[derive(Clone)]
struct NoApp;

/// What it does not answer.
struct NoBody;

impl Application for NoApp {
    type Body = NoBody;
    type Error = Infallible;

    async fn call(self, _: Request<RequestBody>) -> Result<Response<NoBody>, Infallible> {
        Ok(Response::new(NoBody))
    }
}

impl Body for NoBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(None)
    }
}

/// Goes on with connections that were used in different ways. Must run where there are timers.
///
/// # Errors
/// h2 says something else than it must.
pub fn self_test(limits: &'static Limits) -> Result<(), SelfTestError> {
    let small = Settings::NONE.with(HEADER_TABLE_SIZE, 100).with(INITIAL_WINDOW_SIZE, 0);
    let large = Settings::NONE.with(HEADER_TABLE_SIZE, 1 << 16).with(MAX_FRAME_SIZE, 1 << 20);
    let stats = Box::leak(Box::default());
    for client in [Settings::NONE, small, large] {
        for send_window in [0, 1, FIRST_WINDOW, 1 << 20] {
            let (last, credit) = (0x7fff_fffd, WINDOW - 1);
            let snapshot = Http2Snapshot {
                last,
                send_window,
                credit,
                client,
                ours: settings(limits),
                moves: 0,
                proven: send_window > 1,
            };
            go_on(limits, stats, &snapshot)?;
        }
    }
    Ok(())
}

/// What h2 says first, as it is [told to](Http2::new).
pub fn settings(limits: &Limits) -> Settings {
    const MAX_CONCURRENT_STREAMS: usize = 3;
    const MAX_HEADER_LIST_SIZE: usize = 6;
    const ENABLE_CONNECT_PROTOCOL: usize = 8;
    Settings::NONE
        .with(MAX_CONCURRENT_STREAMS, limits.http.max_streams)
        .with(INITIAL_WINDOW_SIZE, WINDOW)
        .with(MAX_HEADER_LIST_SIZE, limits.http.max_head.saturating_mul(UNSEEN))
        .with(ENABLE_CONNECT_PROTOCOL, 1)
}

fn go_on(limits: &'static Limits, thread: &'static ThreadStats, snapshot: &Http2Snapshot) -> Result<(), SelfTestError> {
    let (client, transport) = duplex(1024);
    let state = ConnState::new(Protocol::Http2, 1).with_moves(limits).arriving();
    let shared = Arc::new(Shared::new(state, thread, None, limits, None));
    let transport = Transport::new(transport, Bytes::new(), Arc::clone(&shared));
    let (mut http, _slot) = Http2::new(transport, NoApp, Arc::clone(&shared), Some(snapshot));
    let mut cx = Context::from_waker(Waker::noop());
    // One turn more, so that the client is told what it is.
    let mut arrived = false;
    for _ in 0..TURNS {
        shared.state.on_poll();
        if let Poll::Ready(ended) = Pin::new(&mut http).poll(&mut cx) {
            return ended.map_err(Into::into).and(Err(SelfTestError::Stays));
        }
        if arrived {
            break;
        }
        arrived = !shared.state.is_arriving();
    }
    if !arrived {
        return Err(SelfTestError::Stays);
    }
    let mut space = [0; 1024];
    let mut said = ReadBuf::new(&mut space);
    let _ = pin!(client).poll_read(&mut cx, &mut said);
    let mut expected = Vec::new();
    snapshot.greet(WINDOW, &mut expected);
    let is_said = said.filled() == expected;
    if is_said { Ok(()) } else { Err(SelfTestError::Says(said.filled().len())) }
}
