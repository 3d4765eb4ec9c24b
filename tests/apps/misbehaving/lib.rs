//! An app that does whatever its configuration or a request tells it to, however bad it is.
//!
//! `app.config` has the keys of [`Config`]. Paths: `/whoami` answers JSON, `/block` says so in the log
//! and never gives the thread back, `/spin` does the same with all the CPU it can get, `/deaf` ignores
//! SIGABRT besides, `/close` closes what the host waits with, `/close/all` all that it has open, `/grow/MIB` needs so much memory more from now on, `/never` never answers nor reads, `/sleep/MS` answers late, `/panic`
//! panics, `/upload` counts a body, `/download/BYTES` makes one of known length while it is sent and
//! `/stream/BYTES` one of unknown length, `/whole/BYTES` has it ready, `/made` tells how many bytes were
//! made, `/noted/NUMBER` writes the number down and answers as `/whoami`, `/noted_late/NUMBER` 5 ms later, `/echo` sends one back, `/header/NAME` shows a header of the request, `/connection` shows what is known of the connection, `/tls` of its TLS, `/child` shows
//! what a process spawned by the app inherits, `/orphan` leaves one behind, `/garbage` writes what is no message to every pipe
//! of the process, `/smuggle` sends descriptors of several kinds on every socket to the master and tells how many packets went.
#![expect(clippy::disallowed_methods, reason = "the app has no runtime, and bad manners")]

mod bodies;
mod exits;
mod listeners;
mod master;
mod processes;
mod seen;
mod signals;
mod sleep;

use std::fs::{File, OpenOptions};
use std::future::pending;
use std::io::Write;
use std::sync::atomic::Ordering;
use std::time::Duration;

use app_abi::{App, Body, Host, Level, Request, RequestExt, Response, StartError, StatusCode, serde_json};

use crate::bodies::{MADE, Made, upload};
use crate::processes::{block, grow, make_orphan, show_child};
use crate::seen::{client, tls};
use crate::sleep::sleep;

#[derive(Default, app_abi::serde::Deserialize)]
#[serde(crate = "app_abi::serde", default, deny_unknown_fields)]
struct Config {
    /// `abort`, `exit`, `hang`, `panic`, `error`, `long_error` of 8 MiB, or `null_listeners`: makes the listeners unusable.
    on_start: String,
    /// Limits `on_start` and `die_after_ms` to one slot.
    only_slot: Option<u16>,
    /// How long `start` takes.
    start_ms: u64,
    /// The file that `start` makes while it is at work, and fails where another start is at it.
    migration: Option<String>,
    /// The process ends this long after its start.
    die_after_ms: Option<u64>,
    /// `start` aborts while this file exists.
    die_if: Option<String>,
    /// `hang`.
    on_stop: String,
    /// Has an exit handler: `print`, or `hang`.
    on_exit: String,
    /// Shown by `/whoami`.
    marker: String,
    /// The file that `/noted` writes to.
    notes: Option<String>,
}

struct Misbehaving {
    host: Host,
    config: Config,
    notes: Option<File>,
}

