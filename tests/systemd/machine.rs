//! A machine that runs a systemd of its own.
//!
//! `boot` makes the namespaces. What is written, read and connected to here is the machine's: files by its root in
//! `/proc`, connections by a thread in its network namespace, commands by `nsenter(1)`.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use app_host_tests::build::workspace;
use app_host_tests::host::pause;
use app_host_tests::machine::{Turn, beside};
use app_host_tests::{Address, Connection, Line, process};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::plan::{Plan, USER, set};

/// How long a wait may take.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A machine that runs, until it is dropped.
pub struct Machine {
    config: Value,
    directory: TempDir,
    launcher: Child,
    /// The machine ends with it.
    alive: Option<ChildStdin>,
    init: u32,
    _turn: Turn,
}

/// What a command came to.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub text: String,
    pub took: Duration,
}

impl Plan {
    /// Boots it, and waits until systemd has done what a boot is.
    pub fn boot(self) -> Machine {
        let machine = self.boot_no_further();
        machine.wait("the boot to end", || {
            let said = machine.run(&["systemctl", "is-system-running"]);
            matches!(said.text.trim(), "running" | "degraded").then_some(())
        });
        machine
    }

    /// Boots it, and doesn't wait for what it starts at its boot.
    pub fn boot_no_further(self) -> Machine {
        let turn = beside();
        self.write("etc/app-host/app-host.json", &self.config.to_string());
        let mut launcher = Command::new(workspace().join("tests/systemd/boot"))
            .arg(self.directory.path().join("root"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("bash is needed");
        let alive = launcher.stdin.take();
        let mut line = String::new();
        BufReader::new(launcher.stdout.take().expect("it is piped")).read_line(&mut line).expect("it can be read");
        let init = line.trim().parse().unwrap_or_else(|_| panic!("the machine can't be booted; what it said is above"));
        let machine = Machine { config: self.config, directory: self.directory, launcher, alive, init, _turn: turn };
        machine.wait("systemd to answer", || {
            (machine.run(&["systemctl", "show", "--property=Version"]).code == Some(0)).then_some(())
        });
        machine
    }
}

impl Machine {
    /// Its first process, as this machine numbers it.
    pub const fn init(&self) -> u32 {
        self.init
    }

    /// Who has booted it and waits for its end.
    pub fn launcher(&self) -> u32 {
        self.launcher.id()
    }

    /// Where this machine has what was laid into it.
    pub fn directory(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    /// Waits for a condition, for [`DEADLINE`] at most.
    pub fn wait<T>(&self, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(result) = condition() {
                return result;
            }
            assert!(Instant::now() < deadline, "waited in vain for {what}");
            pause();
        }
    }

    /// Runs a command in the machine, as root.
    pub fn run(&self, words: &[&str]) -> Said {
        self.run_for(60, words)
    }

    /// As [`run`](Self::run), for so many seconds at most.
    pub fn run_for(&self, seconds: u32, words: &[&str]) -> Said {
        let began = Instant::now();
        let mut command = Command::new("timeout");
        command
            .arg(seconds.to_string())
            .args(["nsenter", "--target", &self.init.to_string(), "--all", "--"])
            .args(words);
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin");
        let output = command.stdin(Stdio::null()).output().expect("nsenter (util-linux) is needed");
        let text = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat();
        Said { code: output.status.code(), text, took: began.elapsed() }
    }

    /// Runs a command that must succeed; what it says.
    pub fn ok(&self, words: &[&str]) -> String {
        let said = self.run(words);
        assert_eq!(said.code, Some(0), "{words:?}: {}", said.text);
        said.text
    }

    /// A property of a unit, as `systemctl show` has it.
    pub fn property(&self, unit: &str, name: &str) -> String {
        self.ok(&["systemctl", "show", "--value", &format!("--property={name}"), unit]).trim().to_owned()
    }

    /// Where a file of the machine is.
    pub fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.init))
    }

    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_default()
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("it lies in a directory")).expect("it is root's");
        fs::write(path, text).expect("it is root's");
    }

    /// Changes one setting of the configuration on disk.
    pub fn set(&mut self, pointer: &str, value: impl Into<Value>) {
        set(&mut self.config, pointer, value.into());
        self.write("/etc/app-host/app-host.json", &self.config.to_string());
    }

    /// The master of the service, as this machine numbers it.
    pub fn master(&self) -> u32 {
        let inside = self.property("app-host.service", "MainPID");
        self.processes()
            .into_iter()
            .find(|pid| {
                process::status(*pid, "NSpid").is_some_and(|pids| pids.split_whitespace().last() == Some(&inside))
            })
            .unwrap_or_else(|| panic!("there is no main process {inside}"))
    }

    /// The workers of the service, and what else runs as their user.
    pub fn workers(&self) -> Vec<u32> {
        let is_theirs = |pid: &u32| {
            process::status(*pid, "Uid").is_some_and(|ids| ids.starts_with(&USER.to_string()))
                && process::is_alive(*pid)
        };
        self.processes().into_iter().filter(is_theirs).collect()
    }

    /// Master, workers and helpers of the service.
    pub fn processes(&self) -> Vec<u32> {
        self.all_of_the_service().into_iter().filter(|pid| process::name(*pid) == "app-host").collect()
    }

    /// All processes of the service's cgroup, as this machine numbers them.
    pub fn all_of_the_service(&self) -> Vec<u32> {
        let namespace = fs::read_link(format!("/proc/{}/ns/pid", self.init)).expect("the machine runs");
        let is_ours = |pid: &u32| {
            fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|it| it == namespace)
                && fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|it| it.contains("/app-host.service"))
        };
        process::all().into_iter().filter(is_ours).collect()
    }

    pub fn signal(&self, pid: u32, signal: Signal) {
        process::signal(pid, signal);
    }

    /// Connects within the machine's network.
    pub fn connect(&self, address: &str) -> io::Result<Connection> {
        let address: SocketAddr = address.parse().expect("an address");
        let network = File::open(format!("/proc/{}/ns/net", self.init))?;
        let connect = move || {
            setns(network, CloneFlags::CLONE_NEWNET)?;
            Connection::connect(&Address::Tcp(address))
        };
        std::thread::spawn(connect).join().expect("it doesn't panic")
    }

    /// The status and the text of a request to the usual address, with a connection of its own.
    pub fn get(&self, path: &str) -> io::Result<(u16, String)> {
        self.get_at("127.0.0.1:8080", path)
    }

    pub fn get_at(&self, address: &str, path: &str) -> io::Result<(u16, String)> {
        let mut connection = self.connect(address)?;
        let status = connection.get(path)?;
        Ok((status, connection.text()))
    }

    /// Waits until a worker has a request in hand.
    pub fn wait_for_a_request(&self) {
        self.wait("a request to be in flight", || {
            let status: Value = serde_json::from_str(&self.ctl(&["status", "--json"]).text).ok()?;
            let workers = status["workers"].as_array()?;
            workers.iter().any(|worker| worker["in_flight"].as_u64() > Some(0)).then_some(())
        });
    }

    /// Runs `app-host ctl` in the machine.
    pub fn ctl(&self, words: &[&str]) -> Said {
        self.run(&[&["app-host", "ctl", "--config", "/etc/app-host/app-host.json"], words].concat())
    }

    /// Has logrotate rotate now what a file of its configurations names.
    pub fn logrotate(&self, file: &str) {
        let said = self.try_logrotate(file);
        assert_eq!(said.code, Some(0), "{}", said.text);
    }

    /// As [`logrotate`](Self::logrotate), whatever comes of it.
    pub fn try_logrotate(&self, file: &str) -> Said {
        let state = ["--state", "/var/lib/logrotate.status"];
        self.run(&[&["env", "LD_LIBRARY_PATH=/usr/local/lib", "logrotate", "--force"], &state[..], &[file]].concat())
    }

    /// Asserts that the service answers.
    pub fn assert_serves(&self) {
        let answer = self.get("/whoami").unwrap_or_else(|error| panic!("the service doesn't answer: {error}"));
        assert_eq!(answer.0, 200);
    }

    /// Starts the service, which must work.
    pub fn start(&self) {
        self.ok(&["systemctl", "start", "app-host.service"]);
        self.assert_serves();
    }

    /// The messages of the service in the journal, of this priority or a more urgent one.
    pub fn journal(&self, priority: &str) -> Vec<Line> {
        // What services print reaches the journal before this.
        self.ok(&["journalctl", "--sync"]);
        let text = self.ok(&["journalctl", "--no-pager", "-q", "-o", "cat", "-u", "app-host.service", "-p", priority]);
        text.lines().map(Line::parse).collect()
    }

    /// The lines of the service with this message.
    pub fn lines_with(&self, msg: &str) -> Vec<Line> {
        self.journal("debug").into_iter().filter(|line| line.msg() == msg).collect()
    }

    /// Waits until there are so many lines with this message.
    pub fn wait_for(&self, msg: &str, count: usize) -> Vec<Line> {
        self.wait(&format!("{count} lines \"{msg}\""), || {
            let lines = self.lines_with(msg);
            (lines.len() >= count).then_some(lines)
        })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for words in [
                &["systemctl", "status", "--no-pager", "app-host.service"][..],
                &["journalctl", "--no-pager", "-o", "short-precise"],
            ] {
                println!("{}", self.run(words).text);
            }
            println!("{}", fs::read_to_string(self.directory.path().join("root.console")).unwrap_or_default());
        }
        drop(self.alive.take());
        let _ = self.launcher.wait();
    }
}
