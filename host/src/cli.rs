//! The command line: what can be said, and to which role it goes.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;

use app_host_core::config::SCHEMA;
use app_host_platform::console;

use crate::ctl::{Looks, Options, Order, Place, Until, Wait};
use crate::form::Form;
use crate::init;

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
    /// Write a configuration and a systemd unit for the library LIB.
    ///
    /// Writes app-host.json, app-host.schema.json (so that editors complete and check it) and NAME.service into DIR, and
    /// prints what to do with them. The unit is the shipped one: the master is root with few rights, and the workers are
    /// the user NAME. Overwrites nothing.
    Init {
        /// The library, an app: as your build leaves it, or as a deploy puts it in place.
        #[arg(value_name = "LIB")]
        library: PathBuf,
        /// Where to write; it must exist.
        #[arg(value_name = "DIR", default_value = ".")]
        directory: PathBuf,
        /// What the unit, its user and its directories are called.
        #[arg(long, default_value = "app-host", value_parser = init::name)]
        name: String,
    },
    /// Print the JSON schema of a configuration.
    Schema,
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
    /// Command a running master through its control socket.
    ///
    /// Exits with 0 when it was done (`restart --wait`: the restart is complete), with 1 when something was
    /// wrong here, with 2 when the command line wasn't understood, with 3 when the restart was refused, with 4
    /// when it failed, with 5 when no master could be reached, and with 6 when it didn't answer in time or
    /// went in the middle (`stop --wait`: isn't gone after the time given).
    Ctl(Ctl),
    /// Print what SHELL needs to complete this program's command lines.
    Completions {
        /// The shell.
        #[arg(value_name = "SHELL")]
        shell: Shell,
    },
    /// Write this program's manual pages into DIR.
    Man {
        /// The directory, which must exist.
        #[arg(value_name = "DIR")]
        directory: PathBuf,
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
    /// A check of certificates; the master spawns it.
    #[command(hide = true)]
    InternalTlsCheck,
    /// The server of metrics and page; the master spawns it.
    #[command(hide = true)]
    InternalAdmin,
}

#[derive(Debug, Args)]
pub struct Ctl {
    /// The configuration that the master runs with; app-host.json when neither this nor --socket is given.
    #[arg(long, value_name = "FILE", global = true, conflicts_with = "socket")]
    config: Option<PathBuf>,
    /// The control socket itself.
    #[arg(long, value_name = "PATH", global = true)]
    socket: Option<PathBuf>,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    order: CtlOrder,
}

#[derive(Debug, Subcommand)]
enum CtlOrder {
    /// Restart the service without downtime.
    ///
    /// Ends when nothing can refuse the restart any more, with 0, or when it was refused, with 3.
    Restart {
        /// Follow it to its verdict: 0 complete, 3 refused, 4 failed.
        #[arg(long)]
        wait: bool,
        /// Wait no longer than this, `30s` for instance, and exit with 6 if there is no verdict; the restart goes on.
        #[arg(long, value_name = "DURATION", requires = "wait", value_parser = humantime::parse_duration)]
        timeout: Option<Duration>,
    },
    /// Restart to an earlier generation, its code and its configuration, without downtime.
    ///
    /// It holds, also over a restart of the master, until the library or the configuration on disk changes, or
    /// a restart asks for what lies there.
    Rollback {
        /// The first digits of its version, and of its configuration as `ctl versions` lists them; the last good one before
        /// the active one if there are none.
        #[arg(value_name = "VERSION[:CONFIGURATION]")]
        version: Option<String>,
        /// Follow it to its verdict: 0 complete, 3 refused, 4 failed.
        #[arg(long)]
        wait: bool,
        /// Wait no longer than this, `30s` for instance, and exit with 6 if there is no verdict; the restart goes on.
        #[arg(long, value_name = "DURATION", requires = "wait", value_parser = humantime::parse_duration)]
        timeout: Option<Duration>,
    },
    /// Show the generations that can be gone back to, and those in quarantine.
    Versions,
    /// Have N workers from now on, until the configuration's own number changes or the master ends.
    Workers {
        /// How many.
        #[arg(value_name = "N", value_parser = clap::value_parser!(u16).range(1..=512))]
        number: u16,
    },
    /// Take the service out of rotation: not ready, connections told to close, and clients still served.
    ///
    /// `off` brings it back; a master that is started anew is in rotation.
    Drain {
        #[arg(value_name = "on|off", value_parser = ["on", "off"])]
        state: String,
    },
    /// Show the master and its workers.
    Status {
        /// Show it again every second. CPU is then that of the last one, and not of the whole life.
        #[arg(long)]
        watch: bool,
    },
    /// Print everything that happens, until the master goes.
    Events,
    /// Have the master and all workers log what is urgent up to LEVEL.
    ///
    /// Holds for workers that are spawned later and over restarts, until `restore` brings back what the
    /// configuration says. Nothing here is `fatal`; it means `error`.
    Loglevel {
        /// The level.
        #[arg(value_name = "LEVEL", value_parser = ["fatal", "error", "warn", "info", "debug", "trace", "restore"])]
        level: String,
    },
    /// Read certificates and keys anew, without a restart: for handshakes from now on, and no connection is touched.
    ReloadCertificates,
    /// Stop the service gracefully; once more: without `shutdown_delay`, and then at once.
    Stop {
        /// Wait until the master has gone.
        #[arg(long)]
        wait: bool,
        /// Wait no longer than this, `30s` for instance, and exit with 6 if the master is still there.
        #[arg(long, value_name = "DURATION", requires = "wait", value_parser = humantime::parse_duration)]
        timeout: Option<Duration>,
    },
}

