//! The databank: the document store that the host gives the app.
//!
//! Owns what all drivers have in common: the deadline of each call and the runtime that it is polled in. What can be
//! stored and searched, and the texts of the faults, are in `app_abi::store`, which the feature `testing` of that crate
//! shares. Each driver owns its store. How an app calls it is for `loader`; that two generations use one store, for the
//! preflight.
//!
//! A call may be polled on any thread, the app's own included. It waits in the runtime of the thread that polls it, if
//! that thread has one of the host's, as each serving thread does: the answer is read where it is needed, and no other
//! thread has to be woken first. The app's own threads share the runtime of the databank's thread. That runtime also keeps
//! the deadlines: an app that blocks its serving thread with a call gets an error in time.

mod mongodb;
mod sqlite;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use app_abi::store::{memory, new_revision, query, scan};
use futures_util::future::FutureExt;
use futures_util::stream::StreamExt;
use tokio::runtime::Handle;
use tokio::time::{Sleep, sleep};

use app_host_core::config::databank::{Setup, Store};

pub use app_abi::store::document::Document;
pub use app_abi::store::query::{FieldPath, Key, Kind, Query};
pub use app_abi::store::{Documents, Driver, Fault, Mode, Reply, Stored};
pub use app_host_core::config::databank::Making;

/// A databank as the configuration names it. Cheap to clone.
#[derive(Clone)]
pub struct Databank {
    driver: Arc<dyn Driver>,
    /// The runtime of the databank's own thread.
    runtime: Handle,
    timeout: Duration,
    /// The file of SQLite.
    file: Option<PathBuf>,
}

impl Databank {
    /// Starts the databank's thread. The first call connects to the store, so that a worker can start while the store is
    /// away.
    ///
    /// # Errors
    /// When no thread can be made.
    pub fn open(setup: &Setup, making: Making) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let driver: Arc<dyn Driver> = match &setup.store {
            Store::Mongodb { uri, database, indexes } => {
                Arc::new(mongodb::Mongodb::new(uri.reveal(), database, indexes, setup.timeout))
            }
            Store::Sqlite { path } => Arc::new(sqlite::Sqlite::new(path, making, setup.timeout)?),
            Store::Memory => Arc::new(memory::Memory::default()),
        };
        // Until the process ends: a worker's databank is never closed.
        std::thread::Builder::new()
            .name("databank".to_owned())
            .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
        let file = match &setup.store {
            Store::Sqlite { path } => Some(path.clone()),
            Store::Mongodb { .. } | Store::Memory => None,
        };
        Ok(Self { driver, runtime: handle, timeout: setup.timeout, file })
    }

    /// The databank's own file, if this process has it open beside the databank.
    pub fn file_in_foreign_use(&self) -> Option<&Path> {
        // If that can't be found out, it counts as not open.
        self.file.as_deref().filter(|path| sqlite::is_open_beside_ours(path).unwrap_or(false))
    }

    fn bounded<T: Send + 'static>(&self, reply: Reply<T>) -> Reply<T> {
        Box::pin(self.within(&self.runtime(), reply).map(|answer| answer.unwrap_or_else(Err)))
    }

    /// Gives each document the whole time: a slow reader isn't the store's fault.
    fn bounded_stream(&self, documents: Documents) -> Documents {
        let (databank, runtime) = (self.clone(), self.runtime());
        futures_util::stream::unfold(Some(documents), move |documents| {
            let documents = documents.map(|documents| databank.within(&runtime, documents.into_future()));
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

    /// The runtime in which a call of this thread waits.
    fn runtime(&self) -> Handle {
        Handle::try_current().unwrap_or_else(|_| self.runtime.clone())
    }

    fn within<F: Future + Unpin>(&self, runtime: &Handle, future: F) -> Within<F> {
        Within { runtime: runtime.clone(), clock: self.runtime.clone(), limit: self.timeout, deadline: None, future }
    }
}

/// The configured driver, with its deadlines and its runtime.
impl Driver for Databank {
    /// Connects to the store and makes what is needed there.
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

/// A future that is polled within a runtime, whichever thread polls it. Its deadline is kept by another runtime, whose
/// thread is never blocked.
struct Within<F> {
    runtime: Handle,
    clock: Handle,
    limit: Duration,
    /// Made when the future first has to wait.
    deadline: Option<Pin<Box<Sleep>>>,
    future: F,
}

impl<F: Future + Unpin> Future for Within<F> {
    type Output = Result<F::Output, Fault>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { runtime, clock, limit, deadline, future } = &mut *self;
        {
            let _entered = runtime.enter();
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
