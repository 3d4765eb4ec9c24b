//! The service `databank` of the ABI: the worker's databank, through the table that `app-abi` has for hosts.

use abi_stable::prefix_type::WithMetadata;
use app_abi::abi::DatabankService;
use app_abi::store::table::{Lend, Table};

use super::services::info;
use crate::databank::Databank;

pub(super) const TABLE: &WithMetadata<DatabankService> = Table::<LendDatabank>::TABLE;

struct LendDatabank;

// SAFETY: an app gets this table together with a `HostInfo`, which is never freed.
unsafe impl Lend for LendDatabank {
    type Databank = Databank;

    unsafe fn databank(data: *const ()) -> &'static Databank {
        // SAFETY: the caller guarantees it.
        unsafe { &info(data).databank }
    }
}
