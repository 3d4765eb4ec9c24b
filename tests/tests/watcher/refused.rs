//! Builds that come at a wrong moment, or are refused for something else: each is brought in once it can be, and what is
//! wrong with a build itself isn't tried again.

use std::fs::{self, File};
use std::net::TcpListener;
use std::time::{Duration, SystemTime};

use app_host_tests::{App, Host, Line, said};
use nix::sys::signal::Signal;
use serde_json::json;

use super::{fresh, has_looked, is_brought_in, is_refused, requests_since, settled, stall, version_is, watching};

#[test]
fn build_that_lands_during_a_roll_is_refused_as_in_flight_and_brought_in_after_it() {
    // FAULTS 22
    let mut host = settled(watching());
    host.set("/app/config", json!({ "start_ms": 800 }));
    let mark = host.mark();
    let (first, second, third) = (fresh(), fresh(), fresh());
    host.install_bytes(&first);
    host.wait_after(mark, said::WORKER_SPAWNED, |_| true);
    host.install_bytes(&second);
    is_refused(&host, mark, "restart in flight");
    // The one that waits is the newest there is; to say once that it waits is enough.
    host.install_bytes(&third);
    is_brought_in(&host, mark, &third);
    has_looked(&host);
    let verdicts: Vec<_> = (1..=3).map(|request| host.verdict(request).verdict).collect();
    assert_eq!(verdicts, ["complete", "refused: restart in flight", "complete"]);
    assert_eq!(requests_since(&host, mark).len(), 3);
    assert!(version_is(&host, host.verdict(1).line.str("version"), &first));
}

#[test]
fn build_that_lands_during_an_operators_roll_is_brought_in_after_it() {
    // FAULTS 22
    let mut host = settled(watching());
    host.set("/app/config", json!({ "start_ms": 800 }));
    let mark = host.mark();
    host.signal(Signal::SIGUSR2);
    host.wait_after(mark, said::WORKER_SPAWNED, |_| true);
    let bytes = fresh();
    host.install_bytes(&bytes);
    is_refused(&host, mark, "restart in flight");
    is_brought_in(&host, mark, &bytes);
    assert_eq!(host.verdict(1).line.str("by"), "SIGUSR2");
    assert_eq!(host.verdict(1).verdict, "complete");
}

#[test]
fn build_that_lands_while_the_first_workers_start_is_brought_in_after_it() {
    // FAULTS 2 and 22
    let host = watching().with("/app/config", json!({ "start_ms": 1_200 }));
    host.spawn();
    host.wait_for(said::LIBRARY_SEEN, |line| !line.str("version").is_empty());
    let bytes = fresh();
    host.install_bytes(&bytes);
    is_refused(&host, 0, "starting");
    is_brought_in(&host, 0, &bytes);
}

#[test]
fn build_refused_for_the_databank_is_brought_in_once_that_is_back() {
    // FAULTS 22
    let host = Host::misbehaving().with("/databank", json!({ "driver": "sqlite", "path": "data/store.sqlite" }));
    let host = settled(host.with("/watch", true));
    let (store, aside) = (host.path("data/store.sqlite"), host.path("data/aside"));
    fs::rename(&store, &aside).unwrap();
    fs::create_dir(&store).unwrap();
    let mark = host.mark();
    let bytes = fresh();
    host.install_bytes(&bytes);
    let refused = is_refused(&host, mark, "databank unreachable");
    // Again, and again, each time later.
    let again = host.mark();
    is_refused(&host, again, "databank unreachable");
    let times: Vec<_> = requests_since(&host, mark).iter().filter_map(Line::seconds).collect();
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] > 0.2), "{times:?} after {}", refused.text());
    fs::remove_dir(&store).unwrap();
    fs::rename(aside, store).unwrap();
    is_brought_in(&host, mark, &bytes);
    has_looked(&host);
    let verdicts = host.lines_with(said::RESTART_COMPLETE);
    assert_eq!(verdicts.len(), 1);
}

#[test]
fn build_refused_for_what_it_is_is_not_tried_again_until_it_changes() {
    let host = settled(watching());
    for (app, reason) in [("no_manifest", "bad artifact"), ("epoch_two", "incompatibility")] {
        let mark = host.mark();
        host.install(&App::build().app(app));
        is_refused(&host, mark, reason);
        // Touched, moved away and back, and looked at for longer than the first pauses.
        File::options().append(true).open(host.library_path()).unwrap().set_modified(SystemTime::now()).unwrap();
        has_looked(&host);
        fs::rename(host.library_path(), host.path("aside")).unwrap();
        host.wait_after(mark, said::LIBRARY_SEEN, |line| line.str("version").is_empty());
        fs::rename(host.path("aside"), host.library_path()).unwrap();
        stall(Duration::from_millis(1_200));
        has_looked(&host);
        assert_eq!(requests_since(&host, mark).len(), 1, "{app}");
        let mark = host.mark();
        let bytes = fresh();
        host.install_bytes(&bytes);
        is_brought_in(&host, mark, &bytes);
        assert_eq!(requests_since(&host, mark).len(), 1, "{app}");
    }
    let mark = host.mark();
    host.install_bytes(b"#!/bin/sh\nexit 0\n");
    is_refused(&host, mark, "bad artifact");
}

#[test]
fn build_refused_for_a_listener_is_brought_in_once_that_can_be_bound() {
    // FAULTS 22
    let mut host = settled(watching());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    host.set("/listen", json!(["127.0.0.1:0", taken.local_addr().unwrap().to_string()]));
    let mark = host.mark();
    let bytes = fresh();
    host.install_bytes(&bytes);
    is_refused(&host, mark, "cannot bind");
    drop(taken);
    is_brought_in(&host, mark, &bytes);
}
