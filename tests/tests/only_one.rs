//! `Host::only_one`: of all workers, those of two generations included, one holds a lock, and there is always one.

use std::time::{Duration, Instant};

use app_host_tests::{App, Host, Line, process, said};
use nix::sys::signal::Signal;
use serde_json::json;

fn jobs(slow_ms: u64) -> Host {
    let host = Host::new(&App::build().app("axum_jobs"));
    let file = host.path("job");
    host.with("/workers", 3).with("/app/config", json!({ "file": file, "slow_ms": slow_ms }))
}

/// Waits until the job has begun so often; gives the last begin.
fn begun(host: &Host, times: usize) -> Line {
    host.wait("the job's begin", || {
        let begins = host.lines_with("job begins");
        assert!(begins.len() <= times, "it begins {} times", begins.len());
        begins.into_iter().nth(times - 1)
    })
}

/// Stops it; says nothing of two at once.
fn stop(host: &Host) {
    assert!(host.lines_with("the job runs twice").is_empty());
    host.stop();
}

#[test]
fn a_job_runs_once_and_goes_on_in_another_worker_when_its_own_is_killed() {
    let host = jobs(0).start();
    for times in 1..=4 {
        let begin = begun(&host, times);
        // Whoever has come in its place waits.
        host.assert_all_serve(&host.serving());
        process::signal(begin.pid(), Signal::SIGKILL);
        host.wait("a new worker", || (host.workers().len() == 3).then_some(()));
    }
    begun(&host, 5);
    stop(&host);
}

#[test]
fn in_a_restart_the_new_generation_goes_on_when_the_old_one_has_let_go() {
    let host = jobs(300).start();
    begun(&host, 1);
    for times in 2..=4 {
        host.restart_completes();
        let begin = begun(&host, times);
        assert_eq!(begin.str("generation"), times.to_string(), "no worker that goes takes it in between");
        let mut order: Vec<_> =
            host.lines().into_iter().filter(|line| ["job begins", "job ends"].contains(&line.msg())).collect();
        // Each process writes its lines in its own time.
        order.sort_by(|one, other| one.seconds().partial_cmp(&other.seconds()).unwrap());
        assert_eq!(order.len(), 2 * times - 1);
        assert!(order.chunks(2).all(|pair| pair[0].msg() == "job begins"), "one after the other");
    }
    // Who waits while it drains is told that it waits in vain.
    host.wait("the others' ends", || (host.lines_with("no job any more").len() == 9).then_some(()));
    stop(&host);
}

#[test]
fn a_worker_that_is_stopped_keeps_what_it_holds_until_it_is_dead() {
    let host = jobs(0).with("/hang_timeout", "2s").start();
    let begin = begun(&host, 1);
    process::signal(begin.pid(), Signal::SIGSTOP);
    host.wait_for(said::WORKER_HUNG, |line| line.worker_pid() == begin.pid());
    assert_ne!(begun(&host, 2).pid(), begin.pid());
    stop(&host);
}

#[test]
fn a_new_master_grants_nothing_while_a_killed_ones_worker_may_still_hold_it() {
    let host = jobs(2000).with("/restart/shutdown_timeout", "3s").start();
    let begin = begun(&host, 1);
    host.signal(Signal::SIGKILL);
    host.wait_exit();
    // The job goes on in its worker for two more seconds.
    host.spawn();
    host.wait_for(said::LOCKS_WAIT, |_| true);
    host.wait("the orphan's end", || (!process::is_alive(begin.pid())).then_some(()));
    host.wait("the job's begin", || host.lines_with("job begins").into_iter().find(|line| line.pid() != begin.pid()));
    stop(&host);
}

#[test]
fn a_new_master_grants_nothing_while_a_killed_ones_worker_lives_whatever_the_configuration_says_now() {
    let mut host =
        jobs(0).with("/restart/shutdown_timeout", "5m").with("/hang_timeout", serde_json::Value::Null).start();
    let begin = begun(&host, 1);
    // It can't drain, and nobody knows when it goes on.
    process::signal(begin.pid(), Signal::SIGSTOP);
    host.signal(Signal::SIGKILL);
    host.wait_exit();
    host.set("/restart/shutdown_timeout", "100ms");
    let mark = host.mark();
    host.spawn();
    host.wait_after(mark, said::LOCKS_WAIT, |_| true);
    host.wait_after(mark, said::SERVING, |_| true);
    // Longer than the drain that is configured now and all that was once added to it.
    let serving = Instant::now();
    host.wait("seven seconds without a job", || {
        let runs_twice = host.look(mark, |new| new.iter().any(|line| line.msg() == "job begins"));
        assert!(!runs_twice, "it begins beside its holder");
        (serving.elapsed() > Duration::from_secs(7)).then_some(())
    });
    process::signal(begin.pid(), Signal::SIGKILL);
    host.wait_after(mark, "the last worker of an earlier master has gone: locks are granted", |_| true);
    host.wait_after(mark, "job begins", |_| true);
    stop(&host);
}
