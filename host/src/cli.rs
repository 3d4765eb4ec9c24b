//! The command line: what can be said, and to which role it goes.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Keeps a Rust service running while its code changes.
#[derive(Debug, Parser)]
#[command(name = "app-host", version, about)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the app that FILE configures; SIGUSR2 restarts it without downtime.
    ///
    /// Exits with 0 when it was stopped, with 1 when it couldn't start, and with 3 when a restart
    /// has failed and the last worker has gone since.
    Run {
        /// The configuration, a JSON file.
        #[arg(value_name = "FILE")]
        config: PathBuf,
        /// What `dev` has built, in the place of `app.library`; restarts are in a hurry then.
        #[arg(long, value_name = "PATH", hide = true)]
        dev_library: Option<PathBuf>,
    },
    /// Build the app in DIR, serve it, and bring each change of its sources live.
    ///
    /// Uses DIR/app-host.json if it is there, but serves what it has built itself, and doesn't wait in
    /// restarts: old workers have two seconds. A build that fails leaves what is live alone. Ends with SIGINT
    /// or SIGTERM.
    Dev {
        /// The directory of the app's Cargo.toml.
        #[arg(value_name = "DIR", default_value = ".")]
        directory: PathBuf,
        /// Build with cargo's profile `release`.
        #[arg(long)]
        release: bool,
        /// Open a page in a browser that loads itself again when a new version is live.
        #[arg(long)]
        open: bool,
    },
    /// Make a crate in DIR that is an app: it builds, tests and runs at once.
    ///
    /// Made by `cargo new`, so names, workspaces and version control are as there. Its app-abi is the one that
    /// this program was built with.
    New {
        /// The directory to make; its last part is the crate's name.
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        /// The crate's name, if it isn't the directory's.
        #[arg(long)]
        name: Option<String>,
        /// Make it of an axum Router.
        #[arg(long)]
        axum: bool,
        /// The directory of the crate app-abi, if it isn't where it was when this program was built.
        #[arg(long, value_name = "DIR")]
        app_abi: Option<PathBuf>,
    },
    /// Say whether FILE and the library that it names would be accepted; start nothing.
    ///
    /// Loads the library once in a throw-away process, as each restart does. Doesn't bind the
    /// listeners: a running master may hold them; nor does it know that master's epoch or reach for the
    /// databank. Exits with 0 when accepted, with 1 when not.
    Check {
        /// The configuration, a JSON file.
        #[arg(value_name = "FILE")]
        config: PathBuf,
    },
    /// Say what the library LIB says of itself, and what a master would say of it.
    ///
    /// Reads the file and runs nothing of it: that is for `check`. Exits with 0 when it fits this host,
    /// with 1 when it would be refused.
    Inspect {
        /// The library.
        #[arg(value_name = "LIB")]
        library: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// A worker; the master spawns it.
    #[command(hide = true)]
    InternalWorker,
    /// A probe; the master spawns it.
    #[command(hide = true)]
    InternalProbe,
    /// A databank check; the master spawns it.
    #[command(hide = true)]
    InternalDatabankCheck,
}
