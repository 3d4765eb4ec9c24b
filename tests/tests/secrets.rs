//! No key of TLS is seen outside the processes that need it: that of a certificate, those of session tickets, those of connections.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;

use app_host_tests::host::pause;
use app_host_tests::secrets::{Secret, Shown, Told, found};
use app_host_tests::tls::{Authority, Files, Trust};
use app_host_tests::{Address, App, Connection, Host, machine, process, said};
use nix::sys::signal::Signal;
use nix::unistd::{User, getuid};
use rustix::process::{Resource, Rlimit};
use rustls::HandshakeKind;
use serde_json::{Value, json};

fn listener(files: &Files) -> Value {
    json!([{ "address": "127.0.0.2:0", "name": "https", "tls": { "certificates": [files.config()] } }])
}

/// Whole handshakes and resumed ones, of both versions, on connections that are kept over a restart.
fn talk(host: &Host, trusts: &[Trust]) {
    let at = host.address_of("https").tcp();
    let mut kept: Vec<Connection> = Vec::new();
    for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
        for trust in trusts {
            let mut connection = Connection::connect(&Address::Tls(at, trust.clone())).unwrap();
            // The answer brings the ticket.
            assert_eq!(connection.get("/whoami").unwrap(), 200);
            assert_eq!(connection.tls().handshake_kind(), Some(expected));
            kept.push(connection);
        }
        host.restart_completes();
    }
    for connection in &mut kept {
        assert_eq!(connection.get("/whoami").unwrap(), 200);
    }
}

/// Every file below a directory.
fn files_in(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_in(&path) } else { vec![path] }).collect()
}

#[test]
fn no_key_is_in_a_log_a_file_an_answer_an_environment_or_a_command_line() {
    let host = Host::misbehaving().with("/log/level", "trace").with("/access_log", json!({ "file": "access" }));
    let authority = Authority::new(host.directory());
    let files = authority.localhost();
    let key_log = host.path("key-log");
    let host = host
        // Else nobody but root may look into the processes.
        .with("/core_dumps", true)
        .with("/admin", "127.0.0.1:0")
        .with("/listen", listener(&files))
        // Some libraries write the keys of connections there.
        .with_variable("SSLKEYLOGFILE", &key_log)
        .start();
    let told = Arc::new(Told::default());
    let trusts = [&[&rustls::version::TLS12][..], &[&rustls::version::TLS13]]
        .map(|versions| authority.trust_with("localhost", versions, None).telling(told.clone()));

    let (shown, going) = (Mutex::new(Shown::default()), AtomicBool::new(true));
    let sees = |role: &str| shown.lock().unwrap().roles.contains(role).then_some(());
    let master = host.master();
    thread::scope(|scope| {
        scope.spawn(|| {
            while going.load(Relaxed) {
                shown.lock().unwrap().look(master);
                pause();
            }
        });
        let talked = thread::Builder::new().spawn_scoped(scope, || {
            talk(&host, &trusts);
            host.wait("a look at the check of certificates", || {
                let mut command = Command::new(App::build().host());
                command.args(["ctl", "--config"]).arg(host.config_path()).arg("reload-certificates");
                assert!(command.output().unwrap().status.success());
                sees("internal-tls-check")
            });
        });
        let talked = talked.unwrap().join();
        going.store(false, Relaxed);
        talked.unwrap();
    });
    assert!(sees("internal-worker").is_some() && sees("run").is_some());

    let (key, tickets, connections) = (Secret::of_key(&files), Secret::of_tickets(host.master()), told.secrets());
    assert!(key.len() == 2 && tickets.len() == 1 && connections.len() > 8, "{key:?} {tickets:?} {connections:?}");
    assert!(key.iter().all(|secret| secret.is_in(&fs::read(&files.key).unwrap())), "who looks there finds it");
    let secrets: Vec<_> = key.into_iter().chain(tickets).chain(connections).collect();
    let mut answers = vec![host.control().ask("STATUS").into_bytes(), format!("{:?}", host.metrics()).into_bytes()];
    answers.extend(shown.into_inner().unwrap().texts);
    for answer in &answers {
        assert_eq!(found(&secrets, answer), [].into(), "{}", String::from_utf8_lossy(answer));
    }
    assert!(!key_log.exists());
    let mut looked_at = 0;
    let is_app = |file: &Path| file == host.library_path() || file.starts_with(host.path("state/versions"));
    for file in files_in(host.directory()).into_iter().filter(|file| *file != files.key && !is_app(file)) {
        let Ok(bytes) = fs::read(&file) else { continue };
        assert_eq!(found(&secrets, &bytes), [].into(), "{}", file.display());
        looked_at += usize::from(file.ends_with("log") || file.ends_with("access"));
    }
    assert_eq!(looked_at, 2, "both logs");
}

