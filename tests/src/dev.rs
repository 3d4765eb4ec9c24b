//! `app-host dev` as a developer has it: a crate in a directory, a terminal, an editor.
//!
//! Owns the crate, the process and its lines. The crates of all tests are built in one target directory, so
//! that what they need is built once; their names must differ.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::build::{App, cargo, profile_dir, workspace};
use crate::host::{pause, wait_until};
use crate::machine::{self, Turn};
use crate::{client::Connection, process, program};

/// How long a build may take that finds nothing built yet.
const BUILD: Duration = Duration::from_mins(10);

/// Where the crates of the tests are built.
pub fn target_directory() -> PathBuf {
    profile_dir().parent().expect("a profile's directory lies in the target directory").join("dev-apps")
}

/// A directory with a crate, and `dev` in it. Ended on drop.
pub struct Dev {
    directory: TempDir,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    /// Closed when it is dropped.
    terminal: Option<Terminal>,
    _turn: Turn,
}

/// The terminal that `dev` runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum In {
    /// None: pipes.
    Pipes,
    /// Its own: the kernel tells it when the terminal goes (SIGHUP).
    ItsTerminal,
    /// Somebody else's, which it only writes to: nothing tells it.
    AnothersTerminal,
}

/// Our end of a terminal, and who reads from it.
struct Terminal {
    closed: Arc<AtomicBool>,
    reader: Option<thread::JoinHandle<()>>,
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl Dev {
    /// A crate that answers each request with `one`.
    pub fn new(name: &str, arguments: &[&str]) -> Self {
        Self::new_in(In::Pipes, name, arguments)
    }

    /// As [`Self::new`], with a configuration of one's own.
    pub fn with_config(name: &str, config: &str) -> Self {
        Self::made(In::Pipes, name, &[], config)
    }

    /// As [`Self::new`], in a terminal.
    pub fn new_in(place: In, name: &str, arguments: &[&str]) -> Self {
        Self::made(place, name, arguments, r#"{ "app": { "library": "named by dev" }, "listen": ["127.0.0.1:0"] }"#)
    }

    fn made(place: In, name: &str, arguments: &[&str], config: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("app-host-dev-").tempdir().expect("a temporary directory");
        let manifest = format!(
            "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n\
             [lib]\ncrate-type = [\"cdylib\"]\n\n[dependencies]\napp-abi = {{ path = \"{}\" }}\n",
            workspace().join("app-abi").display()
        );
        fs::create_dir(directory.path().join("src")).expect("a directory");
        fs::write(directory.path().join("Cargo.toml"), manifest).expect("a manifest");
        fs::write(directory.path().join("src/lib.rs"), source("one")).expect("a source");
        fs::write(directory.path().join("app-host.json"), config).expect("a configuration");
        let mut command = app_host();
        command.arg("dev").args(arguments).arg(directory.path());
        Self::start(directory, command, place)
    }

    /// In a crate that is there already, and in its directory.
    pub fn within(directory: TempDir) -> Self {
        let mut command = app_host();
        command.arg("dev").current_dir(directory.path());
        Self::start(directory, command, In::Pipes)
    }

    fn start(directory: TempDir, mut command: Command, place: In) -> Self {
        let turn = machine::beside();
        // Whoever opens a browser opens this one, which writes down what for.
        let tools = directory.path().join(".tools");
        fs::create_dir(&tools).expect("a directory");
        let browser = tools.join("xdg-open");
        let opened = directory.path().join(".opened");
        program::script(&browser, &format!("#!/bin/sh\necho \"$1\" > {}\n", opened.display()));
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", tools.display())).env("CARGO_TARGET_DIR", target_directory());
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let (child, terminal) = match place {
            In::Pipes => {
                command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
                let mut child = command.spawn().expect("app-host can be run");
                let output = child.stdout.take().expect("it is piped");
                let errors = child.stderr.take().expect("it is piped");
                collect(output, Arc::clone(&lines));
                collect(errors, Arc::clone(&lines));
                (child, None)
            }
            In::ItsTerminal | In::AnothersTerminal => {
                let (ours, theirs) = terminal();
                let end = || Stdio::from(theirs.try_clone().expect("a descriptor"));
                command.stdin(end()).stdout(end()).stderr(end());
                if place == In::ItsTerminal {
                    in_a_session_of_its_own(&mut command);
                }
                let child = command.spawn().expect("app-host can be run");
                // The command holds the other end until it goes.
                drop(command);
                drop(theirs);
                (child, Some(Terminal::read(ours, Arc::clone(&lines))))
            }
        };
        Self { directory, child, lines, terminal, _turn: turn }
    }

    /// Closes the terminal, and waits until `dev` has ended, but not for long.
    pub fn close_terminal(&mut self) -> Option<std::process::ExitStatus> {
        self.terminal = None;
        wait_until(|| self.child.try_wait().expect("it can be waited for"))
    }

    /// A file of the crate.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Saves the source anew, with each `from` replaced by `to`: in one step, as editors do, because whoever looks between two
    /// steps sees two saves.
    pub fn edit(&self, from: &str, to: &str) {
        let path = self.path("src/lib.rs");
        let text = fs::read_to_string(&path).expect("there is a source");
        assert!(text.contains(from), "{from} is in {text}");
        let saved = self.path(".tools/saved");
        fs::write(&saved, text.replace(from, to)).expect("a source");
        fs::rename(saved, path).expect("it takes the other's place");
    }

    /// All that was said so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a line behind the first `after` of them that has all of `parts`.
    pub fn wait_after(&self, after: usize, parts: &[&str]) -> String {
        let deadline = Instant::now() + BUILD;
        loop {
            let lines = self.lines();
            if let Some(line) = lines.iter().skip(after).find(|line| parts.iter().all(|part| line.contains(part))) {
                return line.clone();
            }
            assert!(Instant::now() < deadline && process::is_alive(self.child.id()), "{parts:?} in {lines:#?}");
            pause();
        }
    }

    /// What the address behind a word of the output is.
    pub fn address(&self, word: &str) -> String {
        let line = self.wait_after(0, &[word, "http://"]);
        let rest = line.split("http://").nth(1).expect("it was looked for");
        rest.split_whitespace().next().expect("an address").to_owned()
    }

    /// Asks the app.
    pub fn get(&self, path: &str) -> String {
        let address = self.address("address").parse().expect("an address");
        let mut connection = Connection::connect(&crate::Address::Tcp(address)).expect("the app accepts");
        assert_eq!(connection.get(path).expect("an answer"), 200);
        connection.text()
    }

    /// Ends it as Ctrl-C does, and waits until all its processes have gone.
    pub fn interrupt(&mut self) -> std::process::ExitStatus {
        process::signal(self.child.id(), Signal::SIGINT);
        self.child.wait().expect("it can be waited for")
    }

    /// Of `dev` itself.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("app-host dev said:\n{}", self.lines().join("\n"));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Terminal {
    fn read(ours: OwnedFd, lines: Arc<Mutex<Vec<String>>>) -> Self {
        let closed = Arc::<AtomicBool>::default();
        let is_closed = Arc::clone(&closed);
        let reader = thread::spawn(move || {
            let (mut ours, mut text) = (File::from(ours), Vec::new());
            while !is_closed.load(Ordering::Relaxed) {
                let mut polled = [PollFd::new(ours.as_fd(), PollFlags::POLLIN)];
                if poll(&mut polled, PollTimeout::from(20_u8)).is_ok_and(|ready| ready > 0) {
                    let mut buffer = [0; 4096];
                    // An error says that nobody has the other end.
                    let Ok(length) = ours.read(&mut buffer) else { return };
                    text.extend_from_slice(&buffer[..length]);
                    while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                        let line = String::from_utf8_lossy(&text[..end]).trim_end().to_owned();
                        text.drain(..=end);
                        lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                    }
                }
            }
        });
        Self { closed, reader: Some(reader) }
    }
}

/// Both ends of a new terminal. No other child gets one, not even one that another thread makes at this moment.
fn terminal() -> (OwnedFd, OwnedFd) {
    let ours = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).expect("there is a terminal");
    grantpt(&ours).and_then(|()| unlockpt(&ours)).expect("it is ours");
    let name = ptsname_r(&ours).expect("it has a name");
    let theirs = File::options().read(true).write(true).custom_flags(libc::O_NOCTTY).open(name);
    let ours = ours.as_fd().try_clone_to_owned().expect("a descriptor");
    (ours, theirs.expect("it can be opened").into())
}

