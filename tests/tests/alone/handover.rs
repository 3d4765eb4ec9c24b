//! Connections survive restarts however many there are, however they are used, and whoever is killed meanwhile.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use app_host_tests::load::Allowed;
use app_host_tests::steady::{self, Asks, Loss, Seen, Steady, Way};
use app_host_tests::tls::Authority;
use app_host_tests::{Address, App, Host, Line, machine, process, said};
use nix::sys::signal::Signal;
use rustix::process::{Resource, Rlimit};
use serde_json::json;

use crate::handover::{ask, exited};

/// As many descriptors as this process may have, until the end of the test: all that it starts has them, too.
pub(super) struct Raised(Rlimit);

impl Raised {
    pub(super) fn limit() -> Self {
        let limit = rustix::process::getrlimit(Resource::Nofile);
        let most = Rlimit { current: limit.maximum, maximum: limit.maximum };
        rustix::process::setrlimit(Resource::Nofile, most).expect("the soft limit can be raised to the hard one");
        Self(limit)
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        let _ = rustix::process::setrlimit(Resource::Nofile, self.0);
    }
}

fn assert_kept(seen: &[Seen]) {
    for Seen { way, answered, failures, opened, closes, slowest, .. } in seen {
        println!("{way:?}: {answered} answered, {opened} opened, {} closed, slowest {slowest:?}", closes.len());
        assert!(failures.is_empty(), "{way:?}: {failures:#?}");
        assert_eq!((*opened, closes.len()), (1, 0), "{way:?}: {closes:?}");
        // Who thinks for 100 ms asks as seldom as that in a few seconds.
        assert!(*answered > 10, "{way:?}: {answered}");
    }
}

#[test]
fn clients_of_every_kind_keep_their_connections_over_100_restarts() {
    let _alone = machine::alone();
    let listen = json!(["127.0.0.1:0", "unix:socket"]);
    let host = Host::answering("a")
        .with("/restart/probation", "0s")
        .with("/log/level", "info")
        .with("/listen", listen)
        .start();
    let unix = Address::Unix(host.path("socket"));
    let ways = [
        (Way::Get, host.address()),
        (Way::Get, unix.clone()),
        (Way::Post(3_000), host.address()),
        (Way::Chunked(3_000), host.address()),
        (Way::Chunked(3_000), unix),
        (Way::Thinks(Duration::from_millis(7)), host.address()),
        (Way::Thinks(Duration::from_millis(100)), host.address()),
        (Way::Pipelined(5), host.address()),
        (Way::ByteByByte, host.address()),
    ];
    assert_kept_over_100_restarts(&host, ways);
}

#[test]
fn https_clients_of_every_kind_keep_their_connections_over_100_restarts() {
    let _alone = machine::alone();
    let host = Host::answering("a").with("/restart/probation", "0s").with("/log/level", "info");
    let authority = Authority::new(host.directory());
    let tls = json!({ "certificates": [authority.localhost().config()] });
    let host = host.with("/listen", json!([{ "address": "127.0.0.1:0", "name": "https", "tls": tls }])).start();
    let at = host.address_of("https").tcp();
    let newest = Address::Tls(at, authority.trust("localhost"));
    let older = Address::Tls(at, authority.trust_with("localhost", &[&rustls::version::TLS12], None));
    let ways = [
        (Way::Get, &newest),
        (Way::Get, &older),
        (Way::Post(3_000), &newest),
        (Way::Chunked(30_000), &newest),
        (Way::Chunked(3_000), &older),
        (Way::Thinks(Duration::from_millis(7)), &newest),
        (Way::Thinks(Duration::from_millis(100)), &older),
        (Way::Pipelined(5), &newest),
        (Way::ByteByByte, &newest),
    ];
    assert_kept_over_100_restarts(&host, ways.map(|(way, address)| (way, address.clone())));
}

