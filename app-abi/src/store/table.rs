//! The databank as an app reaches it: the table of the service, and what crosses it.
//!
//! Owns the step from the line's texts to the types of a [`Driver`], whose rules are checked here, before
//! any driver sees them. It knows no store.
#![expect(unsafe_code, reason = "the functions that the app calls")]

use super::document::Document;
use super::query::{FieldPath, Key, Kind, Query, Value, ids};
use super::{Documents, Driver, Fault, Mode, Stored};
use crate::abi::{
    DatabankService, FfiChunk, FfiDocument, FfiDocuments, FfiDocumentsVtable, FfiFault, FfiKey, FfiNext, FfiSearch,
};
use abi_stable::{
    prefix_type::WithMetadata,
    std_types::{RErr, ROk, RResult, RString, RVec},
};
use async_ffi::{FfiContext, FfiFuture};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::Either, stream};
use std::{
    future::{Future, ready},
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll},
};

/// Who offers a databank.
///
/// # Safety
/// `databank` must be sound for every `data` that the implementor hands to an app beside the table.
pub unsafe trait Lend: 'static {
    type Databank: Driver;

    /// # Safety
    /// `data` is what the app was handed at its start.
    unsafe fn databank(data: *const ()) -> &'static Self::Databank;
}

/// The table over what `L` lends.
pub struct Table<L>(PhantomData<L>);

impl<L: Lend> Table<L> {
    pub const TABLE: &'static WithMetadata<DatabankService> = &WithMetadata::new(DatabankService {
        create: create::<L>,
        update: update::<L>,
        save: save::<L>,
        compare_and_save: compare_and_save::<L>,
        read: read::<L>,
        remove: remove::<L>,
        increment: increment::<L>,
        append: append::<L>,
        read_many: read_many::<L>,
        search: search::<L>,
    });
}

/// An answer on its way to the app.
type StoreFuture<T> = FfiFuture<RResult<T, FfiFault>>;

/// Hands over an answer, or at once the fault that the arguments have.
fn answer<T, R>(asked: Result<R, Fault>) -> StoreFuture<T>
where
    T: Send + 'static,
    R: Future<Output = Result<T, Fault>> + Send + 'static,
{
    let reply = match asked {
        Ok(reply) => Either::Left(reply),
        Err(fault) => Either::Right(ready(Err(fault))),
    };
    FfiFuture::new(reply.map(|outcome| match outcome {
        Ok(value) => ROk(value),
        Err(fault) => RErr(describe(fault)),
    }))
}

fn key(key: &FfiKey) -> Result<Key, Fault> {
    Key::new(&key.kind, &key.id)
}

fn describe(fault: Fault) -> FfiFault {
    let (code, text) = match fault {
        Fault::NotFound(text) => (1, text),
        Fault::AlreadyExists(text) => (2, text),
        Fault::Conflict(text) => (3, text),
        Fault::Unavailable(text) => (4, text),
        Fault::Invalid(text) => (5, text),
    };
    FfiFault { code, text: text.into() }
}

fn document(stored: Stored) -> FfiDocument {
    FfiDocument { id: stored.id.into(), revision: stored.revision, text: stored.text.into() }
}

/// # Safety
/// As for [`Lend::databank`].
unsafe fn write<L: Lend>(data: *const (), to: &FfiKey, mode: Mode, text: FfiChunk) -> StoreFuture<u64> {
    // SAFETY: the caller's promise.
    let databank = unsafe { L::databank(data) };
    let text = Bytes::from(text);
    answer(key(to).and_then(|key| Ok(databank.write(key, mode, Document::parse(&text)?))))
}

unsafe extern "C" fn create<L: Lend>(data: *const (), key: FfiKey, document: FfiChunk) -> StoreFuture<u64> {
    // SAFETY: the app passes what it was handed; so in each function below.
    unsafe { write::<L>(data, &key, Mode::Create, document) }
}

unsafe extern "C" fn update<L: Lend>(data: *const (), key: FfiKey, document: FfiChunk) -> StoreFuture<u64> {
    // SAFETY: see `create`.
    unsafe { write::<L>(data, &key, Mode::Update, document) }
}

unsafe extern "C" fn save<L: Lend>(data: *const (), key: FfiKey, document: FfiChunk) -> StoreFuture<u64> {
    // SAFETY: see `create`.
    unsafe { write::<L>(data, &key, Mode::Save, document) }
}

