//! A child's standard error, or a worker's log, as a pipe that this process reads.
//!
//! For children that must not have the log itself: who has its descriptor can truncate it, or type into the terminal
//! that it is (`TIOCSTI`, `ioctl_tty(2)`). Owns the pipe and a thread for each, which waits in the place of others. A
//! line that isn't one of this log's format becomes one; what could end a line or move a cursor is escaped.

use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::app_lines::AppLines;

/// The longest line; what is longer becomes several. A line of the host's or of an app's is shorter.
const MAX_LINE: usize = 128 * 1024;

/// How much is read at once: what a pipe holds (`pipe(7)`).
const MAX_READ: usize = 64 * 1024;

/// How long a log that takes nothing is waited for before lines are dropped. Nobody waits meanwhile but the child,
/// and it only if it writes more than a pipe holds.
const PATIENCE: Duration = Duration::from_secs(1);

/// How much is read of a pipe that is let go of.
const ORPHANS_BYTES: usize = 1 << 20;

/// The threads' stack.
const STACK: usize = 128 * 1024;

/// How many relays are at work.
static AT_WORK: Mutex<usize> = Mutex::new(0);
static ONE_LESS: Condvar = Condvar::new();

/// Waits until no relay is at work any more: up to `limit`. For a process whose children have ended.
pub fn finish_relays(limit: Duration) {
    let at_work = AT_WORK.lock().unwrap_or_else(PoisonError::into_inner);
    drop(ONE_LESS.wait_timeout_while(at_work, limit, |at_work| *at_work > 0));
}

/// A pipe before its child has been spawned.
#[derive(Debug)]
pub struct Relay {
    reader: PipeReader,
    writer: OwnedFd,
}

impl Relay {
    pub fn open() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        Ok(Self { reader, writer: writer.into() })
    }

    /// The end for the child.
    pub fn for_child(&self) -> io::Result<OwnedFd> {
        self.writer.try_clone()
    }

    /// Passes on what comes until nobody is left who could write, or until what is returned is dropped: then what is
    /// there already still comes, up to a bound. A child of the child's may hold the pipe for ever.
    pub fn follow(self, lines: AppLines) -> io::Result<RelayGuard> {
        let Self { mut reader, writer } = self;
        drop(writer);
        let (end, guard) = io::pipe()?;
        *AT_WORK.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        let ends = Ends;
        let work = move || {
            let _ends = ends;
            pass_on(&mut reader, &end, |line| lines.pass_on(line, PATIENCE));
            lines.flush(PATIENCE);
        };
        std::thread::Builder::new().name("relay".to_owned()).stack_size(STACK).spawn(work)?;
        Ok(RelayGuard { _end: guard })
    }
}

/// Lets a relay end when it is dropped.
#[derive(Debug)]
pub struct RelayGuard {
    _end: PipeWriter,
}

/// Counts a relay that has ended.
struct Ends;

impl Drop for Ends {
    fn drop(&mut self) {
        *AT_WORK.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        ONE_LESS.notify_all();
    }
}

fn pass_on(reader: &mut PipeReader, end: &PipeReader, mut take: impl FnMut(&str)) {
    let mut buffer = vec![0; MAX_READ];
    let mut lines = Lines::default();
    // How much is still read once nobody waits for more.
    let mut left = None;
    loop {
        let mut ready = [PollFd::new(reader.as_fd(), PollFlags::POLLIN), PollFd::new(end.as_fd(), PollFlags::POLLIN)];
        let (watched, timeout) =
            if left.is_some() { (&mut ready[..1], PollTimeout::ZERO) } else { (&mut ready[..], PollTimeout::NONE) };
        match poll(watched, timeout) {
            Err(Errno::EINTR) => continue,
            Err(_) | Ok(0) => break,
            Ok(_) => {}
        }
        let is_ready = |at: usize| ready[at].revents().is_some_and(|events| !events.is_empty());
        if left.is_none() && is_ready(1) {
            left = Some(ORPHANS_BYTES);
            continue;
        }
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => {
                lines.put(&buffer[..read], &mut take);
                left = left.map(|left| left.saturating_sub(read));
                if left == Some(0) {
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    lines.end(&mut take);
}

/// Bytes on their way to whole lines.
#[derive(Default)]
struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    fn put(&mut self, bytes: &[u8], take: &mut impl FnMut(&str)) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.begun.extend_from_slice(piece);
            if self.begun.ends_with(b"\n") || self.begun.len() >= MAX_LINE {
                take(text(&self.begun).as_ref());
                self.begun.clear();
                self.begun.shrink_to(MAX_READ);
            }
        }
    }

    fn end(&mut self, take: &mut impl FnMut(&str)) {
        if !self.begun.is_empty() {
            take(text(&std::mem::take(&mut self.begun)).as_ref());
        }
    }
}

/// A line without its end.
fn text(line: &[u8]) -> std::borrow::Cow<'_, str> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn lines(bytes: &[u8], at_once: usize) -> Vec<String> {
        let mut found = Vec::new();
        let mut take = |line: &str| found.push(line.to_owned());
        let mut lines = Lines::default();
        bytes.chunks(at_once).for_each(|bytes| lines.put(bytes, &mut take));
        lines.end(&mut take);
        found
    }

    #[test]
    fn lines_are_whole_however_they_come_and_the_last_needs_no_end() {
        for at_once in [1, 3, 100] {
            assert_eq!(lines(b"a\r\n\nb\xff\nlast", at_once), ["a", "", "b\u{fffd}", "last"]);
        }
        let long = vec![b'x'; 3 * MAX_LINE / 2];
        let pieces = lines(&long, MAX_READ);
        assert!(pieces.len() >= 2 && pieces.iter().all(|piece| piece.len() <= MAX_LINE + MAX_READ));
        assert_eq!(pieces.concat().as_bytes(), long);
    }

    #[test]
    fn a_pipe_that_somebody_holds_for_ever_is_let_go_of_with_all_that_came() {
        let (mut reader, mut writer) = io::pipe().unwrap();
        let (end, guard) = io::pipe().unwrap();
        writer.write_all(b"one\ntwo").unwrap();
        drop(guard);
        let mut found = Vec::new();
        pass_on(&mut reader, &end, |line| found.push(line.to_owned()));
        assert_eq!(found, ["one", "two"]);
        drop(writer);
    }
}
