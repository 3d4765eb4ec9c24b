//! `app-host` keeps a Rust service running while its code changes.
//!
//! A stable **master** owns the listening sockets and the restart logic; **workers** load the app,
//! a versioned library written against `app-abi`, and serve HTTP with it.
//!
//! Where a line belongs is a question of the process that runs it:
//!
//! | crate | what it is | what it doesn't know |
//! |---|---|---|
//! | `app-host-core` | the restart machine, the configuration, the protocols: pure | runtime, system, files, clock |
//! | `app-host-platform` | descriptors, processes, files, logs, counters; `sys` holds its `unsafe` | HTTP, apps, databanks, policy |
//! | `app-host-services` | loads an app and lends it databank, messages, locks; the one `dlopen` | listeners, connections |
//! | `app-host-worker` | serves HTTP with one version of the app | restarts, versions, configuration files |
//! | `app-host-master` | owns listeners, versions, generations | HTTP, apps, databank clients |
//! | this one | the command line, the tools, the admin's pages | |
//!
//! Cargo holds master and worker apart; `tests/tests/architecture/` has what Cargo can't say. The roles below never
//! use each other.

// They panic where nobody can be told; `console` doesn't.
#![cfg_attr(not(test), warn(clippy::print_stderr, clippy::print_stdout))]

mod admin;
mod check;
mod cli;
mod ctl;
mod dev;
mod form;
mod init;
mod inspect;
mod new;

use std::process::ExitCode;

use anyhow::Context;

use app_host_core::foreign;
use app_host_master as master;
use app_host_platform::{console, logging, sys};
use app_host_services::{databank_check, probe};
use app_host_worker as worker;
use app_host_worker::tls_check;

use cli::Command;

/// What it means when a process can't write its own name.
const NO_PROC: &str = "/proc/self/comm can't be written; expected proc(5) to be mounted at /proc";

fn main() -> ExitCode {
    // Before anything else, in every role: nobody dies of a signal that is meant for the master.
    sys::signals::ignore();
    let outcome = sys::process::set_name().context(NO_PROC).and_then(|()| match cli::parse().command {
        Command::Run { config, dev_library } => master::run(&config, dev_library),
        Command::Dev { directory, release, open } => dev::run(&dev::Options { directory, release, open }),
        Command::New { directory, name, axum, app_abi } => new::run(&new::Options { directory, name, axum, app_abi }),
        Command::Init { library, directory, name } => init::run(&init::Options { library, directory, name }),
        Command::Schema => cli::schema(),
        Command::Check { config } => check::run(&config),
        Command::Inspect { library, json } => {
            inspect::run(&library, if json { form::Form::Json } else { form::Form::Text })
        }
        Command::Ctl(arguments) => Ok(ctl::run(&arguments.into())),
        Command::Completions { shell } => cli::completions(shell),
        Command::Man { directory } => cli::man(&directory),
        Command::InternalWorker => Ok(worker::run()),
        Command::InternalProbe => probe::run(),
        Command::InternalDatabankCheck => databank_check::run(),
        Command::InternalTlsCheck => Ok(tls_check::run()?),
        Command::InternalAdmin => admin::run(),
    });
    let exit = outcome.unwrap_or_else(|error| {
        let error = foreign::line(&format!("{error:#}"), foreign::MAX_TEXT);
        if tracing::dispatcher::has_been_set() {
            tracing::error!(error, "could not start");
        } else {
            console::error(&format!("app-host: {error}"));
        }
        ExitCode::FAILURE
    });
    logging::finish();
    exit
}
