//! Dispatch: messages between the workers of one service.
//!
//! Owns the app's end: [`Host::publish`], [`Host::subscribe`] and their types. How a message travels,
//! and what is dropped where, is the host's doing; the promise is here.
#![expect(unsafe_code, reason = "calls into the table of the host")]

use crate::Host;
use crate::abi::{FfiFault, FfiHeard, FfiMessage, FfiMessages};
use abi_stable::std_types::{RErr, ROk, RStr};
use async_ffi::ContextExt;
use bytes::Bytes;
use futures_core::Stream;
use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

/// Why a message was not published. Nobody hears anything of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// More is published than can be carried: 1,024 messages, or 4 MiB of them, wait on their way out
    /// of this worker. Let it go, or publish it again in a while.
    #[error("{0}")]
    Full(String),
    /// The topic or the message isn't as it must be: the same call will fail again.
    #[error("{0}")]
    Invalid(String),
    /// This worker can't reach the others any more, because its master has gone: it is about to drain.
    #[error("{0}")]
    Unavailable(String),
}

/// Why a topic can't be subscribed to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// The worker has 65,536 subscriptions, or subscribes to 1,024 topics, already. Drop some.
    #[error("{0}")]
    Full(String),
    /// The topic isn't as it must be: the same call will fail again.
    #[error("{0}")]
    Invalid(String),
    /// This worker can't reach the others any more, because its master has gone: it is about to drain.
    #[error("{0}")]
    Unavailable(String),
}

/// A message as it was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What it was published on.
    pub topic: Arc<str>,
    /// What was published, byte for byte.
    pub bytes: Bytes,
    /// The seat of the worker that published it. The master says so, not the worker.
    pub slot: u16,
    /// The generation of the worker that published it.
    pub generation: u64,
}

/// Messages of the topic were dropped in this place, because this subscriber, this worker or the
/// master was too slow for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{count} messages were lost")]
pub struct Lost {
    /// How many. Only where more than 64 topics lose messages at once can it be more than were of this
    /// topic.
    pub count: u64,
}

impl Host {
    /// Publishes a message: every subscription to the topic hears it, in all workers, those of another
    /// generation and this one included. Never blocks; call it on any thread.
    ///
    /// A topic is a text of 1 to 255 bytes, a message has at most 64 KiB.
    ///
    /// A message arrives **at most once**: it may be lost, never doubled. Those of one publisher arrive
    /// in the order in which it published them, and all subscribers of a topic hear it in the same
    /// order. What is dropped, and who is told:
    /// - on the way out of this worker wait at most 1,024 messages or 4 MiB; beyond that the newest is
    ///   refused, and its publisher is told: [`PublishError::Full`];
    /// - the master keeps as much for each worker that doesn't read (stopped, or starved), and a
    ///   subscription at most 256 messages or 1 MiB behind its topic's newest; beyond that the
    ///   **oldest** are dropped, and the subscriber is told how many, in their place: [`Lost`];
    /// - what a worker that is killed had not handed over yet dies with it, and nobody is told.
    ///
    /// So use it to tell others that something has changed, and keep what must not get lost in the
    /// [databank](Host::databank):
    ///
    /// ```
    /// use app_abi::{Host, Level};
    ///
    /// fn tell(host: &Host, id: &str) {
    ///     if let Err(error) = host.publish("entries", id.as_bytes()) {
    ///         host.log_with(Level::Warn, "other workers are not told", &[("cause", &error.to_string())]);
    ///     }
    /// }
    /// ```
    pub fn publish(&self, topic: &str, message: impl AsRef<[u8]>) -> Result<(), PublishError> {
        let message = Bytes::copy_from_slice(message.as_ref());
        // SAFETY: `data` came together with the table, and the topic is only lent for the call.
        match unsafe { (self.dispatch.publish())(self.ffi.data, RStr::from_str(topic), message.into()) } {
            ROk(()) => Ok(()),
            RErr(FfiFault { code, text }) => Err(match code {
                5 => PublishError::Invalid(text.into()),
                6 => PublishError::Full(text.into()),
                // 4, and whatever a later host may add.
                _ => PublishError::Unavailable(text.into()),
            }),
        }
    }

    /// Subscribes to a topic: the subscription hears what is published from now on, see
    /// [`Self::publish`]. Works in [`App::start`](crate::App::start) already.
    ///
    /// ```
    /// use app_abi::Host;
    ///
    /// async fn watch(host: Host) -> Result<(), app_abi::SubscribeError> {
    ///     let mut entries = host.subscribe("entries")?;
    ///     while let Some(heard) = entries.next().await {
    ///         match heard {
    ///             Ok(message) => println!("{} from slot {}", message.bytes.len(), message.slot),
    ///             Err(lost) => println!("{lost}: read everything again"),
    ///         }
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub fn subscribe(&self, topic: &str) -> Result<Subscription, SubscribeError> {
        // SAFETY: `data` came together with the table, and the topic is only lent for the call.
        match unsafe { (self.dispatch.subscribe())(self.ffi.data, RStr::from_str(topic)) } {
            ROk(messages) => Ok(Subscription { topic: topic.into(), messages: Some(messages) }),
            RErr(FfiFault { code, text }) => Err(match code {
                5 => SubscribeError::Invalid(text.into()),
                6 => SubscribeError::Full(text.into()),
                _ => SubscribeError::Unavailable(text.into()),
            }),
        }
    }
}

/// A subscription to a topic. Dropping it ends it.
///
/// It is a [`Stream`], too, for those who use combinators. It ends only when the worker's master has
/// gone, not when the worker drains: until its end a draining worker hears what the others say. Whoever
/// is to end with the drain also listens to [`Host::draining`].
pub struct Subscription {
    topic: Arc<str>,
    /// Until the end was heard.
    messages: Option<FfiMessages>,
}

impl Subscription {
    /// The topic.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The next message, or word of a loss; `None` at the end. Nothing is lost by dropping the future.
    pub async fn next(&mut self) -> Option<Result<Message, Lost>> {
        poll_fn(|context| self.poll_heard(context)).await
    }

    /// As [`Self::next`], for those who poll.
    pub fn poll_heard(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Message, Lost>>> {
        let Some(messages) = &mut self.messages else { return Poll::Ready(None) };
        // SAFETY: the host's subscription is ours and isn't polled elsewhere; the context lives for
        // this call.
        let heard = context.with_ffi_context(|context| unsafe { (messages.vtable.poll_next)(messages.state, context) });
        Poll::Ready(match heard {
            FfiHeard::Pending => return Poll::Pending,
            FfiHeard::Message(FfiMessage { slot, generation, bytes }) => {
                Some(Ok(Message { topic: Arc::clone(&self.topic), bytes: bytes.into(), slot, generation }))
            }
            FfiHeard::Lost(count) => Some(Err(Lost { count })),
            FfiHeard::End => {
                self.messages = None;
                None
            }
        })
    }
}

impl Stream for Subscription {
    type Item = Result<Message, Lost>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_heard(context)
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("topic", &self.topic).finish_non_exhaustive()
    }
}

// SAFETY: by the rules of the line a subscription's owner may be on any thread.
unsafe impl Send for FfiMessages {}
// SAFETY: a shared subscription offers nothing that could be called.
unsafe impl Sync for FfiMessages {}

impl Drop for FfiMessages {
    fn drop(&mut self) {
        // SAFETY: the subscription owns its state, and this is the one call.
        unsafe { (self.vtable.drop)(self.state) }
    }
}
