//! What an app prints: from the pipes that are a worker's standard output and standard error to lines of the log.
//!
//! Owns how bytes become lines. Each line is an event of its own with the target `stdout` or `stderr`: as it is
//! printed, it could be taken for a line of the host's, and would be none of bunyan's.
//!
//! Two processes hold each reading end. The worker reads as long as it lives, on a thread that does
//! nothing else; what it hasn't read when it dies, the master does. So that no death loses a line, a line
//! is copied out of the pipe first (`tee(2)`), logged, and taken out then: whoever dies in between has it
//! logged twice. Whoever prints faster than the log takes it waits, as with any pipe, but a log that
//! nobody reads any more makes nobody wait for ever: its lines are counted and dropped.
//!
//! Nothing here waits for the pipe either, although a process of the app's may read from it, too: each side has a
//! non-blocking description of its own.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{SpliceFFlags, tee};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing::Level;

use app_host_core::foreign;

use crate::logging::{AppEvent, AppLines};

/// The longest line; what is longer becomes several.
const MAX_LINE: usize = 16 * 1024;

/// How much is looked at together: what a pipe holds (`pipe(7)`).
const MAX_LOOK: usize = 64 * 1024;

/// How long the end of a line is waited for before what is there counts as one: somebody may have
/// printed a question.
const LINE_PATIENCE: Duration = Duration::from_secs(1);

/// How often the end of a line is looked for meanwhile. (The pipe can be read all the time, so there is
/// nothing else to wait for.) In milliseconds.
const LINE_LOOK: u8 = 50;

/// Which of an app's standard streams a pipe is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    const fn target(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// The reading end of one of an app's standard streams.
pub struct Output {
    pipe: OwnedFd,
    stream: Stream,
    log: Arc<AppLines>,
    /// How long a log that takes no line is waited for, once.
    flush_timeout: Duration,
    reading: Mutex<Reading>,
}

struct Reading {
    copy: (PipeReader, PipeWriter),
    buffer: Vec<u8>,
    /// A line without an end that is in the pipe: how much of it, and since when.
    begun: Option<(usize, Instant)>,
}

/// What was in the pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Took {
    /// So many bytes.
    Bytes(usize),
    /// The beginning of a line, which is still there.
    Beginning,
    /// Nothing at the moment.
    Nothing,
    /// Nothing, and nobody is left who could print.
    End,
}

/// What to do with a line that has no end yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beginning {
    Wait,
    Take,
}

/// A pipe for a worker's standard stream.
#[derive(Debug)]
pub struct Pipe {
    /// The reading end for the master.
    pub ours: OwnedFd,
    /// The reading end for the worker.
    pub theirs: OwnedFd,
    /// The stream itself.
    pub writer: OwnedFd,
}

impl Pipe {
    /// # Errors
    /// Those of `pipe(2)`, and of opening the reading end anew through `/proc`.
    pub fn open() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        Ok(Self { ours: reopen(&reader)?, theirs: reopen(&reader)?, writer: writer.into() })
    }
}

/// A non-blocking description of its own for the reading end of a pipe: nobody else can change its flags
/// (`proc_pid_fd(5)`). The pipe must still be ours.
fn reopen(reader: &PipeReader) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", reader.as_raw_fd());
    Ok(File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?.into())
}

/// Logs what is printed until nobody is left who could.
pub fn follow(outputs: &[Arc<Output>]) {
    let mut open: Vec<&Output> = outputs.iter().map(AsRef::as_ref).collect();
    while !open.is_empty() {
        let mut ready: Vec<_> = open.iter().map(|output| PollFd::new(output.pipe.as_fd(), PollFlags::POLLIN)).collect();
        match poll(&mut ready, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            Err(_) => return,
            Ok(_) => {}
        }
        let mut begun = false;
        open.retain(|output| {
            let took = output.take(Beginning::Wait);
            begun |= took == Took::Beginning;
            took != Took::End
        });
        if begun {
            let _ = poll(&mut [], LINE_LOOK);
        }
    }
}

impl Output {
    pub fn new(pipe: OwnedFd, stream: Stream, log: Arc<AppLines>, flush_timeout: Duration) -> io::Result<Self> {
        let reading = Reading { copy: io::pipe()?, buffer: Vec::new(), begun: None };
        Ok(Self { pipe, stream, log, flush_timeout, reading: Mutex::new(reading) })
    }

