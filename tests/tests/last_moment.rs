//! The last moment of an app: its Router is dropped, its `stop` runs, then the process exits as any program does.

use std::fs;
use std::time::{Duration, Instant};

use app_host_tests::build::workspace;
use app_host_tests::dev::{shell_cargo, target_directory};
use app_host_tests::{App, Host, said};
use nix::sys::signal::Signal;
use serde_json::json;

fn site(stop: &str) -> Host {
    Host::new(&App::build().app("axum_site")).with("/app/config", json!({ "stop": stop }))
}

/// Which lines were logged, in their order, of those that one worker must log.
fn order(host: &Host, pid: u32) -> Vec<String> {
    let known = ["what the router holds is dropped", "the stop has flushed", "the task was dropped", "drained"];
    let lines = host.lines().into_iter().filter(|line| line.number("pid") == Some(pid.into()));
    lines.map(|line| line.msg().to_owned()).filter(|msg| known.contains(&msg.as_str())).collect()
}

#[test]
fn what_is_in_the_router_is_dropped_after_the_last_request_then_the_stop_runs_then_the_runtime_ends() {
    let host = site("").start();
    let before = host.serving();
    assert_eq!(host.restart().verdict, "complete");
    let expected = ["what the router holds is dropped", "the stop has flushed", "the task was dropped", "drained"];
    for pid in before {
        host.wait("all of its last lines", || (order(&host, pid).len() == expected.len()).then_some(()));
        assert_eq!(order(&host, pid), expected);
    }
}

#[test]
fn a_stop_that_fails_is_told_and_one_that_hangs_ends_at_the_timeout() {
    let host = site("fail").start();
    host.stop();
    let failed = host.wait_for("the app's stop failed", |_| true);
    assert!(failed.text().contains("nothing can be flushed"), "{}", failed.text());

    let host = site("hang").with("/restart/shutdown_timeout", "2s").start();
    let began = Instant::now();
    host.stop();
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    host.wait_for(said::APP_STOP_TOO_LONG, |_| true);
}

#[test]
fn exit_handlers_run_and_what_they_print_is_in_the_log() {
    let host = Host::misbehaving().with("/app/config", json!({ "on_exit": "print" })).start();
    assert_eq!(host.restart().verdict, "complete");
    for text in ["an exit handler prints", "an exit handler leaves this to C"] {
        host.wait("each old worker's line", || (host.lines_with(text).len() >= 2).then_some(()));
    }
    assert!(host.lines_with(said::WORKER_EXITED).iter().all(|line| line.str("status") == "exit 0"));
}

#[test]
fn exit_handlers_that_hang_hold_the_worker_up_until_its_timeout_and_no_longer() {
    let host = Host::misbehaving()
        .with("/app/config", json!({ "on_exit": "hang" }))
        .with("/restart/shutdown_timeout", "2s")
        .start();
    let began = Instant::now();
    assert_eq!(host.restart().verdict, "complete");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    host.wait_for("the app's exit handlers did not end in time", |_| true);
    assert!(host.lines_with(said::WORKER_KILLED).is_empty());
    host.signal(Signal::SIGTERM);
    assert_eq!(host.wait_exit().code(), Some(0));
}

#[test]
fn a_library_with_coverage_instrumentation_leaves_the_profile_of_each_worker() {
    let directory = tempfile::Builder::new().prefix("app-host-coverage-").tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write(
        "Cargo.toml",
        &format!(
            "[package]\nname = \"covered\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n[lib]\n\
             crate-type = [\"cdylib\"]\n[dependencies]\napp-abi = {{ path = \"{}\" }}\n",
            workspace().join("app-abi").display()
        ),
    );
    write(
        "src/lib.rs",
        "use app_abi::{App, Body, Host, Request, Response, StartError};
         struct Covered;
         impl App for Covered {
             async fn start(_: Host) -> Result<Self, StartError> { Ok(Self) }
             async fn call(&self, _: Request<Body>) -> Response<Body> { Response::default() }
         }
         app_abi::export_app!(Covered);",
    );
    fs::copy(workspace().join("Cargo.lock"), directory.path().join("Cargo.lock")).unwrap();
    let mut cargo = shell_cargo();
    cargo.args(["rustc", "--offline", "--lib", "--", "-C", "instrument-coverage"]).current_dir(directory.path());
    // What is instrumented itself while it is built, a build script for instance, leaves nothing in the sources.
    cargo.env("LLVM_PROFILE_FILE", directory.path().join("build-%p.profraw"));
    let output = cargo.output().expect("cargo can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let library = target_directory().join("debug/libcovered.so");
    let host = Host::new(&library);
    let profiles = host.path("profiles");
    fs::create_dir(&profiles).unwrap();
    let host = host.with_variable("LLVM_PROFILE_FILE", profiles.join("%p.profraw")).start();
    let mut workers = host.serving();
    assert_eq!(host.restart().verdict, "complete");
    workers.extend(host.serving());
    host.stop();
    assert_eq!(workers.len(), 4);
    for pid in workers {
        let profile = fs::read(profiles.join(format!("{pid}.profraw"))).expect("each worker has left its profile");
        // "\xfflprofr\x81", in the byte order of the machine.
        assert!(profile.len() > 100 && profile.windows(6).take(3).any(|name| name == b"rforpl"), "{:?}", &profile[..8]);
    }
}
