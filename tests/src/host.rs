//! The fixture: one master in a temporary directory, driven and watched as a user would.
//!
//! Every wait has a condition and a deadline, nothing sleeps blindly. Whatever was started is killed
//! on drop, orphans included, and a failing test prints the command, the directory, the status and
//! the whole log.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::build::App;
use crate::client::{Address, Connection};
use crate::log::{Line, Log};
use crate::machine::{self, Turn};
use crate::process;
use crate::restart::Serving;
use crate::said;

/// How long a wait may take: far more than any of them needs, so that a busy machine fails no test.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// One master, started or not yet, and its directory.
#[derive(Debug)]
pub struct Host {
    directory: TempDir,
    config: Value,
    binary: PathBuf,
    launch: Vec<String>,
    environment: Vec<(String, OsString)>,
    child: Mutex<Option<Child>>,
    status: Mutex<Option<ExitStatus>>,
    /// The master itself, which is the launcher's child where there is one.
    master: Mutex<Option<u32>>,
    log: Mutex<Log>,
    command: Mutex<String>,
    _turn: Turn,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Host {
    /// A master that isn't started: two workers, one TCP listener on a free port, times short
    /// enough for a test. `app` is installed as its library.
    pub fn new(app: &Path) -> Self {
        let turn = machine::beside();
        let directory = tempfile::Builder::new().prefix("app-host-test-").tempdir().expect("a temporary directory");
        // A test that lets the master run as another user needs to be let in.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("the directory is ours");
        let config = json!({
            "app": { "library": "app.so", "config": {} },
            "listen": ["127.0.0.1:0"],
            "workers": 2,
            "state_dir": "state",
            "restart": {
                "start_timeout": "10s", "probation": "20ms", "idle_linger": "1s", "shutdown_timeout": "10s"
            },
            "log": { "format": "bunyan", "level": "debug" },
        });
        let log = Mutex::new(Log::new(&directory.path().join("log")));
        let host = Self {
            binary: App::build().host(),
            launch: Vec::new(),
            environment: Vec::new(),
            config,
            child: Mutex::new(None),
            status: Mutex::new(None),
            master: Mutex::new(None),
            log,
            command: Mutex::new(String::new()),
            _turn: turn,
            directory,
        };
        host.install(app);
        host
    }

    /// As [`Self::new`], with the app that does what `app.config` tells it to (`apps/misbehaving.rs`).
    pub fn misbehaving() -> Self {
        Self::new(&App::build().app("misbehaving"))
    }

    /// As [`Self::new`], with the app that answers `a` or `b` (`apps/answer_a.rs`).
    pub fn answering(letter: &str) -> Self {
        Self::new(&App::build().app(&format!("answer_{letter}")))
    }

    /// Changes one setting, given as a JSON pointer, before the start or for the next restart.
    #[must_use]
    pub fn with(mut self, pointer: &str, value: impl Into<Value>) -> Self {
        self.set(pointer, value);
        self
    }

    /// As [`Self::with`]; written to the file at once.
    pub fn set(&mut self, pointer: &str, value: impl Into<Value>) {
        let (section, key) = pointer.rsplit_once('/').expect("a pointer begins with a slash");
        let section = self.config.pointer_mut(section).expect("the section exists");
        section[key] = value.into();
        self.write_config(self.config.to_string().as_bytes());
    }

    /// Removes one setting.
    #[must_use]
    pub fn without(mut self, pointer: &str) -> Self {
        let (section, key) = pointer.rsplit_once('/').expect("a pointer begins with a slash");
        let section = self.config.pointer_mut(section).expect("the section exists");
        section.as_object_mut().expect("the section is an object").remove(key);
        self.write_config(self.config.to_string().as_bytes());
        self
    }

    /// With a variable in the master's environment.
    #[must_use]
    pub fn with_variable(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Lets the launcher (`src/bin/launch.rs`) start the master, with these arguments.
    #[must_use]
    pub fn launched_with(mut self, arguments: &[&str]) -> Self {
        self.launch = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        self
    }

    /// Runs another binary than the one that was built, a copy of it for instance.
    #[must_use]
    pub fn with_binary(mut self, binary: &Path) -> Self {
        binary.clone_into(&mut self.binary);
        self
    }

    /// The temporary directory.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A path in the temporary directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.path("app-host.json")
    }

    /// Where the configuration says that the library is.
    pub fn library_path(&self) -> PathBuf {
        self.path(self.config["app"]["library"].as_str().expect("the library is a path"))
    }

    /// Puts bytes where the configuration belongs, whatever they are.
    pub fn write_config(&self, bytes: &[u8]) {
        replace(&self.config_path(), bytes);
    }

    /// Puts the configuration back as the fixture knows it.
    pub fn restore_config(&self) {
        self.write_config(self.config.to_string().as_bytes());
    }

    /// Installs a library as a deployment should: a copy beside it, renamed over it.
    pub fn install(&self, library: &Path) {
        let bytes = fs::read(library).unwrap_or_else(|error| panic!("{}: {error}", library.display()));
        self.install_bytes(&bytes);
    }

    /// Installs these bytes.
    pub fn install_bytes(&self, bytes: &[u8]) {
        replace(&self.library_path(), bytes);
    }

    /// Installs a version of the library that was never seen before, without compiling anything:
    /// bytes behind the end of an ELF file change its hash and nothing else.
    pub fn install_fresh(&self, library: &Path) {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let mut bytes = fs::read(library).unwrap_or_else(|error| panic!("{}: {error}", library.display()));
        bytes.extend_from_slice(&COUNT.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        bytes.extend_from_slice(&u64::from(std::process::id()).to_le_bytes());
        self.install_bytes(&bytes);
    }

    /// Starts the master and waits until its first workers serve.
    #[must_use]
    pub fn start(self) -> Self {
        self.spawn();
        self.wait_for(said::SERVING, |_| true);
        self
    }

    /// Starts the master, which must not be running, and doesn't wait.
    pub fn spawn(&self) {
        self.restore_config();
        let mut command = if self.launch.is_empty() {
            Command::new(&self.binary)
        } else {
            let mut command = Command::new(App::build().launch());
            command.args(&self.launch).arg("--").arg(&self.binary);
            command
        };
        command.arg("run").arg(self.config_path()).current_dir(self.directory());
        let log = OpenOptions::new().create(true).append(true).open(self.path("log")).expect("the log can be made");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a descriptor")).stderr(log);
        *lock(&self.command) = format!("{command:?}");
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        *lock(&self.master) = self.launch.is_empty().then(|| child.id());
        *lock(&self.child) = Some(child);
        *lock(&self.status) = None;
    }

    /// The master's process id.
    pub fn master(&self) -> u32 {
        if let Some(master) = *lock(&self.master) {
            return master;
        }
        let launcher = lock(&self.child).as_ref().expect("the master was started").id();
        if !self.launch.iter().any(|argument| argument == "--pid-namespace" || argument == "--pass") {
            // It has replaced the launcher.
            *lock(&self.master) = Some(launcher);
            return launcher;
        }
        // A shell may come before it in the same process.
        let is_master = |pid: &u32| process::name(*pid) == "app-host";
        let master = self.wait("the launcher's child", || process::children(launcher).into_iter().find(is_master));
        *lock(&self.master) = Some(master);
        master
    }

    /// Sends the master a signal.
    pub fn signal(&self, signal: Signal) {
        process::signal(self.master(), signal);
    }

    /// How many lines the log has by now; waits can begin there.
    pub fn mark(&self) -> usize {
        lock(&self.log).lines().len()
    }

    /// All log lines so far.
    pub fn lines(&self) -> Vec<Line> {
        lock(&self.log).lines().to_vec()
    }

    /// Looks at the log lines from this one on, without a copy of them.
    pub fn look<T>(&self, mark: usize, at: impl FnOnce(&[Line]) -> T) -> T {
        at(lock(&self.log).lines().get(mark..).unwrap_or_default())
    }

    /// The log lines with this message so far.
    pub fn lines_with(&self, msg: &str) -> Vec<Line> {
        lock(&self.log).lines().iter().filter(|line| line.msg() == msg).cloned().collect()
    }

    /// Waits for the first line of the whole log with this message that fits.
    pub fn wait_for(&self, msg: &str, fits: impl Fn(&Line) -> bool) -> Line {
        self.wait_after(0, msg, fits)
    }

    /// Waits for the first fitting line behind a mark.
    pub fn wait_after(&self, mark: usize, msg: &str, fits: impl Fn(&Line) -> bool) -> Line {
        self.wait(&format!("the log line \"{msg}\""), || {
            self.look(mark, |new| new.iter().find(|line| line.msg() == msg && fits(line)).cloned())
        })
    }

    /// Waits until the condition gives something.
    pub fn wait<T>(&self, what: &str, condition: impl FnMut() -> Option<T>) -> T {
        let began = Instant::now();
        wait_until(condition).unwrap_or_else(|| {
            panic!("waited {:?} in vain for {what} in {}", began.elapsed(), self.directory().display())
        })
    }

    /// How many workers the configuration asks for.
    pub fn configured_workers(&self) -> u64 {
        self.config["workers"].as_u64().unwrap_or(2)
    }

    /// The address of the only listener, or of the first that is configured.
    pub fn address(&self) -> Address {
        let first = &self.config["listen"][0];
        let name = first["name"].as_str().or(first["address"].as_str()).or(first.as_str()).expect("a listener");
        self.address_of(name)
    }

    /// The address that a listener has in fact, as the log says it.
    pub fn address_of(&self, listener: &str) -> Address {
        self.wait(&format!("the address of listener {listener}"), || {
            let mut log = lock(&self.log);
            let line =
                log.lines().iter().rev().find(|line| line.msg() == said::LISTENING && line.str("listener") == listener);
            line.map(|line| {
                Address::parse(line.str("address")).unwrap_or_else(|| panic!("no address: {}", line.text()))
            })
        })
    }

    /// A new connection to the first listener.
    pub fn connect(&self) -> Connection {
        let address = self.address();
        Connection::connect(&address).unwrap_or_else(|error| panic!("connecting to {address:?}: {error}"))
    }

    /// A connection to the worker with this process id. The app must answer `/whoami` as for
    /// [`Self::assert_all_serve`].
    pub fn connect_to(&self, worker: u32) -> Connection {
        self.wait(&format!("a connection to worker {worker}"), || {
            // Connections opened together are spread over the workers.
            let connections: Vec<_> = (0..8).map(|_| self.connect()).collect();
            connections.into_iter().find_map(|mut connection| {
                assert_eq!(connection.get("/whoami").expect("an answer"), 200);
                let answer: Value = serde_json::from_slice(connection.body()).expect("whoami answers JSON");
                (answer["pid"].as_u64() == Some(u64::from(worker))).then_some(connection)
            })
        })
    }

    /// Asks on a connection of its own; the answer must be 200.
    pub fn get(&self, path: &str) -> String {
        let mut connection = self.connect();
        let status = connection.get(path).unwrap_or_else(|error| panic!("GET {path}: {error}"));
        assert_eq!(status, 200, "GET {path}: {}", connection.text());
        connection.text()
    }

    /// Blocks a serving thread for ever; the app must be [`Self::misbehaving`]. Returns its worker,
    /// once the app has said that it does it, and the connection of the request.
    pub fn block_a_thread(&self) -> (u32, Connection) {
        let mark = self.mark();
        let mut connection = self.connect();
        connection.ask("/block").expect("the request is taken");
        (self.wait_after(mark, "the app blocks a thread", |_| true).pid(), connection)
    }

    /// The worker processes that live: the master's children of that name.
    pub fn workers(&self) -> Vec<u32> {
        let is_worker =
            |pid: &u32| process::name(*pid) == "app-host" && process::command_line(*pid).contains(" internal-worker");
        process::children(self.master()).into_iter().filter(is_worker).collect()
    }

    /// The workers that serve, as the log tells it: ready, not ordered to drain, not gone. By slot,
    /// then by generation.
    pub fn serving(&self) -> Vec<u32> {
        let mut serving = Serving::default();
        for line in lock(&self.log).lines() {
            serving.see(line);
        }
        serving.pids()
    }

    /// Waits until each of these workers has answered a request. The app must answer `/whoami` with
    /// JSON that has its `pid`.
    pub fn assert_all_serve(&self, workers: &[u32]) {
        assert!(!workers.is_empty(), "some workers should serve");
        let mut silent: Vec<u32> = workers.to_vec();
        self.wait(&format!("answers of all of {workers:?}"), || {
            // Connections opened together are spread over the workers; one after the other they
            // may all go to the same.
            let mut connections: Vec<_> = (0..8).map(|_| self.connect()).collect();
            for connection in &mut connections {
                assert_eq!(connection.get("/whoami").expect("an answer"), 200);
                let answer: Value = serde_json::from_slice(connection.body()).expect("whoami answers JSON");
                silent.retain(|pid| answer["pid"].as_u64() != Some(u64::from(*pid)));
            }
            silent.is_empty().then_some(())
        });
    }

    /// Waits for the master's end and returns its status.
    pub fn wait_exit(&self) -> ExitStatus {
        self.wait("the master's exit", || self.try_exit())
    }

    /// The master's exit status, if it has ended.
    pub fn try_exit(&self) -> Option<ExitStatus> {
        let mut status = lock(&self.status);
        if status.is_none() {
            let mut child = lock(&self.child);
            *status = child.as_mut().expect("the master was started").try_wait().expect("the master is our child");
        }
        *status
    }

    /// Stops the master with SIGTERM; it must exit with 0, and no worker may be left.
    pub fn stop(&self) {
        let workers = self.workers();
        self.signal(Signal::SIGTERM);
        let status = self.wait_exit();
        assert_eq!(status.code(), Some(0), "the master's exit status is {status}");
        assert!(workers.iter().all(|pid| !process::is_alive(*pid)), "a worker has outlived its master");
    }

    /// Everything that someone needs who wonders why a test failed.
    pub fn report(&self) -> String {
        let mut report = String::new();
        let rule = "=".repeat(72);
        let status = lock(&self.status).map_or("none yet".to_owned(), |status| status.to_string());
        for (title, text) in [
            ("command", lock(&self.command).clone()),
            ("directory", self.directory().display().to_string()),
            ("status", status),
            ("configuration", fs::read_to_string(self.config_path()).unwrap_or_default()),
        ] {
            report.extend([rule.as_str(), "\n", title, ": ", text.as_str(), "\n"]);
        }
        report.extend([rule.as_str(), "\nlog:\n"]);
        report.push_str(&fs::read_to_string(self.path("log")).unwrap_or_default());
        report.push_str(&rule);
        report
    }

    fn try_exit_quietly(&self) -> Option<ExitStatus> {
        let status = lock(&self.child).as_mut()?.try_wait().ok()?;
        *lock(&self.status) = status;
        status
    }

    /// Every process that has something of this test's open: its log, or a lock in its state directory.
    fn processes(&self) -> Vec<u32> {
        let directory = self.directory();
        process::all()
            .into_iter()
            .filter(|pid| *pid != std::process::id())
            .filter(|pid| process::descriptors(*pid).iter().any(|(_, path)| path.starts_with(directory)))
            .collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.try_exit_quietly();
            let mut stderr = std::io::stderr().lock();
            let _ = writeln!(stderr, "{}", self.report());
        }
        // The master first, so that it can't spawn what is about to be killed.
        if let Some(mut child) = lock(&self.child).take() {
            if let Some(master) = *lock(&self.master)
                && master != child.id()
            {
                process::signal(master, Signal::SIGKILL);
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        let all_gone = wait_until(|| {
            let left = self.processes();
            for pid in &left {
                process::signal(*pid, Signal::SIGKILL);
            }
            left.is_empty().then_some(())
        });
        let said_enough = std::thread::panicking();
        assert!(all_gone.is_some() || said_enough, "processes of {} can't be killed", self.directory().display());
    }
}

/// Polls a condition until it gives something or the deadline has passed.
pub fn wait_until<T>(mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(result) = condition() {
            return Some(result);
        }
        if Instant::now() > deadline {
            return None;
        }
        pause();
    }
}

/// Between two looks at a condition.
#[expect(clippy::disallowed_methods, reason = "whoever calls it has a condition and a deadline")]
pub fn pause() {
    std::thread::sleep(Duration::from_millis(2));
}

/// Replaces a file as a whole: nobody ever sees half of it.
fn replace(path: &Path, bytes: &[u8]) {
    let mut name = path.file_name().expect("a file has a name").to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let mut file = File::create(&new).unwrap_or_else(|error| panic!("{}: {error}", new.display()));
    file.write_all(bytes).unwrap_or_else(|error| panic!("{}: {error}", new.display()));
    drop(file);
    fs::rename(&new, path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
