//! Benchmarks, to be run by hand: `cargo run --release -p app-host-tests --bin bench -- COMMAND`.
//!
//! - `requests [ROUNDS] [SECONDS]`: the example app's `GET /hello` through app-host, and the same handler
//!   in a plain axum server with as many threads, alternating in one run; then an axum `Router` through
//!   app-host, and the same one in the plain server.
//! - `https [ROUNDS] [SECONDS]`: the same by HTTPS, and the plain server behind tokio-rustls, and nginx with the
//!   same certificate, if it is there (or `NGINX_PROGRAM` names it).
//! - `http2 [ROUNDS] [SECONDS]`: what it costs that connections of HTTP/2 can move (`restart.http2`), and p99.9 of their
//!   clients in windows of a second with a restart in them against windows without.
//! - `restarts [COUNT]`: from SIGUSR2 to the verdict, each time with a library never seen before,
//!   split by stage, and as a multiple of a bare exec of the binary.
//! - `latency [SECONDS]`: p99.9 under a kept-alive load, in windows of a second with a restart in them
//!   against windows without, alternating.
//! - `reloads [ROUNDS]`: what kept-alive clients see of a restart, and of a reload of nginx (Debian package) and of a
//!   plain axum server, alternating in one run.
//! - `databank [ROUNDS]`: operations of the databank through the host, and the same by the bare crate,
//!   alternating in one run.

mod databank;
mod http2;
mod https;
mod reloads;

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use app_host_tests::load::{Allowed, Kind, Load, Posts};
use app_host_tests::{Address, App, Host, Line, process};
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use nix::sys::signal::Signal;

/// Workers of one thread each, against one process with as many threads.
const THREADS: u16 = 2;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize, default: u64| arguments.get(index).map_or(Ok(default), |text| text.parse::<u64>());
    let command = arguments.first().map(String::as_str);
    if !command.is_some_and(|command| command.starts_with("serve-axum")) {
        App::build_as_shipped();
    }
    let outcome = match command {
        Some("requests") => (|| requests(number(1, 5)?, Duration::from_secs(number(2, 3)?)))(),
        Some("https") => (|| https::run(number(1, 5)?, Duration::from_secs(number(2, 3)?)))(),
        Some("http2") => (|| http2::run(number(1, 10)?, Duration::from_secs(number(2, 3)?)))(),
        Some("restarts") => (|| restarts(number(1, 30)?))(),
        Some("latency") => (|| latency(number(1, 20)?))(),
        Some("databank") => (|| databank::run(number(1, 40)?))(),
        Some("reloads") => (|| reloads::run(number(1, 10)?))(),
        Some("serve-axum") => (|| serve_axum(number(1, 0)?))(),
        Some("serve-axum-https") => https::serve(arguments.get(1).map_or("", String::as_str)),
        _ => {
            let expected = "bench requests [ROUNDS] [SECONDS], https [ROUNDS] [SECONDS], http2 [ROUNDS] [SECONDS], restarts [COUNT], \
                            latency [SECONDS], reloads [ROUNDS] or databank [ROUNDS]";
            Err(format!("expected: {expected}").into())
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::from(2)
        }
    }
}

/// The example app's greeting in axum, and what the app `axum_hello` has.
fn plain_router() -> Router {
    let pid = std::process::id();
    let greeting = axum::body::Bytes::from(format!("Hello from app-host, world! (slot 0, generation 1, pid {pid})\n"));
    let handler = move || {
        let greeting = greeting.clone();
        async move { ([(CONTENT_TYPE, "text/plain; charset=utf-8")], greeting) }
    };
    let router = Router::new().route("/hello", get(handler));
    router.route("/", get(|| async { axum::response::Html("<h1>Hello, World!</h1>") }))
}

/// The plain server: the example app's greeting in axum. Ends gracefully on SIGTERM.
fn serve_axum(port: u64) -> Result<()> {
    let port = u16::try_from(port)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS.into()).enable_all().build()?;
    runtime.block_on(async {
        let router = plain_router();
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        println!("{}", listener.local_addr()?);
        // The host's workers set it as well.
        let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
            let _ = stream.set_nodelay(true);
        });
        let ends = async move {
            terminate.recv().await;
        };
        axum::serve(listener, router).with_graceful_shutdown(ends).await?;
        Ok(())
    })
}

/// Killed on drop.
struct Axum(Child);