    /// Logs what is there now, the beginning of a line included.
    pub fn drain(&self) -> Took {
        let mut all = 0;
        loop {
            match self.take(Beginning::Take) {
                // Who prints without end doesn't keep us.
                Took::Bytes(more) if all < 16 * MAX_LOOK => all += more,
                Took::Nothing | Took::Beginning | Took::Bytes(_) => return Took::Bytes(all),
                Took::End => return Took::End,
            }
        }
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }

    fn take(&self, beginning: Beginning) -> Took {
        let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let reading = &mut *reading;
        let found = match tee(&self.pipe, &reading.copy.1, MAX_LOOK, SpliceFFlags::SPLICE_F_NONBLOCK) {
            Ok(0) => return Took::End,
            Ok(found) => found,
            Err(Errno::EAGAIN | Errno::EINTR) => return Took::Nothing,
            Err(_) => return Took::End,
        };
        reading.buffer.resize(found, 0);
        if reading.copy.0.read_exact(&mut reading.buffer).is_err() {
            return Took::End;
        }
        let whole = memchr::memrchr(b'\n', &reading.buffer).map_or(0, |at| at + 1);
        let taken = if whole > 0 {
            whole
        } else if found >= MAX_LINE || beginning == Beginning::Take || reading.is_old(found) {
            found
        } else {
            return Took::Beginning;
        };
        reading.begun = None;
        for line in lines(&reading.buffer[..taken]) {
            self.log_line(&String::from_utf8_lossy(line));
        }
        if !self.flush_timeout.is_zero() {
            self.log.flush(self.flush_timeout);
        }
        if discard(&self.pipe, &mut reading.buffer[..taken]) { Took::Bytes(taken) } else { Took::End }
    }

    fn log_line(&self, message: &str) {
        let (level, target) = (Level::INFO, self.stream.target());
        let message = &*foreign::without_styles(message);
        let event = AppEvent { level, target, message, fields: Vec::new(), spans: Vec::new() };
        self.log.write_within(&event, self.flush_timeout);
    }
}

impl Reading {
    /// Whether this much of a line has been there for as long as one waits for its end.
    fn is_old(&mut self, found: usize) -> bool {
        match self.begun {
            Some((before, since)) if before == found => since.elapsed() >= LINE_PATIENCE,
            _ => {
                self.begun = Some((found, Instant::now()));
                false
            }
        }
    }
}

/// Takes so many bytes out of the pipe, which are there unless another process has taken some.
fn discard(pipe: &OwnedFd, mut room: &mut [u8]) -> bool {
    while !room.is_empty() {
        match nix::unistd::read(pipe, room) {
            Ok(0) => return false,
            Ok(read) => room = &mut room[read..],
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return true,
            Err(_) => return false,
        }
    }
    true
}