/// Restarts a host whose app answers "a" and has each of these clients keep the one connection that it opened.
fn assert_kept_over_100_restarts<const N: usize>(host: &Host, ways: [(Way, Address); N]) {
    let allowed = Arc::new(Allowed::default());
    allowed.set("a");
    let clients = ways.map(|(way, address)| Steady { address, asks: Asks::For("/"), way });
    let running = steady::start(clients, &allowed);
    for number in 0..100 {
        let next = if number % 2 == 0 { "b" } else { "a" };
        host.install(&App::build().app(&format!("answer_{next}")));
        allowed.set("ab");
        let verdict = host.restart();
        assert_eq!(verdict.verdict, "complete", "restart {number}: {}", verdict.line.text());
        allowed.set(next);
    }
    assert_kept(&running.stop());
    // A worker that drains refuses a close of its own: what it had, it has handed over.
    assert_eq!((exited(host, "closed"), exited(host, "cut")), (0, 0));
    let (given, received) = (exited(host, "handed_over"), exited(host, "received"));
    println!("handed over {given}, received by those that have exited {received}");
    // All of them in each restart, but for the first: a client may connect in the middle of that.
    assert!(given >= received && given >= N as u64 * 99, "{given} {received}");
}

/// How many connections are idle.
const CONNECTIONS: usize = 10_000;

#[test]
fn ten_thousand_idle_connections_survive_10_restarts_and_hold_none_up() {
    let _alone = machine::alone();
    let raised = Raised::limit();
    let most = raised.0.maximum;
    let room = most.is_none_or(|most| most > CONNECTIONS as u64 + 500);
    assert!(room, "10,000 connections need a hard limit of more descriptors than {most:?}");
    // Whoever waited for a client would wait for longer than what is measured here.
    let host = Host::misbehaving()
        .with("/restart/probation", "0s")
        .with("/restart/idle_linger", "1m")
        .with("/restart/shutdown_timeout", "2m")
        .with("/log/level", "info")
        .start();
    let memory = |host: &Host| host.workers().iter().filter_map(|pid| process::private_kib(*pid)).sum::<u64>();
    let timed = |host: &Host| {
        let began = Instant::now();
        host.restart_completes();
        began.elapsed()
    };
    timed(&host);
    let without: Vec<_> = (0..3).map(|_| timed(&host)).collect();
    let before = memory(&host);
    let mut connections: Vec<_> = (0..CONNECTIONS).map(|_| host.connect()).collect();
    // One that has had no request would not be waited for so long.
    for connection in &mut connections {
        ask(connection);
    }
    let opened = memory(&host);
    let with: Vec<_> = (0..10)
        .map(|_| {
            let took = timed(&host);
            // Each has less than that, and would have made less room if it made it when it needs it.
            let room: Vec<_> = host.workers().iter().filter_map(|pid| process::descriptor_room(*pid)).collect();
            assert!(room.len() == 2 && room.iter().all(|room| *room > CONNECTIONS as u64), "{room:?}");
            took
        })
        .collect();
    let after = memory(&host);
    assert!(connections.iter_mut().all(|connection| !connection.is_closed().unwrap()));
    let mut held = std::collections::BTreeMap::new();
    for connection in &mut connections {
        *held.entry(ask(connection)).or_insert(0) += 1;
    }
    println!("restarts without connections {without:?}, with {CONNECTIONS} idle ones {with:?}");
    println!("private memory of both workers, KiB: {before} without, {opened} with, {after} after 10 restarts");
    println!("at the end the workers have {held:?}");
    assert_eq!(exited(&host, "closed"), 0);
    assert!(held.values().all(|held| *held > CONNECTIONS / 4), "{held:?}");
    assert!(with.iter().all(|took| *took < Duration::from_secs(15)), "{with:?}");
}

/// A worker that was killed in the middle of a restart.
struct Kill {
    pid: u32,
    /// Just before the signal,
    sent: Instant,
    /// and once the worker's end was known.
    gone: Instant,
    /// What its end was told with.
    line: Line,
}

/// How late a request may have come to a killed worker's connection: whoever has sent it there lets go of it when it
/// is told that it was taken, and may come to that late.
const LATE: Duration = Duration::from_millis(100);

/// Who was killed, and who had to let go of its connections.
#[derive(Default)]
struct Account {
    kills: Vec<Kill>,
    /// In this order, and when the restart in which it was had been asked for.
    drained: Vec<(u32, Instant)>,
}

impl Account {
    fn kill_of(&self, pid: u32) -> Option<&Kill> {
        self.kills.iter().find(|kill| kill.pid == pid)
    }