impl Drop for Axum {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Axum {
    /// Starts it on this port, or on a free one if that is 0.
    fn start(port: u16) -> Result<(Self, Address)> {
        // Its path may be that of a newer build by now.
        let mut command = Command::new("/proc/self/exe");
        let mut child = command.arg("serve-axum").arg(port.to_string()).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().ok_or("axum has no output")?;
        let axum = Self(child);
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        Ok((axum, Address::parse(line.trim()).ok_or("axum says no address")?))
    }
}

/// One measurement: requests a second, and CPU time a request in microseconds.
struct Measured {
    rate: f64,
    cpu: f64,
    p50: Duration,
    p999: Duration,
}

fn measure(address: &Address, processes: &[u32], path: &str, kind: Kind, limit: Duration) -> Result<Measured> {
    let load =
        |limit| Load { address: address.clone(), clients: 8, kind, posts: Posts::None, path: path.to_owned(), limit };
    let any = Arc::new(Allowed::default());
    // Warm up: allocators, caches, the clients' connections.
    load(Duration::from_millis(300)).start(&any).finish();
    let cpu = || processes.iter().filter_map(|pid| process::cpu_time(*pid)).sum::<Duration>();
    let before = cpu();
    let outcome = load(limit).start(&any).finish();
    let used = cpu().saturating_sub(before);
    if outcome.failed > 0 {
        return Err(format!("{} requests failed: {:?}", outcome.failed, outcome.failures).into());
    }
    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^52 requests")]
    let cpu = used.as_secs_f64() * 1e6 / outcome.answered as f64;
    Ok(Measured { rate: outcome.rate(), cpu, p50: outcome.percentile(0.5), p999: outcome.percentile(0.999) })
}

fn requests(rounds: u64, limit: Duration) -> Result<()> {
    let (axum, axum_address) = Axum::start(0)?;
    let axum_processes = [axum.0.id()];

    let host = Host::new(&App::build().example()).with("/workers", THREADS).with("/log/level", "info").start();
    let router =
        Host::new(&App::build().app("axum_hello")).with("/workers", THREADS).with("/log/level", "info").start();
    let kinds = [Kind::KeepAlive, Kind::ConnectionPerRequest];
    for (what, path, host, kind) in [
        ("the example app", "/hello", &host, kinds[0]),
        ("the example app", "/hello", &host, kinds[1]),
        ("an axum Router", "/", &router, kinds[0]),
        ("an axum Router", "/", &router, kinds[1]),
    ] {
        let host_address = host.address();
        let mut host_processes = host.workers();
        host_processes.push(host.master());
        println!("{what}, {kind:?}, 8 clients, {rounds} rounds of {limit:?} each");
        println!("  round  server      requests/s  CPU µs/request   p50 µs  p99.9 µs");
        let (mut rates, mut cpus) = (Vec::new(), Vec::new());
        for round in 1..=rounds {
            let one = |name: &str, address: &Address, processes: &[u32]| -> Result<Measured> {
                let measured = measure(address, processes, path, kind, limit)?;
                let Measured { rate, cpu, p50, p999 } = &measured;
                println!("  {round:5}  {name:9} {rate:12.0} {cpu:15.2} {:8} {:9}", p50.as_micros(), p999.as_micros());
                Ok(measured)
            };
            // Whoever goes first has a warmer or a colder machine: take turns.
            let (plain, ours) = if round.is_multiple_of(2) {
                let ours = one("app-host", &host_address, &host_processes)?;
                (one("axum", &axum_address, &axum_processes)?, ours)
            } else {
                (one("axum", &axum_address, &axum_processes)?, one("app-host", &host_address, &host_processes)?)
            };
            rates.push(ours.rate / plain.rate);
            cpus.push(ours.cpu / plain.cpu);
        }
        println!("  app-host / axum: CPU a request {}, requests/s {}\n", spread(&mut cpus), spread(&mut rates));
    }
    Ok(())
}

/// A window is long enough for a whole restart, and for thousands of requests.
const WINDOW: Duration = Duration::from_secs(1);

fn latency(seconds: u64) -> Result<()> {
    let library = App::build().example();
    let host = Host::new(&library).with("/workers", THREADS).with("/log/level", "info").start();
    let load = Load {
        address: host.address(),
        clients: 8,
        kind: Kind::KeepAlive,
        posts: Posts::None,
        path: "/hello".to_owned(),
        limit: WINDOW,
    };
    let any = Arc::new(Allowed::default());
    let window = |restarts: bool| -> Result<Duration> {
        let running = load.start(&any);
        if restarts {
            host.install_fresh(&library);
            host.restart_completes();
        }
        let outcome = running.finish();
        if outcome.failed > 0 {
            return Err(format!("{} requests failed: {:?}", outcome.failed, outcome.failures).into());
        }
        Ok(outcome.percentile(0.999))
    };
    // Warm up.
    window(true)?;
    let (mut ratios, mut with, mut without) = (Vec::new(), Vec::new(), Vec::new());
    for pair in 0..(seconds / 2).max(1) {
        // Whoever goes first has a warmer or a colder machine: take turns.
        let first = window(pair.is_multiple_of(2))?;
        let second = window(!pair.is_multiple_of(2))?;
        let (restart, calm) = if pair.is_multiple_of(2) { (first, second) } else { (second, first) };
        ratios.push(restart.as_secs_f64() / calm.as_secs_f64());
        with.push(restart.as_secs_f64() * 1e6);
        without.push(calm.as_secs_f64() * 1e6);
    }
    println!("p99.9 of 8 kept-alive clients, {} pairs of windows of {WINDOW:?}, µs:", ratios.len());
    println!("  with a restart     {}", spread(&mut with));
    println!("  without            {}", spread(&mut without));
    println!("  with / without     {}", spread(&mut ratios));
    Ok(())
}

/// Median, least and most.
fn spread(values: &mut [f64]) -> String {
    values.sort_by(f64::total_cmp);
    match (values.first(), values.last()) {
        (Some(least), Some(most)) => format!("{:.3} (from {least:.3} to {most:.3})", values[values.len() / 2]),
        _ => "-".to_owned(),
    }
}

/// Seconds since midnight UTC, as the log's times are read.
fn seconds_now() -> Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64() % 86_400.0)
}

