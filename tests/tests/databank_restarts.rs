//! Writes survive whatever happens to workers and store: restarts under load, workers killed or
//! stopped, everything killed at once, a store that goes away and comes back.

use std::time::Duration;

use app_host_tests::databank::{Client, Driver, timed};
use app_host_tests::mongo::Mongo;
use app_host_tests::writers::Writers;
use app_host_tests::{App, Host, process, said};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// How many restarts a load sees, and how many workers are killed under it.
const RESTARTS: u64 = 12;
const KILLS: usize = 12;

/// How long a call may take where a test lets the store go away, and how much longer an answer may take
/// on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(1);
const SLACK: Duration = Duration::from_secs(3);

/// A host with the bridge app, not started.
fn bridge(mut databank: Value) -> Host {
    if databank["timeout"].is_null() {
        databank["timeout"] = "15s".into();
    }
    Host::new(&App::build().app("databank")).with("/databank", databank).with("/log/level", "info")
}

fn impatient(mut databank: Value) -> Value {
    databank["timeout"] = format!("{}s", TIMEOUT.as_secs()).into();
    databank
}

/// The file of the embedded store.
fn assert_sound(host: &Host) {
    let file = host.path("state/data/databank.sqlite");
    let connection = rusqlite::Connection::open(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let verdict: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("a verdict");
    assert_eq!(verdict, "ok");
}

fn restarts_lose_no_write(driver: Driver) {
    let host = bridge(driver.section()).start();
    let writers = Writers::start(&host, 4);
    for number in 0..RESTARTS {
        writers.wait_for_more(&host, 100);
        host.install_fresh(&App::build().app("databank"));
        host.restart_completes();
        assert_eq!(host.last_request(), number + 1);
    }
    writers.wait_for_more(&host, 100);
    let ledger = writers.stop();
    assert_eq!((ledger.failed, ledger.unavailable), (0, 0), "{:#?}", ledger.failures);
    // Nothing was left without an answer, so this is exact.
    ledger.assert_holds(&host);
    host.stop();
}

#[test]
fn restarts_under_load_lose_no_write_to_sqlite() {
    restarts_lose_no_write(Driver::Sqlite);
}

#[test]
fn restarts_under_load_lose_no_write_to_mongodb() {
    restarts_lose_no_write(Driver::MongodbStandalone);
}

fn killed_workers_lose_no_acknowledged_write(driver: Driver) {
    let host = bridge(driver.section()).with("/workers", 3).start();
    let writers = Writers::start(&host, 4);
    let mut dice = 7_usize;
    for _ in 0..KILLS {
        writers.wait_for_more(&host, 150);
        let workers = host.wait("three workers that serve", || Some(host.serving()).filter(|pids| pids.len() == 3));
        dice = dice.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        let victim = workers[dice / 65_536 % workers.len()];
        process::signal(victim, Signal::SIGKILL);
        host.wait_for(said::WORKER_EXITED, |line| line.worker_pid() == victim);
    }
    writers.wait_for_more(&host, 150);
    let ledger = writers.stop();
    assert_eq!(ledger.unavailable, 0, "the others' writes don't suffer");
    assert!(ledger.failed > 0, "no worker was killed in the middle of a request");
    assert!(ledger.failures.iter().all(|failure| !failure.contains("of worker")), "{:#?}", ledger.failures);
    ledger.assert_holds(&host);
    if driver == Driver::Sqlite {
        assert_sound(&host);
    }
}

#[test]
fn killed_workers_lose_no_acknowledged_write_to_sqlite() {
    killed_workers_lose_no_acknowledged_write(Driver::Sqlite);
}

#[test]
fn killed_workers_lose_no_acknowledged_write_to_mongodb() {
    killed_workers_lose_no_acknowledged_write(Driver::MongodbReplicaSet);
}

#[test]
fn everything_killed_at_once_loses_no_acknowledged_write_to_sqlite() {
    let host = bridge(Driver::Sqlite.section()).start();
    for _ in 0..3 {
        let writers = Writers::start(&host, 4);
        writers.wait_for_more(&host, 300);
        let mark = host.mark();
        let workers = host.workers();
        host.signal(Signal::SIGKILL);
        for worker in &workers {
            process::signal(*worker, Signal::SIGKILL);
        }
        host.wait_exit();
        let ledger = writers.stop();
        host.spawn();
        host.wait_after(mark, said::SERVING, |_| true);
        // Of this round alone: a restarted count would hide what an earlier one lost.
        ledger.assert_holds(&host);
        assert_sound(&host);
        let mut client = Client::new(&host);
        for id in client.search("written", "") {
            client.remove("written", &id).done();
        }
        client.remove("counted", "all").done();
    }
}

#[test]
fn stopped_worker_stops_others_for_a_bounded_time_and_loses_nothing_in_sqlite() {
    let host = bridge(impatient(Driver::Sqlite.section())).with("/workers", 3).start();
    let mut clients = Client::of_each_worker(&host);
    let workers: Vec<u32> = clients.keys().copied().collect();
    let writers = Writers::start(&host, 4);
    let mut refused = 0;
    for round in 0..9 {
        writers.wait_for_more(&host, 10);
        // In the middle of a write, every now and then: it may hold the lock of the file.
        let stopped = workers[round % workers.len()];
        process::signal(stopped, Signal::SIGSTOP);
        for (_, client) in clients.iter_mut().filter(|(pid, _)| **pid != stopped) {
            for _ in 0..4 {
                let (answer, took) = timed(|| client.increment("others", "a", "n", 1));
                assert!(took < TIMEOUT + SLACK, "{took:?} for {answer}");
                match answer.status {
                    200 => {}
                    503 => refused += 1,
                    _ => panic!("{answer}"),
                }
                // Who only reads isn't held up by a writer.
                assert!(matches!(client.read("others", "none").error(), "not found"));
            }
        }
        process::signal(stopped, Signal::SIGCONT);
        for client in clients.values_mut() {
            host.wait("every worker to write again", || {
                (client.increment("others", "b", "n", 1).status == 200).then_some(())
            });
        }
    }
    println!("{refused} writes were refused while a worker was stopped");
    let ledger = writers.stop();
    assert_eq!(ledger.failed, 0, "{:#?}", ledger.failures);
    ledger.assert_holds(&host);
    assert_sound(&host);
}

#[test]
fn lock_that_a_foreign_process_holds_is_unavailable_within_the_timeout_and_then_over() {
    let host = bridge(impatient(Driver::Sqlite.section())).start();
    let mut clients = Client::of_each_worker(&host);
    for (pid, client) in &mut clients {
        client.create("note", &pid.to_string(), r#"{"n":1}"#).revision();
    }
    let foreign = rusqlite::Connection::open(host.path("state/data/databank.sqlite")).expect("the file opens");
    foreign.execute_batch("BEGIN IMMEDIATE").expect("the lock is free");
    for (pid, client) in &mut clients {
        let (answer, took) = timed(|| client.increment("note", &pid.to_string(), "n", 1));
        answer.fails_with("unavailable");
        assert!(took < TIMEOUT + SLACK, "{took:?}");
        assert_eq!(client.read("note", &pid.to_string()).value(), json!({ "n": 1 }), "reading goes on");
    }
    foreign.execute_batch("ROLLBACK").expect("the lock is given back");
    for (pid, client) in &mut clients {
        assert_eq!(
            client.increment("note", &pid.to_string(), "n", 1).done()["sum"],
            2,
            "what was refused isn't done late"
        );
    }
}

/// Every worker that serves says in time that the databank is unavailable, and answers as always what
/// needs none.
fn each_worker_says_unavailable(host: &Host) {
    std::thread::scope(|scope| {
        for (pid, mut client) in Client::of_each_worker(host) {
            scope.spawn(move || {
                for method in ["increment", "read", "search", "read_many"] {
                    let question = json!({ "type": "note", "id": "a", "ids": ["a"], "path": "n", "by": 1 });
                    let (answer, took) = timed(|| client.ask(method, question));
                    assert_eq!(answer.fails_with("unavailable"), answer.text(), "{pid}, {method}");
                    assert_eq!(answer.status, 503);
                    assert!(took < TIMEOUT + SLACK, "{pid}, {method}: {took:?} for {answer}");
                }
                assert_eq!(client.get("/whoami").body["pid"], pid);
            });
        }
    });
}

/// Waits until every worker that serves can write again.
fn wait_for_recovery(host: &Host) {
    host.wait("every worker to write again", || {
        let question = json!({ "type": "note", "id": "a", "path": "n", "by": 1 });
        let mut clients = Client::of_each_worker(host);
        clients.values_mut().all(|client| client.ask("increment", question.clone()).status == 200).then_some(())
    });
}

fn assert_nobody_died(host: &Host) {
    for line in host.lines_with(said::WORKER_EXITED) {
        assert_eq!(line.flag("expected"), Some(true), "{}", line.text());
    }
}

#[test]
fn store_that_goes_away_in_a_roll_and_comes_back_harms_no_worker_and_no_restart() {
    // FAULTS 31
    let mongo = Mongo::standalone();
    let mut host = bridge(impatient(mongo.section())).with("/restart/probation", "8s").start();
    wait_for_recovery(&host);
    // Back while the roll goes on.
    host.signal(Signal::SIGUSR2);
    host.wait_for(said::WORKER_READY, |line| line.number("generation") == Some(2));
    mongo.kill();
    assert_eq!(host.serving().len(), 3, "two active and a candidate");
    each_worker_says_unavailable(&host);
    mongo.start_again();
    wait_for_recovery(&host);
    assert_eq!(host.verdict(1).verdict, "complete");
    assert_nobody_died(&host);

    // Away when the verdict comes.
    host.set("/restart/probation", "1s");
    let mark = host.mark();
    host.signal(Signal::SIGUSR2);
    host.wait_after(mark, said::WORKER_READY, |line| line.number("generation") == Some(3));
    mongo.kill();
    assert_eq!(host.verdict(2).verdict, "complete");
    each_worker_says_unavailable(&host);
    mongo.start_again();
    wait_for_recovery(&host);
    host.restart_completes();
    assert_nobody_died(&host);
    assert_eq!(host.serving().len(), 2);
}

#[test]
fn store_that_hangs_is_unavailable_within_the_timeout_and_recovers() {
    let mongo = Mongo::standalone();
    let host = bridge(impatient(mongo.section())).start();
    wait_for_recovery(&host);
    mongo.signal(Signal::SIGSTOP);
    each_worker_says_unavailable(&host);
    mongo.signal(Signal::SIGCONT);
    wait_for_recovery(&host);
    assert_nobody_died(&host);
}

#[test]
fn store_that_goes_away_under_load_loses_no_acknowledged_write() {
    let mongo = Mongo::replica_set();
    let host = bridge(impatient(mongo.section())).start();
    let writers = Writers::start(&host, 4);
    for _ in 0..2 {
        writers.wait_for_more(&host, 100);
        mongo.kill();
        each_worker_says_unavailable(&host);
        mongo.start_again();
    }
    writers.wait_for_more(&host, 100);
    let ledger = writers.stop();
    assert_eq!(ledger.failed, 0, "{:#?}", ledger.failures);
    assert!(ledger.unavailable > 0 && ledger.slowest < TIMEOUT + SLACK, "{:?}", ledger.slowest);
    ledger.assert_holds(&host);
    assert_nobody_died(&host);
}

/// The connections of a serving thread are its own: while a handler keeps it, nobody hears the store.
#[test]
fn handler_that_blocks_on_a_call_is_told_in_time_and_others_go_on() {
    for driver in [Driver::Sqlite, Driver::MongodbStandalone] {
        let host = bridge(impatient(driver.section())).with("/workers", 1).with("/threads", 2).start();
        let ask = json!({ "type": "note", "id": "x" });
        let mut client = Client::new(&host);
        client.create("note", "x", "{}").done();
        for _ in 0..3 {
            let (answer, took) = timed(|| client.ask("read_blocking", ask.clone()));
            assert!(answer.status == 200 || answer.fails_with("unavailable").contains("within 1s"), "{answer}");
            assert!(driver != Driver::Sqlite || answer.status == 200, "its own threads hear the store: {answer}");
            assert!(took < TIMEOUT + SLACK, "{took:?}");
            client.read("note", "x").done();
        }
        // A thread of the app's own is no serving thread, and may wait as it likes.
        for _ in 0..3 {
            client.ask("read_elsewhere", ask.clone()).done();
        }
        assert_nobody_died(&host);
        host.stop();
    }
}
