//! The driver for MongoDB: a standalone server, a replica set or a cluster, through the official crate.
//!
//! Owns which command does what, and when. There is one collection a type; how a document looks in it is for
//! [`encoding`], how it is found for [`filter`], what an error means for [`fault`], how the server is reached for
//! [`client`]. Nothing needs a transaction: each write is one command on one document.
//!
//! The crate's futures must not be dropped halfway, and replies may be. So each call is a [`SpawnOnDrop`], and goes on
//! until it is done.

mod client;
mod encoding;
mod fault;
mod filter;
mod search;
mod sessions;
mod spawn_on_drop;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use ::mongodb::options::ReturnDocument;
use ::mongodb::{Collection, Database, IndexModel};
use bson::doc;
use bson::raw::{RawBsonRef, RawDocumentBuf};
use futures_util::{FutureExt, StreamExt};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use app_host_core::config::databank::Index;

use super::query::{FieldPath, Key, Kind, Query};
use super::{Document, Documents, Driver, Fault, Mode, Reply, Stored, new_revision};
use client::Configured;
use filter::Target;
use sessions::Sessions;
use spawn_on_drop::SpawnOnDrop;

/// How often an upsert is tried that collides with another one of the same new document. Each time, one of those that
/// collide gets through.
const ATTEMPTS: u32 = 32;

/// The store. The first call makes the client.
pub struct Mongodb {
    configured: Arc<Configured>,
}

/// The client of one runtime.
struct Server {
    database: Database,
    sessions: Sessions,
    /// One for each connection that there may be. A call that waits for a permit can be dropped without a trace. In the
    /// crate's own queue for connections it would stay, and after a silence of the server that queue would be behind for
    /// ever: it serves one request an event, abandoned ones like the others.
    permits: Arc<Semaphore>,
}

impl Mongodb {
    /// A store at `uri`, which isn't parsed yet: if it can't be used, each call fails.
    pub fn new(uri: &str, database: &str, indexes: &[Index], timeout: Duration) -> Self {
        Self { configured: Arc::new(Configured::new(uri, database, indexes, timeout)) }
    }

    /// Waits for a permit and does a call. If the reply is dropped before the call begins, nothing is left behind; after
    /// that the call goes on alone, until the server has answered or is found to be away.
    fn reply<T, F>(&self, call: impl FnOnce(Arc<Server>) -> F + Send + 'static) -> Reply<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Fault>> + Send + 'static,
    {
        let configured = self.configured.clone();
        Box::pin(async move {
            let server = configured.server().await?;
            let permit = server.permit().await?;
            // Boxed before it is moved: it is kilobytes long.
            let call = AssertUnwindSafe(Box::pin(call(server))).catch_unwind();
            let answer = SpawnOnDrop::new(Handle::current(), async move {
                let answer = call.await;
                drop(permit);
                answer
            });
            // The panic itself is in the log.
            answer.await.unwrap_or_else(|_| Err(Fault::Unavailable("the driver has panicked".to_owned())))
        })
    }
}

impl Driver for Mongodb {
    fn prepare(&self) -> Reply<()> {
        let models = self.configured.models();
        self.reply(move |server| async move { server.prepare(models?).await })
    }

    fn write(&self, key: Key, mode: Mode, document: Document) -> Reply<u64> {
        self.reply(move |server| async move { server.write(&key, mode, &document).await })
    }

    fn read(&self, key: Key) -> Reply<Stored> {
        self.reply(move |server| async move { server.read(&key).await })
    }

    fn remove(&self, key: Key) -> Reply<()> {
        self.reply(move |server| async move { server.remove(&key).await })
    }

    fn increment(&self, key: Key, path: FieldPath, by: i64) -> Reply<i64> {
        self.reply(move |server| async move { server.increment(&key, &path, by).await })
    }