fn restarts(count: u64) -> Result<()> {
    let binary = App::build().host();
    let mut bare = Vec::new();
    for _ in 0..50 {
        let began = Instant::now();
        Command::new(&binary).arg("--version").stdout(Stdio::null()).status()?;
        bare.push(began.elapsed().as_secs_f64() * 1e3);
    }
    println!("bare exec of the binary (app-host --version), ms: {}", spread(&mut bare));
    let bare = bare[bare.len() / 2];

    let library = App::build().example();
    let host = Host::new(&library).with("/restart/probation", "0s").with("/log/level", "info").start();
    let mut columns: Vec<(&str, Vec<f64>)> = [
        "signal to request",
        "preflight",
        "of it copy and hash",
        "of it probe",
        "spawn to ready, slot 0",
        "ready to ready, slot 1",
        "last drain to verdict",
        "SIGUSR2 to verdict",
    ]
    .into_iter()
    .map(|name| (name, Vec::new()))
    .collect();
    for _ in 0..count {
        host.install_fresh(&library);
        let mark = host.mark();
        let signalled = seconds_now()?;
        host.signal(Signal::SIGUSR2);
        let verdict = host.wait("the verdict", || {
            host.look(mark, |new| new.iter().find(|line| line.msg().starts_with("zero-downtime restart")).cloned())
        });
        if verdict.str("verdict") != "complete" {
            return Err(verdict.text().into());
        }
        let lines = host.lines().split_off(mark);
        let at = |msg: &str, slot: Option<u64>| -> Result<f64> {
            let fits = |line: &&Line| line.msg() == msg && (slot.is_none() || line.number("slot") == slot);
            lines.iter().find(fits).and_then(Line::seconds).ok_or_else(|| format!("no line \"{msg}\"").into())
        };
        let passed = lines.iter().find(|line| line.msg() == "restart preflight passed").ok_or("no preflight")?;
        #[expect(clippy::cast_precision_loss, reason = "a time of microseconds")]
        let took = |key: &str| passed.number(key).map_or(f64::NAN, |micros| micros as f64 / 1e6);
        let requested = at("restart requested", None)?;
        let preflight = at("restart preflight passed", None)?;
        let spawned = at("worker spawned", Some(0))?;
        let ready = [at("worker ready", Some(0))?, at("worker ready", Some(1))?];
        let drained = lines.iter().filter(|line| line.msg() == "worker ordered to drain").filter_map(Line::seconds);
        let verdict = verdict.seconds().ok_or("the verdict has no time")?;
        let stages = [
            requested - signalled,
            preflight - requested,
            took("copy_us"),
            took("probe_us"),
            ready[0] - spawned,
            ready[1] - ready[0],
            verdict - drained.fold(0.0, f64::max),
            verdict - signalled,
        ];
        for ((_, values), seconds) in columns.iter_mut().zip(stages) {
            values.push(seconds * 1e3);
        }
    }
    println!("{count} restarts of 2 idle workers, probation 0, ms:");
    for (name, values) in &mut columns {
        println!("  {name:24} {}", spread(values));
    }
    let median = |index: usize| columns[index].1[columns[index].1.len() / 2];
    let (probe, total) = (median(3), median(7));
    println!(
        "the whole is {:.1} times a bare exec; without the probe, {:.1} times one a worker",
        total / bare,
        (total - probe) / bare / 2.0
    );
    Ok(())
}
