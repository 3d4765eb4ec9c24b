//! `app-host ctl`: what the operator says to a running master, and what it answers.
//!
//! Owns the words for people and the exit codes, which scripts rely on: they are listed at
//! [`Outcome`] and don't change. What goes over the socket is `command`'s language.

mod client;
mod lines;
mod progress;
mod restart;
mod stop;
mod table;

use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::Value;

use app_host_core::config::{self, Whereabouts};
use app_host_core::error::chain;
use app_host_core::foreign;
use app_host_core::status::Status;
use app_host_platform::console::{self, Reader};
use app_host_platform::paths;

use crate::form::Form;
use client::{Client, ClientError};
use lines::{Line, NoLine};

/// The configuration that is looked at when nothing else is said.
const DEFAULT_CONFIG: &str = "app-host.json";

/// How long a master may take for an answer that needs no waiting.
const ANSWER: Duration = Duration::from_secs(5);

/// How long certificates may take to be read and checked: their disk, and a process.
const RELOAD: Duration = Duration::from_secs(90);

/// How often `status --watch` looks.
const WATCH: Duration = Duration::from_secs(1);

/// What is wanted.
#[derive(Debug)]
pub struct Options {
    pub place: Place,
    pub form: Form,
    pub order: Order,
}

/// Where the master is.
#[derive(Debug)]
pub enum Place {
    Socket(PathBuf),
    /// In this configuration.
    Config(PathBuf),
    /// In the configuration that lies here.
    Here,
}

#[derive(Debug)]
pub enum Order {
    Restart(Until),
    /// To an earlier generation; the first digits of its version, or none for the last good one.
    Rollback(Until, Option<String>),
    Workers(u16),
    /// Whether no more clients are to be sent here.
    Drain(bool),
    Versions,
    Status(Looks),
    Events,
    /// Certificates and keys.
    ReloadCertificates,
    /// A level, or `restore`.
    LogLevel(String),
    Stop(Wait),
}

/// Whether a stop is followed until the master has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    Not,
    /// For so long; for as long as the master takes, when absent.
    UntilGone(Option<Duration>),
}

/// What a restart is followed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Nothing can refuse it any more.
    Accepted,
    /// Its verdict, for so long; for as long as the restart takes, when absent.
    Verdict(Option<Duration>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looks {
    Once,
    Again,
}

/// What became of an order. The number is the exit code; 2 is the command line's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Outcome {
    Done = 0,
    /// Here: a configuration that can't be read, an answer that is none.
    Wrong = 1,
    /// The restart was refused; no worker was touched.
    Refused = 3,
    /// The restart failed.
    Failed = 4,
    /// No master is there, or it isn't ours to talk to.
    NotReachable = 5,
    /// It is there and doesn't answer in time, or went in the middle.
    NoAnswer = 6,
}

