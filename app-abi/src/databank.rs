//! The databank: the document store that the host gives the app.
//!
//! Owns [`Databank`] and its types: typed documents on the app's side, JSON text on the line. What a
//! driver can store is checked by the host, alike for every driver.
#![expect(unsafe_code, reason = "calls into the table of the host")]

use crate::abi::{
    DatabankServiceRef, FfiDocument, FfiDocuments, FfiEquals, FfiFault, FfiKey, FfiNext, FfiSearch, FfiSort,
};
use abi_stable::std_types::{RErr, ROk, RResult};
use async_ffi::ContextExt;
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    future::poll_fn,
    marker::PhantomData,
    task::{Context, Poll},
};

/// The document store that all workers share, those of an older generation included.
///
/// A document is a JSON object, addressed by its type (`kind`) and its id:
/// - a type has 1 to 100 bytes: ASCII letters, digits, `_` and `-`, a letter or digit first;
/// - an id has 1 to 512 bytes of text without NUL;
/// - a document has at most 1.5 MiB as compact JSON when it is written and at most 90 levels; its whole numbers lie
///   within `i64`; no key in it is empty, has a NUL or begins with `$`;
/// - a path names keys of objects, with dots between them (`author.name`): at most 500 bytes and 32
///   keys, none of them empty, with a NUL, or with `$` at its beginning. It never goes into lists.
///
/// Whatever else is asked for is [`DatabankError::Invalid`], whichever driver is configured. All
/// text is data: nothing in it can become an operator of the store's query language.
///
/// Every call ends within `databank.timeout` of the configuration, at the latest as
/// [`DatabankError::Unavailable`]. A write that ends so, or whose future is dropped, may or may not
/// have been done.
#[derive(Clone, Copy)]
pub struct Databank {
    pub(crate) data: *const (),
    pub(crate) table: DatabankServiceRef,
}

// SAFETY: by the rules of the line, the host's functions may be called on any thread and `data`
// lives as long as the process.
unsafe impl Send for Databank {}
// SAFETY: as above.
unsafe impl Sync for Databank {}

/// Why the databank didn't do what it was asked to. The text names the document and the cause.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DatabankError {
    /// There is no such document.
    #[error("{0}")]
    NotFound(String),
    /// There is such a document already.
    #[error("{0}")]
    AlreadyExists(String),
    /// The document has another revision by now: read it again.
    #[error("{0}")]
    Conflict(String),
    /// The store can't be reached, or didn't answer in time. It may be there again later: answer 503.
    #[error("{0}")]
    Unavailable(String),
    /// What was asked for can't be stored or searched, or a document isn't of the type that the app
    /// expected: the same call will fail again.
    #[error("{0}")]
    Invalid(String),
}

/// Which state a document is in. Every write gives it another one, at random; there is no order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Revision(u64);

impl Revision {
    /// The revision as a number, to hand it to a client.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The revision that a client has handed back.
    #[must_use]
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }
}

/// A document as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document<T> {
    /// Its id.
    pub id: String,
    /// Its state when it was read.
    pub revision: Revision,
    /// What it says.
    pub value: T,
}

/// Which way to sort.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Smallest first.
    Ascending,
    /// Largest first.
    Descending,
}

impl Databank {
    /// Writes a document that must not exist yet.
    pub async fn create<T: Serialize>(&self, kind: &str, id: &str, document: &T) -> Result<Revision, DatabankError> {
        let document = encode(document)?;
        // SAFETY: `data` came together with the table; so in each call below.
        revision(unsafe { (self.table.create())(self.data, key(kind, id), document.into()) }.await)
    }

    /// Writes a document that must exist.
    pub async fn update<T: Serialize>(&self, kind: &str, id: &str, document: &T) -> Result<Revision, DatabankError> {
        let document = encode(document)?;
        // SAFETY: see `create`.
        revision(unsafe { (self.table.update())(self.data, key(kind, id), document.into()) }.await)
    }

    /// Writes a document, whether it exists or not.
    pub async fn save<T: Serialize>(&self, kind: &str, id: &str, document: &T) -> Result<Revision, DatabankError> {
        let document = encode(document)?;
        // SAFETY: see `create`.
        revision(unsafe { (self.table.save())(self.data, key(kind, id), document.into()) }.await)
    }

    /// Writes a document if nobody has written to it since it had this revision; of several that try
    /// at once, one wins. The others get [`DatabankError::Conflict`], or
    /// [`DatabankError::NotFound`] where the document is gone.
    pub async fn compare_and_save<T: Serialize>(
        &self,
        kind: &str,
        id: &str,
        was: Revision,
        document: &T,
    ) -> Result<Revision, DatabankError> {
        let document = encode(document)?;
        // SAFETY: see `create`.
        revision(unsafe { (self.table.compare_and_save())(self.data, key(kind, id), was.0, document.into()) }.await)
    }

