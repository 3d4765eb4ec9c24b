//! The socket's file: whose it is, who may open it, and what becomes of it.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;

use app_host_tests::{Host, process, said};
use nix::sys::signal::Signal;

#[test]
fn control_socket_can_not_change_under_running_workers() {
    let mut host = Host::misbehaving().start();
    host.set("/control_socket", "elsewhere.sock");
    let detail = host.restart_is_refused("incompatibility");
    assert!(detail.contains("control_socket"), "{detail}");
}

#[test]
fn faults_29_a_stale_socket_is_replaced_and_is_private_from_its_first_moment() {
    let host = Host::misbehaving();
    let path = host.path("state/control.sock");
    fs::create_dir(host.path("state")).unwrap();
    drop(UnixListener::bind(&path).unwrap());
    let host = host.start();
    let mode = fs::symlink_metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(host.control().ask("VERSION").starts_with("ACK "));
    // A master that was killed leaves a stale one.
    process::signal(host.master(), Signal::SIGKILL);
    host.wait_exit();
    assert!(path.exists());
    let mark = host.mark();
    host.spawn();
    host.wait_after(mark, said::SERVING, |_| true);
    assert!(host.control().ask("VERSION").starts_with("ACK "));
    host.stop();
    assert!(!path.exists());
}

#[test]
fn faults_29_a_live_socket_and_what_is_no_socket_are_left_alone_and_the_start_refused() {
    let host = Host::misbehaving();
    let path = host.path("state/control.sock");
    fs::create_dir(host.path("state")).unwrap();
    let live = UnixListener::bind(&path).unwrap();
    host.spawn();
    assert_eq!(host.wait_exit().code(), Some(1));
    assert!(host.report().contains("in use by another process"), "it says so");
    assert!(fs::symlink_metadata(&path).unwrap().file_type().is_socket());
    drop(live);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "precious").unwrap();
    host.spawn();
    assert_eq!(host.wait_exit().code(), Some(1));
    assert!(host.report().contains("something that is no socket lies there"), "it says so");
    assert_eq!(fs::read(&path).unwrap(), b"precious");
}

#[test]
fn no_child_inherits_the_control_socket() {
    let host = Host::misbehaving().start();
    let sockets = |pid: u32| -> Vec<String> {
        process::descriptors(pid).into_iter().map(|(_, target)| target.display().to_string()).collect()
    };
    let text = fs::read_to_string("/proc/net/unix").unwrap();
    let path = host.path("state/control.sock").display().to_string();
    let inode = text.lines().find(|line| line.ends_with(&path)).unwrap().split_whitespace().nth(6).unwrap();
    let name = format!("socket:[{inode}]");
    assert!(sockets(host.master()).contains(&name));
    let _held = host.control();
    host.restart_completes();
    for pid in host.workers() {
        assert!(!sockets(pid).contains(&name));
    }
}

#[test]
fn a_control_socket_and_a_pid_file_that_were_removed_come_back() {
    const MADE: &str = "the master's own file was removed or replaced, and is made anew";
    let host = Host::misbehaving().start();
    let (socket, pid_file) = (host.path("state/control.sock"), host.path("state/app-host.pid"));
    let mut before = host.control();
    let pid = fs::read_to_string(&pid_file).unwrap();
    let is_back = |mark: usize, what: &[&str]| {
        // The control socket is made first.
        for what in what {
            host.wait_after(mark, MADE, |line| line.str("what") == *what);
        }
        assert_eq!(fs::symlink_metadata(&socket).unwrap().permissions().mode() & 0o7777, 0o600);
        assert!(host.control().ask("VERSION").starts_with("ACK "));
        assert_eq!(fs::read_to_string(&pid_file).unwrap(), pid);
    };
    // By itself, within seconds; a stale file of somebody's is no reason not to.
    let mark = host.mark();
    fs::remove_file(&socket).unwrap();
    is_back(mark, &["control socket"]);
    // At SIGUSR1 at once, and at a restart.
    for signal in [Signal::SIGUSR1, Signal::SIGUSR2] {
        let mark = host.mark();
        fs::write(host.path("stale"), "4711\n").unwrap();
        fs::rename(host.path("stale"), &pid_file).unwrap();
        fs::remove_file(&socket).unwrap();
        host.signal(signal);
        is_back(mark, &["control socket", "pid file"]);
    }
    assert!(before.ask("VERSION").starts_with("ACK "), "who was connected still is");
    // What is somebody else's is left alone, said once, and given up when it goes.
    let mark = host.mark();
    fs::remove_file(&socket).unwrap();
    fs::write(&socket, "precious").unwrap();
    for _ in 0..2 {
        host.signal(Signal::SIGUSR1);
        host.wait_after(mark, said::LOGS_REOPENED, |_| true);
    }
    assert_eq!(fs::read_to_string(&socket).unwrap(), "precious");
    let complaints = host.look(mark, |new| new.iter().filter(|line| line.msg().contains("nobody finds it")).count());
    assert_eq!(complaints, 1);
    fs::remove_file(&socket).unwrap();
    host.signal(Signal::SIGUSR1);
    is_back(mark, &["control socket"]);
    host.stop();
    assert!(!socket.exists() && !pid_file.exists(), "they go with the master");
}
