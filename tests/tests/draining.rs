//! What may happen while a connection that nobody ends keeps former workers there, and how a service says that it goes.

use std::time::Duration;

use app_host_tests::{Host, said};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use nix::sys::signal::Signal;
use serde_json::json;

/// A service whose workers of generation 1 drain for minutes, because a client waits; `bad` serves.
fn bad_deploy(host: Host) -> (Host, app_host_tests::Connection) {
    let mut host =
        host.with("/restart/shutdown_timeout", "5m").with("/app/config", json!({ "marker": "good" })).start();
    let mut waits = host.connect();
    waits.ask("/never").unwrap();
    host.assert_all_serve(&host.serving());
    host.set("/app/config", json!({ "marker": "bad" }));
    host.signal(Signal::SIGUSR2);
    serves(&host, "bad", 2);
    (host, waits)
}

/// Waits until every slot has a worker of this generation, and new clients are answered by it.
fn serves(host: &Host, marker: &str, generation: u64) {
    host.wait("workers of the new generation", || {
        let ready = host.lines_with(said::WORKER_READY);
        (ready.iter().filter(|line| line.number("generation") == Some(generation)).count() == 2).then_some(())
    });
    host.wait("nothing but drains", || {
        let drains = host.lines_with(said::WORKER_DRAINS);
        let old = drains.iter().filter(|line| line.number("generation") == Some(generation - 1)).count();
        (old >= 2).then_some(())
    });
    host.wait("an answer of the new generation", || host.get("/whoami").contains(marker).then_some(()));
}

#[test]
fn a_bad_deploy_is_undone_while_a_client_holds_on_to_the_workers_before_it() {
    let (mut host, waits) = bad_deploy(Host::misbehaving());
    let refused = host.ctl(&["restart", "--wait"]);
    assert_eq!(refused.status.code(), Some(3));
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("restart in flight; hint: ") && text.contains("a rollback may begin"), "{text}");

    // The other one, which no client holds on to.
    host.wait_for(said::WORKER_EXITED, |line| line.number("generation") == Some(1));
    let mut control = host.control();
    assert_eq!(control.ask("ROLLBACK"), "ACK\n", "nothing can refuse it any more");
    let first = host.verdict(1);
    assert_eq!((first.verdict.as_str(), first.line.number("draining")), ("complete", Some(1)), "{}", first.line.text());
    serves(&host, "good", 3);
    let status = control.ask_json("STATUS");
    let draining: Vec<_> =
        status["workers"].as_array().unwrap().iter().filter(|it| it["state"] == "draining").collect();
    assert!(draining.iter().any(|it| it["generation"] == 1), "the client still holds on: {status}");
    assert_eq!((&status["phase"], &status["verdicts"][1]["draining"]), (&json!("rolling"), &json!(1)), "{status}");

    // What was rolled back is history like any other, and the client's end is that of the restart.
    drop(waits);
    assert_eq!(control.ask("WAIT 3"), "ACK 3 complete\n");
    assert_eq!(host.verdict(3).line.number("draining"), None);
    host.set("/app/config", json!({ "marker": "mended" }));
    host.restart_completes();
}

#[test]
fn a_connection_that_outlasts_a_deploy_and_its_undoing_goes_on_in_what_serves_then() {
    let mut host = Host::misbehaving().with("/app/config", json!({ "marker": "good" })).start();
    let mut slow = host.connect();
    slow.ask("/sleep/2500").unwrap();
    host.assert_all_serve(&host.serving());
    host.set("/app/config", json!({ "marker": "bad" }));
    host.signal(Signal::SIGUSR2);
    serves(&host, "bad", 2);
    // This one has only ever seen what was undone.
    let mut kept = host.connect();
    assert_eq!(kept.get("/whoami").unwrap(), 200);
    assert_eq!(host.control().ask("ROLLBACK"), "ACK\n");
    serves(&host, "good", 3);
    assert_eq!(slow.receive().unwrap(), 200, "{}", slow.text());
    assert!(slow.text().contains("\"generation\":1"), "{}", slow.text());
    for connection in [&mut slow, &mut kept] {
        assert_eq!(connection.get("/whoami").unwrap(), 200);
        assert!(connection.text().contains("\"generation\":3"), "{}", connection.text());
    }
    assert_eq!(host.control().ask("WAIT 2"), "ACK 2 complete\n");
}

