//! Signals as operators, terminals and container engines send them.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use app_host_tests::{App, Host, process, said};
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::Signal;
use serde_json::json;

#[test]
fn sigquit_stops_a_master_that_is_process_1() {
    let host = Host::misbehaving().launched_with(&["--pid-namespace"]).start();
    let workers = host.serving();
    host.assert_all_serve(&workers);
    host.signal(Signal::SIGQUIT);
    assert_eq!(host.wait_exit().code(), Some(0));
    host.wait_for(said::STOPPED, |_| true);
    for line in host.lines_with(said::WORKER_EXITED) {
        assert_eq!(line.str("status"), "exit 0", "{}", line.text());
    }
}

#[test]
fn sigquit_while_the_master_starts_ends_it() {
    let host = Host::misbehaving().with("/app/config", json!({ "start_ms": 60_000 }));
    host.spawn();
    host.wait_for(said::WORKER_SPAWNED, |_| true);
    host.signal(Signal::SIGQUIT);
    host.wait_for(said::WORKER_DRAINS, |_| true);
    host.signal(Signal::SIGQUIT);
    assert_eq!(host.wait_exit().code(), Some(0));
}

/// A program whose controlling terminal is a new one; the end that is held is the terminal's other side.
struct Session {
    leader: Child,
    terminal: Option<OwnedFd>,
}

impl Session {
    fn begin(host: &Host, script: &str) -> Self {
        host.restore_config();
        // Closed on exec from its first moment: a child with the other side would keep the terminal open.
        let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let slave =
            File::options().read(true).write(true).custom_flags(libc::O_NOCTTY).open(ptsname_r(&master).unwrap());
        let slave = slave.unwrap();
        let mut command = Command::new("setsid");
        command.args(["--ctty", "bash", "-c", script, "bash"]).arg(App::build().host()).arg(host.config_path());
        command.current_dir(host.directory()).stdin(slave.try_clone().unwrap());
        command.stdout(slave.try_clone().unwrap()).stderr(slave);
        Self { leader: command.spawn().unwrap(), terminal: Some(master.into()) }
    }

    /// Closes the terminal: what its window does, or a connection that breaks.
    fn hang_up(&mut self) {
        self.terminal = None;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.leader.kill();
        let _ = self.leader.wait();
    }
}

/// A master that logs to the fixture's log, in whatever way it is started.
fn logging_to_file() -> Host {
    Host::misbehaving().with("/log/file", "log")
}

fn master(host: &Host) -> u32 {
    host.wait_for(said::SERVING, |_| true);
    fs::read_to_string(host.path("state/app-host.pid")).unwrap().trim().parse().unwrap()
}

/// As `Host::verdict`, for a master that a shell has started.
fn assert_completes(host: &Host, request: u64) {
    host.wait_for(said::RESTART_COMPLETE, |line| line.number("request") == Some(request));
}

#[track_caller]
fn assert_stops_in_order(host: &Host, master: u32) {
    host.wait_for(said::STOPPED, |_| true);
    host.wait("the master's end", || (!process::is_alive(master)).then_some(()));
    assert!(host.lines_with(said::RESTART_REQUESTED).is_empty(), "nobody has deployed");
    for line in host.lines_with(said::WORKER_EXITED) {
        assert_eq!(line.str("status"), "exit 0", "{}", line.text());
    }
}

#[test]
fn a_terminal_that_goes_stops_the_service_in_order_and_is_no_deploy() {
    // The master itself has the session, a shell that waits for it, and one with job control.
    for script in ["exec \"$1\" run \"$2\"", "\"$1\" run \"$2\"; true", "set -m; \"$1\" run \"$2\" & fg %1"] {
        let host = logging_to_file();
        let mut session = Session::begin(&host, script);
        let master = master(&host);
        session.hang_up();
        assert_stops_in_order(&host, master);
        host.wait_for("the terminal has gone: the service stops, as programs in a terminal do", |_| true);
    }
}

#[test]
fn a_shell_that_passes_the_hangup_on_to_its_jobs_stops_them() {
    // What an interactive bash does when its terminal goes (bash(1), "SIGNALS"): it is another process that sends it.
    let host = logging_to_file();
    let script = "set -m; trap 'kill -HUP $!; exit' HUP; \"$1\" run \"$2\" & wait";
    let mut session = Session::begin(&host, script);
    let master = master(&host);
    session.hang_up();
    assert_stops_in_order(&host, master);
}

#[test]
fn sighup_by_hand_is_a_restart_with_a_terminal_and_when_it_is_long_gone() {
    let host = logging_to_file();
    // A job in the background whose shell ends without a word: the terminal's end isn't told to it.
    let mut session = Session::begin(&host, "set -m; \"$1\" run \"$2\" & sleep 1000");
    let master = master(&host);
    process::signal(master, Signal::SIGHUP);
    assert_completes(&host, 1);
    let _ = session.leader.kill();
    let _ = session.leader.wait();
    session.hang_up();
    host.wait("the terminal's end", || {
        let stat = fs::read_to_string(format!("/proc/{master}/stat")).unwrap();
        (stat.rsplit_once(')').unwrap().1.split_whitespace().nth(4) == Some("0")).then_some(())
    });
    process::signal(master, Signal::SIGHUP);
    assert_completes(&host, 2);
    assert_eq!(host.lines_with(said::RESTART_REQUESTED).iter().filter(|line| line.str("by") == "SIGHUP").count(), 2);
    process::signal(master, Signal::SIGTERM);
    host.wait_for(said::STOPPED, |_| true);
}

