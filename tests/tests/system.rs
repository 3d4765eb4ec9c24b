//! The second ring: what needs root (or a kernel that lets users make namespaces) or tools of the
//! system besides Rust. Run with `-- --ignored`; it says what is missing. `BUNYAN` is the path
//! of bunyan's reader where that isn't on the PATH, `PROMTOOL` that of Prometheus' promtool.
//!
//! `killall` is psmisc's. It runs in a process namespace of its own, because it would reach the
//! masters of other tests as well.

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use app_host_tests::build::workspace;
use app_host_tests::databank::Client;
use app_host_tests::{Address, App, Connection, Host, process, said};
use nix::sys::signal::Signal;
use nix::unistd::User;
use serde_json::{Value, json};

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn killall_of_psmisc_restarts_and_kills_nobody() {
    let host = Host::misbehaving().launched_with(&["--pid-namespace"]).start();
    let workers = host.workers();
    let output = Command::new("nsenter")
        .args(["--target", &host.master().to_string(), "--pid", "--mount"])
        .args(["sh", "-c", "mount -t proc proc /proc && exec killall -USR2 app-host"])
        .output()
        .expect("nsenter (util-linux) is needed");
    assert!(output.status.success(), "killall (psmisc) is needed: {}", String::from_utf8_lossy(&output.stderr));
    for _ in &workers {
        host.wait_for(said::SIGNAL_LEFT, |line| line.str("signal").contains("USR2"));
    }
    assert_eq!(host.verdict(1).verdict, "complete");
    assert!(workers.iter().all(|pid| !process::is_alive(*pid)));
    host.assert_all_serve(&host.serving());
}

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn bunyans_own_reader_takes_every_line() {
    let host = Host::misbehaving().start();
    host.restart_completes();
    host.write_config(b"{");
    host.restart_is_refused("bad config");
    host.stop();
    let log = host.path("log");
    let output = Command::new(std::env::var_os("BUNYAN").unwrap_or_else(|| "bunyan".into()))
        // What is no bunyan line to it is left out in this mode.
        .args(["--strict", "-o", "bunyan"])
        .arg(&log)
        .output()
        .expect("bunyan's reader (npm install bunyan) is needed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read = String::from_utf8(output.stdout).unwrap();
    assert_eq!(read.lines().count(), fs::read_to_string(&log).unwrap().lines().count());
    assert!(read.contains("zero-downtime restart complete"));
}

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn full_disk_while_the_version_is_copied_is_refused_and_leaves_no_partial_copy() {
    // FAULTS 24: the state directory is a small file system of its own.
    let library = App::build().app("misbehaving");
    let size = fs::metadata(&library).unwrap().len();
    let host = Host::misbehaving();
    let state = host.path("state");
    fs::create_dir(&state).unwrap();
    let tmpfs = format!("{}={}", state.display(), size * 3);
    let host = host.launched_with(&["--tmpfs", &tmpfs]).start();
    let mut large = fs::read(&library).unwrap();
    large.resize(usize::try_from(size).unwrap() * 5, 0);
    host.install_bytes(&large);
    let detail = host.restart_is_refused("bad artifact");
    assert!(detail.contains("No space left"), "{detail}");
    // Seen through the master's own mounts.
    let versions = format!("/proc/{}/root{}/versions", host.master(), state.display());
    let left: Vec<_> = fs::read_dir(&versions).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 1, "{left:?}");
    host.install(&library);
    host.restart_completes();
}

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn process_1_reaps_orphans_and_never_takes_them_for_workers() {
    // FAULTS 27
    let host = Host::misbehaving().launched_with(&["--pid-namespace"]).start();
    let master = host.master();
    assert_eq!(process::status(master, "NSpid").unwrap().split_whitespace().last(), Some("1"));
    let workers = host.workers();
    assert_eq!(workers.len(), 2);
    // A worker's child outlives it: its end is the master's to see.
    assert_eq!(host.serving().len(), 2);
    let text = host.get("/orphan");
    let in_namespace: u32 = text.trim().parse().unwrap();
    let orphan = host.wait("the orphan", || {
        process::children(master).into_iter().find(|pid| {
            process::status(*pid, "NSpid")
                .is_some_and(|pids| pids.split_whitespace().last() == Some(in_namespace.to_string().as_str()))
        })
    });
    process::signal(orphan, Signal::SIGKILL);
    host.wait("the orphan to be reaped", || (!process::all().contains(&orphan)).then_some(()));
    assert_eq!(host.lines_with(said::WORKER_EXITED).len(), 0, "an orphan is no worker");
    assert_eq!(host.restart().verdict, "complete");
    assert!(process::zombies(master).is_empty());
    assert_eq!(host.workers().len(), 2);
    host.signal(Signal::SIGTERM);
    assert_eq!(host.wait_exit().code(), Some(0));
}