    fn append(&self, key: Key, path: FieldPath, value: serde_json::Value) -> Reply<u64> {
        self.reply(move |server| async move { server.append(&key, &path, &value).await })
    }

    fn read_many(&self, kind: Kind, ids: Vec<String>) -> Documents {
        self.documents(|configured, results| async move {
            configured.server().await?.read_many(&kind, &ids, &results).await
        })
    }

    fn search(&self, query: Query) -> Documents {
        self.documents(
            move |configured, results| async move { configured.server().await?.search(&query, &results).await },
        )
    }
}

impl Server {
    async fn permit(&self) -> Result<OwnedSemaphorePermit, Fault> {
        let closed = |error| Fault::Unavailable(format!("the driver has ended: {error}"));
        self.permits.clone().acquire_owned().await.map_err(closed)
    }

    fn collection(&self, kind: &Kind) -> Collection<RawDocumentBuf> {
        self.database.collection(kind.as_str())
    }

    async fn prepare(&self, models: BTreeMap<String, Vec<IndexModel>>) -> Result<(), Fault> {
        let answered = self.database.run_command(doc! { "ping": 1 }).await;
        answered.map_err(|error| fault::fault(&"mongodb", &error))?;
        for (kind, models) in models {
            let made = self.database.collection::<RawDocumentBuf>(&kind).create_indexes(models).await;
            made.map_err(|error| fault::fault(&format!("the indexes of type {kind}"), &error))?;
        }
        Ok(())
    }

    async fn write(&self, key: &Key, mode: Mode, document: &Document) -> Result<u64, Fault> {
        let revision = new_revision()?;
        let stored = encoding::stored(&key.id, revision, document.fields())?;
        let collection = self.collection(&key.kind);
        let filter = doc! { "_id": &key.id };
        let failed = |error| fault::fault(key, &error);
        let replaced = match mode {
            Mode::Create => match collection.insert_one(stored).await {
                Err(error) if fault::is_duplicate(&error) => {
                    return Err(Fault::AlreadyExists(format!("{key} is there already")));
                }
                inserted => inserted.map(|_| true).map_err(failed)?,
            },
            Mode::Update => collection.replace_one(filter, stored).await.map_err(failed)?.matched_count > 0,
            Mode::Save => {
                let mut attempts = 0..ATTEMPTS;
                loop {
                    match collection.replace_one(filter.clone(), &stored).upsert(true).await {
                        // Two upserts made it at once: now it is there to be replaced.
                        Err(error) if fault::is_duplicate(&error) && attempts.next().is_some() => {}
                        saved => break saved.map(|_| true).map_err(failed)?,
                    }
                }
            }
            Mode::Compare(was) => {
                let filter = doc! { "_id": &key.id, encoding::REVISION: was.cast_signed() };
                let replaced = collection.replace_one(filter, stored).await.map_err(failed)?.matched_count > 0;
                if !replaced && collection.find_one(doc! { "_id": &key.id }).await.map_err(failed)?.is_some() {
                    return Err(Fault::Conflict(format!("{key} has another revision by now")));
                }
                replaced
            }
        };
        if replaced { Ok(revision) } else { Err(not_found(key)) }
    }

    /// Reads a document without `find_one`, which copies it twice out of the answer, and sends a limit that an id has
    /// anyway.
    async fn read(&self, key: &Key) -> Result<Stored, Fault> {
        let failed = |error| fault::fault(key, &error);
        let collection = self.collection(&key.kind);
        let filter = || doc! { "_id": &key.id };
        let mut session = self.sessions.take(self.database.client()).await.map_err(failed)?;
        let mut found = match collection.find(filter()).session(&mut session).batch().await {
            Err(error) if sessions::are_unknown(&error) => {
                let found = collection.find_one(filter()).await.map_err(failed)?;
                return encoding::read(key.kind.as_str(), &found.ok_or_else(|| not_found(key))?);
            }
            found => found.map_err(failed)?,
        };
        let batch = found.stream(&mut session).next().await;
        let batch = batch.ok_or_else(|| not_found(key))?.map_err(failed)?;
        self.sessions.put_back(session);
        match batch.doc_slices().map_err(failed)?.into_iter().next() {
            Some(Ok(RawBsonRef::Document(document))) => encoding::read(key.kind.as_str(), document),
            Some(_) => Err(Fault::Unavailable(format!("{key}: the server gives no document"))),
            None => Err(not_found(key)),
        }
    }

