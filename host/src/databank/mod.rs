//! The databank: the document store that the host gives the app.
//!
//! Owns what every driver has in common: what can be stored and searched ([`document`], [`query`]),
//! the deadline of each call, and the words of its faults. A driver, one file each, owns its store. How
//! an app reaches it is `loader`'s business; that two generations use one store is the preflight's.
//!
//! A call may be polled on any thread, the app's own included. What a driver has to wait for is waited
//! for by the runtime of the thread that asks, if the host has one there, as on each serving thread: an
//! answer is then read where it is needed, and no other thread has to be woken first. The threads of the
//! app share the runtime of a thread of the databank's own. On that one the deadlines are kept, too: an
//! app that blocks its serving thread with a call is told in time that no answer can come.

mod compare;
mod document;
mod memory;
mod mongodb;
mod query;
mod scan;
mod sqlite;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{BoxStream, StreamExt};
use tokio::runtime::Handle;
use tokio::time::{Sleep, sleep};

use crate::config::databank::{Setup, Store};

pub use document::Document;
pub use query::{FieldPath, Key, Kind, Query, Value, ids};

/// Why a call failed: a closed set that an app can act on. The text names the document and the cause.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    AlreadyExists(String),
    #[error("{0}")]
    Conflict(String),
    /// The store can't be reached or didn't answer in time; or answered what no app can act on.
    #[error("{0}")]
    Unavailable(String),
    #[error("{0}")]
    Invalid(String),
}

/// A document as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub id: String,
    /// Another one after each write.
    pub revision: u64,
    /// Compact JSON.
    pub text: Bytes,
}

/// How a whole document is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It must not be there.
    Create,
    /// It must be there.
    Update,
    /// Either.
    Save,
    /// It must be there with this revision.
    Compare(u64),
}

/// What a driver answers.
pub type Reply<T> = BoxFuture<'static, Result<T, Fault>>;

/// What a driver finds, read while it is asked for: a bounded number of documents ahead. Nothing
/// comes after a fault.
pub type Documents = BoxStream<'static, Result<Stored, Fault>>;

/// A kind of store. All its functions return at once; replies and documents are polled within one
/// runtime from their beginning to their end, whose threads may be others. Every reply may be dropped
/// at any time; one that never comes is cut off by [`Databank`].
///
/// A new revision comes from [`new_revision`].
trait Driver: Send + Sync {
    /// Makes sure that the store answers, and makes what it needs there (tables, indexes). Doing it
    /// again does no harm, nor does doing it in two processes at once.
    fn prepare(&self) -> Reply<()>;
    /// Gives the new revision.
    fn write(&self, key: Key, mode: Mode, document: Document) -> Reply<u64>;
    fn read(&self, key: Key) -> Reply<Stored>;
    fn remove(&self, key: Key) -> Reply<()>;
    /// Makes document, objects on the way and number where they aren't there. Gives the sum.
    fn increment(&self, key: Key, path: FieldPath, by: i64) -> Reply<i64>;
    /// Makes document, objects on the way and list where they aren't there. Gives the new revision.
    fn append(&self, key: Key, path: FieldPath, value: serde_json::Value) -> Reply<u64>;
    /// Those that are there, in the order of the ids.
    fn read_many(&self, kind: Kind, ids: Vec<String>) -> Documents;
    /// In the order that the query says, the id deciding last, by its bytes.
    fn search(&self, query: Query) -> Documents;
}

/// Whether processes may share the store: two generations need that. Each driver says it of itself.
#[must_use]
pub const fn is_shared<S>(store: &Store<S>) -> bool {
    match store {
        Store::Mongodb { .. } => mongodb::SHARED,
        Store::Sqlite { .. } => sqlite::SHARED,
        Store::Memory => memory::SHARED,
    }
}

/// A revision that no document has had before.
fn new_revision() -> Result<u64, Fault> {
    // 63 bits, because every store has signed numbers of 64; at random, so that a document which was
    // removed and made again can't be taken for the old one.
    let random = getrandom::u64().map_err(|error| Fault::Unavailable(format!("no random number: {error}")))?;
    Ok(random >> 1)
}

/// A databank as the configuration names it. Cheap to clone.
#[derive(Clone)]
pub struct Databank {
    driver: Arc<dyn Driver>,
    /// That of the databank's own thread.
    runtime: Handle,
    timeout: Duration,
}

