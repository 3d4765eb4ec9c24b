//! A service whose workers have run out of descriptors: who is there is served on and keeps the connection over restarts, who
//! comes waits until there is one, nothing is busy with it, and it is said once.

use std::time::{Duration, Instant};

use app_host_tests::client::TIMEOUT;
use app_host_tests::{Connection, Host, process};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::json;

use crate::handover::{ask, exited};

/// How long a client that nobody accepts is given: threads that can't accept look again after 100 ms.
const PATIENCE: Duration = Duration::from_millis(500);

/// What a worker says that accepts no more.
const FULL: &str = "connections are at their limit; clients wait";
const NO_DESCRIPTOR: &str = "connections can't be accepted";

/// Whether what was asked for comes.
fn is_answered(connection: &mut Connection, within: Duration) -> bool {
    connection.set_read_timeout(within).unwrap();
    let received = connection.receive();
    connection.set_read_timeout(TIMEOUT).unwrap();
    match received {
        Ok(status) => status == 200,
        Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => false,
        Err(error) => panic!("nobody is turned away: {error}"),
    }
}

/// Clients until so many wait: those that were accepted, and those that wait.
fn fill(host: &Host, wait: usize) -> (Vec<Connection>, Vec<Connection>) {
    let (mut kept, mut waiting) = (Vec::new(), Vec::new());
    while waiting.len() < wait {
        let mut client = host.connect();
        client.ask("/whoami").unwrap();
        // All others wait behind the first that does.
        let within = if waiting.is_empty() { PATIENCE } else { Duration::from_millis(1) };
        if is_answered(&mut client, within) {
            kept.push(client);
        } else {
            waiting.push(client);
        }
        assert!(kept.len() < 1000, "there is an end to it");
    }
    (kept, waiting)
}

/// Each of these clients is answered on its connection by a worker that serves now.
fn assert_kept(host: &Host, kept: &mut [Connection]) {
    let serving = host.serving();
    assert!(kept.iter_mut().all(|client| serving.contains(&ask(client))));
    assert_eq!((exited(host, "closed"), exited(host, "cut")), (0, 0));
}

/// How long a span is in which nothing happens.
const SPAN: Duration = Duration::from_secs(3);

/// The service does nothing for a while, although clients wait, and says nothing of them a second time.
fn assert_at_rest(host: &Host, message: &str) {
    let busy = || host.workers().into_iter().chain([host.master()]).filter_map(process::cpu_time).sum::<Duration>();
    let (before, began) = (busy(), Instant::now());
    host.wait("some time", || (began.elapsed() > SPAN).then_some(()));
    let used = busy().saturating_sub(before);
    println!("{used:?} of CPU in {SPAN:?}");
    assert!(used < SPAN / 20, "{used:?}");
    let lines = host.lines_with(message);
    // Each of its serving threads says it.
    let threads = |pid: u32| lines.iter().filter(|line| line.pid() == pid).count();
    assert!(!lines.is_empty() && lines.iter().all(|line| threads(line.pid()) <= 2), "{}", host.report());
}

/// As soon as some clients have gone, as many of those that wait are served.
fn assert_accepted_when_others_go(kept: &mut Vec<Connection>, waiting: &mut [Connection]) {
    let gone = kept.len() / 2;
    kept.truncate(gone);
    let began = Instant::now();
    assert!(waiting[..5].iter_mut().all(|client| is_answered(client, TIMEOUT)), "they are served in their turn");
    println!("{gone} have gone, and five that waited were served after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(2));
}

fn host() -> Host {
    Host::misbehaving().with("/threads", 2).with("/log/level", "info")
}

#[test]
fn full_workers_hand_over_what_they_have_before_others_come() {
    let host = host().with("/limits", json!({ "nofile": 128 })).start();
    // More than new workers have room for.
    let (mut kept, mut waiting) = fill(&host, 150);
    // Half of the descriptors are left to the app and the worker itself; a thread may accept one more before it counts it.
    assert!((128..=136).contains(&kept.len()), "{}", kept.len());
    for _ in 0..3 {
        host.restart_completes();
        assert_kept(&host, &mut kept);
    }
    assert_at_rest(&host, FULL);
    assert_accepted_when_others_go(&mut kept, &mut waiting);
    assert!(host.lines_with(NO_DESCRIPTOR).is_empty());
}

#[test]
fn workers_whose_app_has_taken_every_descriptor_hand_over_what_they_have() {
    let host = host().start();
    let mut kept: Vec<_> = (0..40).map(|_| host.connect()).collect();
    for client in &mut kept {
        ask(client);
    }
    let workers = host.workers();
    for worker in &workers {
        // As if the app had opened as many as it may.
        let numbers = process::descriptors(*worker);
        let most = u64::from(numbers.last().expect("there are some").0) + 1;
        let free = most - numbers.len() as u64;
        let pid = Pid::from_raw(i32::try_from(*worker).unwrap());
        prlimit(pid, Resource::Nofile, Rlimit { current: Some(most), maximum: Some(most) })
            .expect("our own child's can be lowered");
        println!("worker {worker} may have {most} descriptors, {free} are free");
    }
    let (more, mut waiting) = fill(&host, 30);
    kept.extend(more);
    for worker in &workers {
        host.wait_for(NO_DESCRIPTOR, |line| line.pid() == *worker);
    }
    assert_at_rest(&host, NO_DESCRIPTOR);
    assert_accepted_when_others_go(&mut kept, &mut waiting);
    kept.extend(waiting.drain(..5));
    let (more, mut still) = fill(&host, 1);
    kept.extend(more);
    // By now some of those that waited have been served, too.
    still.extend(waiting);
    host.restart_completes();
    assert_kept(&host, &mut kept);
    // The new workers have descriptors.
    assert!(still.iter_mut().all(|client| is_answered(client, TIMEOUT)));
}
