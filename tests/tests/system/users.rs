//! Other users: those that the workers and the admin process are, and strangers.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use app_host_tests::databank::Client;
use app_host_tests::{App, Host, process, said};

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
