//! Workers that have done enough make room for new ones of their generation: new before old, one at a
//! time, and no client notices.

use std::collections::BTreeSet;

use app_host_tests::{Host, Line, process, said};
use serde_json::json;

const RECYCLED: &str = "worker recycled";

/// A worker was recycled, a successor is ready in its slot, and it has gone.
fn is_recycled(host: &Host, mark: usize) -> Line {
    let recycled = host.wait_after(mark, RECYCLED, |_| true);
    let pid = recycled.worker_pid();
    let exited = host.wait_after(mark, said::WORKER_EXITED, |line| line.worker_pid() == pid);
    assert_eq!((exited.str("status"), exited.number("cut")), ("exit 0", Some(0)), "{}", exited.text());
    let lines = host.lines();
    let place = |msg: &str, fits: &dyn Fn(&Line) -> bool| {
        let found = lines.iter().skip(mark).position(|line| line.msg() == msg && fits(line));
        found.unwrap_or_else(|| panic!("no line \"{msg}\""))
    };
    let slot = recycled.number("slot");
    let begins = place(RECYCLED, &|line| line.worker_pid() == pid);
    let ready = place(said::WORKER_READY, &|line| line.number("slot") == slot);
    let drains = place(said::WORKER_DRAINS, &|line| line.worker_pid() == pid);
    assert!(begins < ready && ready < drains, "new before old: {begins} {ready} {drains}");
    host.assert_served_since(mark);
    recycled
}

#[test]
fn workers_that_have_served_enough_are_replaced_one_at_a_time() {
    let mut host = Host::misbehaving().start();
    // Read again with a restart, like nearly everything.
    host.set("/recycle", json!({ "requests": 200, "min_uptime": "0s" }));
    host.restart_completes();
    let mark = host.mark();
    let first: BTreeSet<u32> = host.serving().into_iter().collect();
    let mut connections: Vec<_> = (0..16).map(|_| host.connect()).collect();
    let mut answered = 0;
    host.wait("a recycling of each worker", || {
        for connection in &mut connections {
            // A worker that drains says so with its last response.
            if connection.announced_close() || connection.is_closed().expect("a state") {
                *connection = host.connect();
            }
            assert_eq!(connection.get("/whoami").expect("an answer"), 200);
            answered += 1;
        }
        let gone = host.lines_with(RECYCLED).iter().map(Line::worker_pid).collect();
        first.is_subset(&gone).then_some(())
    });
    drop(connections);
    let recycled = is_recycled(&host, mark);
    assert_eq!((recycled.str("why"), recycled.number("limit")), ("requests", Some(200)), "{}", recycled.text());
    assert!(recycled.number("requests") >= Some(200) && answered >= 400);
    // Between two of them the first has gone.
    let mut retiring = None;
    for line in host.lines().iter().skip(mark) {
        match line.msg() {
            RECYCLED => assert_eq!(retiring.replace(line.worker_pid()), None, "{}", line.text()),
            "worker exited" => drop(retiring.take_if(|pid| *pid == line.worker_pid())),
            _ => {}
        }
    }
}

#[test]
fn worker_that_has_grown_too_large_is_replaced() {
    let recycle = json!({ "memory": "256MiB", "min_uptime": "0s" });
    let host = Host::misbehaving().with("/recycle", recycle).start();
    let before = host.serving();
    let mark = host.mark();
    let mut connection = host.connect_to(before[1]);
    assert_eq!(connection.get("/grow/300").unwrap(), 200);
    drop(connection);
    let recycled = is_recycled(&host, mark);
    assert_eq!(recycled.worker_pid(), before[1]);
    assert_eq!((recycled.str("why"), recycled.number("limit")), ("memory", Some(256 << 20)), "{}", recycled.text());
    assert!(recycled.number("memory_bytes") > Some(300 << 20), "{}", recycled.text());
    assert!(process::is_alive(before[0]), "the other one stays");
    host.assert_all_serve(&host.serving());
}

#[test]
fn worker_that_leaks_from_the_start_is_left_alone_until_it_is_old_enough() {
    let recycle = json!({ "memory": "1MiB", "min_uptime": "1h" });
    let host = Host::misbehaving().with("/recycle", recycle).start();
    let before = host.serving();
    // More looks than one.
    let began = std::time::Instant::now();
    while began.elapsed() < std::time::Duration::from_millis(2500) {
        host.assert_all_serve(&before);
        app_host_tests::host::pause();
    }
    assert_eq!(host.lines_with(RECYCLED).len(), 0);
}
