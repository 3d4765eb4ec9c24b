//! The databank: the document store that the host gives the app.
//!
//! Owns what every driver has in common: the deadline of each call and the runtime
//! that it is polled in. What can be stored and searched, and the words of the faults, are `app_abi::store`'s,
//! which the feature `testing` of that crate shares. A driver, one file each, owns its store. How
//! an app reaches it is `loader`'s business; that two generations use one store is the preflight's.
//!
//! A call may be polled on any thread, the app's own included: [`Databank`] lends it the runtime of
//! a thread of its own, on which a driver's timers and connections live. So an app that blocks a serving
//! thread doesn't make the store's connections deaf.

mod mongodb;
mod sqlite;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use app_abi::store::{memory, new_revision, query, scan};
use futures_util::stream::StreamExt;
use tokio::runtime::Handle;

use crate::config::databank::{Setup, Store};

pub use app_abi::store::document::Document;
pub use app_abi::store::query::{FieldPath, Key, Kind, Query};
pub use app_abi::store::{Documents, Driver, Fault, Mode, Reply, Stored};

/// Whether processes may share the store: two generations need that. Each driver says it of itself.
#[must_use]
pub const fn is_shared<S>(store: &Store<S>) -> bool {
    match store {
        Store::Mongodb { .. } => mongodb::SHARED,
        Store::Sqlite { .. } => sqlite::SHARED,
        Store::Memory => memory::SHARED,
    }
}

/// A databank as the configuration names it. Cheap to clone.
#[derive(Clone)]
pub struct Databank {
    driver: Arc<dyn Driver>,
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

    fn bounded<T: Send + 'static>(&self, reply: Reply<T>) -> Reply<T> {
        let timeout = self.timeout;
        Box::pin(Within {
            runtime: self.runtime.clone(),
            future: Box::pin(async move { in_time(timeout, reply).await.unwrap_or_else(|late| Err(late)) }),
        })
    }

    /// Each document has the whole time: a slow reader isn't the store's fault.
    fn bounded_stream(&self, documents: Documents) -> Documents {
        let (runtime, timeout) = (self.runtime.clone(), self.timeout);
        futures_util::stream::unfold(Some(documents), move |documents| {
            let next = async move {
                let mut documents = documents?;
                match in_time(timeout, documents.next()).await {
                    Ok(next @ Some(Ok(_))) => next.map(|next| (next, Some(documents))),
                    Ok(Some(Err(fault))) | Err(fault) => Some((Err(fault), None)),
                    Ok(None) => None,
                }
            };
            Within { runtime: runtime.clone(), future: Box::pin(next) }
        })
        .boxed()
    }
}

/// The configured driver, with its deadlines and its runtime.
impl Driver for Databank {
    /// Reaches for the store and makes what is needed there.
    fn prepare(&self) -> Reply<()> {
        self.bounded(self.driver.prepare())
    }

    fn write(&self, key: Key, mode: Mode, document: Document) -> Reply<u64> {
        self.bounded(self.driver.write(key, mode, document))
    }

    fn read(&self, key: Key) -> Reply<Stored> {
        self.bounded(self.driver.read(key))
    }

    fn remove(&self, key: Key) -> Reply<()> {
        self.bounded(self.driver.remove(key))
    }

    fn increment(&self, key: Key, path: FieldPath, by: i64) -> Reply<i64> {
        self.bounded(self.driver.increment(key, path, by))
    }

    fn append(&self, key: Key, path: FieldPath, value: serde_json::Value) -> Reply<u64> {
        self.bounded(self.driver.append(key, path, value))
    }

    fn read_many(&self, kind: Kind, ids: Vec<String>) -> Documents {
        self.bounded_stream(self.driver.read_many(kind, ids))
    }

    fn search(&self, query: Query) -> Documents {
        self.bounded_stream(self.driver.search(query))
    }
}

async fn in_time<T>(limit: Duration, future: impl Future<Output = T>) -> Result<T, Fault> {
    tokio::time::timeout(limit, future)
        .await
        .map_err(|_| Fault::Unavailable(format!("the databank didn't answer within {limit:?}")))
}

/// A future that is polled within a runtime, whichever thread polls it.
struct Within<T> {
    runtime: Handle,
    future: Pin<Box<dyn Future<Output = T> + Send>>,
}

impl<T> Future for Within<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let runtime = self.runtime.clone();
        let _entered = runtime.enter();
        self.future.as_mut().poll(context)
    }
}

#[cfg(test)]
mod tests;
