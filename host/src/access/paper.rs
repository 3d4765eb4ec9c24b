//! Lines on their way into a file, written by a thread of their own.
//!
//! Owns the bounded memory between those who have lines and the thread. Many lines become one write
//! when they come faster than they are written; what comes faster than the bound allows, or can't be
//! written, is counted, and the log says how many lines that were. Lines that are in memory when the
//! process is killed are lost.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};

use crate::causes::chain;

/// How many bytes of lines wait at most.
const ROOM: usize = 1024 * 1024;

/// How many bytes are written at once to what isn't a file: a pipe takes so many without mixing them
/// with another process' (`PIPE_BUF`, pipe(7)).
const SLICE: usize = 4096;

/// How often a loss is logged at most.
const COMPLAIN_EVERY: Duration = Duration::from_secs(1);

/// How long a file may take nothing before it is looked whether lines are lost by that, in milliseconds.
const PATIENCE: u16 = 1000;

/// The way to the thread, which ends with it.
pub(super) struct Paper(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Wakes the thread.
    work: Condvar,
    /// Tells that all is written.
    done: Condvar,
}

#[derive(Default)]
struct State {
    lines: Vec<u8>,
    /// Lines that found no room.
    lost: u64,
    /// What is to be written to from now on.
    file: Option<OwnedFd>,
    writer: Writer,
    /// Nobody has lines any more.
    closed: bool,
}

/// What the thread is at.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Writer {
    #[default]
    Writes,
    Waits,
}

impl Shared {
    /// What is locked here is changed in single steps, which a panic elsewhere can't leave half done.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the thread if it waits: waking costs a system call.
    fn wake(&self, state: &State) {
        if state.writer == Writer::Waits {
            self.work.notify_one();
        }
    }
}

impl Paper {
    /// Makes the thread, which writes to `file`; to standard error, whatever that is then, when absent.
    pub(super) fn open(file: Option<OwnedFd>) -> io::Result<Self> {
        let state = Mutex::new(State::default());
        let shared = Arc::new(Shared { state, work: Condvar::new(), done: Condvar::new() });
        let theirs = Arc::clone(&shared);
        std::thread::Builder::new().name("access log".to_owned()).spawn(move || work(&theirs, file))?;
        Ok(Self(shared))
    }

    /// Has a line written. Never waits.
    pub(super) fn write(&self, line: &[u8]) {
        let mut state = self.0.lock();
        if state.lines.len() + line.len() > ROOM {
            state.lost += 1;
            return;
        }
        state.lines.extend_from_slice(line);
        self.0.wake(&state);
    }

    /// Has what follows written to another file.
    pub(super) fn reopen(&self, file: OwnedFd) {
        let mut state = self.0.lock();
        state.file = Some(file);
        self.0.wake(&state);
    }

