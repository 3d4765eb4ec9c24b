//! `app-host dev` as a developer has it: a crate in a directory, a terminal, an editor.
//!
//! Owns the crate, the process and its lines. The crates of all tests are built in one target directory, so
//! that what they need is built once; their names must differ.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::build::{App, cargo, profile_dir, workspace};
use crate::host::pause;
use crate::machine::{self, Turn};
use crate::{client::Connection, process};

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
    _turn: Turn,
}

impl Dev {
    /// A crate that answers each request with `one`.
    pub fn new(name: &str, arguments: &[&str]) -> Self {
        let directory = tempfile::Builder::new().prefix("app-host-dev-").tempdir().expect("a temporary directory");
        let manifest = format!(
            "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n\
             [lib]\ncrate-type = [\"cdylib\"]\n\n[dependencies]\napp-abi = {{ path = \"{}\" }}\n",
            workspace().join("app-abi").display()
        );
        fs::create_dir(directory.path().join("src")).expect("a directory");
        fs::write(directory.path().join("Cargo.toml"), manifest).expect("a manifest");
        fs::write(directory.path().join("src/lib.rs"), source("one")).expect("a source");
        let config = r#"{ "app": { "library": "named by dev" }, "listen": ["127.0.0.1:0"] }"#;
        fs::write(directory.path().join("app-host.json"), config).expect("a configuration");
        let mut command = app_host();
        command.arg("dev").args(arguments).arg(directory.path());
        Self::start(directory, command)
    }

    /// In a crate that is there already, and in its directory.
    pub fn within(directory: TempDir) -> Self {
        let mut command = app_host();
        command.arg("dev").current_dir(directory.path());
        Self::start(directory, command)
    }

    fn start(directory: TempDir, mut command: Command) -> Self {
        let turn = machine::beside();
        // Whoever opens a browser opens this one, which writes down what for.
        let tools = directory.path().join(".tools");
        fs::create_dir(&tools).expect("a directory");
        let browser = tools.join("xdg-open");
        fs::write(&browser, format!("#!/bin/sh\necho \"$1\" > {}\n", directory.path().join(".opened").display()))
            .expect("a script");
        fs::set_permissions(&browser, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("it can be run");
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", tools.display())).env("CARGO_TARGET_DIR", target_directory());
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("app-host can be run");
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let output = child.stdout.take().expect("it is piped");
        let errors = child.stderr.take().expect("it is piped");
        collect(output, Arc::clone(&lines));
        collect(errors, Arc::clone(&lines));
        Self { directory, child, lines, _turn: turn }
    }

    /// A file of the crate.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Saves the source anew, with each `from` replaced by `to`.
    pub fn edit(&self, from: &str, to: &str) {
        let path = self.path("src/lib.rs");
        let text = fs::read_to_string(&path).expect("there is a source");
        assert!(text.contains(from), "{from} is in {text}");
        fs::write(path, text.replace(from, to)).expect("a source");
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
