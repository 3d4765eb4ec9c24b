//! Searches: a task reads from the server and sends what it finds to the reader, as fast as the reader takes it.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use bson::doc;
use bson::raw::RawDocumentBuf;
use futures_util::StreamExt;
use mongodb::Cursor;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::super::query::{Kind, Query};
use super::super::{Documents, Fault, Stored};
use super::client::Configured;
use super::{Mongodb, Server, encoding, fault, filter};

/// How many documents the server sends at once.
const BATCH: u32 = 100;

/// How many documents are kept ready for a reader.
const AHEAD: usize = 16;

/// How many documents are read by their ids at once: they are put in order in memory.
const TOGETHER: usize = 32;

/// Where the documents of a search go.
pub(super) struct Results(mpsc::Sender<Result<Stored, Fault>>);

impl Results {
    /// Waits until there is room. Returns whether there still is a reader.
    async fn send(&self, document: Stored) -> bool {
        self.0.send(Ok(document)).await.is_ok()
    }

    /// A permit, or none when there is no reader any more.
    async fn permit(&self, server: &Server) -> Result<Option<OwnedSemaphorePermit>, Fault> {
        tokio::select! {
            permit = server.permit() => permit.map(Some),
            () = self.0.closed() => Ok(None),
        }
    }
}

impl Mongodb {
    /// Spawns a task that puts what it finds into a channel. It ends with its reader.
    pub(super) fn documents<F>(&self, search: impl FnOnce(Arc<Configured>, Results) -> F) -> Documents
    where
        F: Future<Output = Result<(), Fault>> + Send + 'static,
    {
        let (sender, receiver) = mpsc::channel(AHEAD);
        let search = search(self.configured.clone(), Results(sender.clone()));
        let task = async move {
            if let Err(fault) = search.await {
                // Without a reader there is no one to tell.
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

impl Server {
    pub(super) async fn read_many(&self, kind: &Kind, ids: &[String], results: &Results) -> Result<(), Fault> {
        for ids in ids.chunks(TOGETHER) {
            let Some(permit) = results.permit(self).await? else { break };
            let mut together = self.read_together(kind, ids).await?;
            drop(permit);
            for document in ids.iter().filter_map(|id| together.remove(id)) {
                if !results.send(document).await {
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

    pub(super) async fn search(&self, query: &Query, results: &Results) -> Result<(), Fault> {
        // No store has as many documents; and to the server 0 means no limit.
        if query.limit == Some(0) || i64::try_from(query.skip).is_err() {
            return Ok(());
        }
        let Some(mut permit) = results.permit(self).await? else { return Ok(()) };
        let mut cursor = self.cursor(query).await?;
        while cursor.advance().await.map_err(|error| fault::fault(&query.kind, &error))? {
            // A slow reader must not keep a connection from other calls.
            drop(permit);
            if !results.send(encoding::read(query.kind.as_str(), cursor.current())?).await {
                break;
            }
            let Some(next) = results.permit(self).await? else { break };
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