/// Runs a command of the shell in the namespaces of a master that is process 1 there.
fn within(host: &Host, command: &str) {
    let mount_and = format!("mount -t proc proc /proc && {command}");
    let output = Command::new("nsenter")
        .args(["--target", &host.master().to_string(), "--pid", "--mount", "sh", "-c", &mount_and])
        .output()
        .expect("nsenter (util-linux) is needed");
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn process_1_minds_signals_from_within_as_any_master_does() {
    // FAULTS 27: the kernel keeps from process 1 whatever it has no handler for; what it has one for, it gets.
    let host = Host::misbehaving().launched_with(&["--pid-namespace"]).start();
    within(&host, "kill -USR2 1");
    assert_eq!(host.verdict(1).verdict, "complete");
    within(&host, "kill -HUP 1");
    assert_eq!(host.verdict(2).verdict, "complete");
    within(&host, "kill -USR1 1");
    host.wait_for(said::LOGS_REOPENED, |_| true);
    // Neither kills it, whatever they do to others.
    within(&host, "kill -PIPE 1; kill -ALRM 1; kill -ABRT 1; kill -KILL 1");
    host.assert_all_serve(&host.serving());
    let workers = host.workers();
    within(&host, "kill -TERM 1");
    assert_eq!(host.wait_exit().code(), Some(0));
    assert!(workers.iter().all(|pid| !process::is_alive(*pid)));
}

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn process_1_reaps_a_crowd_of_orphans_while_a_hung_worker_is_replaced() {
    // FAULTS 27 and 9: the exits of both come together.
    let host = Host::misbehaving().with("/hang_timeout", "2s").launched_with(&["--pid-namespace"]).start();
    let master = host.master();
    let workers = host.workers();
    let (_pid_within, _connection) = host.block_a_thread();
    within(&host, "for n in $(seq 100); do (sleep 0.0$((n % 10)) &) ; done");
    host.wait_for(said::WORKER_HUNG, |_| true);
    within(&host, "for n in $(seq 100); do (sleep 0.0$((n % 10)) &) ; done");
    host.wait_for(said::WORKER_EXITED, |line| line.str("status").starts_with("signal 6"));
    host.wait("the new worker", || (host.serving().len() == 2).then_some(()));
    host.wait("the orphans to be reaped", || {
        let children = process::children(master);
        (process::zombies(master).is_empty() && children.len() == 2).then_some(())
    });
    assert_eq!(host.workers().iter().filter(|pid| workers.contains(pid)).count(), 1);
    assert_eq!(host.lines_with(said::WORKER_EXITED).len(), 1, "orphans are no workers");
}

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn sockets_of_systemds_own_activation_are_served_by_name_over_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (web, local) = (port.to_string(), path.to_str().unwrap());
    let arguments = ["--", "systemd-socket-activate", "-l", &web, "-l", local, "--fdname=web:local"];
    let listen = json!([{ "name": "local", "address": "unix:elsewhere" }, { "name": "web", "address": "127.0.0.2:0" }]);
    let host = Host::misbehaving().with("/listen", listen).launched_with(&arguments);
    host.spawn();
    // The first client is what the service is started for.
    let address = Address::parse(&web).unwrap();
    let mut first = host.wait("systemd-socket-activate (systemd is needed)", || Connection::connect(&address).ok());
    assert_eq!(first.get("/whoami").unwrap(), 200);
    host.wait_for(said::SERVING, |_| true);
    assert_eq!(host.address_of("web"), address);
    let mut other = Connection::connect(&host.address_of("local")).unwrap();
    assert_eq!(other.get("/whoami").unwrap(), 200);
    for _ in 0..3 {
        host.restart_completes();
        host.assert_all_serve(&host.serving());
    }
    assert_eq!(Connection::connect(&address).unwrap().get("/whoami").unwrap(), 200);
    host.stop();
    assert!(fs::exists(&path).unwrap(), "the file is systemd's");
}

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn control_socket_hears_nobody_of_another_user() {
    assert!(nix::unistd::getuid().is_root(), "only root can become another user");
    let user = nix::unistd::User::from_name("nobody").unwrap().expect("there is a user nobody");
    let host = Host::misbehaving().start();
    let socket = host.path("state/control.sock");
    let ask = |command: &str| {
        // Perl, because it lies where every user may run it.
        let script = "$SIG{PIPE} = 'IGNORE'; my $socket = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die qq($!\\n);
                      $socket->print(qq($ARGV[1]\\n)); $socket->flush; my $answer = <$socket>;
                      print 'heard ', $answer // 'nothing'";
        let mut perl = Command::new("/usr/bin/perl");
        perl.args(["-MIO::Socket::UNIX", "-e", script]).arg(&socket).arg(command);
        let output = perl.uid(user.uid.as_raw()).gid(user.gid.as_raw()).output().expect("perl is needed");
        [output.stdout, output.stderr].map(|it| String::from_utf8_lossy(&it).into_owned()).concat()
    };
    // The file's mode says so first,
    assert_eq!(ask("STOP"), "Permission denied\n");
    assert_eq!(host.lines_with(said::STRANGER_CLOSED).len(), 0);
    // and where somebody has weakened it, or was given a descriptor, the kernel's word does.
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    let mark = host.mark();
    assert_eq!(ask("STOP"), "heard NACK not allowed\n");
    let line = host.wait_after(mark, said::STRANGER_CLOSED, |_| true);
    assert_eq!(line.number("peer_uid"), Some(user.uid.as_raw().into()), "{}", line.text());
    assert!(line.number("peer_pid") > Some(1), "{}", line.text());
    // Nothing was stopped, and whose socket it is may still speak.
    host.assert_all_serve(&host.serving());
    assert!(host.ctl(&["status"]).status.success());
}

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn workers_run_as_the_configured_user_without_the_masters_privileges() {
    assert!(nix::unistd::getuid().is_root(), "only root can start workers as another user");
    let user = nix::unistd::User::from_name("nobody").unwrap().expect("there is a user nobody");
    let host = Host::misbehaving().with("/user", user.name).start();
    for _ in 0..2 {
        for pid in host.workers() {
            let ids = |key: &str| {
                process::status(pid, key).unwrap().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
            };
            assert_eq!(ids("Uid"), vec![user.uid.to_string(); 4]);
            assert_eq!(ids("Gid"), vec![user.gid.to_string(); 4]);
            assert_eq!(ids("CapEff"), ["0000000000000000"]);
            assert!(!ids("Groups").contains(&"0".to_owned()), "root's groups are gone");
        }
        host.assert_all_serve(&host.serving());
        host.restart_completes();
    }
}