    /// Whether this worker can have had the connection, as far as time tells.
    fn fits(kill: &Kill, loss: &Loss) -> bool {
        kill.sent <= loss.seen && loss.began <= kill.gone + LATE
    }

    /// The killed workers that can have had a connection on which nobody has begun with a request.
    fn may_have_had(&self, loss: &Loss) -> Vec<u32> {
        let place = |pid: u32| self.drained.iter().position(|(drained, _)| *drained == pid);
        let can = |kill: &&Kill| match loss.last {
            None => true,
            Some(last) if last == kill.pid => true,
            // Whoever had answered has let go of it, by order, while the other still took some.
            Some(last) => place(last).is_some_and(|at| {
                self.drained[at].1 <= kill.sent && place(kill.pid).is_none_or(|drained| drained > at)
            }),
        };
        let in_time = self.kills.iter().filter(|kill| Self::fits(kill, loss));
        in_time.filter(can).map(|kill| kill.pid).collect()
    }
}

/// What each worker has begun with, by the requests' numbers.
fn notes(path: &Path) -> HashMap<u64, Vec<u32>> {
    let mut notes: HashMap<u64, Vec<u32>> = HashMap::new();
    for line in fs::read_to_string(path).expect("the app has made it").lines() {
        let (number, pid) = line.split_once(' ').expect("a number and a pid");
        notes.entry(number.parse().unwrap()).or_default().push(pid.parse().unwrap());
    }
    notes
}

/// Whether each of these can be another kill's.
fn are_of_different_kills(losses: &[Vec<u32>], taken: &mut Vec<u32>) -> bool {
    let Some((first, rest)) = losses.split_first() else { return true };
    first.iter().any(|pid| {
        if taken.contains(pid) {
            return false;
        }
        taken.push(*pid);
        let fits = are_of_different_kills(rest, taken);
        taken.pop();
        fits
    })
}

