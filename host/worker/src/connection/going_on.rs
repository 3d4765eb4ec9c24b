//! What becomes of a connection whose WebSocket or event stream goes on elsewhere, or does not.

use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite};

use app_host_core::not_resumed::{LongLived, NotResumed};

use super::driver::{Driven, Ended};
use super::refusal;
use super::shared::Shared;
use super::state::{History, MAX_UNREAD};
use super::suspended::{Leaving, Suspended};
use super::transport::Transport;

/// What the client gets whose WebSocket or event stream can't go on: a closing frame that says 1012, the service restarts
/// (IANA's registry of the close codes of RFC 6455); or the end of the response (RFC 9112, section 7.1).
const fn last_words(what: LongLived) -> &'static [u8] {
    match what {
        LongLived::WebSocket => &[0x88, 2, 3, 0xf4],
        LongLived::EventStream => b"0\r\n\r\n",
    }
}

/// Tells the client that it does not go on.
pub(super) async fn say_that_it_ends<T>(transport: Transport<T>, what: LongLived)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    refusal::say(transport, last_words(what)).await;
}

/// Lets another worker go on with a response, from where it is now.
pub(super) async fn let_go<T>(transport: Transport<T>, read: &[u8], shared: &Shared, opened: Instant) -> Driven<T>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let unread = [&shared.take_let_go().unwrap_or_default(), read, transport.rewind()].concat();
    if unread.len() > MAX_UNREAD {
        let what = LongLived::EventStream;
        shared.count_not_resumed(what, NotResumed::LongHead);
        shared.state.on_last_response();
        say_that_it_ends(transport, what).await;
        return Driven::Ended(Ended::Done);
    }
    let history = History::resumed(LongLived::EventStream, shared.state.requests());
    let transport = transport.into_parts().transport;
    Driven::Leaves(Leaving::Transfer(Suspended {
        transport,
        opened,
        unread: unread.into(),
        history,
        left: shared.left(),
        snapshot: None,
    }))
}