unsafe extern "C" fn compare_and_save<L: Lend>(
    data: *const (),
    key: FfiKey,
    revision: u64,
    document: FfiChunk,
) -> StoreFuture<u64> {
    // SAFETY: see `create`.
    unsafe { write::<L>(data, &key, Mode::Compare(revision), document) }
}

unsafe extern "C" fn read<L: Lend>(data: *const (), at: FfiKey) -> StoreFuture<FfiDocument> {
    // SAFETY: see `create`.
    let databank = unsafe { L::databank(data) };
    answer(key(&at).map(|key| databank.read(key).map(|read| read.map(document))))
}

unsafe extern "C" fn remove<L: Lend>(data: *const (), at: FfiKey) -> StoreFuture<()> {
    // SAFETY: see `create`.
    let databank = unsafe { L::databank(data) };
    answer(key(&at).map(|key| databank.remove(key)))
}

unsafe extern "C" fn increment<L: Lend>(data: *const (), at: FfiKey, path: RString, by: i64) -> StoreFuture<i64> {
    // SAFETY: see `create`.
    let databank = unsafe { L::databank(data) };
    answer(key(&at).and_then(|key| Ok(databank.increment(key, FieldPath::parse(&path)?, by))))
}

unsafe extern "C" fn append<L: Lend>(data: *const (), at: FfiKey, path: RString, value: FfiChunk) -> StoreFuture<u64> {
    // SAFETY: see `create`.
    let databank = unsafe { L::databank(data) };
    let value = Bytes::from(value);
    answer(key(&at).and_then(|key| {
        let (path, value) = (FieldPath::parse(&path)?, Value::parse(&value)?);
        value.check_levels_at(&path)?;
        Ok(databank.append(key, path, value.into_json()))
    }))
}

unsafe extern "C" fn read_many<L: Lend>(data: *const (), kind: RString, wanted: RVec<RString>) -> FfiDocuments {
    // SAFETY: see `create`.
    let databank = unsafe { L::databank(data) };
    let asked =
        Kind::new(&kind).and_then(|kind| Ok(databank.read_many(kind, ids(wanted.iter().map(RString::as_str))?)));
    documents(asked)
}

unsafe extern "C" fn search<L: Lend>(data: *const (), search: FfiSearch) -> FfiDocuments {
    // SAFETY: see `create`.
    let databank = unsafe { L::databank(data) };
    let equals: Vec<_> = search.equals.iter().map(|equals| (equals.path.as_str(), equals.value.as_ref())).collect();
    let sort: Vec<_> = search.sort.iter().map(|sort| (sort.path.as_str(), sort.descending)).collect();
    let limit = (search.limit != u64::MAX).then_some(search.limit);
    documents(Query::new(&search.kind, &equals, &sort, search.skip, limit).map(|query| databank.search(query)))
}

fn documents(asked: Result<Documents, Fault>) -> FfiDocuments {
    let found = asked.unwrap_or_else(|fault| stream::once(ready(Err(fault))).boxed());
    FfiDocuments { state: Box::into_raw(Box::new(found)).cast(), vtable: VTABLE }
}

const VTABLE: &FfiDocumentsVtable = &FfiDocumentsVtable { poll_next, drop: drop_documents };

unsafe extern "C" fn poll_next(state: *mut (), context: *mut FfiContext<'_>) -> FfiNext {
    // SAFETY: the app calls with the state that it was handed, one call at a time.
    let found = unsafe { &mut *state.cast::<Documents>() };
    // SAFETY: the context lives for this call.
    let next = unsafe { (*context).with_context(|context: &mut Context<'_>| Pin::new(found).poll_next_unpin(context)) };
    match next {
        Poll::Pending => FfiNext::Pending,
        Poll::Ready(None) => FfiNext::End,
        Poll::Ready(Some(Ok(stored))) => FfiNext::Document(document(stored)),
        Poll::Ready(Some(Err(fault))) => FfiNext::Error(describe(fault)),
    }
}

unsafe extern "C" fn drop_documents(state: *mut ()) {
    // SAFETY: called once, with the box that `documents` made.
    drop(unsafe { Box::from_raw(state.cast::<Documents>()) });
}
