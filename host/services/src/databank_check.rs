//! The databank check: a short-lived process that connects to the configured store.
//!
//! The master holds no client of any database. This process has one, runs as the workers' user, and makes what the store
//! needs before the first worker uses it: the tables of SQLite, the indexes that the configuration names. It reports
//! whether the store can be reached.

use std::process::ExitCode;

use app_host_core::config::databank::{Store, redact};
use app_host_core::error::chain;
use app_host_core::foreign;
use app_host_core::message::{DatabankSetup, FromDatabankCheck};
use app_host_platform::channel::Channel;
use app_host_platform::identity;
use app_host_platform::logging;
use app_host_platform::sys;

use crate::databank::{Databank, Driver};

/// Runs the check, whose control socket is standard input.
pub fn run() -> anyhow::Result<ExitCode> {
    let control = sys::take_stdin()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let channel = Channel::from_owned_fd(control)?;
        // The master has died or given up, and needs no answer.
        let Some((setup, _)) = channel.receive::<DatabankSetup>().await? else { return Ok(ExitCode::SUCCESS) };
        logging::init_child(setup.log, None)?;
        sys::process::allow_core_dumps(setup.core_dumps);
        let prepared = match Databank::open(&setup.databank, setup.making) {
            Ok(databank) => databank.prepare().await.map_err(|fault| fault.to_string()),
            Err(error) => Err(chain(&error)),
        };
        let prepared = prepared.map_err(|error| match &setup.databank.store {
            // The system's error doesn't say which directory.
            Store::Sqlite { path } => match identity::obstacle(path) {
                Some(directory) => format!("{error}: the workers' user can't pass {}", directory.display()),
                None => error,
            },
            _ => error,
        });
        let answer = match prepared {
            Ok(()) => FromDatabankCheck::Reached,
            Err(error) => FromDatabankCheck::Unreachable { error: foreign::line(&redact(&error), foreign::MAX_TEXT) },
        };
        logging::finish_unless_stalled();
        channel.send(&answer).await?;
        // The kernel closes the connections.
        sys::exit_now(0)
    })
}