#[test]
fn an_undoing_holds_over_the_masters_death_while_workers_still_drain() {
    let (host, _waits) = bad_deploy(Host::misbehaving());
    assert_eq!(host.control().ask("ROLLBACK"), "ACK\n");
    serves(&host, "good", 3);
    host.wait("the ledger", || {
        let text = std::fs::read_to_string(host.path("state/generations.json")).unwrap();
        let ledger: serde_json::Value = serde_json::from_str(&text).unwrap();
        (!ledger["ledger"]["held"].is_null()).then_some(())
    });
    host.signal(Signal::SIGKILL);
    host.wait_exit();
    let mark = host.mark();
    host.spawn();
    host.wait_after(mark, said::EARLIER_GENERATION_STARTED, |_| true);
    host.wait_after(mark, said::SERVING, |_| true);
    assert!(host.get("/whoami").contains("good"), "what lies on disk was undone");
}

#[test]
fn any_restart_begins_while_workers_drain_where_the_configuration_says_so() {
    let (mut host, mut waits) = bad_deploy(
        Host::misbehaving()
            .with("/restart/while_draining", true)
            .with("/watch", json!({ "library": true, "config": true })),
    );
    // The watcher asks for it by itself.
    host.set("/app/config", json!({ "marker": "mended" }));
    serves(&host, "mended", 3);
    assert!(host.workers().len() > 2, "the client still holds on");
    let mark = host.mark();
    host.signal(Signal::SIGTERM);
    host.wait_after(mark, said::STOPPING, |_| true);
    host.signal(Signal::SIGTERM);
    assert_eq!(host.wait_exit().code(), Some(0));
    assert!(waits.receive().is_err());
}

#[test]
fn workers_after_the_first_start_side_by_side_where_the_configuration_says_so() {
    let host = Host::misbehaving()
        .with("/workers", 6)
        .with("/restart/parallel", 5)
        .with("/app/config", json!({ "start_ms": 400 }))
        .start();
    let mark = host.mark();
    host.restart_completes();
    let order: Vec<_> = host.look(mark, |new| {
        let shown = |line: &&app_host_tests::Line| [said::WORKER_SPAWNED, said::WORKER_READY].contains(&line.msg());
        new.iter().filter(shown).map(|line| line.msg().to_owned()).collect()
    });
    let alone = [said::WORKER_SPAWNED, said::WORKER_READY];
    assert_eq!(order[..2], alone, "the first");
    assert!(order[2..7].iter().all(|msg| msg == said::WORKER_SPAWNED), "the others: {order:?}");
}

fn delayed(delay: &str) -> Host {
    Host::misbehaving().with("/shutdown_delay", delay).with("/admin", "127.0.0.1:0").with("/restart/idle_linger", "0s")
}

#[test]
fn a_stop_is_announced_to_balancer_and_clients_before_the_door_shuts() {
    let host = delayed("3s").start();
    let mut kept = host.connect();
    assert_eq!(kept.get("/whoami").unwrap(), 200);
    assert!(!kept.announced_close());
    assert_eq!(host.ask_admin("/readyz").0, 200);
    host.signal(Signal::SIGTERM);
    let line = host.wait_for(said::STOP_DELAYED, |_| true);
    assert_eq!(line.number("delay_ms"), Some(3000));
    let (code, text) = host.ask_admin("/readyz");
    assert_eq!((code, text.starts_with("not ready: stopping, 2 of 2 workers")), (503, true), "{text}");
    // A connection that is there is served, and told to go; a new one as well.
    host.wait("the announcement", || {
        let mut new = host.connect();
        assert_eq!(new.get("/whoami").unwrap(), 200);
        new.announced_close().then_some(())
    });
    // Its worker may hear it a little later.
    host.wait("the announcement on a kept connection", || {
        assert_eq!(kept.get("/whoami").unwrap(), 200);
        kept.announced_close().then_some(())
    });
    host.wait("its close", || kept.is_closed().unwrap().then_some(()));
    assert!(host.lines_with(said::STOPPING).is_empty(), "all this was before the stop");
    assert_eq!(host.restart().verdict, "refused: stopping");
    assert_eq!(host.wait_exit().code(), Some(0));
    let of = |msg| host.lines_with(msg).pop().unwrap().seconds().unwrap();
    let waited = of("stopping") - line.seconds().unwrap();
    assert!((2.9..10.0).contains(&waited), "{waited}");
}

#[test]
fn a_second_signal_skips_the_delay() {
    let host = delayed("1h").start();
    host.signal(Signal::SIGTERM);
    host.wait_for(said::STOP_DELAYED, |_| true);
    host.signal(Signal::SIGINT);
    assert_eq!(host.wait_exit().code(), Some(0));
    for line in host.lines_with(said::WORKER_EXITED) {
        assert_eq!(line.str("status"), "exit 0", "in order: {}", line.text());
    }
}