impl From<Ctl> for Options {
    fn from(Ctl { config, socket, json, order }: Ctl) -> Self {
        let place = match (socket, config) {
            (Some(socket), _) => Place::Socket(socket),
            (None, Some(config)) => Place::Config(config),
            (None, None) => Place::Here,
        };
        let order = match order {
            CtlOrder::Restart { wait, timeout } => Order::Restart(until(wait, timeout)),
            CtlOrder::Rollback { version, wait, timeout } => Order::Rollback(until(wait, timeout), version),
            CtlOrder::Drain { state } => Order::Drain(state == "on"),
            CtlOrder::Versions => Order::Versions,
            CtlOrder::Workers { number } => Order::Workers(number),
            CtlOrder::Status { watch } => Order::Status(if watch { Looks::Again } else { Looks::Once }),
            CtlOrder::Events => Order::Events,
            CtlOrder::ReloadCertificates => Order::ReloadCertificates,
            CtlOrder::Loglevel { level } => Order::LogLevel(level),
            CtlOrder::Stop { wait, timeout } => Order::Stop(if wait { Wait::UntilGone(timeout) } else { Wait::Not }),
        };
        Self { place, form: if json { Form::Json } else { Form::Text }, order }
    }
}

const fn until(wait: bool, timeout: Option<Duration>) -> Until {
    if wait { Until::Verdict(timeout) } else { Until::Accepted }
}

/// What can be said, in groups, with an example each.
const GROUPS: [(&str, &[(&str, &str)]); 4] = [
    ("Serve", &[("run", "run app-host.json"), ("ctl", "ctl restart --wait")]),
    ("Write an app", &[("new", "new shop --axum"), ("dev", "dev --open shop")]),
    ("Look first", &[("check", "check app-host.json"), ("inspect", "inspect target/release/libshop.so")]),
    (
        "Set up",
        &[
            ("init", "init /usr/local/lib/shop/libshop.so /etc/app-host --name shop"),
            ("schema", "schema > app-host.schema.json"),
            ("completions", "completions bash > /etc/bash_completion.d/app-host"),
            ("man", "man /usr/local/share/man/man1"),
        ],
    ),
];

/// The command line's grammar, with the help in its groups.
fn command() -> clap::Command {
    let command = Cli::command();
    let mut help = "{about}\n\n{usage-heading} {usage}\n".to_owned();
    for (group, commands) in GROUPS {
        let _ = writeln!(help, "\n{group}:");
        for (name, example) in commands {
            let about = command.find_subcommand(name).and_then(clap::Command::get_about).map(ToString::to_string);
            let _ = writeln!(help, "  {name:<12}{}\n  {:<12}$ app-host {example}", about.unwrap_or_default(), "");
        }
    }
    help.push_str("\nOptions:\n{options}\n\n`app-host help COMMAND` says more of a command.\n");
    command.help_template(help)
}

/// Reads the command line, or ends with what is wrong with it.
pub fn parse() -> Cli {
    let matches = command().get_matches();
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.format(&mut command()).exit())
}

/// Prints the schema of a configuration.
pub fn schema() -> anyhow::Result<ExitCode> {
    console::answer(SCHEMA).context("the schema can't be written")?;
    Ok(ExitCode::SUCCESS)
}

/// Prints what a shell needs to complete command lines.
pub fn completions(shell: Shell) -> anyhow::Result<ExitCode> {
    let all = Cli::command();
    // Roles that only a master asks for are no words of an operator's.
    let visible = all.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let mut command = clap::Command::new("app-host").version(env!("CARGO_PKG_VERSION")).subcommands(visible);
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "app-host", &mut script);
    console::answer(&String::from_utf8_lossy(&script)).context("the completions can't be written")?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the manual pages.
pub fn man(directory: &Path) -> anyhow::Result<ExitCode> {
    clap_mangen::generate_to(Cli::command(), directory)
        .with_context(|| format!("manual pages can't be written into {}", directory.display()))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_in_one_group_and_every_example_is_understood() {
        command().debug_assert();
        let grammar = Cli::command();
        let visible = grammar.get_subcommands().filter(|it| !it.is_hide_set()).map(|it| it.get_name().to_owned());
        let mut visible: Vec<_> = visible.collect();
        let mut grouped: Vec<_> =
            GROUPS.iter().flat_map(|(_, commands)| commands.iter().map(|(name, _)| (*name).to_owned())).collect();
        visible.sort_unstable();
        grouped.sort_unstable();
        assert_eq!(grouped, visible);
        for (name, example) in GROUPS.iter().flat_map(|(_, commands)| *commands) {
            let words = example.split(" > ").next().unwrap_or_default().split(' ');
            let matches = command().try_get_matches_from(std::iter::once("app-host").chain(words));
            let matches = matches.unwrap_or_else(|error| panic!("{example}: {error}"));
            assert_eq!(matches.subcommand_name(), Some(*name), "{example}");
        }
    }
}
