//! The document store.

use abi_stable::StableAbi;
use abi_stable::std_types::{RResult, RString, RVec};
use async_ffi::{FfiContext, FfiFuture};

use super::FfiChunk;
use super::FfiFault;

/// The number of [`DatabankService`].
pub const SERVICE_DATABANK: u32 = 4;

/// The document store that the host gives the app. Documents and values are JSON text; what a
/// document, an id, a type and a path may be is said in this crate's `databank`.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = DatabankServiceRef)))]
#[sabi(missing_field(panic))]
pub struct DatabankService {
    /// The four that write a whole document give its new revision.
    pub create:
        unsafe extern "C" fn(data: *const (), key: FfiKey, document: FfiChunk) -> FfiFuture<RResult<u64, FfiFault>>,
    pub update:
        unsafe extern "C" fn(data: *const (), key: FfiKey, document: FfiChunk) -> FfiFuture<RResult<u64, FfiFault>>,
    pub save:
        unsafe extern "C" fn(data: *const (), key: FfiKey, document: FfiChunk) -> FfiFuture<RResult<u64, FfiFault>>,
    pub compare_and_save: unsafe extern "C" fn(
        data: *const (),
        key: FfiKey,
        revision: u64,
        document: FfiChunk,
    ) -> FfiFuture<RResult<u64, FfiFault>>,
    pub read: unsafe extern "C" fn(data: *const (), key: FfiKey) -> FfiFuture<RResult<FfiDocument, FfiFault>>,
    pub remove: unsafe extern "C" fn(data: *const (), key: FfiKey) -> FfiFuture<RResult<(), FfiFault>>,
    /// Adds to the whole number at the path; gives the sum.
    pub increment:
        unsafe extern "C" fn(data: *const (), key: FfiKey, path: RString, by: i64) -> FfiFuture<RResult<i64, FfiFault>>,
    /// Puts a value at the end of the list at the path; gives the document's new revision.
    pub append: unsafe extern "C" fn(
        data: *const (),
        key: FfiKey,
        path: RString,
        value: FfiChunk,
    ) -> FfiFuture<RResult<u64, FfiFault>>,
    /// Those of the documents that exist, in the order of the ids.
    pub read_many: unsafe extern "C" fn(data: *const (), kind: RString, ids: RVec<RString>) -> FfiDocuments,
    #[sabi(last_prefix_field)]
    pub search: unsafe extern "C" fn(data: *const (), search: FfiSearch) -> FfiDocuments,
}

/// A document's type and id.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiKey {
    pub kind: RString,
    pub id: RString,
}

/// A document as it is stored.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiDocument {
    pub id: RString,
    pub revision: u64,
    pub text: FfiChunk,
}

/// What is searched for.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiSearch {
    pub kind: RString,
    /// All of them must hold.
    pub equals: RVec<FfiEquals>,
    /// The first one counts most; the id decides last.
    pub sort: RVec<FfiSort>,
    pub skip: u64,
    /// `u64::MAX` when there is no limit.
    pub limit: u64,
}

/// A path and the JSON text of the value that must be there.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiEquals {
    pub path: RString,
    pub value: FfiChunk,
}

/// A path to sort by.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiSort {
    pub path: RString,
    pub descending: bool,
}

/// Documents that are read while they are asked for. Their owner calls `drop` once.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiDocuments {
    pub state: *mut (),
    pub vtable: &'static FfiDocumentsVtable,
}

/// What can be done with a stream of documents.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiDocumentsVtable {
    pub poll_next: unsafe extern "C" fn(state: *mut (), context: *mut FfiContext<'_>) -> FfiNext,
    pub drop: unsafe extern "C" fn(state: *mut ()),
}

/// What a poll of a stream of documents gives.
#[repr(u8)]
#[derive(StableAbi)]
pub enum FfiNext {
    Pending,
    Document(FfiDocument),
    End,
    /// The stream broke. Nothing comes after it.
    Error(FfiFault),
}
