//! The live page: what one worker has received shows at once in browsers that another one serves.
//!
//! Each new entry is published to all workers, and `GET /live` streams to its browser what is heard, as
//! server-sent events (WHATWG HTML Standard, section 9.2). Messages may get lost, the databank's documents
//! don't: where a stream begins, and where it has lost something, it sends the newest entries again, and
//! the page leaves out those that it has. So it may go on in another worker, in a restart: there it begins.

use crate::guestbook::{self, Entry, Guestbook};
use crate::pieces::Pieces;
use app_abi::{Body, Bytes, DatabankError, Document, Host, Level, SubscribeError, Subscription};
use std::{collections::VecDeque, future::poll_fn};

/// What entries are published on.
const TOPIC: &str = "entries";

/// What begins every stream: how many milliseconds a browser waits before it comes back.
const RETRY: &str = "retry: 250\n\n";

/// Tells all workers of a new entry.
pub fn publish(host: &Host, entry: &Document<Entry>) {
    if let Err(error) = host.publish(TOPIC, guestbook::to_json(entry).to_string()) {
        // The entry is stored all the same: whoever loads the page sees it.
        host.log_with(Level::Warn, "open pages are not told of an entry", &[("cause", &error.to_string())]);
    }
}

/// A body of events.
pub async fn events(host: &Host, guestbook: Guestbook, newest: usize) -> Result<Body, LiveError> {
    // Subscribed before the entries are read: what comes between is there twice rather than never.
    let heard = host.subscribe(TOPIC)?;
    let mut live = Live { guestbook, newest, heard, ready: VecDeque::new() };
    live.ready.push_back(RETRY.into());
    live.read_newest().await?;
    Ok(Body::stream(Pieces::new(live, |live| Box::pin(live.next()))))
}

/// Why there are no events.
pub enum LiveError {
    Databank(DatabankError),
    Subscribe(SubscribeError),
}

impl From<DatabankError> for LiveError {
    fn from(error: DatabankError) -> Self {
        Self::Databank(error)
    }
}

impl From<SubscribeError> for LiveError {
    fn from(error: SubscribeError) -> Self {
        Self::Subscribe(error)
    }
}

struct Live {
    guestbook: Guestbook,
    newest: usize,
    heard: Subscription,
    /// Events that are to be sent.
    ready: VecDeque<Bytes>,
}

impl Live {
    async fn read_newest(&mut self) -> Result<(), DatabankError> {
        let entries = self.guestbook.newest(self.newest, None).await?;
        self.ready.extend(entries.iter().rev().map(|entry| event(guestbook::to_json(entry).to_string().as_bytes())));
        Ok(())
    }

    /// The next event and what comes after it.
    async fn next(mut self) -> Option<Next> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some((Ok(event), self));
            }
            match poll_fn(|context| self.heard.poll_heard(context)).await? {
                Ok(message) => return Some((Ok(event(&message.bytes)), self)),
                Err(_lost) => {
                    if let Err(error) = self.read_newest().await {
                        return Some((Err(error), self));
                    }
                }
            }
        }
    }
}

/// JSON in one line becomes an event.
fn event(json: &[u8]) -> Bytes {
    [b"data: ", json, b"\n\n"].concat().into()
}

type Next = (Result<Bytes, DatabankError>, Live);
