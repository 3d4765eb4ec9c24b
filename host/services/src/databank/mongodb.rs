//! The driver for MongoDB: a standalone server, a replica set or a cluster, through the official crate.
//!
//! Owns which command does what, and when. There is one collection a type; how a document looks in it is
//! [`encoding`]'s business, how it is found [`filter`]'s, what an error means [`fault`]'s, and how the
//! server is reached [`client`]'s. Nothing needs a transaction: each write is one command on one document.
//!
//! The crate's futures must not be dropped halfway, and replies may be. So each call is [`unbroken`], and
//! goes on until it is done.

mod client;
mod encoding;
mod fault;
mod filter;
mod sessions;
mod unbroken;

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use ::mongodb::options::ReturnDocument;
use ::mongodb::{Collection, Cursor, Database, IndexModel};
use bson::doc;
use bson::raw::{RawBsonRef, RawDocumentBuf};
use futures_util::{FutureExt, StreamExt};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::query::{FieldPath, Key, Kind, Query};
use super::{Document, Documents, Driver, Fault, Mode, Reply, Stored, new_revision};
use app_host_core::config::databank::Index;
use client::Configured;
use filter::Target;
use sessions::Sessions;
use unbroken::Unbroken;

/// How many documents the server sends at once.
const BATCH: u32 = 100;

/// How many documents are kept ready for a reader.
const AHEAD: usize = 16;

/// How many documents are read by their ids at once: they are put in order in memory.
const TOGETHER: usize = 32;

/// How often an upsert is tried that meets another one of the same new document. Each time, one of
/// those that meet gets through.
const ATTEMPTS: u32 = 32;

/// The store. The client is made by the first call.
pub struct Mongodb {
    configured: Arc<Configured>,
}

struct Server {
    database: Database,
    sessions: Sessions,
    /// One for each connection that there may be. Whoever waits for one can give up without a trace. In
    /// the crate's own queue for connections he would stay, and after a silence of the server that would be
    /// behind for ever: it serves one request an event, the dead ones like the others.
    permits: Arc<Semaphore>,
}

impl Mongodb {
    /// Doesn't look at the URI yet: one that can't be used is a fault of each call.
    pub fn new(uri: &str, database: &str, indexes: &[Index], timeout: Duration) -> Self {
        Self { configured: Arc::new(Configured::new(uri, database, indexes, timeout)) }
    }

    /// Waits for a permit and does a call. Whoever gives up while waiting leaves nothing behind; later the
    /// call goes on alone, until the server has answered or is found to be away.
    fn reply<T, F>(&self, call: impl FnOnce(Arc<Server>) -> F + Send + 'static) -> Reply<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Fault>> + Send + 'static,
    {
        let configured = self.configured.clone();
        Box::pin(async move {
            let server = configured.server().await?;
            let permit = server.permit().await?;
            // In a box before it is moved about: it is kilobytes long.
            let call = AssertUnwindSafe(Box::pin(call(server))).catch_unwind();
            let answer = Unbroken::new(Handle::current(), async move {
                let answer = call.await;
                drop(permit);
                answer
            });
            // The panic itself is in the log.
            answer.await.unwrap_or_else(|_| Err(Fault::Unavailable("the driver has panicked".to_owned())))
        })
    }

    /// Lets a task put what it finds into a channel. It ends with its reader.
    fn documents<F>(&self, search: impl FnOnce(Arc<Configured>, Found) -> F) -> Documents
    where
        F: Future<Output = Result<(), Fault>> + Send + 'static,
    {
        let (sender, receiver) = mpsc::channel(AHEAD);
        let search = search(self.configured.clone(), Found(sender.clone()));
        let task = async move {
            if let Err(fault) = search.await {
                // Without a reader nobody needs to know.
                let _ = sender.send(Err(fault)).await;
            }
        };
        futures_util::stream::unfold((receiver, Some(task)), |(mut receiver, task)| async move {
            if let Some(task) = task {
                Handle::current().spawn(task);
            }
            receiver.recv().await.map(|next| (next, (receiver, None)))
        })
        .boxed()
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
        self.documents(
            |configured, found| async move { configured.server().await?.read_many(&kind, &ids, &found).await },
        )
    }

    fn search(&self, query: Query) -> Documents {
        self.documents(move |configured, found| async move { configured.server().await?.search(&query, &found).await })
    }
}

/// Where the documents of a search go.
struct Found(mpsc::Sender<Result<Stored, Fault>>);

impl Found {
    /// Waits until there is room. Says whether somebody still reads.
    async fn give(&self, document: Stored) -> bool {
        self.0.send(Ok(document)).await.is_ok()
    }

    /// A permit, or none when nobody reads any more.
    async fn permit(&self, server: &Server) -> Result<Option<OwnedSemaphorePermit>, Fault> {
        tokio::select! {
            permit = server.permit() => permit.map(Some),
            () = self.0.closed() => Ok(None),
        }
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
                        // Two made it at once: by now it is there to be replaced.
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
        if replaced { Ok(revision) } else { Err(not_there(key)) }
    }

