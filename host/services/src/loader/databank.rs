//! The databank as an app reaches it: the worker's, through the table that `app-abi` has for hosts.

use super::services::info;
use crate::databank::Databank;
use abi_stable::prefix_type::WithMetadata;
use app_abi::abi::DatabankService;
use app_abi::store::table::{Lend, Table};

pub(super) const TABLE: &WithMetadata<DatabankService> = Table::<Worker>::TABLE;

struct Worker;

// SAFETY: what an app is handed beside this table is a `HostInfo`, which is never freed.
unsafe impl Lend for Worker {
    type Databank = Databank;

    unsafe fn databank(data: *const ()) -> &'static Databank {
        // SAFETY: the caller's promise.
        unsafe { &info(data).databank }
    }
}