#[test]
#[expect(clippy::too_many_lines, reason = "one account, from the kills to the last loss")]
fn killed_workers_take_nothing_with_them_but_what_they_had() {
    const CLIENTS: usize = 24;
    const KILLS: u64 = 30;
    const THREADS: u64 = 2;
    let _alone = machine::alone();
    // In memory: each failure is written down before its verdict, and a busy disk takes its time for that.
    let memory =
        tempfile::Builder::new().prefix("app-host-test-").tempdir_in("/dev/shm").expect("a directory in memory");
    let path = memory.path().join("notes");
    let host = Host::misbehaving()
        .with("/app/config/notes", path.to_str())
        .with("/state_dir", memory.path().join("state").to_str())
        .with("/threads", THREADS)
        .with("/restart/on_failure", "rollback")
        .with("/restart/probation", "0s")
        .with("/log/level", "info")
        .start();
    let library = App::build().app("misbehaving");
    let client = |number| {
        let way = if number < 4 { Way::Get } else { Way::Thinks(Duration::from_millis(3)) };
        let path = if number % 2 == 0 { "/noted" } else { "/noted_late" };
        Steady { address: host.address(), asks: Asks::Numbered(path), way }
    };
    let running = steady::start((0..CLIENTS).map(client), &Arc::new(Allowed::default()));
    let (mut account, mut complete) = (Account::default(), 0);
    for number in 0..KILLS {
        host.install_fresh(&library);
        let (mark, request) = (host.mark(), host.last_request() + 1);
        let asked = Instant::now();
        host.signal(Signal::SIGUSR2);
        // Old ones and new ones in turn, at another moment each time.
        let awaited = if number % 2 == 0 { said::WORKER_DRAINS } else { said::WORKER_READY };
        let pid = host.wait_after(mark, awaited, |_| true).worker_pid();
        let spins = Instant::now();
        while spins.elapsed() < Duration::from_micros(number * 200) {
            std::hint::spin_loop();
        }
        let sent = Instant::now();
        process::signal(pid, Signal::SIGKILL);
        let line = host.wait_after(mark, said::WORKER_EXITED, |line| line.worker_pid() == pid);
        account.kills.push(Kill { pid, sent, gone: Instant::now(), line });
        complete += u64::from(host.verdict(request).verdict == "complete");
        host.wait("two workers", || (host.serving().len() == 2 && host.workers().len() == 2).then_some(()));
        let lines = host.lines();
        let ordered = lines[mark..].iter().filter(|line| line.msg() == said::WORKER_DRAINS);
        account.drained.extend(ordered.map(|line| (line.worker_pid(), asked)));
    }
    let seen = running.stop();
    let answered: u64 = seen.iter().map(|it| it.answered).sum();
    assert!(complete > 5 && complete < KILLS, "{complete}");
    assert!(answered > 10_000, "{answered}");
    assert!(seen.iter().all(|it| it.slowest < Duration::from_secs(3)), "{seen:#?}");

    // Whatever has an answer was begun with by the worker that has given it, and by no other.
    let mut notes = notes(&path);
    for (number, pid) in seen.iter().flat_map(|it| &it.answers) {
        assert_eq!(notes.remove(number), Some(vec![*pid]), "{number}");
    }
    // And whatever has none was with a killed worker,
    let (mut begun, mut before, mut idle): (HashMap<u32, u64>, _, _) = (HashMap::new(), 0, 0);
    for client in &seen {
        let mut culprits = BTreeSet::new();
        for loss in client.failures.iter().chain(&client.closes) {
            assert!(!loss.what.contains("timed out") && !loss.what.contains("WouldBlock"), "{loss:?}");
            assert!(loss.numbers.len() < 2, "they send one request at a time: {loss:?}");
            let by = loss.numbers.first().and_then(|number| notes.remove(number));
            let can = if let Some(by) = by {
                // which had begun with it,
                let [by] = by[..] else { panic!("{by:?} have all begun with {loss:?}") };
                let fits = account.kill_of(by).is_some_and(|kill| Account::fits(kill, loss));
                assert!(
                    fits,
                    "{by} had begun with it, and was not killed then: {loss:?}; {}",
                    host.lines().iter().map(Line::text).collect::<Vec<_>>().join("\n")
                );
                *begun.entry(by).or_default() += 1;
                vec![by]
            } else {
                // or had not.
                *(if loss.numbers.is_empty() { &mut idle } else { &mut before }) += 1;
                account.may_have_had(loss)
            };
            assert!(!can.is_empty(), "no worker was killed that can have had it: {loss:?}");
            culprits.insert(can);
        }
        // A client has one connection, so that a kill meets it once, and once more where it was quick to connect
        // again to the worker that was about to die.
        let culprits = Vec::from_iter(culprits);
        assert!(are_of_different_kills(&culprits, &mut Vec::new()), "{culprits:?}");
    }
    assert!(notes.is_empty(), "nobody has asked for that: {notes:?}");

    // A killed worker has lost no more requests than it had in hand, and those whose answers its threads were about to
    // write: such a request counts no more.
    for (pid, begun) in &begun {
        let in_hand = account.kill_of(*pid).and_then(|kill| kill.line.number("cut")).unwrap();
        assert!(*begun <= in_hand + THREADS, "{pid} had {in_hand} requests in hand, and lost {begun}");
    }
    // And whatever another worker had answered on before, that one was told to be taken: it is answered on by whoever
    // has taken it, or lost with him.
    let losses = || seen.iter().flat_map(|it| it.failures.iter().chain(&it.closes));
    let mut inherited = 0;
    for line in host.lines_with(said::WORKER_EXITED) {
        let pid = line.worker_pid();
        if account.kill_of(pid).is_none() {
            let lost_by: Vec<_> = losses().filter(|loss| loss.last == Some(pid)).collect();
            let lost = lost_by.len() as u64;
            let moved = seen.iter().flat_map(|it| &it.moves).filter(|(from, _)| *from == pid).count() as u64;
            let given = line.number("handed_over").unwrap();
            assert!(
                lost + moved <= given,
                "of {given} that were taken {moved} were answered on, and lost were {lost_by:#?}; {line:?}; killed: {:#?}",
                account.kills.iter().map(|kill| (kill.pid, kill.sent, kill.gone)).collect::<Vec<_>>()
            );
            inherited += lost;
        }
    }
    println!(
        "{KILLS} restarts with a kill, {complete} complete; {answered} requests answered; lost with killed workers: {} \
         requests in hand, {before} before, {idle} connections without a request; {inherited} were of other workers, \
         {} of nobody yet",
        begun.values().sum::<u64>(),
        losses().filter(|loss| loss.last.is_none()).count(),
    );
}
