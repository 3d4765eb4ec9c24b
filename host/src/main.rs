//! `app-host` keeps a Rust service running while its code changes.
//!
//! A stable **master** owns the listening sockets and the restart logic; **workers** load the app,
//! a versioned library written against `app-abi`, and serve HTTP with it.
//!
//! Where a line belongs: `main` and `cli` say what to do. `master`, `worker`, `probe`, `databank_check`,
//! `admin`, `check`, `ctl`, `inspect`, `dev`, `new` and `init` are the roles; they never import each other. Below them are
//! rooms with one job each. `sys` and `loader` hold the only `unsafe`. `restart`, `message`, `command`, `config`, `ids`, `causes`, `foreign` and `hosts` are pure. Uses
//! point down this list only; `tests/tests/architecture.rs` has the order within it and checks it.

// They panic where nobody can be told; `console` doesn't.
#![cfg_attr(not(test), warn(clippy::print_stderr, clippy::print_stdout))]

mod cli;

// The roles.
mod admin;
mod check;
mod ctl;
mod databank_check;
mod dev;
mod init;
mod inspect;
mod master;
mod new;
mod probe;
mod worker;

// One room, one job.
mod access;
mod artifact;
mod channel;
mod children;
mod console;
mod control;
mod desk;
mod handover;
mod held;
mod http;
mod identity;
mod ledger;
mod listeners;
mod locks;
mod logging;
mod metrics;
mod notify;
mod output;
mod paths;
mod preflight;
mod socket_file;
mod state_dir;
mod watcher;

// The only `unsafe`, and what `loader` lends to the app: the store, and the way to other workers.
mod databank;
mod dispatch;
mod loader;
mod sys;

// Pure.
mod causes;
mod command;
mod config;
mod foreign;
mod hosts;
mod ids;
mod message;
mod restart;

use std::process::ExitCode;

use anyhow::Context;
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
            inspect::run(&library, if json { inspect::Form::Json } else { inspect::Form::Text })
        }
        Command::Ctl(arguments) => Ok(ctl::run(&arguments.into())),
        Command::Completions { shell } => cli::completions(shell),
        Command::Man { directory } => cli::man(&directory),
        Command::InternalWorker => Ok(worker::run()),
        Command::InternalProbe => probe::run(),
        Command::InternalDatabankCheck => databank_check::run(),
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
