//! `app-host ctl` against a real master: what it prints, and its exit codes.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixListener;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use app_host_tests::{App, Host, said};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The exit code and everything that was printed.
#[track_caller]
fn assert_exit(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}{}", stdout(output), stderr(output));
}

#[test]
fn restart_exits_with_what_became_of_it() {
    let mut host = Host::misbehaving().start();
    let complete = host.ctl(&["restart", "--wait"]);
    assert_exit(&complete, 0);
    assert!(stdout(&complete).starts_with("restart 1 complete: generation 2, "), "{}", stdout(&complete));
    assert_eq!(stderr(&complete), "", "no progress where nobody looks");
    let accepted = host.ctl(&["restart"]);
    assert_exit(&accepted, 0);
    assert_eq!(stdout(&accepted), "restart accepted\n");
    assert_eq!(host.verdict(2).verdict, "complete");

    host.install_bytes(b"no library");
    let refused = host.ctl(&["restart", "--wait"]);
    assert_exit(&refused, 3);
    assert!(stderr(&refused).starts_with("app-host: restart 3 refused: bad artifact: "), "{}", stderr(&refused));
    let refused = host.ctl(&["restart"]);
    assert_exit(&refused, 3);
    let begin = "app-host: restart refused: bad artifact: ";
    assert!(stderr(&refused).starts_with(begin) && stderr(&refused).contains("app.so"), "{}", stderr(&refused));
    let refused = host.ctl(&["restart", "--json"]);
    assert_exit(&refused, 3);
    let said: Value = serde_json::from_str(&stdout(&refused)).unwrap();
    assert_eq!((&said["accepted"], &said["reason"]), (&false.into(), &"bad artifact".into()));
    assert!(said["detail"].as_str().unwrap().starts_with("bad artifact: "), "{said}");

    host.install(&App::build().app("misbehaving"));
    host.set("/app/config", json!({ "on_start": "exit" }));
    let failed = host.ctl(&["restart", "--wait", "--json"]);
    assert_exit(&failed, 4);
    let verdict: Value = serde_json::from_str(&stdout(&failed)).unwrap();
    assert_eq!((&verdict["request"], &verdict["by"]), (&6.into(), &"control socket".into()));
    assert!(verdict["verdict"].as_str().unwrap().starts_with("failed: "), "{verdict}");
    let locked = host.ctl(&["restart", "--wait"]);
    assert_exit(&locked, 3);
    assert!(stderr(&locked).contains("aborted restart; hint: "), "{}", stderr(&locked));
}

#[test]
fn master_that_can_not_be_reached_or_does_not_answer_has_an_exit_code_each() {
    let host = Host::misbehaving();
    host.restore_config();
    let nobody = host.ctl(&["status"]);
    assert_exit(&nobody, 5);
    assert!(stderr(&nobody).contains("state/control.sock"), "{}", stderr(&nobody));
    assert_exit(&host.ctl(&["status", "--socket", "/nowhere.sock"]), 5);
    assert_exit(&host.ctl(&["walk"]), 2);
    assert_exit(&host.ctl(&["status", "--socket", "a", "--config", "b"]), 2);
    assert_exit(&host.ctl(&["loglevel", "loud"]), 2);
    let elsewhere = Command::new(App::build().host()).args(["ctl", "status"]).current_dir("/").output().unwrap();
    assert_exit(&elsewhere, 1);
    assert!(stderr(&elsewhere).contains("there is no app-host.json in /; hint: "), "{}", stderr(&elsewhere));
    let missing = host.ctl(&["status", "--config", "none.json"]);
    assert_exit(&missing, 1);
    assert!(stderr(&missing).contains("none.json"), "{}", stderr(&missing));

    // One that takes connections and says nothing, and one that is stopped with a full queue.
    let silent = UnixListener::bind(host.path("silent.sock")).unwrap();
    let began = Instant::now();
    let late = host.ctl(&["status", "--socket", "silent.sock"]);
    assert_exit(&late, 6);
    assert!(stderr(&late).contains("doesn't answer"), "{}", stderr(&late));
    assert!(began.elapsed() < Duration::from_secs(20));
    drop(silent);
}

#[test]
fn restart_of_a_master_that_hangs_in_the_middle_ends() {
    let host = Host::misbehaving().with("/restart/probation", "10s").start();
    let waiting = host.ctl_command(&["restart", "--wait"]).stderr(Stdio::piped()).spawn().unwrap();
    host.wait_for(said::PROBATION_STARTED, |_| true);
    host.signal(Signal::SIGSTOP);
    let output = waiting.wait_with_output().unwrap();
    host.signal(Signal::SIGCONT);
    assert_exit(&output, 6);
    assert!(stderr(&output).contains("doesn't answer"), "{}", stderr(&output));
}

