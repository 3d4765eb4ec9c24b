//! A worker whose app doesn't give a serving thread back is noticed by its missing sign of life, aborted,
//! and replaced. Nobody else is.

use std::time::{Duration, Instant};

use app_host_tests::{Connection, Host, Line, process, said};
use nix::sys::signal::Signal;

/// Long enough for a worker on a busy machine, short enough for a test.
const HANG_TIMEOUT: &str = "2s";
const TIMEOUT: Duration = Duration::from_secs(2);

const HUNG: &str = said::WORKER_HUNG;

fn host() -> Host {
    Host::misbehaving().with("/hang_timeout", HANG_TIMEOUT)
}

/// Has the app of this worker do something on a serving thread that never ends.
fn ask(connection: &mut Connection, path: &str) {
    connection.ask(path).expect("the request is taken");
}

/// Waits until a worker was aborted for what it had in hand, has gone, and another serves in its slot.
fn is_replaced(host: &Host, worker: u32, route: &str, status: &str) -> Line {
    let began = Instant::now();
    let hung = host.wait_for(HUNG, |line| line.worker_pid() == worker);
    assert!(began.elapsed() > TIMEOUT / 2, "it took {:?}", began.elapsed());
    assert_eq!(hung.str("routes"), route, "{}", hung.text());
    assert!(hung.number("silent_ms") >= Some(2000), "{}", hung.text());
    let exited = host.wait_for(said::WORKER_EXITED, |line| line.worker_pid() == worker);
    assert_eq!(exited.str("status"), status, "{}", exited.text());
    assert_eq!(exited.str("routes"), route, "{}", exited.text());
    let slot = hung.number("slot");
    let is_next = |line: &Line| line.number("slot") == slot && line.worker_pid() != worker;
    let before = host.lines().iter().position(|line| line.msg() == HUNG).expect("it was there");
    let next = host.wait_after(before, said::WORKER_READY, is_next);
    host.assert_all_serve(&host.serving());
    assert_eq!(host.serving().len(), 2);
    next
}

#[test]
fn worker_that_spins_is_aborted_and_respawned() {
    // FAULTS 9
    let host = host().start();
    let worker = host.serving()[1];
    let mut connection = host.connect_to(worker);
    ask(&mut connection, "/spin");
    let next = is_replaced(&host, worker, "GET /spin", "signal 6");
    assert_eq!((next.number("slot"), next.number("generation")), (Some(1), Some(1)));
    assert_eq!(host.lines_with(HUNG).len(), 1, "nobody else is aborted");
    assert_eq!(host.restart().verdict, "complete");
}

#[test]
fn worker_of_which_one_thread_of_two_hangs_has_hung() {
    let host = host().with("/threads", 2).start();
    let (worker, _connection) = host.block_a_thread();
    // The other thread answers on.
    host.assert_all_serve(&host.serving());
    is_replaced(&host, worker, "GET /block", "signal 6");
}

#[test]
fn hung_worker_that_ignores_sigabrt_is_killed() {
    let host = host().start();
    let worker = host.serving()[0];
    let mut connection = host.connect_to(worker);
    ask(&mut connection, "/deaf");
    is_replaced(&host, worker, "GET /deaf", "signal 9");
    let killed = host.wait_for(said::WORKER_KILLED, |line| line.worker_pid() == worker);
    assert_eq!(killed.str("why"), "hung, and SIGABRT didn't end it");
}

#[test]
fn stopped_master_and_workers_that_go_on_later_kill_nobody() {
    // What a suspended machine, a frozen container or a debugger does.
    let host = host().start();
    let workers = host.serving();
    let all = [&[host.master()], &workers[..]].concat();
    for pid in &all {
        process::signal(*pid, Signal::SIGSTOP);
    }
    sleep(TIMEOUT * 2);
    // The master first, as a machine that wakes up may do it: its look is overdue, and its workers don't
    // move yet.
    for pid in &all {
        process::signal(*pid, Signal::SIGCONT);
        sleep(TIMEOUT / 8);
    }
    let mark = host.mark();
    sleep(TIMEOUT);
    assert_eq!(host.lines_with(HUNG).len(), 0);
    assert_eq!(host.serving(), workers);
    host.assert_all_serve(&workers);
    assert!(host.lines()[mark..].iter().all(|line| line.msg() != said::WORKER_EXITED));
}

#[test]
fn candidate_that_hangs_before_the_verdict_fails_the_restart() {
    let mut host = host().with("/restart/on_failure", "rollback").start();
    let before = host.serving();
    host.set("/restart/probation", "30s");
    host.signal(Signal::SIGUSR2);
    let candidate = host.wait_for(said::WORKER_READY, |line| line.number("generation") == Some(2)).worker_pid();
    let mut connection = host.connect_to(candidate);
    ask(&mut connection, "/block");
    let verdict = host.verdict(1);
    assert_eq!(verdict.verdict, "failed: worker died");
    assert_eq!(verdict.line.str("detail"), "worker died: slot 0, it had hung");
    assert!(!process::is_alive(candidate));
    assert_eq!(host.serving(), before);
    host.assert_all_serve(&before);
}

#[expect(clippy::disallowed_methods, reason = "what is to be seen is that time passes and nothing happens")]
fn sleep(time: Duration) {
    std::thread::sleep(time);
}