impl Databank {
    /// Makes its thread. Doesn't reach for the store: that is done by the first call, so that a
    /// worker can start while the store is away.
    ///
    /// # Errors
    /// When no thread can be made.
    pub fn open(setup: &Setup) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let driver: Arc<dyn Driver> = match &setup.store {
            Store::Mongodb { uri, database, indexes } => {
                Arc::new(mongodb::Mongodb::new(uri.reveal(), database, indexes, setup.timeout))
            }
            Store::Sqlite { path } => Arc::new(sqlite::Sqlite::new(path, setup.timeout)?),
            Store::Memory => Arc::new(memory::Memory::default()),
        };
        // Until the process ends: the databank of a worker is never closed before.
        std::thread::Builder::new()
            .name("databank".to_owned())
            .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
        Ok(Self { driver, runtime: handle, timeout: setup.timeout })
    }

    /// Reaches for the store and makes what is needed there.
    pub fn prepare(&self) -> Reply<()> {
        self.bounded(self.driver.prepare())
    }

    pub fn write(&self, key: Key, mode: Mode, document: Document) -> Reply<u64> {
        self.bounded(self.driver.write(key, mode, document))
    }

    pub fn read(&self, key: Key) -> Reply<Stored> {
        self.bounded(self.driver.read(key))
    }

    pub fn remove(&self, key: Key) -> Reply<()> {
        self.bounded(self.driver.remove(key))
    }

    pub fn increment(&self, key: Key, path: FieldPath, by: i64) -> Reply<i64> {
        self.bounded(self.driver.increment(key, path, by))
    }

    pub fn append(&self, key: Key, path: FieldPath, value: Value) -> Reply<u64> {
        if let Err(fault) = value.check_levels_at(&path) {
            return Box::pin(std::future::ready(Err(fault)));
        }
        self.bounded(self.driver.append(key, path, value.into_json()))
    }

    pub fn read_many(&self, kind: Kind, ids: Vec<String>) -> Documents {
        self.bounded_stream(self.driver.read_many(kind, ids))
    }

    pub fn search(&self, query: Query) -> Documents {
        self.bounded_stream(self.driver.search(query))
    }

    fn bounded<T: Send + 'static>(&self, reply: Reply<T>) -> Reply<T> {
        Box::pin(self.within(&self.home(), reply).map(|answer| answer.unwrap_or_else(Err)))
    }

    /// Each document has the whole time: a slow reader isn't the store's fault.
    fn bounded_stream(&self, documents: Documents) -> Documents {
        let (databank, home) = (self.clone(), self.home());
        futures_util::stream::unfold(Some(documents), move |documents| {
            let documents = documents.map(|documents| databank.within(&home, documents.into_future()));
            async move {
                match documents?.await {
                    Ok((next @ Some(Ok(_)), documents)) => next.map(|next| (next, Some(documents))),
                    Ok((Some(Err(fault)), _)) | Err(fault) => Some((Err(fault), None)),
                    Ok((None, _)) => None,
                }
            }
        })
        .boxed()
    }

    /// The runtime that waits for what is asked on this thread.
    fn home(&self) -> Handle {
        Handle::try_current().unwrap_or_else(|_| self.runtime.clone())
    }

    fn within<F: Future + Unpin>(&self, home: &Handle, future: F) -> Within<F> {
        Within { home: home.clone(), clock: self.runtime.clone(), limit: self.timeout, deadline: None, future }
    }
}

/// A future that is polled within a runtime, whichever thread polls it, and that has a deadline by the
/// clock of another runtime: its thread waits for nothing else.
struct Within<F> {
    home: Handle,
    clock: Handle,
    limit: Duration,
    /// Made when the future first has to wait.
    deadline: Option<Pin<Box<Sleep>>>,
    future: F,
}

impl<F: Future + Unpin> Future for Within<F> {
    type Output = Result<F::Output, Fault>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { home, clock, limit, deadline, future } = &mut *self;
        {
            let _entered = home.enter();
            if let Poll::Ready(output) = Pin::new(future).poll(context) {
                return Poll::Ready(Ok(output));
            }
        }
        let deadline = deadline.get_or_insert_with(|| {
            let _entered = clock.enter();
            Box::pin(sleep(*limit))
        });
        ready!(deadline.as_mut().poll(context));
        Poll::Ready(Err(Fault::Unavailable(format!("the databank didn't answer within {limit:?}"))))
    }
}

#[cfg(test)]
mod tests;