#[test]
fn the_operator_takes_a_service_out_of_rotation_and_back() {
    let host = delayed("0s").start();
    let announces = || {
        let mut new = host.connect();
        assert_eq!(new.get("/whoami").unwrap(), 200);
        new.announced_close()
    };
    assert!(host.ctl(&["drain", "on"]).status.success());
    let (code, text) = host.ask_admin("/readyz");
    assert_eq!((code, text.as_str()), (503, "not ready: serving, 2 of 2 workers, taken out of rotation\n"));
    assert_eq!(host.control().ask_json("STATUS")["out_of_rotation"], true);
    host.wait("the announcement", || announces().then_some(()));
    // It holds for workers that come later.
    host.restart_completes();
    assert!((0..8).all(|_| announces()));
    assert!(host.ctl(&["drain", "off"]).status.success());
    assert_eq!(host.ask_admin("/readyz").0, 200);
    host.wait("the end of it", || (0..8).all(|_| !announces()).then_some(()));
    let mut kept = host.connect();
    assert_eq!(kept.get("/whoami").unwrap(), 200);
    assert!(!kept.announced_close() && !kept.is_closed().unwrap());
    assert_eq!(host.control().ask("DRAIN maybe"), "NACK invalid\n");
    assert_eq!(host.ctl(&["drain"]).status.code(), Some(2));
}

#[tokio::test]
async fn an_http2_client_is_told_to_go_elsewhere_and_one_that_comes_is_served() {
    let host = tokio::task::spawn_blocking(|| delayed("0s").start()).await.unwrap();
    let address = host.address().tcp();
    let connect = async || {
        let stream = TokioIo::new(tokio::net::TcpStream::connect(address).await.unwrap());
        let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        (sender, tokio::spawn(connection))
    };
    let ask = || http::Request::get("http://test/sleep/300").body(Empty::<Bytes>::new()).unwrap();
    let (mut sender, driver) = connect().await;
    assert_eq!(sender.send_request(ask()).await.unwrap().status(), 200);
    let in_flight = sender.send_request(ask());
    let host = tokio::task::spawn_blocking(move || {
        assert!(host.ctl(&["drain", "on"]).status.success());
        host
    });
    assert!(!in_flight.await.unwrap().into_body().collect().await.unwrap().to_bytes().is_empty());
    tokio::time::timeout(Duration::from_secs(20), driver).await.unwrap().unwrap().unwrap();
    let (mut sender, driver) = connect().await;
    for _ in 0..2 {
        assert_eq!(sender.send_request(ask()).await.unwrap().status(), 200);
    }
    assert!(!driver.is_finished(), "there is nowhere else to go");
    let host = host.await.unwrap();
    tokio::task::spawn_blocking(move || drop(host)).await.unwrap();
}

#[test]
fn who_waits_again_for_a_stop_does_not_hurry_it() {
    let host = delayed("3s").start();
    let mut slow = host.connect();
    slow.ask("/sleep/4000").unwrap();
    host.assert_all_serve(&host.serving());
    for _ in 0..3 {
        let waited = host.ctl(&["stop", "--wait", "--timeout", "300ms"]);
        assert_eq!(waited.status.code(), Some(6), "{}", String::from_utf8_lossy(&waited.stderr));
    }
    assert!(host.lines_with(said::STOPPING).is_empty(), "the delay isn't over");
    assert_eq!(slow.receive().unwrap(), 200);
    assert_eq!(host.wait_exit().code(), Some(0));
}

#[test]
fn a_rollback_whose_worker_was_killed_can_be_tried_again() {
    let mut host = Host::misbehaving()
        .with("/app/config", json!({ "marker": "good" }))
        .with("/restart/on_failure", "rollback")
        .with("/restart/probation", "1s")
        .start();
    host.set("/app/config", json!({ "marker": "bad" }));
    host.restart_completes();
    let mut control = host.control();
    assert_eq!(control.ask("ROLLBACK"), "ACK\n");
    let ready = host.wait_for(said::WORKER_READY, |line| line.number("generation") == Some(3));
    app_host_tests::process::signal(ready.worker_pid(), Signal::SIGKILL);
    assert_eq!(host.verdict(2).verdict, "failed: worker died");
    host.wait_for("a rollback has failed; it can be tried again", |_| true);
    assert_eq!(control.ask("ROLLBACK WAIT"), "ACK 3 complete\n");
    assert!(host.get("/whoami").contains("good"));
}

#[test]
fn a_restart_that_cannot_bring_a_listener_back_names_it() {
    let host = Host::misbehaving();
    let path = host.path("app.sock");
    let host = host.with("/listen", json!(["127.0.0.1:0", format!("unix:{}", path.display())])).start();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "precious").unwrap();
    let restart = host.ctl(&["restart", "--wait"]);
    let said = String::from_utf8_lossy(&restart.stderr).into_owned();
    assert!(said.contains("clients of these listeners can't connect: unix:"), "{said}");
    host.wait_for("a listener stays as it is, harmed", |line| line.str("error").contains("no socket lies there"));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}
