//! The command line: `check`, exit codes, and one master a pid file.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::process::{Command, Output, Stdio};

use app_host_tests::{App, Host, process, program, said};
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::Signal;

fn app_host(host: &Host, arguments: &[&str]) -> Output {
    Command::new(App::build().host()).args(arguments).current_dir(host.directory()).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn check_accepts_what_would_run_and_starts_nothing() {
    let host = Host::misbehaving();
    host.restore_config();
    let output = app_host(&host, &["check", "app-host.json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(!host.path("state").exists(), "nothing was made");
    let said = String::from_utf8_lossy(&output.stdout);
    let last = "not checked: the app's start (app.config), the databank, listeners, the epoch of a running master\n";
    assert!(said.starts_with("accepted: ") && said.ends_with(last), "{said}");
}

#[test]
fn check_says_why_not() {
    let host = Host::misbehaving();
    host.write_config(b"{");
    let output = app_host(&host, &["check", "app-host.json"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("refused: bad config: "), "{}", stderr(&output));
    host.restore_config();
    host.install_bytes(b"no library");
    let output = app_host(&host, &["check", "app-host.json"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("refused: bad artifact: "), "{}", stderr(&output));
    host.install(&App::build().app("constructor_abort"));
    let output = app_host(&host, &["check", "app-host.json"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("refused: bad artifact: "), "{}", stderr(&output));
}

#[test]
fn check_hints_at_what_is_nearly_a_secret_and_names_what_a_secrets_file_is() {
    let mut host = Host::misbehaving();
    host.set("/app/config", serde_json::json!({ "on_ready": { "file": "x", "b": 1 } }));
    let output = app_host(&host, &["check", "app-host.json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("note: app.config.on_ready: has \"file\" among other keys"),
        "{}",
        stderr(&output)
    );
    host.set("/app/config", serde_json::json!({ "key": { "file": "" } }));
    let output = app_host(&host, &["check", "app-host.json"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("app.config.key: \"file\" is empty; expected the path of a file"),
        "{}",
        stderr(&output)
    );
    host.set("/databank", serde_json::json!({ "driver": "mongodb", "uri": { "file": "" } }));
    host.set("/app/config", serde_json::json!({}));
    let output = app_host(&host, &["check", "app-host.json"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("databank.uri: "), "{}", stderr(&output));
    assert!(stderr(&output).contains("is no path of a file"), "{}", stderr(&output));
}

#[test]
fn check_may_run_beside_the_master() {
    let host = Host::misbehaving().start();
    let before = host.serving();
    assert_eq!(app_host(&host, &["check", "app-host.json"]).status.code(), Some(0));
    assert_eq!(host.serving(), before);
    host.restart_completes();
}

#[test]
fn relative_paths_are_relative_to_the_configuration_file() {
    let host = Host::misbehaving();
    host.restore_config();
    let output =
        Command::new(App::build().host()).arg("check").arg(host.config_path()).current_dir("/").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn wrong_usage_exits_with_2() {
    let host = Host::misbehaving();
    for arguments in [&[][..], &["walk"], &["run"], &["run", "a", "b"]] {
        assert_eq!(app_host(&host, arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn master_that_cannot_start_exits_with_1_and_says_why() {
    let host = Host::misbehaving();
    let output = app_host(&host, &["run", "no-such-file.json"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no-such-file.json"), "{}", stderr(&output));
    host.write_config(b"{");
    let output = app_host(&host, &["run", "app-host.json"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("app-host.json:1:1"), "{}", stderr(&output));
    host.restore_config();
    fs::remove_file(host.library_path()).unwrap();
    let output = app_host(&host, &["run", "app-host.json"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("No such file"), "{}", stderr(&output));
}

#[test]
fn first_library_that_does_not_fit_keeps_the_master_from_starting() {
    for app in ["constructor_abort", "constructor_exit", "no_manifest", "unresolved"] {
        let host = Host::new(&App::build().app(app));
        host.spawn();
        assert_eq!(host.wait_exit().code(), Some(1), "{app}");
        assert!(host.lines_with(said::WORKER_SPAWNED).is_empty(), "{app}");
    }
}

#[test]
fn second_master_with_the_same_pid_file_is_refused() {
    let host = Host::misbehaving().start();
    let before = host.serving();
    let output = app_host(&host, &["run", "app-host.json"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(&host.master().to_string()), "it names the first: {}", stderr(&output));
    host.assert_all_serve(&before);
}

#[test]
fn pid_file_names_the_master_and_is_gone_after_it() {
    let host = Host::misbehaving().start();
    let path = host.path("state/app-host.pid");
    assert_eq!(fs::read_to_string(&path).unwrap().trim(), host.master().to_string());
    host.stop();
    assert!(!path.exists());
}

#[test]
fn pid_file_of_a_killed_master_is_taken_over() {
    let host = Host::misbehaving().start();
    host.signal(Signal::SIGKILL);
    host.wait_exit();
    let path = host.path("state/app-host.pid");
    assert!(path.exists());
    let mark = host.mark();
    host.spawn();
    host.wait_after(mark, said::SERVING, |_| true);
    assert_eq!(fs::read_to_string(&path).unwrap().trim(), host.master().to_string());
}

#[test]
fn everyone_is_called_app_host_even_when_the_binary_is_not() {
    let host = Host::misbehaving();
    let link = host.path("other-name");
    symlink(App::build().host(), &link).unwrap();
    let host = host.with_binary(&link).start();
    assert_eq!(process::name(host.master()), "app-host");
    assert_eq!(host.workers().len(), 2);
}

#[test]
fn replaced_binary_does_not_matter_to_a_running_master() {
    // Workers are spawned from the binary that runs, not from what lies at its path.
    let host = Host::misbehaving();
    let binary = host.path("app-host-copy");
    program::copy(App::build().host(), &binary);
    let host = host.with_binary(&binary).start();
    fs::remove_file(&binary).unwrap();
    fs::write(&binary, "#!/bin/sh\nexit 1\n").unwrap();
    host.restart_completes();
}

#[test]
fn an_answer_that_cannot_be_written_is_no_success_and_a_closed_standard_error_no_panic() {
    let app = App::build();
    let host = Host::misbehaving().start();
    let config = host.config_path();
    let socket = host.path("state/control.sock");
    let library = app.example();
    let commands: [Vec<&OsStr>; 5] = [
        vec!["check".as_ref(), config.as_ref()],
        vec!["inspect".as_ref(), library.as_ref()],
        vec!["inspect".as_ref(), "--json".as_ref(), library.as_ref()],
        vec!["ctl".as_ref(), "--socket".as_ref(), socket.as_ref(), "status".as_ref()],
        vec!["completions".as_ref(), "bash".as_ref()],
    ];
    for arguments in &commands {
        let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
        let mut command = Command::new(app.host());
        command.args(arguments);
        let output = command.stdout(full()).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains("can't be written: No space left on device"), "{}", stderr(&output));
        let status = command.stdout(full()).stderr(full()).status().unwrap();
        assert_eq!(status.code(), Some(1), "{arguments:?}");
        // Who has seen enough isn't told that it was too little.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let status = command.stdout(writer).stderr(full()).status().unwrap();
        assert_eq!(status.code(), Some(0), "{arguments:?}");
    }
    for arguments in [&["check", "/none.json"][..], &["inspect", "/none.so"], &["ctl", "--socket", "/none", "status"]] {
        let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
        let status = Command::new(app.host()).args(arguments).stdout(full()).stderr(full()).status().unwrap();
        assert!(matches!(status.code(), Some(1 | 5)), "{arguments:?}: {status}");
    }
}

#[test]
fn a_command_that_fails_ends_although_nobody_reads_why() {
    let host = Host::misbehaving();
    host.write_config(b"{");
    for command in ["run", "check"] {
        let (_reader, mut writer) = std::io::pipe().unwrap();
        fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
        writer.write_all(&[b'x'; 4096]).unwrap();
        let mut child =
            Command::new(App::build().host()).arg(command).arg(host.config_path()).stderr(writer).spawn().unwrap();
        let status = host.wait("its end", || child.try_wait().unwrap());
        assert_eq!(status.code(), Some(1), "{command}");
    }
}