    /// Reads a document.
    pub async fn read<T: DeserializeOwned>(&self, kind: &str, id: &str) -> Result<Document<T>, DatabankError> {
        // SAFETY: see `create`.
        let read = unsafe { (self.table.read())(self.data, key(kind, id)) };
        decode(kind, outcome(read.await)?)
    }

    /// Removes a document that must exist.
    pub async fn remove(&self, kind: &str, id: &str) -> Result<(), DatabankError> {
        // SAFETY: see `create`.
        let remove = unsafe { (self.table.remove())(self.data, key(kind, id)) };
        outcome(remove.await)
    }

    /// Adds to the whole number at `path`, atomically; gives the sum. A document, key or number that
    /// isn't there is made, beginning at 0. What isn't a whole number, and a sum outside `i64`, is
    /// [`DatabankError::Invalid`].
    pub async fn increment(&self, kind: &str, id: &str, path: &str, by: i64) -> Result<i64, DatabankError> {
        // SAFETY: see `create`.
        let increment = unsafe { (self.table.increment())(self.data, key(kind, id), path.into(), by) };
        outcome(increment.await)
    }

    /// Puts a value at the end of the list at `path`, atomically. A document, key or list that isn't
    /// there is made. What isn't a list is [`DatabankError::Invalid`].
    pub async fn append<T: Serialize>(
        &self,
        kind: &str,
        id: &str,
        path: &str,
        value: &T,
    ) -> Result<Revision, DatabankError> {
        let value = encode(value)?;
        // SAFETY: see `create`.
        revision(unsafe { (self.table.append())(self.data, key(kind, id), path.into(), value.into()) }.await)
    }

    /// Reads those of these documents that exist, in the order of the ids, of which there may be
    /// 1,000.
    pub async fn read_many<T: DeserializeOwned>(
        &self,
        kind: &str,
        ids: &[&str],
    ) -> Result<Vec<Document<T>>, DatabankError> {
        let ids = ids.iter().map(|id| (*id).into()).collect();
        // SAFETY: see `create`.
        let found = unsafe { (self.table.read_many())(self.data, kind.into(), ids) };
        Documents::new(kind, found).collect().await
    }

    /// All documents of a type, by id. See [`Search::run`] for what the stream promises.
    #[must_use]
    pub fn scan<T: DeserializeOwned>(&self, kind: &str) -> Documents<T> {
        self.search(kind).run()
    }

    /// Begins a search among the documents of a type.
    pub fn search(&self, kind: &str) -> Search {
        Search { databank: *self, kind: kind.to_owned(), equals: Vec::new(), sort: Vec::new(), skip: 0, limit: None }
    }
}

/// A search that is being described. Nothing is asked of the store before [`Self::run`].
#[must_use = "nothing is searched before `run`"]
pub struct Search {
    databank: Databank,
    kind: String,
    equals: Vec<(String, Result<Bytes, DatabankError>)>,
    sort: Vec<(String, Order)>,
    skip: u64,
    limit: Option<u64>,
}

impl Search {
    /// Only documents in which this value is at `path`: a text, a number, a truth value, or `None`
    /// for a path where nothing or null is. 1 and 1.0 are equal. All of at most 16 conditions must hold.
    pub fn equals<T: Serialize>(mut self, path: &str, value: T) -> Self {
        self.equals.push((path.to_owned(), encode(&value)));
        self
    }

    /// Sorts by what is at `path`, of at most 8 paths the first one most; the id decides last.
    /// Nothing and null come first, then numbers, texts (by their code points), objects, lists,
    /// truth values. Among objects, and among lists, the order is the driver's own.
    pub fn sort(mut self, path: &str, order: Order) -> Self {
        self.sort.push((path.to_owned(), order));
        self
    }

    /// Leaves out the first `count` of what is found.
    pub fn skip(mut self, count: u64) -> Self {
        self.skip = count;
        self
    }

    /// Gives at most `count` documents.
    pub fn limit(mut self, count: u64) -> Self {
        self.limit = Some(count);
        self
    }

    /// Starts the search. The documents are read from the store while they are asked for, a bounded
    /// number ahead. A document that is there all along comes once; one that is written meanwhile may or
    /// may not come.
    #[must_use]
    pub fn run<T: DeserializeOwned>(self) -> Documents<T> {
        let mut equals = Vec::with_capacity(self.equals.len());
        for (path, value) in self.equals {
            match value {
                Ok(value) => equals.push(FfiEquals { path: path.into(), value: value.into() }),
                Err(error) => return Documents::broken(&self.kind, error),
            }
        }
        let sort = self.sort.into_iter();
        let sort =
            sort.map(|(path, order)| FfiSort { path: path.into(), descending: order == Order::Descending }).collect();
        let search = FfiSearch {
            kind: self.kind.as_str().into(),
            equals: equals.into(),
            sort,
            skip: self.skip,
            limit: self.limit.unwrap_or(u64::MAX),
        };
        // SAFETY: see `Databank::create`.
        let found = unsafe { (self.databank.table.search())(self.databank.data, search) };
        Documents::new(&self.kind, found)
    }
}

