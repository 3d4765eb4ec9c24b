//! What a document store means, alike in every driver, and the one in memory.
//!
//! For hosts: the real one, and the one of `testing`, which have to mean the same. Owns what can be
//! stored and searched ([`document`], [`query`]), searching where the store doesn't do it ([`scan`],
//! [`compare`]), the words of the faults, and the driver [`memory`]. Knows no runtime: whoever offers a
//! store bounds how long a call may take.
#![allow(missing_docs, clippy::must_use_candidate, clippy::missing_panics_doc, reason = "for hosts, not for apps")]

pub mod compare;
pub mod document;
pub mod memory;
pub mod query;
pub mod scan;
pub mod table;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

use document::Document;
use query::{FieldPath, Key, Kind, Query};

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

/// A kind of store. All its functions return at once; replies and documents are polled on whatever
/// thread the app is. Every reply may be dropped at any time; one that never comes is cut off by whoever
/// offers the store.
///
/// A new revision comes from [`new_revision`].
pub trait Driver: Send + Sync {
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

/// A revision that no document has had before.
pub fn new_revision() -> Result<u64, Fault> {
    // 63 bits, because every store has signed numbers of 64; at random, so that a document which was
    // removed and made again can't be taken for the old one.
    let random = getrandom::u64().map_err(|error| Fault::Unavailable(format!("no random number: {error}")))?;
    Ok(random >> 1)
}