    /// Does without `find_one`, which copies the document twice on its way out of the answer, and describes a
    /// limit that an id has anyway.
    async fn read(&self, key: &Key) -> Result<Stored, Fault> {
        let failed = |error| fault::fault(key, &error);
        let collection = self.collection(&key.kind);
        let filter = || doc! { "_id": &key.id };
        let mut session = self.sessions.take(self.database.client()).await.map_err(failed)?;
        let mut found = match collection.find(filter()).session(&mut session).batch().await {
            Err(error) if sessions::are_unknown(&error) => {
                let found = collection.find_one(filter()).await.map_err(failed)?;
                return encoding::read(key.kind.as_str(), &found.ok_or_else(|| not_there(key))?);
            }
            found => found.map_err(failed)?,
        };
        let batch = found.stream(&mut session).next().await;
        let batch = batch.ok_or_else(|| not_there(key))?.map_err(failed)?;
        self.sessions.give_back(session);
        match batch.doc_slices().map_err(failed)?.into_iter().next() {
            Some(Ok(RawBsonRef::Document(document))) => encoding::read(key.kind.as_str(), document),
            Some(_) => Err(Fault::Unavailable(format!("{key}: the server gives no document"))),
            None => Err(not_there(key)),
        }
    }

    async fn remove(&self, key: &Key) -> Result<(), Fault> {
        let removed = self.collection(&key.kind).delete_one(doc! { "_id": &key.id }).await;
        match removed.map_err(|error| fault::fault(key, &error))?.deleted_count {
            0 => Err(not_there(key)),
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

    /// The document was there, but not as an update needs it: refuses when that is still so. Otherwise two
    /// have made it at once, and it is worth another attempt.
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

    async fn read_many(&self, kind: &Kind, ids: &[String], found: &Found) -> Result<(), Fault> {
        for ids in ids.chunks(TOGETHER) {
            let Some(permit) = found.permit(self).await? else { break };
            let mut together = self.read_together(kind, ids).await?;
            drop(permit);
            for document in ids.iter().filter_map(|id| together.remove(id)) {
                if !found.give(document).await {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn read_together(&self, kind: &Kind, ids: &[String]) -> Result<HashMap<String, Stored>, Fault> {
        let failed = |error| fault::fault(kind, &error);
        let mut cursor = self.collection(kind).find(doc! { "_id": { "$in": ids } }).await.map_err(failed)?;
        let mut together = HashMap::with_capacity(ids.len());
        while cursor.advance().await.map_err(failed)? {
            let document = encoding::read(kind.as_str(), cursor.current())?;
            together.insert(document.id.clone(), document);
        }
        Ok(together)
    }

    async fn search(&self, query: &Query, found: &Found) -> Result<(), Fault> {
        // No store has so many documents; and 0 is no limit to the server.
        if query.limit == Some(0) || i64::try_from(query.skip).is_err() {
            return Ok(());
        }
        let Some(mut permit) = found.permit(self).await? else { return Ok(()) };
        let mut cursor = self.cursor(query).await?;
        while cursor.advance().await.map_err(|error| fault::fault(&query.kind, &error))? {
            // A slow reader keeps no connection from the others.
            drop(permit);
            if !found.give(encoding::read(query.kind.as_str(), cursor.current())?).await {
                break;
            }
            let Some(next) = found.permit(self).await? else { break };
            permit = next;
        }
        Ok(())
    }

    async fn cursor(&self, query: &Query) -> Result<Cursor<RawDocumentBuf>, Fault> {
        let collection = self.collection(&query.kind);
        let cursor = if query.sort.is_empty() {
            let mut find = collection.find(filter::matching(query)).sort(doc! { "_id": 1 }).skip(query.skip);
            if let Some(limit) = query.limit {
                find = find.limit(i64::try_from(limit).unwrap_or(i64::MAX));
            }
            find.batch_size(BATCH).allow_disk_use(true).await
        } else {
            let aggregate = collection.aggregate(filter::ordering(query)).with_type::<RawDocumentBuf>();
            aggregate.batch_size(BATCH).allow_disk_use(true).await
        };
        cursor.map_err(|error| fault::fault(&query.kind, &error))
    }
}

fn not_there(key: &Key) -> Fault {
    Fault::NotFound(format!("{key} is not there"))
}

fn crowded(key: &Key) -> Fault {
    Fault::Unavailable(format!("{key}: it was made and removed again {ATTEMPTS} times meanwhile"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_that_cannot_be_used_is_a_fault_of_each_call_without_its_secret() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for uri in [
            "nonsense",
            "hunter2",
            "mongodb://u:hunter2@",
            "mongodb://u:hunt/er2@h/",
            "mongodb://u:hunter2/@127.0.0.1:x",
            "mongodb://u:hunter2-%zz@127.0.0.1",
            "mongodb+hunter2://h",
            "mongodb://u:hunter2@h:x/?hunter=2",
            "mongodb://u:hunter2@h/?w=0",
        ] {
            let mongodb = Mongodb::new(uri, "d", &[], Duration::from_secs(1));
            for answer in [
                runtime.block_on(mongodb.prepare()),
                runtime.block_on(mongodb.remove(Key::new("note", "x").unwrap())),
                runtime
                    .block_on(mongodb.search(Query::new("note", &[], &[], 0, None).unwrap()).next())
                    .unwrap()
                    .map(drop),
            ] {
                let Err(Fault::Unavailable(text)) = answer else { panic!("{uri}: {answer:?}") };
                assert!(text.starts_with("databank.uri can't be used: ") && !text.contains("hunt"), "{text}");
            }
        }
    }
}
