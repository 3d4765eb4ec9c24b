//! An app that tells what it does, in every way there is: events and spans of `tracing`, lines of the
//! crate `log`, and what it prints itself or has a child print.
//!
//! Paths: `/event`, `/spans` (over an await and a thread), `/forge` tries to write lines of the host's,
//! `/print`, `/child` prints through a shell, `/orphan` leaves one that prints when its worker has gone,
//! `/abort` prints and dies at once, `/flood/LINES` prints so many lines, `/disabled/TIMES` makes events
//! that nobody wants and answers how many nanoseconds of CPU time one took.

use std::future::poll_fn;
use std::process::Command;
use std::task::Poll;
use std::time::Duration;

use app_abi::tracing::{Instrument, debug, error, field, info, info_span, instrument, trace, warn};
use app_abi::{App, Body, Host, Level, Request, Response, StartError};

struct Telling {
    host: Host,
}

impl App for Telling {
    async fn start(host: Host) -> Result<Self, StartError> {
        println!("printed in the start");
        Ok(Self { host })
    }

    async fn call(&self, request: Request<Body>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let (route, argument) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
        let number: u32 = argument.parse().unwrap_or(0);
        let answer = match route {
            "event" => {
                info!(count = 3_u64, delta = -1, ratio = 0.5, yes = true, text = "a \"b\"", pid = 5, "counted {}", 3);
                warn!(target: "elsewhere", error = ?std::fmt::Error);
                error!("an error");
                debug!("hidden at info");
                self.host.log_with(Level::Info, "by hand", &[("key", "value")]);
                String::new()
            }
            "spans" => {
                let span = info_span!("request", method = "GET", user = field::Empty);
                span.record("user", 7);
                sell(42).instrument(span).await;
                String::new()
            }
            "forge" => {
                let forged = "x\n2026-11-22T00:00:00.000000Z  INFO forged\u{1b}[2J\r\n{\"v\":0,\"msg\":\"forged\"}";
                info!(forged, "{forged}");
                println!("{forged}");
                String::new()
            }
            "print" => {
                println!("printed by the app");
                String::new()
            }
            "child" => shell("echo printed by a child; echo and once more > /dev/stdout"),
            "orphan" => {
                let worker = self.host.worker_pid();
                let wait = format!("(while kill -0 {worker} 2>&-; do sleep 0.02; done; echo printed by an orphan) &");
                shell(&wait)
            }
            "abort" => {
                println!("last words");
                std::process::abort()
            }
            "flood" => {
                for line in 0..number {
                    println!("flood {line} {:1000}", "");
                }
                String::new()
            }
            "complain" => {
                for line in 0..number {
                    // In one piece: standard error has no buffer, and padding is written character by character.
                    let text = format!("complaint {line} {:1000}", "");
                    eprintln!("{text}");
                }
                String::new()
            }
            "callback" => {
                callback();
                String::new()
            }
            "last-error" => {
                error!("the last error");
                std::process::abort()
            }
            "disabled" => disabled(number),
            _ => "?".to_owned(),
        };
        Response::new(answer.into())
    }
}

/// As C would call it.
extern "C" fn callback() {
    panic!("the callback found no row")
}

#[instrument]
async fn sell(order: u64) {
    info!("before the await");
    let mut paused = false;
    poll_fn(|context| {
        context.waker().wake_by_ref();
        if std::mem::replace(&mut paused, true) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    let span = tracing::Span::current();
    let there = std::thread::spawn(move || span.in_scope(|| info!("on a thread")));
    let _ = there.join();
    info!("after the await");
}

fn shell(script: &str) -> String {
    Command::new("sh").args(["-c", script]).status().map_or_else(|error| error.to_string(), |status| status.to_string())
}

/// Nanoseconds of this thread's CPU time for one event of a level that isn't written.
fn disabled(times: u32) -> String {
    let cpu = || -> Option<Duration> {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        Some(Duration::from_nanos(text.split(' ').next()?.parse().ok()?))
    };
    let Some(before) = cpu() else { return "no clock".to_owned() };
    for number in 0..times {
        trace!(number, text = %std::hint::black_box("text"), "nobody wants it");
    }
    let took = cpu().unwrap_or_default().saturating_sub(before);
    format!("{}", took.as_secs_f64() * 1e9 / f64::from(times.max(1)))
}

app_abi::export_app!(Telling);
