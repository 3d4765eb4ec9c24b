//! Claims about the machine, one a test, by phase. `FAULTS n` names the row of the list of known faults.

mod bequests;
mod gate;
mod lock;
mod reasons;
mod respawn;
mod roll;
mod rollback;
mod scale;
mod stale;
mod starting;
mod stop;

use std::time::Duration;

use super::super::{ExitReason, Failure, Phase, Report, Scale};
use super::bench::{Bench, complete, died, discard, failed, quarantine, quarantined, returning};
use super::*;