/// Documents that are read while they are asked for.
pub struct Documents<T> {
    kind: String,
    source: DocumentSource,
    value: PhantomData<fn() -> T>,
}

enum DocumentSource {
    Host(FfiDocuments),
    Broken(DatabankError),
    Ended,
}

impl<T: DeserializeOwned> Documents<T> {
    fn new(kind: &str, found: FfiDocuments) -> Self {
        Self { kind: kind.to_owned(), source: DocumentSource::Host(found), value: PhantomData }
    }

    fn broken(kind: &str, error: DatabankError) -> Self {
        Self { kind: kind.to_owned(), source: DocumentSource::Broken(error), value: PhantomData }
    }

    /// The next document; `None` at the end. After an error nothing comes any more, except after
    /// that of a document that isn't a `T`.
    pub async fn next(&mut self) -> Option<Result<Document<T>, DatabankError>> {
        let next = poll_fn(|context| self.source.poll_next(context)).await?;
        Some(next.and_then(|document| decode(&self.kind, document)))
    }

    /// All of them, in memory.
    pub async fn collect(mut self) -> Result<Vec<Document<T>>, DatabankError> {
        let mut all = Vec::new();
        while let Some(document) = self.next().await {
            all.push(document?);
        }
        Ok(all)
    }
}

impl DocumentSource {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<FfiDocument, DatabankError>>> {
        let found = match self {
            Self::Host(found) => found,
            Self::Broken(_) => {
                let Self::Broken(error) = std::mem::replace(self, Self::Ended) else { return Poll::Ready(None) };
                return Poll::Ready(Some(Err(error)));
            }
            Self::Ended => return Poll::Ready(None),
        };
        // SAFETY: the host's stream is ours and isn't polled elsewhere; the context lives for this call.
        let next = context.with_ffi_context(|context| unsafe { (found.vtable.poll_next)(found.state, context) });
        let last = match next {
            FfiNext::Pending => return Poll::Pending,
            FfiNext::Document(document) => return Poll::Ready(Some(Ok(document))),
            FfiNext::End => None,
            FfiNext::Error(fault) => Some(Err(fault.into())),
        };
        *self = Self::Ended;
        Poll::Ready(last)
    }
}

// SAFETY: by the rules of the line a stream's owner may be on any thread.
unsafe impl Send for FfiDocuments {}

impl Drop for FfiDocuments {
    fn drop(&mut self) {
        // SAFETY: the stream owns its state, and this is the one call.
        unsafe { (self.vtable.drop)(self.state) }
    }
}

impl From<FfiFault> for DatabankError {
    fn from(fault: FfiFault) -> Self {
        let text = fault.text.into_string();
        match fault.code {
            1 => Self::NotFound(text),
            2 => Self::AlreadyExists(text),
            3 => Self::Conflict(text),
            5 => Self::Invalid(text),
            // 4, and whatever a later host may add: what an app can do about it is to try later.
            _ => Self::Unavailable(text),
        }
    }
}

fn key(kind: &str, id: &str) -> FfiKey {
    FfiKey { kind: kind.into(), id: id.into() }
}

fn outcome<T>(outcome: RResult<T, FfiFault>) -> Result<T, DatabankError> {
    match outcome {
        ROk(value) => Ok(value),
        RErr(fault) => Err(fault.into()),
    }
}

fn revision(written: RResult<u64, FfiFault>) -> Result<Revision, DatabankError> {
    outcome(written).map(Revision)
}

fn encode<T: Serialize>(value: &T) -> Result<Bytes, DatabankError> {
    let invalid = |error: serde_json::Error| DatabankError::Invalid(format!("this is no JSON: {error}"));
    serde_json::to_vec(value).map(Bytes::from).map_err(invalid)
}

fn decode<T: DeserializeOwned>(kind: &str, document: FfiDocument) -> Result<Document<T>, DatabankError> {
    let FfiDocument { id, revision, text } = document;
    let id = id.into_string();
    match serde_json::from_slice(text.as_ref()) {
        Ok(value) => Ok(Document { id, revision: Revision(revision), value }),
        Err(error) => Err(DatabankError::Invalid(format!("{kind}/{id} is not what the app expects: {error}"))),
    }
}
