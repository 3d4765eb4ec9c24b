//! A child's standard error, or a worker's log, as a pipe that this process reads.
//!
//! For children that must not have the log itself: who has its descriptor can truncate it, or type into the terminal
//! that it is (`TIOCSTI`, `ioctl_tty(2)`). Owns the pipe and a thread for each, which waits in the place of others. A
//! line that isn't one of this log's format becomes one; what could end a line or move a cursor is escaped.

use std::io::{self, PipeReader, Read};
use std::os::fd::OwnedFd;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::app_lines::AppLines;

/// The longest line; what is longer becomes several. A line of the host's or of an app's is shorter.
const MAX_LINE: usize = 128 * 1024;

/// How much is read at once: what a pipe holds (`pipe(7)`).
const MAX_READ: usize = 64 * 1024;

/// How long a log that takes nothing is waited for before lines are dropped. Nobody waits meanwhile but the child,
/// and it only if it writes more than a pipe holds.
const PATIENCE: Duration = Duration::from_secs(1);

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

    /// Passes on what comes until nobody is left who could write.
    pub fn follow(self, lines: AppLines) -> io::Result<()> {
        let Self { mut reader, writer } = self;
        drop(writer);
        *AT_WORK.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        let ends = Ends;
        let work = move || {
            let _ends = ends;
            pass_on(&mut reader, |line| lines.pass_on(line, PATIENCE));
            lines.flush(PATIENCE);
        };
        std::thread::Builder::new().name("relay".to_owned()).stack_size(STACK).spawn(work).map(drop)
    }
}

/// Counts a relay that has ended.
struct Ends;

impl Drop for Ends {
    fn drop(&mut self) {
        *AT_WORK.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        ONE_LESS.notify_all();
    }
}

fn pass_on(reader: &mut impl Read, mut take: impl FnMut(&str)) {
    let mut buffer = vec![0; MAX_READ];
    let mut begun: Vec<u8> = Vec::new();
    loop {
        let read = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        for piece in buffer[..read].split_inclusive(|byte| *byte == b'\n') {
            begun.extend_from_slice(piece);
            if begun.ends_with(b"\n") || begun.len() >= MAX_LINE {
                take(text(&begun).as_ref());
                begun.clear();
                begun.shrink_to(MAX_READ);
            }
        }
    }
    if !begun.is_empty() {
        take(text(&begun).as_ref());
    }
}

/// A line without its end.
fn text(line: &[u8]) -> std::borrow::Cow<'_, str> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        pass_on(&mut &bytes[..], |line| lines.push(line.to_owned()));
        lines
    }

    #[test]
    fn lines_are_whole_however_they_come_and_the_last_needs_no_end() {
        assert_eq!(lines(b"a\r\n\nb\xff\nlast"), ["a", "", "b\u{fffd}", "last"]);
        let long = vec![b'x'; 3 * MAX_LINE / 2];
        let pieces = lines(&long);
        assert!(pieces.len() >= 2 && pieces.iter().all(|piece| piece.len() <= MAX_LINE + MAX_READ));
        assert_eq!(pieces.concat().as_bytes(), long);
    }
}