    /// Waits until all is written, but not for longer than `limit`; says whether it is.
    pub(super) fn finish(&self, limit: Duration) -> bool {
        let busy = |state: &mut State| state.writer == Writer::Writes || !state.lines.is_empty();
        let waited = self.0.done.wait_timeout_while(self.0.lock(), limit, busy);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

impl Drop for Paper {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closed = true;
        self.0.wake(&state);
    }
}

/// The life of the thread.
fn work(shared: &Shared, mut file: Option<OwnedFd>) {
    let mut lines = Vec::new();
    let mut complaint = Complaint::default();
    loop {
        lines.clear();
        let mut state = shared.lock();
        while state.lines.is_empty() && state.file.is_none() {
            if state.closed {
                drop(state);
                complaint.speak(None);
                return;
            }
            state.writer = Writer::Waits;
            shared.done.notify_all();
            state = shared.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.writer = Writer::Writes;
        std::mem::swap(&mut lines, &mut state.lines);
        let lost = std::mem::take(&mut state.lost);
        file = state.file.take().or(file);
        drop(state);
        complaint.lost(lost, None);
        let stands_still = || complaint.lost(std::mem::take(&mut shared.lock().lost), None);
        let (written, result) = match &file {
            Some(file) => write(file.as_fd(), &lines, stands_still),
            None => write(io::stderr().as_fd(), &lines, stands_still),
        };
        if let Err(error) = result {
            let lost = memchr::memchr_iter(b'\n', &lines[written..]).count();
            complaint.lost(lost as u64, Some(&error.into()));
        }
    }
}

/// Lines that were lost and of which the log hasn't spoken yet.
#[derive(Default)]
struct Complaint {
    lost: u64,
    last: Option<Instant>,
}

impl Complaint {
    fn lost(&mut self, lines: u64, error: Option<&io::Error>) {
        self.lost += lines;
        if self.last.is_none_or(|last| last.elapsed() >= COMPLAIN_EVERY) {
            self.speak(error);
        }
    }

    fn speak(&mut self, error: Option<&io::Error>) {
        let lines = std::mem::take(&mut self.lost);
        if lines == 0 {
            return;
        }
        self.last = Some(Instant::now());
        if let Some(error) = error {
            tracing::error!(lines, error = chain(error), "access log can't be written; lines lost");
        } else {
            tracing::warn!(lines, "access log is written too slowly; lines lost");
        }
    }
}

/// Writes whole lines, however long that takes; says how many bytes were. Calls `stands_still` now and then
/// while nothing is taken.
fn write(log: BorrowedFd<'_>, lines: &[u8], mut stands_still: impl FnMut()) -> (usize, nix::Result<()>) {
    let regular = nix::sys::stat::fstat(log).is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFREG);
    let mut written = 0;
    while written < lines.len() {
        let rest = &lines[written..];
        let slice = if regular { rest } else { whole_lines(rest) };
        let room = poll(&mut [PollFd::new(log, PollFlags::POLLOUT)], PATIENCE);
        match room.and_then(|ready| if ready > 0 { nix::unistd::write(log, slice) } else { Ok(0) }) {
            Ok(0) => stands_still(),
            Ok(bytes) => written += bytes,
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

/// As many whole lines as fit into a slice, or a part of one that is longer.
fn whole_lines(lines: &[u8]) -> &[u8] {
    let most = &lines[..lines.len().min(SLICE)];
    let end = memchr::memrchr(b'\n', most).map_or(most.len(), |end| end + 1);
    &most[..end]
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn lines_are_written_in_their_order_and_those_after_a_new_file_into_it() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name| std::fs::File::create(directory.path().join(name)).unwrap().into();
        let paper = Paper::open(Some(file("old"))).unwrap();
        for number in 0..100 {
            paper.write(format!("{number}\n").as_bytes());
        }
        paper.finish(LONG);
        paper.reopen(file("new"));
        for number in 100..200 {
            paper.write(format!("{number}\n").as_bytes());
        }
        paper.finish(LONG);
        let read = |name| std::fs::read_to_string(directory.path().join(name)).unwrap();
        let expected = |from: u8, to: u8| (from..to).map(|number| number.to_string() + "\n").collect::<String>();
        assert_eq!((read("old"), read("new")), (expected(0, 100), expected(100, 200)));
    }

    #[test]
    fn a_file_that_is_not_read_holds_nobody_up_takes_no_more_than_its_room_and_loses_no_half_line() {
        let (mut reader, writer) = io::pipe().unwrap();
        let paper = Paper::open(Some(writer.into())).unwrap();
        let line = [&[b'x'; 999][..], b"\n"].concat();
        let all = 4 * ROOM;
        for _ in 0..all / line.len() {
            paper.write(&line);
        }
        let began = Instant::now();
        paper.finish(Duration::from_millis(10));
        assert!(began.elapsed() < LONG, "finish has a limit");
        assert!(paper.0.lock().lines.len() <= ROOM);
        let read = std::thread::spawn(move || {
            let mut text = Vec::new();
            reader.read_to_end(&mut text).unwrap();
            text
        });
        paper.finish(LONG);
        drop(paper);
        let text = read.join().unwrap();
        assert!(text.chunks(line.len()).all(|piece| piece == line), "whole lines only");
        // One room full is with the thread, one waits, and a pipe's worth may have been written.
        assert!((ROOM / 2..=3 * ROOM).contains(&text.len()) && text.len() < all, "{}", text.len());
    }

    #[test]
    fn a_file_that_takes_nothing_is_no_end() {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let paper = Paper::open(Some(full.into())).unwrap();
        paper.write(b"lost\n");
        paper.finish(LONG);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        paper.reopen(std::fs::File::create(&path).unwrap().into());
        paper.write(b"kept\n");
        paper.finish(LONG);
        assert_eq!(std::fs::read_to_string(path).unwrap(), "kept\n");
    }
}
