//! A worker that crashes outside a restart comes back from the active generation, whatever lies on
//! disk by then.

use std::fs;

use app_host_tests::{App, Host, process, said};
use nix::sys::signal::Signal;
use serde_json::json;

#[test]
fn crashed_worker_is_respawned_at_once_in_its_slot() {
    let host = Host::misbehaving().start();
    let before = host.serving();
    process::signal(before[1], Signal::SIGKILL);
    let exited = host.wait_for(said::WORKER_EXITED, |_| true);
    assert_eq!((exited.worker_pid(), exited.str("status")), (before[1], "signal 9"));
    assert_eq!(exited.flag("expected"), Some(false));
    let ready = host.wait_for(said::WORKER_READY, |line| !before.contains(&line.worker_pid()));
    assert_eq!((ready.number("slot"), ready.number("generation")), (Some(1), Some(1)));
    host.assert_all_serve(&[before[0], ready.worker_pid()]);
}

#[test]
fn what_a_killed_worker_had_in_hand_is_in_the_log() {
    let host = Host::misbehaving().start();
    let (worker, _connection) = host.block_a_thread();
    process::signal(worker, Signal::SIGKILL);
    let exited = host.wait_for(said::WORKER_EXITED, |line| line.worker_pid() == worker);
    assert_eq!(exited.str("routes"), "GET /block", "{}", exited.text());
    assert_eq!(exited.number("cut"), Some(1), "{}", exited.text());
}

#[test]
fn deleted_library_does_not_keep_a_worker_from_its_respawn() {
    // FAULTS 19
    let host = Host::misbehaving().start();
    let before = host.serving();
    fs::remove_file(host.library_path()).unwrap();
    process::signal(before[0], Signal::SIGKILL);
    host.wait_for(said::WORKER_READY, |line| !before.contains(&line.worker_pid()));
    host.assert_all_serve(&host.serving());
}

#[test]
fn respawn_uses_the_version_copy_and_not_what_lies_at_the_path() {
    let host = Host::answering("a").start();
    let before = host.serving();
    host.install(&App::build().app("answer_b"));
    for pid in &before {
        process::signal(*pid, Signal::SIGKILL);
        host.wait_for(said::WORKER_EXITED, |line| line.worker_pid() == *pid);
    }
    host.wait("two new workers", || {
        let serving = host.serving();
        (serving.len() == 2 && serving.iter().all(|pid| !before.contains(pid))).then_some(())
    });
    for _ in 0..20 {
        assert_eq!(host.get("/").trim(), "a");
    }
}

#[test]
fn crash_loop_backs_off_while_others_serve_and_ends_when_its_cause_does() {
    // FAULTS 17
    let mut host = Host::misbehaving();
    let switch = host.path("die").display().to_string();
    host.set("/app/config", json!({ "die_if": switch }));
    let host = host.start();
    let before = host.serving();
    fs::write(&switch, "").unwrap();
    process::signal(before[1], Signal::SIGKILL);
    let delays = host.wait("five scheduled respawns", || {
        let lines = host.lines_with(said::RESPAWN_SCHEDULED);
        let delays: Vec<u64> = lines.iter().filter_map(|line| line.number("after_ms")).collect();
        (delays.len() >= 5).then_some(delays)
    });
    assert!(delays.is_sorted(), "the back-off grows: {delays:?}");
    assert!(delays[4] >= 8 * delays[1].max(50), "exponentially: {delays:?}");
    host.assert_all_serve(&before[..1]);
    fs::remove_file(&switch).unwrap();
    host.wait_for(said::WORKER_READY, |line| !before.contains(&line.worker_pid()));
    host.assert_all_serve(&host.serving());
}

#[test]
fn restart_ends_a_crash_loop() {
    let mut host = Host::misbehaving();
    let switch = host.path("die").display().to_string();
    host.set("/app/config", json!({ "die_if": switch }));
    let mut host = host.start();
    let before = host.serving();
    fs::write(&switch, "").unwrap();
    process::signal(before[0], Signal::SIGKILL);
    host.wait_for(said::RESPAWN_SCHEDULED, |line| line.number("after_ms") > Some(100));
    host.set("/app/config", json!({}));
    assert_eq!(host.restart().verdict, "complete");
    host.assert_all_serve(&host.serving());
    assert_eq!(host.serving().len(), 2);
}

