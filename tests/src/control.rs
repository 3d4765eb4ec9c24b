//! A client of the control socket that sees every byte, and `app-host ctl` as an operator runs it.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::build::App;
use crate::host::{DEADLINE, Host};

/// One connection to a control socket.
#[derive(Debug)]
pub struct Control {
    stream: UnixStream,
    read: Vec<u8>,
}

impl Control {
    /// Connects to the socket at `path`.
    pub fn connect(path: &Path) -> io::Result<Self> {
        Ok(Self { stream: UnixStream::connect(path)?, read: Vec::new() })
    }

    /// Sends bytes as they are. A master that has closed has said why: that is still to be read.
    pub fn send(&mut self, bytes: &[u8]) {
        match self.stream.write_all(bytes) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => panic!("the master takes nothing: {error}"),
            _ => {}
        }
    }

    /// Says that nothing more will come, and goes on listening.
    pub fn end_input(&self) {
        self.stream.shutdown(std::net::Shutdown::Write).expect("the socket is open");
    }

    /// The next line with its newline; `None` when the connection has ended.
    pub fn line(&mut self) -> Option<String> {
        self.line_within(DEADLINE).expect("a line within the deadline")
    }

    /// As [`Self::line`]; an error when there is none in time.
    pub fn line_within(&mut self, limit: Duration) -> io::Result<Option<String>> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let rest = self.read.split_off(end + 1);
                let line = std::mem::replace(&mut self.read, rest);
                return Ok(Some(String::from_utf8(line).expect("lines are UTF-8")));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => {
                    assert!(self.read.is_empty(), "half a line: {:?}", String::from_utf8_lossy(&self.read));
                    return Ok(None);
                }
                Ok(length) => self.read.extend_from_slice(&chunk[..length]),
                // A master that has closed with something unread.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// Says a line and returns the next one, which must be its answer.
    pub fn ask(&mut self, line: &str) -> String {
        self.send(format!("{line}\n").as_bytes());
        self.line().expect("an answer")
    }

    /// As [`Self::ask`], for an answer with data that is JSON.
    pub fn ask_json(&mut self, line: &str) -> Value {
        let answer = self.ask(line);
        let data = answer.strip_prefix("ACK ").unwrap_or_else(|| panic!("{line}: {answer}"));
        serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {data}"))
    }

    /// The next event, which must be the next line.
    pub fn event(&mut self) -> Value {
        let line = self.line().expect("an event");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// Reads events up to the first with this name, and returns it.
    pub fn event_called(&mut self, name: &str) -> Value {
        loop {
            let event = self.event();
            if event["event"] == name {
                return event;
            }
        }
    }
}

impl Host {
    /// A connection to the control socket where it is by default.
    pub fn control(&self) -> Control {
        let path = self.path("state/control.sock");
        Control::connect(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Runs `app-host ctl` in the directory of the configuration.
    pub fn ctl(&self, arguments: &[&str]) -> Output {
        self.ctl_command(arguments).output().expect("app-host can be run")
    }

    /// The command that [`Self::ctl`] runs.
    pub fn ctl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(App::build().host());
        command.arg("ctl").args(arguments).current_dir(self.directory()).stdin(Stdio::null());
        command
    }
}