/// The lines in these bytes, without their ends; one that is too long in pieces.
fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split_inclusive(|byte| *byte == b'\n').flat_map(|line| {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let mut rest = Some(line.strip_suffix(b"\r").unwrap_or(line));
        std::iter::from_fn(move || {
            let line = rest.take()?;
            if line.len() <= MAX_LINE {
                return Some(line);
            }
            // Not within a character.
            let end = (MAX_LINE - 3..=MAX_LINE).rev().find(|at| line[*at] & 0xc0 != 0x80).unwrap_or(MAX_LINE);
            let (piece, more) = line.split_at(end);
            rest = Some(more);
            Some(piece)
        })
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::logging::{self, Kind, LineWriter};
    use app_host_core::config::{LogFormat, LogLevel};
    use app_host_core::message::LogSetup;

    const FLUSH_TIMEOUT: Duration = Duration::from_secs(20);

    fn output(log: impl Into<OwnedFd>) -> (Output, File) {
        let setup = LogSetup { format: LogFormat::Text, level: LogLevel::Error, journal: None };
        let writer = LineWriter::open(Kind::Main, Some(log.into())).unwrap();
        let log = logging::app_lines(writer, setup, 7);
        let Pipe { ours, writer, .. } = Pipe::open().unwrap();
        (Output::new(ours, Stream::Stdout, Arc::new(log), FLUSH_TIMEOUT).unwrap(), writer.into())
    }

    fn pieces(bytes: &[u8]) -> Vec<&[u8]> {
        lines(bytes).collect()
    }

    #[test]
    fn a_long_line_comes_in_pieces_that_end_between_characters() {
        assert_eq!(pieces(b"a\r\n\nb"), [&b"a"[..], b"", b"b"]);
        let long = "é".repeat(MAX_LINE);
        for shift in ["", "x"] {
            let long = format!("{shift}{long}\n");
            let pieces = pieces(long.as_bytes());
            assert!(pieces.iter().all(|piece| piece.len() <= MAX_LINE && str::from_utf8(piece).is_ok()));
            assert_eq!(pieces.concat(), long.trim_end().as_bytes());
        }
        assert!(pieces(&vec![0x80; MAX_LINE * 3]).iter().all(|piece| piece.len() <= MAX_LINE));
    }

    #[test]
    fn a_line_is_one_event_whatever_the_level_and_its_beginning_waits_for_its_end() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let (output, mut printed) = output(log.reopen().unwrap());
        let logged = || std::fs::read_to_string(log.path()).unwrap();
        assert_eq!(output.take(Beginning::Wait), Took::Nothing);
        printed.write_all(b"one\n2026 ERROR two\x1b[2J\ntwo and").unwrap();
        assert!(matches!(output.take(Beginning::Wait), Took::Bytes(_)));
        assert_eq!(output.take(Beginning::Wait), Took::Beginning);
        assert_eq!(logged().lines().count(), 2, "{}", logged());
        assert!(logged().contains("INFO stdout: one\n") && logged().contains("stdout: 2026 ERROR two\\u{1b}[2J\n"));
        printed.write_all(b" a half\n").unwrap();
        assert!(matches!(output.take(Beginning::Wait), Took::Bytes(_)));
        assert!(logged().ends_with("stdout: two and a half\n"), "{}", logged());
        printed.write_all(b"last words").unwrap();
        drop(printed);
        assert_eq!(output.drain(), Took::End);
        assert!(logged().ends_with("stdout: last words\n"), "{}", logged());
    }

    #[test]
    fn what_has_not_been_logged_is_still_in_the_pipe() {
        // The worker dies between looking and logging: the master finds it all.
        let log = tempfile::NamedTempFile::new().unwrap();
        let (worker, mut printed) = output(log.reopen().unwrap());
        let pipe = worker.as_fd().try_clone_to_owned().unwrap();
        let master = Output::new(pipe, Stream::Stdout, Arc::clone(&worker.log), FLUSH_TIMEOUT);
        printed.write_all(b"last words\n").unwrap();
        let copied = tee(&worker.pipe, &worker.reading.lock().unwrap().copy.1, MAX_LOOK, SpliceFFlags::empty());
        assert_eq!(copied, Ok(11));
        drop((worker, printed));
        assert_eq!(master.unwrap().drain(), Took::End);
        assert_eq!(std::fs::read_to_string(log.path()).unwrap().lines().count(), 1);
    }

    #[test]
    fn a_log_that_nobody_reads_makes_nobody_wait_for_ever() {
        let (mut reader, writer) = io::pipe().unwrap();
        let (mut output, mut printed) = output(writer);
        output.flush_timeout = Duration::from_millis(20);
        let line = format!("{}\n", "x".repeat(10_000));
        let began = Instant::now();
        for _ in 0..300 {
            printed.write_all(line.as_bytes()).unwrap();
            output.drain();
        }
        assert!(began.elapsed() < Duration::from_secs(10));
        let read = std::thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            text
        });
        output.log.flush(Duration::ZERO);
        while output.log.is_stalled() {
            std::thread::yield_now();
        }
        output.flush_timeout = FLUSH_TIMEOUT;
        printed.write_all(b"again\n").unwrap();
        output.drain();
        drop((output, printed));
        let text = read.join().unwrap();
        assert!(text.ends_with("stdout: again\n") && text.lines().count() < 300, "{text:.300}");
    }

    #[test]
    fn bytes_that_another_process_has_taken_are_not_waited_for() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let (output, mut printed) = output(log.reopen().unwrap());
        printed.write_all(b"whole line\n").unwrap();
        let mut room = [0; 40];
        assert!(discard(&output.pipe, &mut room), "fewer bytes than room, and somebody who could print more");
        assert_eq!(output.take(Beginning::Wait), Took::Nothing);
    }
}
