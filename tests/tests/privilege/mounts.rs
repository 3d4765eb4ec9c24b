//! Machines that forbid what a start needs: file systems without exec, no `/proc`, a user namespace.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use app_host_tests::{App, Host, process, said};
use nix::sys::signal::Signal;

use super::nobody;

/// Runs `check` where a script has mounted something first; says whether it accepts, and its words.
fn checked(host: &Host, prepare: &str) -> (bool, String) {
    host.restore_config();
    let script = format!("{prepare} && exec \"$@\"");
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script, "sh"]).arg(App::build().host()).arg("check").arg(host.config_path());
    let output = command.current_dir(host.directory()).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
#[ignore = "second ring: needs root"]
fn check_says_what_run_would_say_where_a_file_system_is_mounted_noexec() {
    let mount = "mount -t tmpfs -o mode=755,noexec none";
    let host = Host::misbehaving();
    for name in ["state", "elsewhere"] {
        fs::create_dir(host.path(name)).unwrap();
    }
    for place in ["state", "elsewhere"] {
        let (accepted, said) = checked(&host, &format!("{mount} {place} && export TMPDIR=\"$PWD/elsewhere\""));
        assert_eq!(accepted, place == "elsewhere", "{place}: {said}");
        assert_eq!(accepted, !said.contains("state_dir: ") || !said.contains("mounted noexec"), "{place}: {said}");
        let script = format!("{mount} {place} && shift && exec \"$@\"");
        let run = Host::misbehaving().launched_with(&["--", "unshare", "--mount", "sh", "-c", &script, "sh"]);
        for name in ["state", "elsewhere"] {
            fs::create_dir(run.path(name)).unwrap();
        }
        run.spawn();
        if accepted {
            run.wait_for(said::SERVING, |_| true);
            run.stop();
        } else {
            assert_eq!(run.wait_exit().code(), Some(1));
        }
    }
    // Where there is no state directory yet, its parent says it.
    fs::remove_dir(host.path("state")).unwrap();
    let host = host.with("/state_dir", "elsewhere/a/state");
    let (accepted, said) = checked(&host, &format!("{mount} elsewhere"));
    assert!(
        !accepted && said.contains("elsewhere/a/state/versions lies on a file system that is mounted noexec"),
        "{said}"
    );
    assert_eq!(fs::read_dir(host.path("elsewhere")).unwrap().count(), 0, "check makes nothing");
    // What others may write to is refused by both.
    fs::create_dir(host.path("state")).unwrap();
    fs::set_permissions(host.path("state"), fs::Permissions::from_mode(0o777)).unwrap();
    let (accepted, said) = checked(&host.with("/state_dir", "state"), "true");
    assert!(!accepted && said.contains("others may write to it"), "{said}");
}

#[test]
#[ignore = "second ring: needs root"]
fn a_file_system_that_becomes_noexec_is_blamed_and_no_library() {
    let script = "mount -t tmpfs -o mode=755 none state && shift && exec \"$@\"";
    let host = Host::misbehaving().launched_with(&["--", "unshare", "--mount", "sh", "-c", script, "sh"]);
    fs::create_dir(host.path("state")).unwrap();
    let host = host.start();
    let remount = |option: &str| {
        let state = host.path("state");
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &host.master().to_string(), "--mount", "mount", "-o"])
            .arg(format!("remount,{option}"));
        assert!(command.arg(state).status().unwrap().success());
    };
    remount("noexec");
    host.install_fresh(&App::build().app("misbehaving"));
    let detail = host.restart_is_refused("bad config");
    assert!(detail.contains("state_dir: ") && detail.contains("mounted noexec"), "{detail}");
    let mark = host.mark();
    process::signal(host.serving()[0], Signal::SIGKILL);
    let line = host.wait_after(mark, said::WORKER_UNABLE, |_| true);
    let detail = line.str("detail");
    assert!(detail.contains("no fault of the library's") && detail.contains("app.so is refused"), "{detail}");
    remount("exec");
    host.wait_after(mark, said::WORKER_READY, |_| true);
    host.restart_completes();
}

#[test]
#[ignore = "second ring: needs root"]
fn a_start_that_fails_for_what_the_machine_is_like_says_so() {
    for (prepare, expected) in [
        ("umount -l /proc", "expected proc(5) to be mounted at /proc"),
        ("mount -t tmpfs -o mode=755,noexec none \"$0\"", "mounted noexec, and no library can be loaded from there"),
        ("mount -t tmpfs -o mode=755,ro none \"$0\"", "Read-only file system"),
    ] {
        let host = Host::misbehaving();
        let state = host.path("state");
        fs::create_dir(&state).unwrap();
        // A `--` comes before the program.
        let script = format!("{prepare} && shift && exec \"$@\"");
        let arguments = ["--", "unshare", "--mount", "sh", "-c", &script, state.to_str().unwrap()];
        let host = host.launched_with(&arguments);
        host.spawn();
        assert_eq!(host.wait_exit().code(), Some(1), "{prepare}");
        let report = host.report();
        assert!(report.contains(expected), "{prepare}: {report}");
    }
    let host =
        Host::misbehaving().with("/user", nobody().name).launched_with(&["--", "unshare", "--user", "--map-root-user"]);
    host.spawn();
    assert_eq!(host.wait_exit().code(), Some(1));
    let expected = "which this process's user namespace doesn't know (/proc/self/uid_map)";
    assert!(host.report().contains(expected), "{}", host.report());
}
