//! What operators do to a service that runs: deploys by a link, state in the release, secrets in files, libraries that
//! are none, and where its workers are.

mod configuration;
mod deploys;
mod gone;
mod libraries;
mod listeners;

use std::process::{Command, Output};

use app_host_tests::{App, Host, process, said};
use nix::sys::signal::Signal;
use serde_json::Value;

fn marker(host: &Host) -> String {
    let answer: Value = serde_json::from_str(&host.get("/whoami")).unwrap();
    answer["marker"].as_str().unwrap().to_owned()
}

/// Kills a worker and waits until another serves in its slot.
fn is_respawned(host: &Host) {
    let mark = host.mark();
    process::signal(host.serving()[0], Signal::SIGKILL);
    host.wait_after(mark, said::WORKER_READY, |_| true);
    let serving = host.serving();
    assert_eq!(serving.len(), 2);
    host.assert_all_serve(&serving);
}

fn app_host(host: &Host, arguments: &[&str]) -> Output {
    Command::new(App::build().host()).args(arguments).current_dir(host.directory()).output().unwrap()
}