#[test]
fn a_hangup_that_was_ignored_at_the_start_stays_ignored() {
    let host = logging_to_file();
    let mut session = Session::begin(&host, "nohup \"$1\" run \"$2\"");
    let master = master(&host);
    host.wait_for(
        "SIGHUP was ignored when the master was started, by nohup for instance, and stays so; SIGUSR2 restarts",
        |_| true,
    );
    assert!(process::has_signal(&process::status(master, "SigIgn").unwrap(), Signal::SIGHUP));
    process::signal(master, Signal::SIGHUP);
    session.hang_up();
    process::signal(master, Signal::SIGUSR2);
    assert_completes(&host, 1);
    assert_eq!(host.lines_with(said::RESTART_REQUESTED).len(), 1);
    host.assert_all_serve(&host.serving());
    process::signal(master, Signal::SIGTERM);
    host.wait_for(said::STOPPED, |_| true);
}

#[test]
fn a_background_job_of_a_terminal_that_lets_none_write_logs_and_rests() {
    let host = Host::misbehaving().with("/log/level", "info").with("/workers", 3);
    let script = "stty tostop; set -m; \"$1\" run \"$2\" & wait";
    let session = Session::begin(&host, script);
    let mut shown = String::new();
    let mut terminal = File::from(session.terminal.as_ref().unwrap().try_clone().unwrap());
    let mut read_until = |what: &str| {
        let mut chunk = [0; 4096];
        while !shown.contains(what) {
            let readable = poll(&mut [PollFd::new(terminal.as_fd(), PollFlags::POLLIN)], PollTimeout::from(20_000_u16));
            assert_eq!(readable, Ok(1), "no {what} on the terminal: {shown}");
            let length = terminal.read(&mut chunk).unwrap();
            shown.push_str(&String::from_utf8_lossy(&chunk[..length]));
        }
    };
    read_until("\"serving\"");
    let master: u32 = fs::read_to_string(host.path("state/app-host.pid")).unwrap().trim().parse().unwrap();
    let group = |pid: u32| nix::unistd::getpgid(Some(nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap()))).unwrap();
    assert_ne!(group(master), group(session.leader.id()), "it is a job of its own");
    let (before, began) = (process::cpu_time(master).unwrap(), Instant::now());
    process::signal(master, Signal::SIGUSR1);
    process::signal(master, Signal::SIGUSR2);
    read_until("\"complete\"");
    let used = process::cpu_time(master).unwrap().checked_sub(before).unwrap();
    assert!(used < Duration::from_secs(1) + began.elapsed() / 2, "{used:?} of {:?}", began.elapsed());
    assert!(!shown_scaled(&host), "SIGTTOU takes workers away, and nobody has sent one");
    process::signal(master, Signal::SIGTERM);
    host.wait("the master's end", || (!process::is_alive(master)).then_some(()));
}

fn shown_scaled(host: &Host) -> bool {
    let status = host.control().ask_json("STATUS");
    status["workers"].as_array().unwrap().len() != 3
}

#[test]
fn a_file_that_may_not_grow_is_an_error_and_nobodys_death() {
    let host = Host::misbehaving().start();
    let workers = host.serving();
    let limit = |pid: u32, bytes: &str| {
        let limited = Command::new("prlimit").args(["--pid", &pid.to_string(), &format!("--fsize={bytes}:")]).status();
        assert!(limited.unwrap().success());
    };
    for pid in &workers {
        limit(*pid, "0");
        process::signal(*pid, Signal::SIGUSR2);
    }
    host.assert_all_serve(&workers);
    let room = fs::metadata(host.path("log")).unwrap().len() + 100_000;
    limit(host.master(), &room.to_string());
    host.install_fresh(&App::build().app("misbehaving"));
    host.signal(Signal::SIGUSR2);
    let verdict = host.verdict(1);
    assert_eq!(verdict.verdict, "refused: bad artifact");
    host.assert_all_serve(&workers);
    limit(host.master(), "unlimited");
    for pid in &workers {
        limit(*pid, "unlimited");
    }
    // The soft limit may be raised again by anybody.
    host.signal(Signal::SIGUSR2);
    assert_eq!(host.verdict(2).verdict, "complete");
}

#[test]
fn a_first_start_that_may_write_no_file_says_why() {
    let host = Host::misbehaving();
    host.restore_config();
    let script = "ulimit -f 64; exec \"$1\" run \"$2\"";
    let output = Command::new("bash")
        .args(["-c", script, "bash"])
        .arg(App::build().host())
        .arg(host.config_path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("File too large"), "{said}");
}