impl App for Misbehaving {
    async fn start(host: Host) -> Result<Self, StartError> {
        let config: Config = host.config()?;
        if let Some(path) = &config.migration {
            let claimed = OpenOptions::new().write(true).create_new(true).open(path);
            claimed.map_err(|_| StartError::new("two migrations at a time"))?;
        }
        sleep(Duration::from_millis(config.start_ms)).await;
        if let Some(path) = &config.migration {
            let _ = std::fs::remove_file(path);
        }
        if config.die_if.as_ref().is_some_and(|path| std::path::Path::new(path).exists()) {
            std::process::abort();
        }
        if config.only_slot.is_none_or(|slot| slot == host.slot()) {
            match config.on_start.as_str() {
                "abort" => std::process::abort(),
                "exit" => std::process::exit(0),
                "hang" => block(),
                "panic" => panic!("start was told to panic"),
                "error" => return Err(StartError::new("start was told to fail")),
                "long_error" => return Err(StartError::new(format!("\u{1b}[2J\n{}", "long\n".repeat(8 << 18)))),
                "null_listeners" => listeners::make_unusable(),
                "" => {}
                other => return Err(StartError::new(format!("unknown on_start: {other}"))),
            }
            if let Some(ms) = config.die_after_ms {
                std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_millis(ms));
                    std::process::abort();
                });
            }
        }
        match config.on_exit.as_str() {
            "print" => exits::register(exits::print),
            "hang" => exits::register(exits::hang),
            _ => {}
        }
        let open = |path: &String| OpenOptions::new().append(true).create(true).open(path);
        let notes = config.notes.as_ref().map(open).transpose().map_err(StartError::new)?;
        Ok(Self { host, config, notes })
    }

    async fn call(&self, request: Request<Body>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let (route, argument) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
        let number = || argument.parse().unwrap_or(0);
        match route {
            "whoami" => self.whoami(),
            "tls" => Response::new(Body::from(tls(&request))),
            "noted" => {
                self.note(argument);
                self.whoami()
            }
            "noted_late" => {
                self.note(argument);
                sleep(Duration::from_millis(5)).await;
                self.whoami()
            }
            "block" => {
                self.host.log(Level::Info, "the app blocks a thread");
                block()
            }
            "spin" => {
                self.host.log(Level::Info, "the app spins");
                loop {
                    std::hint::spin_loop();
                }
            }
            "deaf" => {
                signals::ignore_abort();
                self.host.log(Level::Info, "the app blocks a thread");
                block()
            }
            "close" => {
                listeners::close(if argument == "all" { "" } else { "anon_inode:[eventpoll]" });
                self.whoami()
            }
            "grow" => {
                grow(number());
                self.whoami()
            }
            "never" => pending().await,
            "sleep" => {
                sleep(Duration::from_millis(number())).await;
                self.whoami()
            }
            "panic" => panic!("a handler was told to panic"),
            "upload" => upload(request.into_body()).await,
            "download" => Response::new(Body::stream(Made { left: number(), sized: true })),
            "stream" => Response::new(Body::stream(Made { left: number(), sized: false })),
            "whole" => Response::new(vec![b'x'; usize::try_from(number()).unwrap_or(0)].into()),
            "made" => Response::new(MADE.load(Ordering::Relaxed).to_string().into()),
            "echo" => Response::new(request.into_body()),
            "connection" => {
                let text = format!("{:?} {:?}", request.connection(), request.version());
                Response::new(text.into())
            }
            "client" => Response::new(client(&request).into()),
            "log" => {
                self.host.log_with(Level::Info, "the app says something", &[("key", "value")]);
                self.whoami()
            }
            "header" => {
                let values: Vec<_> =
                    request.headers().get_all(argument).iter().map(app_abi::http::HeaderValue::as_bytes).collect();
                Response::new(values.join(&b", "[..]).into())
            }
            "garbage" => Response::new(master::write_garbage().to_string().into()),
            "smuggle" => Response::new(master::smuggle().to_string().into()),
            "child" => Response::new(show_child().into()),
            "orphan" => Response::new(make_orphan().into()),
            _ => {
                let mut response = Response::new(Body::from("not found"));
                *response.status_mut() = StatusCode::NOT_FOUND;
                response
            }
        }
    }

    async fn stop(&self) {
        if self.config.on_stop == "hang" {
            block();
        }
        self.host.log(Level::Info, "the app has stopped");
    }
}

impl Misbehaving {
    fn whoami(&self) -> Response<Body> {
        let body = serde_json::json!({
            "pid": self.host.worker_pid(),
            "slot": self.host.slot(),
            "generation": self.host.generation(),
            "marker": self.config.marker,
        });
        Response::new(body.to_string().into())
    }

    /// Writes down that a request has come here, with one `write(2)`.
    fn note(&self, number: &str) {
        let line = format!("{number} {}\n", self.host.worker_pid());
        let written = self.notes.as_ref().map(|mut notes| notes.write(line.as_bytes()));
        assert!(matches!(written, Some(Ok(length)) if length == line.len()), "{line:?} can't be noted: {written:?}");
    }
}

app_abi::export_app!(Misbehaving);