#[test]
fn restart_of_a_master_that_dies_in_the_middle_says_so() {
    let host = Host::misbehaving().with("/restart/probation", "10s").start();
    let waiting = host.ctl_command(&["restart", "--wait"]).stderr(Stdio::piped()).spawn().unwrap();
    host.wait_for(said::PROBATION_STARTED, |_| true);
    host.signal(Signal::SIGKILL);
    let output = waiting.wait_with_output().unwrap();
    assert_exit(&output, 6);
    assert!(stderr(&output).contains("has gone"), "{}", stderr(&output));
}

#[test]
fn restart_that_a_stop_ends_is_failed() {
    let host = Host::misbehaving().with("/restart/probation", "10s").start();
    let waiting = host.ctl_command(&["restart", "--wait"]).stderr(Stdio::piped()).spawn().unwrap();
    host.wait_for(said::PROBATION_STARTED, |_| true);
    assert_says(&host.ctl(&["stop"]), "the master stops\n");
    let output = waiting.wait_with_output().unwrap();
    assert_exit(&output, 4);
    assert!(stderr(&output).contains("restart 1 failed: stopped"), "{}", stderr(&output));
    assert_eq!(host.wait_exit().code(), Some(0));
}

#[test]
fn progress_on_a_terminal_is_told_a_slot_at_a_time() {
    let host = Host::misbehaving().start();
    let pty = nix::pty::openpty(None, None).unwrap();
    let mut child = host.ctl_command(&["restart", "--wait"]).stdout(Stdio::piped()).stderr(pty.slave).spawn().unwrap();
    let status = host.wait("the end of ctl", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    let mut shown = vec![0; 16 * 1024];
    let length = fs::File::from(pty.master).read(&mut shown).unwrap();
    let shown = String::from_utf8_lossy(&shown[..length]).replace('\r', "");
    for slot in 0..2 {
        for what in ["new worker", "old worker"] {
            assert!(shown.contains(&format!("slot {slot}: {what} ")), "{shown}");
        }
    }
    assert!(shown.contains("preflight passed") && shown.contains("drains") && shown.contains("has gone"), "{shown}");
}

#[test]
fn status_is_a_table_or_json_and_is_watched() {
    let host = Host::misbehaving().start();
    host.restart_completes();
    // Also while the file is being edited, as far as it is JSON, and from anywhere.
    host.write_config(br#"{"nonsense": 1}"#);
    let config = host.config_path();
    let output = Command::new(App::build().host())
        .args(["ctl", "--config", config.to_str().unwrap(), "status"])
        .current_dir("/")
        .output()
        .unwrap();
    assert_exit(&output, 0);
    let text = stdout(&output);
    let head: Vec<&str> = text.lines().nth(5).unwrap_or_default().split_whitespace().collect();
    let expected =
        "SLOT GENERATION VERSION PID STATE UPTIME IN FLIGHT REQUESTS HANDED OVER RECEIVED CLOSED CUT CPU MEMORY";
    assert_eq!(head.join(" "), expected, "{text}");
    assert_eq!(text.lines().count(), 8, "{text}");
    let databank = format!("databank sqlite {}\n", host.path("state/data/databank.sqlite").display());
    assert!(text.contains(&databank), "{text}");
    assert!(text.contains("serving, generation 2") && text.contains("last restart: 1 complete"), "{text}");
    for pid in host.workers() {
        assert!(text.lines().any(|line| line.split_whitespace().nth(3) == Some(&pid.to_string())), "{text}");
    }
    let status: Value = serde_json::from_str(&stdout(&host.ctl(&["status", "--json"]))).unwrap();
    assert_eq!(status["generation"], 2);

    let mut watching = host.ctl_command(&["status", "--watch", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    for _ in 0..3 {
        let status: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(status["phase"], "serving");
    }
    host.stop();
    let status = host.wait("the end of the watching", || watching.try_wait().unwrap());
    assert_eq!(status.code(), Some(6));
}

#[test]
fn events_are_printed_until_the_master_goes() {
    let host = Host::misbehaving().start();
    let mut listening = host.ctl_command(&["events", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(listening.stdout.take().unwrap()).lines();
    let (heard, events) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in lines {
            heard.send(serde_json::from_str::<Value>(&line.unwrap()).unwrap()).unwrap();
        }
    });
    // It listens from some moment on.
    let first = host.wait("an event", || {
        host.ctl(&["loglevel", "debug"]);
        events.try_recv().ok()
    });
    assert_eq!((&first["event"], &first["log_level"]), (&"log level changed".into(), &"debug".into()));
    host.restart_completes();
    host.stop();
    reader.join().unwrap();
    let names: Vec<String> = events.iter().map(|event| event["event"].as_str().unwrap().to_owned()).collect();
    for name in ["restart requested", "worker ready", "verdict", "stopping", "worker exited"] {
        assert!(names.iter().any(|each| each == name), "{name}: {names:?}");
    }
    let status = host.wait("the end of ctl", || listening.try_wait().unwrap());
    assert_eq!(status.code(), Some(6));
}

/// That an order was carried out, and what people are told of it.
fn assert_says(output: &Output, text: &str) {
    assert_exit(output, 0);
    assert_eq!(stdout(output), text);
}

#[test]
fn a_failed_restart_says_what_it_has_led_to() {
    let mut host = Host::misbehaving().with("/restart/on_failure", "rollback").start();
    let status: Value = serde_json::from_str(&stdout(&host.ctl(&["status", "--json"]))).unwrap();
    let version = &status["version"].as_str().unwrap()[..12];
    host.set("/app/config", json!({ "on_start": "exit" }));
    let failed = host.ctl(&["restart", "--wait"]);
    assert_exit(&failed, 4);
    let back = format!("; every slot is back at version {version}\n");
    assert!(stderr(&failed).ends_with(&back), "{}", stderr(&failed));
    host.stop();

    let mut host = Host::misbehaving().with("/restart/on_failure", "lock").start();
    host.set("/app/config", json!({ "on_start": "exit" }));
    let failed = host.ctl(&["restart", "--wait"]);
    assert_exit(&failed, 4);
    let locked = "; hint: the master is locked, and respawns no worker: put back what worked, and restart it as soon \
                  as possible\n";
    assert!(stderr(&failed).ends_with(locked), "{}", stderr(&failed));
}

#[test]
fn log_level_and_stop_are_said_and_done() {
    let host = Host::misbehaving().with("/log/level", "info").start();
    assert_says(&host.ctl(&["loglevel", "debug"]), "log level: debug\n");
    assert_says(&host.ctl(&["workers", "3"]), "3 workers are wanted from now on\n");
    assert_says(&host.ctl(&["drain", "on"]), "out of rotation: not ready, until ctl drain off\n");
    assert_says(&host.ctl(&["drain", "off"]), "back in rotation\n");
    let status: Value = serde_json::from_str(&stdout(&host.ctl(&["--json", "status"]))).unwrap();
    assert_eq!(status["log_level"], "debug");
    let restored = host.ctl(&["--json", "loglevel", "restore"]);
    assert_eq!(stdout(&restored), "{\"done\":true}\n");
    assert_exit(&host.ctl(&["stop"]), 0);
    assert_eq!(host.wait_exit().code(), Some(0));
    assert_exit(&host.ctl(&["stop"]), 5);
}

#[test]
fn restart_wait_that_takes_too_long_exits_with_6_and_the_restart_goes_on() {
    let mut host = Host::misbehaving().start();
    host.set("/app/config", json!({ "start_ms": 2_000 }));
    let late = host.ctl(&["restart", "--wait", "--timeout", "300ms"]);
    assert_exit(&late, 6);
    assert!(stderr(&late).contains("has no verdict after ") && stderr(&late).contains("goes on"), "{}", stderr(&late));
    assert_eq!(host.verdict(1).verdict, "complete");
    assert_exit(&host.ctl(&["restart", "--wait", "--timeout", "60s"]), 0);
    assert_exit(&host.ctl(&["restart", "--timeout", "1s"]), 2);
}

#[test]
fn completions_and_manual_pages_name_every_order() {
    let binary = App::build().host();
    for shell in ["bash", "zsh", "fish"] {
        let output = Command::new(&binary).args(["completions", shell]).output().unwrap();
        assert_exit(&output, 0);
        let script = stdout(&output);
        for word in ["loglevel", "restart", "status", "--wait", "inspect"] {
            assert!(script.contains(word.trim_start_matches('-')), "{shell}: {word}");
        }
        assert!(!script.contains("internal"), "{shell}: roles that only a master asks for");
    }
    let syntax = Command::new("bash")
        .arg("-nc")
        .arg(stdout(&Command::new(&binary).args(["completions", "bash"]).output().unwrap()))
        .status()
        .unwrap();
    assert!(syntax.success());
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new(&binary).arg("man").arg(directory.path()).output().unwrap();
    assert_exit(&output, 0);
    let page = fs::read_to_string(directory.path().join("app-host-ctl.1")).unwrap();
    assert!(page.contains("control socket") && page.contains("restart"), "{page}");
    assert!(directory.path().join("app-host-ctl-restart.1").exists());
    let names: Vec<String> =
        fs::read_dir(directory.path()).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.iter().all(|name| !name.contains("internal")), "{names:?}");
    let nowhere = Command::new(&binary).args(["man", "/nowhere"]).output().unwrap();
    assert_exit(&nowhere, 1);
}