#[test]
fn panic_in_a_handler_is_a_500_and_a_line_in_the_log_and_kills_nobody() {
    let host = Host::misbehaving().start();
    let before = host.serving();
    let mut connection = host.connect();
    assert_eq!(connection.get("/panic").unwrap(), 500);
    assert_eq!(connection.get("/whoami").unwrap(), 200, "the connection lives on");
    host.wait("the panic's line", || {
        host.lines().into_iter().find(|line| {
            line.text().contains("a handler was told to panic") && line.text().contains("misbehaving/lib.rs")
        })
    });
    assert_eq!(host.serving(), before);
    host.assert_all_serve(&before);
}

#[test]
fn a_panics_line_says_which_request_it_was_and_has_no_query() {
    let host = Host::misbehaving().with("/access_log", true).with_variable("RUST_BACKTRACE", "0").start();
    assert_eq!(host.connect().get("/panic?secret=1").unwrap(), 500);
    let line = host.wait_for(said::APP_PANICKED, |_| true);
    assert_eq!((line.str("method"), line.str("path")), ("GET", "/panic"), "{}", line.text());
    assert!(line.number("slot") < Some(2), "{}", line.text());
    let id = line.str("request_id").to_owned();
    assert!(!id.is_empty() && !line.text().contains("secret"), "{}", line.text());
    host.wait_for("request", |line| line.str("request_id") == id && line.number("status") == Some(500));
    assert!(!line.text().contains("backtrace"), "nobody has asked for one: {}", line.text());

    // On a thread of the app's runtime, behind an await.
    let host = Host::new(&App::build().app("axum_site")).start();
    assert_eq!(host.connect().get("/panic/late").unwrap(), 500);
    let line = host.wait_for(said::APP_PANICKED, |_| true);
    assert_eq!((line.str("method"), line.str("path")), ("GET", "/panic/late"), "{}", line.text());
}

#[test]
fn a_panics_line_has_a_backtrace_where_the_environment_asks_for_one() {
    let host = Host::misbehaving().with_variable("RUST_BACKTRACE", "1").start();
    assert_eq!(host.connect().get("/panic").unwrap(), 500);
    let line = host.wait_for(said::APP_PANICKED, |_| true);
    let backtrace = line.str("backtrace");
    // Which of the app's own functions are left is the optimizer's to say.
    assert!(backtrace.contains("core::panicking::panic_fmt") && backtrace.contains("app_abi::"), "{backtrace}");
    assert!(backtrace.len() <= 16 * 1024 + 8, "{backtrace}");
}

#[test]
fn a_core_dump_is_said_where_the_kernel_has_made_one() {
    let host = Host::misbehaving().with("/core_dumps", true).with("/limits", json!({ "core": 0 })).start();
    let worker = host.serving()[0];
    process::signal(worker, Signal::SIGABRT);
    assert_eq!(host.wait_for(said::WORKER_EXITED, |line| line.worker_pid() == worker).str("status"), "signal 6");
    drop(host);
    let hard = fs::read_to_string("/proc/self/limits").unwrap();
    let hard = hard.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap().to_owned();
    let unlimited = hard.split_whitespace().nth(1) == Some("unlimited");
    // A plain name is a file where the worker is; behind a `|` it may be anything (`core(5)`).
    let is_here = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap().starts_with("core");
    if !(unlimited && is_here) {
        eprintln!("not tried: this machine makes no core dumps where a test could see them");
        return;
    }
    let host = Host::misbehaving().with("/core_dumps", true).with("/limits", json!({ "core": "unlimited" })).start();
    let worker = host.serving()[0];
    process::signal(worker, Signal::SIGABRT);
    let exited = host.wait_for(said::WORKER_EXITED, |line| line.worker_pid() == worker);
    assert_eq!(exited.str("status"), "signal 6 (core dumped)");
    let names = fs::read_dir(host.directory()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(names.into_iter().any(|name| name.to_string_lossy().starts_with("core")));
}
