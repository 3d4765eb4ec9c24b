//! Finds out whether the client is still there, which TCP alone does not tell for a long time.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep};

use super::super::state::ConnState;

/// How often is looked whether a client has sent something, and for how long a PING may be the last that was heard.
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(20);

pub(super) struct KeepAlive {
    pings: Option<PingPong>,
    timer: Pin<Box<Sleep>>,
    /// How much the client had sent when the timer was set.
    received: u64,
    /// Whether a PING has been sent that nothing has followed.
    asked: bool,
}

impl KeepAlive {
    pub(super) fn new(pings: Option<PingPong>) -> Self {
        Self { pings, timer: Box::pin(sleep(INTERVAL)), received: 0, asked: false }
    }

    /// Ready if the client is not there any more.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, state: &ConnState) -> Poll<()> {
        let Some(pings) = &mut self.pings else { return Poll::Pending };
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let received = state.received();
            // Whoever takes nothing of what there is for it can't answer, and has a time-out of its own. A PING that
            // can't go out would keep h2 from reading as well.
            let is_silent = received == self.received && !state.is_write_blocked();
            if is_silent && self.asked {
                return Poll::Ready(());
            }
            self.received = received;
            // Its answer is something received; it must be taken for the next one to be sent.
            let _ = pings.poll_pong(cx);
            // One that has not been answered yet is as good as another one.
            if is_silent {
                let _ = pings.send_ping(Ping::opaque());
            }
            self.asked = is_silent;
            self.timer.as_mut().reset(Instant::now() + if self.asked { TIMEOUT } else { INTERVAL });
        }
    }
}