/// What keeps an order from being carried out.
#[derive(Debug, thiserror::Error)]
enum CtlError {
    #[error("there is no {DEFAULT_CONFIG} in {}; hint: say where the master is with --config FILE or --socket PATH", directory.display())]
    NoConfig { directory: PathBuf },
    #[error("the configuration {} can't be read", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("the master says no: {0}")]
    No(String),
    #[error("the answer can't be written")]
    Print(#[source] io::Error),
    #[error("the master's answer isn't understood: {0}")]
    Answer(String),
    #[error("the master's answer isn't understood: {0}")]
    Line(#[from] NoLine),
}

impl CtlError {
    const fn outcome(&self) -> Outcome {
        match self {
            Self::NoConfig { .. }
            | Self::Read { .. }
            | Self::No(_)
            | Self::Answer(_)
            | Self::Print(_)
            | Self::Line(_) => Outcome::Wrong,
            Self::Client(error) => error.outcome(),
        }
    }
}

/// Carries out an order.
pub fn run(options: &Options) -> ExitCode {
    let outcome = carry_out(options).unwrap_or_else(|error| {
        console::error(&format!("app-host: {}", chain(&error)));
        error.outcome()
    });
    ExitCode::from(outcome as u8)
}

fn carry_out(Options { place, form, order }: &Options) -> Result<Outcome, CtlError> {
    let socket = find(place)?;
    let mut client = Client::connect(&socket, ANSWER)?;
    match order {
        Order::Restart(until) => restart::restart(&mut client, &socket, "RESTART", *until, *form),
        Order::Rollback(until, version) => {
            let words = version.as_ref().map_or("ROLLBACK".to_owned(), |version| format!("ROLLBACK {version}"));
            restart::restart(&mut client, &socket, &words, *until, *form)
        }
        Order::Workers(number) => {
            client.order(&format!("WORKERS {number}"), ANSWER)?;
            done(&format!("{number} workers are wanted from now on"), *form)
        }
        Order::Drain(on) => {
            client.order(if *on { "DRAIN ON" } else { "DRAIN OFF" }, ANSWER)?;
            done(if *on { "out of rotation: not ready, until ctl drain off" } else { "back in rotation" }, *form)
        }
        Order::Versions => {
            print(&versions_text(&client.ask_for("VERSIONS", ANSWER)?, *form)?)?;
            Ok(Outcome::Done)
        }
        Order::Status(Looks::Once) => {
            print(&status_text(&client.ask_for("STATUS", ANSWER)?, None, *form)?)?;
            Ok(Outcome::Done)
        }
        Order::Status(Looks::Again) => watch(&mut client, *form),
        Order::Events => events(&mut client, *form),
        Order::ReloadCertificates => {
            client.order("RELOAD-CERTIFICATES", RELOAD)?;
            done("certificates reloaded", *form)
        }
        Order::LogLevel(level) => {
            client.order(&format!("LOGLEVEL {level}"), ANSWER)?;
            done(&format!("log level: {level}"), *form)
        }
        Order::Stop(wait) => {
            stop::stop(&mut client, &socket, *wait)?;
            let said = if *wait == Wait::Not { "the master stops" } else { "the master has gone" };
            done(said, *form)
        }
    }
}

/// The socket's path.
fn find(place: &Place) -> Result<PathBuf, CtlError> {
    let absolute = |path: &Path| paths::absolute(path).unwrap_or_else(|_| path.to_owned());
    let config = match place {
        Place::Socket(path) => return Ok(absolute(path)),
        Place::Config(path) => absolute(path),
        Place::Here => {
            let path = absolute(Path::new(DEFAULT_CONFIG));
            if !path.exists() {
                let directory = path.parent().unwrap_or(Path::new("/")).to_owned();
                return Err(CtlError::NoConfig { directory });
            }
            path
        }
    };
    let mut bytes = Vec::new();
    // A FIFO's writer isn't waited for.
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&config);
    opened
        .and_then(|file| file.take(config::MAX_FILE_BYTES).read_to_end(&mut bytes))
        .map_err(|source| CtlError::Read { path: config.clone(), source })?;
    let Whereabouts { socket, doubt } = config::find_control_socket(&bytes, &config);
    if let Some(doubt) = doubt {
        let doubt = foreign::printable(&doubt).into_owned();
        console::note(&format!("app-host: {doubt}: {}; or say --socket PATH", socket.display()));
    }
    Ok(socket)
}

/// Prints to standard output.
fn print(text: &str) -> Result<Reader, CtlError> {
    console::answer(text).map_err(CtlError::Print)
}

/// Says that an order was carried out, which people are told in these words.
fn done(said: &str, form: Form) -> Result<Outcome, CtlError> {
    match form {
        Form::Json => print("{\"done\":true}\n")?,
        Form::Text => print(&format!("{said}\n"))?,
    };
    Ok(Outcome::Done)
}

/// Prints the status again and again, until the master goes.
fn watch(client: &mut Client, form: Form) -> Result<Outcome, CtlError> {
    let clears = form == Form::Text && io::stdout().is_terminal();
    let mut before: Option<(Status, Instant)> = None;
    loop {
        let status = client.ask_for("STATUS", ANSWER)?;
        let elapsed = before.as_ref().map(|(status, at)| (status, at.elapsed()));
        let mut text = status_text(&status, elapsed, form)?;
        if clears {
            text.insert_str(0, "\u{1b}[H\u{1b}[2J");
        } else if form == Form::Text {
            text.push('\n');
        }
        if print(&text)? == Reader::Gone {
            return Ok(Outcome::Done);
        }
        before = serde_json::from_str(&status).ok().map(|status| (status, Instant::now()));
        // Nothing is asked, so nothing comes but the end.
        drop(client.hear_within(WATCH)?);
    }
}

fn status_text(answer: &str, before: Option<(&Status, Duration)>, form: Form) -> Result<String, CtlError> {
    if form == Form::Json {
        return Ok(format!("{answer}\n"));
    }
    let mut status: Value = serde_json::from_str(answer).map_err(|error| CtlError::Answer(error.to_string()))?;
    foreign::make_printable(&mut status);
    let status: Status = serde_json::from_value(status).map_err(|error| CtlError::Answer(error.to_string()))?;
    Ok(table::status(&status, before))
}

fn versions_text(answer: &str, form: Form) -> Result<String, CtlError> {
    if form == Form::Json {
        return Ok(format!("{answer}\n"));
    }
    let mut versions: Vec<Value> = serde_json::from_str(answer).map_err(|error| CtlError::Answer(error.to_string()))?;
    versions.iter_mut().for_each(foreign::make_printable);
    Ok(table::versions(&versions))
}

/// Prints events until the reader goes, or the master, which is told by the exit code.
fn events(client: &mut Client, form: Form) -> Result<Outcome, CtlError> {
    client.order("EVENTS", ANSWER)?;
    loop {
        let event = match client.hear_within(ANSWER)? {
            Some(Line::Event(event)) => event,
            Some(Line::Answer(answer)) => return Err(CtlError::Answer(answer.to_string())),
            None => continue,
        };
        let line = match form {
            Form::Json => event.to_string(),
            Form::Text => foreign::printable(&progress::plain(&event)).into_owned(),
        };
        if print(&format!("{line}\n"))? == Reader::Gone {
            return Ok(Outcome::Done);
        }
    }
}
