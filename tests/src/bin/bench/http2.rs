//! What it costs that connections of HTTP/2 can move, and what their clients see of it: the example app's `GET /hello` with
//! fields as a browser sends them, through two hosts of which one lets them move, alternating in one run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use app_host_tests::{Address, App, Host, process};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::{Result, THREADS, spread};

/// Connections, and requests at a time on each.
const CONNECTIONS: usize = 4;
const STREAMS: usize = 4;

/// As a browser asks for a page.
const FIELDS: [(&str, &str); 8] = [
    ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("accept-language", "en-GB,en;q=0.9"),
    ("cookie", "session=0123456789abcdef0123456789abcdef; theme=dark"),
    ("sec-fetch-dest", "document"),
    ("sec-fetch-mode", "navigate"),
    ("upgrade-insecure-requests", "1"),
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0"),
];

type Sender = SendRequest<Empty<Bytes>>;

/// What clients have got: how long each request took.
struct Got(Vec<Duration>);

impl Got {
    fn percentile(&mut self, share: f64) -> Duration {
        self.0.sort_unstable();
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "few")]
        let index = (self.0.len() as f64 * share) as usize;
        self.0.get(index).copied().unwrap_or_default()
    }
}

/// Clients that keep their connections.
struct Clients {
    senders: Vec<Sender>,
}

impl Clients {
    async fn connect(address: &Address) -> Result<Self> {
        let mut senders = Vec::new();
        for _ in 0..CONNECTIONS {
            let stream = TcpStream::connect(address.tcp()).await?;
            stream.set_nodelay(true)?;
            let io = TokioIo::new(stream);
            let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
            tokio::spawn(connection);
            senders.push(sender);
        }
        Ok(Self { senders })
    }

    /// Asks until the time is over. Each request must be answered.
    async fn ask(&self, limit: Duration) -> Result<Got> {
        let over = Arc::new(AtomicBool::new(false));
        let mut asks = JoinSet::new();
        for sender in self.senders.iter().flat_map(|sender| std::iter::repeat_n(sender, STREAMS)) {
            let (mut sender, over) = (sender.clone(), Arc::clone(&over));
            asks.spawn(async move {
                let mut times = Vec::new();
                while !over.load(Relaxed) {
                    let mut request = hyper::Request::get("http://localhost/hello");
                    for (name, value) in FIELDS {
                        request = request.header(name, value);
                    }
                    let began = Instant::now();
                    let request = request.body(Empty::new()).map_err(|error| error.to_string())?;
                    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
                    let status = response.status();
                    response.into_body().collect().await.map_err(|error| error.to_string())?;
                    if status != 200 {
                        return Err(format!("an answer of {status}"));
                    }
                    times.push(began.elapsed());
                }
                Ok(times)
            });
        }
        tokio::time::sleep(limit).await;
        over.store(true, Relaxed);
        let mut all = Vec::new();
        while let Some(times) = asks.join_next().await {
            all.extend(times??);
        }
        Ok(Got(all))
    }
}

/// CPU time a request in microseconds.
fn cost(runtime: &Runtime, clients: &Clients, processes: &[u32], limit: Duration) -> Result<f64> {
    let cpu = || processes.iter().filter_map(|pid| process::cpu_time(*pid)).sum::<Duration>();
    let before = cpu();
    let got = runtime.block_on(clients.ask(limit))?;
    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^52 requests")]
    let cost = cpu().saturating_sub(before).as_secs_f64() * 1e6 / got.0.len() as f64;
    Ok(cost)
}

/// See the module.
pub fn run(rounds: u64, limit: Duration) -> Result<()> {
    let runtime = Runtime::new()?;
    let library = App::build().example();
    let start = |how: &str| {
        Host::new(&library).with("/workers", THREADS).with("/log/level", "info").with("/restart/http2", how).start()
    };
    let hosts = [start("goaway"), start("move")];
    let clients = [0, 1].map(|index: usize| runtime.block_on(Clients::connect(&hosts[index].address())));
    let [still, moving] = clients;
    let clients = [still?, moving?];
    let processes = [0, 1].map(|index: usize| [hosts[index].workers(), vec![hosts[index].master()]].concat());
    for (client, processes) in clients.iter().zip(&processes) {
        cost(&runtime, client, processes, Duration::from_millis(500))?;
    }
    println!("{CONNECTIONS} connections with {STREAMS} requests each at a time, {rounds} rounds of {limit:?}");
    let mut ratios = Vec::new();
    for round in 0..rounds {
        let mut costs = [0.0; 2];
        // Whoever goes first has a warmer or a colder machine: take turns.
        for turn in 0..2 {
            let index = usize::try_from((turn + round) % 2)?;
            costs[index] = cost(&runtime, &clients[index], &processes[index], limit)?;
        }
        println!("  {round:5}  goaway {:8.2}  move {:8.2} CPU µs/request", costs[0], costs[1]);
        ratios.push(costs[1] / costs[0]);
    }
    println!("  move / goaway: CPU a request {}", spread(&mut ratios));
    latency(&runtime, &hosts[1], &clients[1], &library, rounds)
}

/// What clients whose connections move see of a restart.
fn latency(runtime: &Runtime, host: &Host, clients: &Clients, library: &std::path::Path, rounds: u64) -> Result<()> {
    const WINDOW: Duration = Duration::from_secs(1);
    let mut ratios = Vec::new();
    for round in 0..rounds {
        let mut tails = [Duration::ZERO; 2];
        for turn in 0..2 {
            let restarts = (turn + round) % 2 == 1;
            let mut got = std::thread::scope(|scope| {
                let asks = scope.spawn(|| runtime.block_on(clients.ask(WINDOW)).map_err(|error| error.to_string()));
                if restarts {
                    host.install_fresh(library);
                    host.restart_completes();
                }
                asks.join().map_err(|_| "the clients have panicked")?.map_err(Box::<dyn std::error::Error>::from)
            })?;
            tails[usize::from(restarts)] = got.percentile(0.999);
        }
        let [without, with] = tails;
        println!("  {round:5}  p99.9 without a restart {without:9.1?}, with one {with:9.1?}");
        ratios.push(with.as_secs_f64() / without.as_secs_f64());
    }
    println!("  with / without: p99.9 {}", spread(&mut ratios));
    Ok(())
}