/// Makes the command the leader of a session whose terminal is its standard input.
fn in_a_session_of_its_own(command: &mut Command) {
    #[expect(unsafe_code, reason = "code between fork and exec must be async-signal-safe")]
    // SAFETY: `setsid(2)`, `ioctl(2)` and `signal(2)` are plain system calls and the closure does nothing else.
    unsafe {
        command.pre_exec(|| {
            // Whoever runs the tests may ignore it.
            libc::signal(libc::SIGHUP, libc::SIG_DFL);
            if libc::setsid() < 0 || libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
}

/// `app-host` in a developer's shell, with the tests' target directory.
pub fn app_host() -> Command {
    with_environment_of(&mut shell_cargo(), Command::new(App::build().host()))
}

/// `cargo` in a developer's shell, with the tests' target directory.
pub fn shell_cargo() -> Command {
    let mut command = cargo();
    command.env("CARGO_TARGET_DIR", target_directory());
    command
}

/// The same source, with another answer.
fn source(answer: &str) -> String {
    format!(
        r#"use app_abi::{{App, Body, Host, Request, Response, StartError}};

struct Answer;

impl App for Answer {{
    async fn start(_: Host) -> Result<Self, StartError> {{
        Ok(Self)
    }}

    async fn call(&self, _: Request<Body>) -> Response<Body> {{
        let mut response = Response::new(Body::from("<!doctype html><title>t</title><p id=answer>{answer}</p>"));
        response.headers_mut().insert("content-type", app_abi::header::HeaderValue::from_static("text/html"));
        response
    }}
}}

app_abi::export_app!(Answer);
"#
    )
}

/// `program`, with what `command` has taken out of the environment.
fn with_environment_of(command: &mut Command, mut program: Command) -> Command {
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => program.env(key, value),
            None => program.env_remove(key),
        };
    }
    program
}

fn collect(output: impl std::io::Read + Send + 'static, lines: Arc<Mutex<Vec<String>>>) {
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    });
}