/// From now on a user's process may open so many descriptors more; those that it has are kept. Says its limit.
fn leave_room_for(descriptors: usize, pid: u32, user: &User) -> u32 {
    let open: HashSet<u32> = process::descriptors(pid).into_iter().map(|(number, _)| number).collect();
    let limit = (1..).filter(|limit| !open.contains(&(limit - 1))).nth(descriptors - 1).expect("numbers don't end");
    // Root may not do it everywhere, the user himself may.
    let mut prlimit = Command::new("prlimit");
    prlimit.args(["--pid", &pid.to_string(), &format!("--nofile={limit}:{limit}")]);
    let output =
        prlimit.uid(user.uid.as_raw()).gid(user.gid.as_raw()).output().expect("prlimit (util-linux) is needed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    limit
}

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn too_many_descriptors_in_flight_hold_connections_up_and_end_none() {
    // The kernel lets a user without privileges have as many in flight as its sending process may have open
    // (ETOOMANYREFS, unix(7)).
    assert!(nix::unistd::getuid().is_root(), "only root can start workers as another user");
    let user = nix::unistd::User::from_name("nobody").unwrap().expect("there is a user nobody");
    let host = Host::misbehaving().with("/user", user.name.as_str()).with("/restart/probation", "1s").start();
    let open = |count: usize| -> Vec<Connection> {
        let mut connections: Vec<_> = (0..count).map(|_| host.connect()).collect();
        assert!(connections.iter_mut().all(|connection| connection.get("/whoami").unwrap() == 200));
        connections
    };
    let held = || {
        let status = host.control().ask_json("STATUS");
        status["workers"].as_array().unwrap().iter().map(|it| it["connections"].as_u64().unwrap()).sum::<u64>()
    };
    // These leave low numbers free for what a worker is sent when it drains: the links that it sends on.
    let first = open(40);
    let mut connections = open(600);
    drop(first);
    host.wait("the first connections to end", || (held() == 600).then_some(()));
    let before = host.serving();
    let mark = host.mark();
    host.signal(Signal::SIGUSR2);
    let candidate = host.wait_after(mark, said::WORKER_READY, |line| line.number("slot") == Some(0)).worker_pid();
    process::signal(candidate, Signal::SIGSTOP);
    host.wait("it to stand still", || process::is_stopped(candidate).then_some(()));
    let limits: Vec<_> = before.iter().map(|pid| leave_room_for(4, *pid, &user)).collect();
    let line = host.wait_after(mark, "connections wait for their turn to be sent", |_| true);
    process::signal(candidate, Signal::SIGCONT);
    println!("with limits of {limits:?} descriptors: {}", line.text());
    assert!(before.contains(&line.pid()), "{}", line.text());
    let refused = std::io::Error::from_raw_os_error(libc::ETOOMANYREFS).to_string();
    assert!(line.str("error").contains(&refused), "{}", line.text());
    assert_eq!(host.verdict(1).verdict, "complete");
    let now = host.serving();
    for connection in &mut connections {
        assert_eq!(connection.get("/whoami").expect("the connection lives"), 200);
        let answer: Value = serde_json::from_slice(connection.body()).unwrap();
        assert!(now.iter().any(|pid| answer["pid"] == *pid) && !connection.announced_close());
    }
    let exited = host.lines_with(said::WORKER_EXITED);
    let sum = |figure: &str| exited.iter().filter_map(|line| line.number(figure)).sum::<u64>();
    assert_eq!((exited.len(), sum("handed_over"), sum("closed"), sum("cut")), (2, 600, 0, 0));
}

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn process_that_serves_metrics_runs_as_the_workers_user_with_no_privilege() {
    assert!(nix::unistd::getuid().is_root(), "only root can start children as another user");
    let user = nix::unistd::User::from_name("nobody").unwrap().expect("there is a user nobody");
    let host = Host::misbehaving().with("/user", user.name).with("/admin", "127.0.0.1:0").start();
    let admin = host.admin_process().expect("there is one");
    let ids =
        |key: &str| process::status(admin, key).unwrap().split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(ids("Uid"), vec![user.uid.to_string(); 4]);
    assert_eq!(ids("Gid"), vec![user.gid.to_string(); 4]);
    assert_eq!(ids("CapEff"), ["0000000000000000"]);
    assert!(!ids("Groups").contains(&"0".to_owned()), "root's groups are gone");
    // Of the master's sockets it has the listener, of the workers' none, and no file of either.
    let sockets = |pid: u32| -> HashSet<PathBuf> {
        let targets = process::descriptors(pid).into_iter().map(|(_, target)| target);
        targets.filter(|target| target.to_string_lossy().starts_with("socket:")).collect()
    };
    assert_eq!(sockets(admin).intersection(&sockets(host.master())).count(), 1);
    assert!(host.workers().iter().all(|worker| sockets(admin).is_disjoint(&sockets(*worker))));
    let files = process::descriptors(admin);
    assert!(!files.iter().any(|(_, target)| target.starts_with(host.path("state"))), "{files:?}");
    let metrics = host.metrics();
    assert!(metrics.get("worker_resident_memory_bytes{slot=\"0\",generation=\"1\"}") > 1e5);
}

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn promtool_finds_nothing_to_say_about_the_metrics() {
    let host = Host::misbehaving().with("/admin", "127.0.0.1:0").start();
    host.get("/whoami");
    host.restart_completes();
    host.install_bytes(b"no library");
    host.restart_is_refused("bad artifact");
    let (status, text) = host.ask_admin("/metrics");
    assert_eq!(status, 200);
    let mut promtool = Command::new(std::env::var_os("PROMTOOL").unwrap_or_else(|| "promtool".into()))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool (Debian's package prometheus) is needed");
    promtool.stdin.take().expect("it is piped").write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success() && said.is_empty(), "{said}\n{text}");
}

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn promtool_understands_the_alerts() {
    let page = fs::read_to_string(app_host_tests::build::workspace().join("docs/operate/metrics.md")).unwrap();
    let (_, alerts) = page.split_once("## What to alert on").expect("the section");
    let expressions: Vec<_> = alerts.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |")).collect();
    assert!(expressions.len() > 7, "{expressions:?}");
    let rule = |(number, (expression, _)): (usize, &(&str, &str))| json!({ "alert": format!("Alert{number}"), "expr": expression });
    let rules: Vec<Value> = expressions.iter().enumerate().map(rule).collect();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("rules.yml");
    // JSON is YAML as well.
    fs::write(&file, json!({ "groups": [{ "name": "app-host", "rules": rules }] }).to_string()).unwrap();
    let output = Command::new(std::env::var_os("PROMTOOL").unwrap_or_else(|| "promtool".into()))
        .args(["check", "rules"])
        .arg(&file)
        .output()
        .expect("promtool (Debian's package prometheus) is needed");
    let said = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat();
    assert!(output.status.success() && said.contains(&format!("SUCCESS: {} rules found", rules.len())), "{said}");
}

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn workers_of_another_user_have_their_databank_and_nobody_else_reads_it() {
    assert!(nix::unistd::getuid().is_root(), "only root can start workers as another user");
    let user = nix::unistd::User::from_name("nobody").unwrap().expect("there is a user nobody");
    let host = Host::new(&App::build().app("databank")).with("/user", user.name).start();
    let sum = |host: &Host| {
        let answer = Client::new(host).increment("note", "a", "n", 1);
        answer.done()["sum"].as_u64()
    };
    assert_eq!(sum(&host), Some(1));
    host.restart_completes();
    assert_eq!(sum(&host), Some(2));
    for path in ["state/data", "state/data/databank.sqlite"] {
        let metadata = fs::metadata(host.path(path)).unwrap();
        assert_eq!(metadata.uid(), user.uid.as_raw(), "{path}");
        assert_eq!(metadata.mode() & 0o077, 0, "{path}");
    }
}

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn unit_files_are_ones_that_systemd_takes_and_calls_safe() {
    let unit = fs::read_to_string(workspace().join("host/systemd/app-host.service")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app-host.service");
    // Where it would be installed, nothing is; and the manual page is installed by whoever packages it.
    let unit = unit.replace("/usr/local/bin/app-host", App::build().host().to_str().unwrap());
    fs::write(&path, unit.replace("Documentation=man:app-host(1)\n", "")).unwrap();
    let socket = directory.path().join("app-host.socket");
    fs::copy(workspace().join("host/systemd/app-host.socket"), &socket).unwrap();
    for (words, unit) in [
        (&["verify", "--man=no"][..], &path),
        (&["verify", "--man=no"], &socket),
        // The master is root for systemd, however few capabilities it has: so that the workers are somebody else.
        (&["security", "--offline=true", "--threshold=30"], &path),
    ] {
        let output = Command::new("systemd-analyze").args(words).arg(unit).output().expect("systemd is needed");
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        assert!(output.status.success(), "{words:?}: {said}");
        if words[0] == "verify" {
            assert_eq!(said, "");
        }
    }
}