    async fn remove(&self, key: &Key) -> Result<(), Fault> {
        let removed = self.collection(&key.kind).delete_one(doc! { "_id": &key.id }).await;
        match removed.map_err(|error| fault::fault(key, &error))?.deleted_count {
            0 => Err(not_found(key)),
            _ => Ok(()),
        }
    }

    async fn increment(&self, key: &Key, path: &FieldPath, by: i64) -> Result<i64, Fault> {
        let collection = self.collection(&key.kind);
        let stored_path = filter::stored_path(path);
        let add = doc! { "$inc": { &stored_path: by }, "$set": { encoding::REVISION: new_revision()?.cast_signed() } };
        let filter = filter::updatable(&key.id, path, Target::WholeNumber);
        for _ in 0..ATTEMPTS {
            let changed = collection
                .find_one_and_update(filter.clone(), add.clone())
                .upsert(true)
                .return_document(ReturnDocument::After)
                .projection(doc! { &stored_path: 1 });
            match changed.await {
                Ok(changed) => {
                    let sum = changed.and_then(|document| filter::whole_number(&document, path));
                    return sum.ok_or_else(|| Fault::Unavailable(format!("{key}: the server gives no sum at {path}")));
                }
                Err(error) if fault::is_duplicate(&error) => {
                    self.check(&collection, key, path, Target::WholeNumber).await?;
                }
                Err(error) if fault::is_overflow(&error) => {
                    return Err(Fault::Invalid(format!("{key}: {path} and {by} make more than 64 bits hold")));
                }
                Err(error) => return Err(fault::fault(key, &error)),
            }
        }
        Err(crowded(key))
    }

    async fn append(&self, key: &Key, path: &FieldPath, value: &serde_json::Value) -> Result<u64, Fault> {
        let revision = new_revision()?;
        let collection = self.collection(&key.kind);
        let push = doc! {
            "$push": { filter::stored_path(path): { "$each": [encoding::value(value)] } },
            "$set": { encoding::REVISION: revision.cast_signed() },
        };
        let filter = filter::updatable(&key.id, path, Target::List);
        for _ in 0..ATTEMPTS {
            match collection.update_one(filter.clone(), push.clone()).upsert(true).await {
                Ok(_) => return Ok(revision),
                Err(error) if fault::is_duplicate(&error) => {
                    self.check(&collection, key, path, Target::List).await?;
                }
                Err(error) => return Err(fault::fault(key, &error)),
            }
        }
        Err(crowded(key))
    }

    /// Refuses an update if the document is there and is not as the update needs it. If not, two updates have made it at
    /// once, and another attempt is worth it.
    async fn check(
        &self,
        collection: &Collection<RawDocumentBuf>,
        key: &Key,
        path: &FieldPath,
        target: Target,
    ) -> Result<(), Fault> {
        let found = collection.find_one(doc! { "_id": &key.id }).await;
        let found = found.map_err(|error| fault::fault(key, &error))?;
        match found.and_then(|document| filter::obstacle(&document, path, target)) {
            Some(obstacle) => Err(Fault::Invalid(format!("{key}: {obstacle}"))),
            None => Ok(()),
        }
    }
}

fn not_found(key: &Key) -> Fault {
    Fault::NotFound(format!("{key} is not there"))
}

fn crowded(key: &Key) -> Fault {
    Fault::Unavailable(format!("{key}: it was made and removed again {ATTEMPTS} times meanwhile"))
}
