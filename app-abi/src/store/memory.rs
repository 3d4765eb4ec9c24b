//! The driver `memory`: one process's own, for tests. What is in it ends with the worker.

use std::collections::BTreeMap;
use std::future::ready;
use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::document::Document;
use super::query::{FieldPath, Key, Kind, Query};
use super::scan::{self, Look, Scan, Source};
use super::{Documents, Driver, Fault, Mode, Reply, Stored, new_revision};

/// No other worker sees it.
pub const SHARED: bool = false;

/// Documents in memory. The lock is held for an instant, never while somebody waits.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<Shelves>>);

/// The documents of each type, by id, as they are stored.
type Shelves = BTreeMap<Kind, BTreeMap<String, Stored>>;

impl Memory {
    fn lock(&self) -> MutexGuard<'_, Shelves> {
        // Nothing is half done when something panics: each change is one call on the map.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes a document, or an empty one, in place.
    fn change<T>(
        &self,
        key: Key,
        change: impl FnOnce(&Key, &mut Document) -> Result<T, Fault>,
    ) -> Result<(T, u64), Fault> {
        let revision = new_revision()?;
        let mut shelves = self.lock();
        let stored = shelves.get(&key.kind).and_then(|shelf| shelf.get(&key.id));
        let mut document = stored
            .map_or_else(|| Ok(Document::empty()), |stored| Document::from_stored(&key.kind, &key.id, &stored.text))?;
        let changed = change(&key, &mut document)?;
        let text = document.grown_text(&key)?;
        put(&mut shelves, key, revision, text);
        Ok((changed, revision))
    }

    fn replace(&self, key: Key, mode: Mode, document: &Document) -> Result<u64, Fault> {
        let (revision, text) = (new_revision()?, document.text());
        let mut shelves = self.lock();
        let was = shelves.get(&key.kind).and_then(|shelf| shelf.get(&key.id)).map(|stored| stored.revision);
        match (mode, was) {
            (Mode::Create, Some(_)) => return Err(key.already_exists()),
            (Mode::Update | Mode::Compare(_), None) => return Err(key.not_found()),
            (Mode::Compare(expected), Some(revision)) if expected != revision => return Err(key.conflict()),
            _ => put(&mut shelves, key, revision, text),
        }
        Ok(revision)
    }

    fn documents(&self, scan: Scan) -> Documents {
        let memory = self.clone();
        scan::documents(scan, move |mut scan| {
            let page = scan.page(&*memory.lock());
            reply(page.map(|page| (scan, page)))
        })
    }
}

fn put(shelves: &mut Shelves, key: Key, revision: u64, text: String) {
    let stored = Stored { id: key.id.clone(), revision, text: text.into() };
    shelves.entry(key.kind).or_default().insert(key.id, stored);
}

fn reply<T: Send + 'static>(outcome: Result<T, Fault>) -> Reply<T> {
    Box::pin(ready(outcome))
}

impl Driver for Memory {
    fn prepare(&self) -> Reply<()> {
        reply(Ok(()))
    }

    fn write(&self, key: Key, mode: Mode, document: Document) -> Reply<u64> {
        reply(self.replace(key, mode, &document))
    }

    fn read(&self, key: Key) -> Reply<Stored> {
        let read = self.lock().find(&key.kind, &key.id);
        reply(read.and_then(|stored| stored.ok_or_else(|| key.not_found())))
    }

    fn remove(&self, key: Key) -> Reply<()> {
        let removed = self.lock().get_mut(&key.kind).and_then(|shelf| shelf.remove(&key.id));
        reply(removed.map(drop).ok_or_else(|| key.not_found()))
    }

    fn increment(&self, key: Key, path: FieldPath, by: i64) -> Reply<i64> {
        let changed = self.change(key, |key, document| document.increment(key, &path, by));
        reply(changed.map(|(sum, _)| sum))
    }

    fn append(&self, key: Key, path: FieldPath, value: serde_json::Value) -> Reply<u64> {
        let changed = self.change(key, |key, document| document.append(key, &path, value));
        reply(changed.map(|((), revision)| revision))
    }

    fn read_many(&self, kind: Kind, ids: Vec<String>) -> Documents {
        self.documents(Scan::documents(kind, ids))
    }

    fn search(&self, query: Query) -> Documents {
        self.documents(Scan::search(query))
    }
}

impl Source for Shelves {
    type Error = Fault;

    fn range(&self, kind: &Kind, after: &str, look: &mut Look<'_>) -> Result<ControlFlow<()>, Fault> {
        let behind = (Bound::Excluded(after), Bound::Unbounded);
        for (id, stored) in self.get(kind).into_iter().flat_map(|shelf| shelf.range::<str, _>(behind)) {
            if look(id, stored.revision, &stored.text)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn find(&self, kind: &Kind, id: &str) -> Result<Option<Stored>, Fault> {
        Ok(self.get(kind).and_then(|shelf| shelf.get(id)).cloned())
    }
}