/// As large core dumps as there may be, in files where a process is, until the end of the test.
struct CoreDumps {
    pattern: String,
    limit: Rlimit,
}

const PATTERN: &str = "/proc/sys/kernel/core_pattern";

impl CoreDumps {
    fn here() -> Self {
        assert!(getuid().is_root(), "only root can say where core dumps go");
        let pattern = fs::read_to_string(PATTERN).unwrap();
        let limit = rustix::process::getrlimit(Resource::Core);
        rustix::process::setrlimit(Resource::Core, Rlimit { current: None, maximum: None }).unwrap();
        fs::write(PATTERN, "core").unwrap();
        Self { pattern, limit }
    }
}

impl Drop for CoreDumps {
    fn drop(&mut self) {
        let _ = fs::write(PATTERN, &self.pattern);
        let _ = rustix::process::setrlimit(Resource::Core, self.limit);
    }
}

/// What the core dumps in a directory hold; they are removed.
fn dumped(directory: &Path) -> Vec<Vec<u8>> {
    let is_core = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("core"));
    let take = |path: PathBuf| {
        let bytes = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        bytes
    };
    files_in(directory).into_iter().filter(is_core).map(take).collect()
}

/// An RSA key, which the library for tests can't make.
fn rsa() -> String {
    let made = Command::new("openssl").args(["genpkey", "-quiet", "-algorithm", "RSA"]).output();
    let made = made.expect("openssl is needed");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    String::from_utf8(made.stdout).unwrap()
}

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn no_core_dump_has_a_key_unless_they_are_allowed() {
    let _alone = machine::alone();
    let _core_dumps = CoreDumps::here();
    let nobody = User::from_name("nobody").unwrap().expect("there is a user nobody");
    // A master of another user than root, which may dump as well; one that has had no TLS in the beginning.
    for (allowed, later) in [(Some(true), false), (None, false), (None, true)] {
        let host = Host::misbehaving().launched_with(&["--user", &nobody.uid.to_string()]);
        let authority = Authority::new(host.directory());
        let files = authority.sign_key("rsa", &rsa());
        for path in [host.directory(), &files.key] {
            chown(path, Some(nobody.uid.as_raw()), Some(nobody.gid.as_raw())).unwrap();
        }
        let mut host = host.with("/core_dumps", allowed);
        if later {
            host = host.start();
        }
        host.set("/listen", listener(&files));
        if later {
            host.restart_completes();
        } else {
            host = host.start();
        }
        talk(&host, &[authority.trust("localhost")]);
        let secrets: Vec<_> = Secret::of_key(&files).into_iter().chain(Secret::of_tickets(host.master())).collect();

        let worker = host.serving()[0];
        process::signal(worker, Signal::SIGABRT);
        let exited = host.wait_for(said::WORKER_EXITED, |line| line.worker_pid() == worker);
        let of_worker = dumped(host.directory());
        host.signal(Signal::SIGABRT);
        let master = host.wait_exit();
        let of_master = dumped(host.directory());
        assert_eq!(master.signal(), Some(Signal::SIGABRT as i32));
        if allowed.is_some() {
            assert_eq!((exited.str("status"), master.core_dumped()), ("signal 6 (core dumped)", true));
            for (who, dumps) in [("worker", of_worker), ("master", of_master)] {
                assert_eq!(dumps.len(), 1, "{who}");
                let found = found(&secrets, &dumps[0]);
                println!("{who}: {} bytes of core dump have {found:?}", dumps[0].len());
                assert!(!found.is_empty(), "who looks there finds it");
            }
        } else {
            assert_eq!((exited.str("status"), master.core_dumped()), ("signal 6", false), "later: {later}");
            assert_eq!((of_worker.len(), of_master.len()), (0, 0), "later: {later}");
        }
    }
}
