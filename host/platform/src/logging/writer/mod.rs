//! Lines on their way into a log, written by a thread of their own.
//!
//! Owns the bounded memory between those who have lines and the thread, so that nobody waits for a log: neither
//! for a slow disk nor for a pipe or a terminal whose reader has stopped. Lines that come faster than they are
//! written become one write. What comes faster than the bound allows, or can't be written, is counted, and the log
//! says how many lines that were as soon as it takes lines again. Lines that are in memory when the process is
//! killed are lost; one that ends by itself calls [`LineWriter::flush`].

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use tracing::Level;

use app_host_core::error::chain;

use super::journal::{self, Form};
use crate::sys::signals;

/// How many bytes of lines wait at most.
const ROOM: usize = 1024 * 1024;

/// How many bytes the thread's own lines may take beyond that, so that a loss can be told while it goes on.
const RESERVE: usize = 64 * 1024;

/// Above this an empty buffer gives its memory back.
const KEPT: usize = 64 * 1024;

/// How many bytes are written at once to what isn't a file: a pipe takes so many without mixing them
/// with another process' (`PIPE_BUF`, pipe(7)).
const SLICE: usize = 4096;

/// How often a loss is told at most.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// After how long without progress a log counts as stalled, in milliseconds.
const STALL: u16 = 250;

thread_local! {
    /// Whether this is the thread of a writer.
    static WRITES: Cell<bool> = const { Cell::new(false) };
}

/// Which log a writer writes, for those who read of its losses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Main,
    Access,
}

impl Kind {
    const fn thread(self) -> &'static str {
        match self {
            Self::Main => "log",
            Self::Access => "access log",
        }
    }

    fn tell(self, lines: u64, error: Option<&io::Error>) {
        match (self, error) {
            (Self::Main, None) => tracing::warn!(lines, "log is written too slowly; lines lost"),
            (Self::Main, Some(error)) => {
                tracing::error!(lines, error = chain(error), "log can't be written; lines lost");
            }
            (Self::Access, None) => tracing::warn!(lines, "access log is written too slowly; lines lost"),
            (Self::Access, Some(error)) => {
                tracing::error!(lines, error = chain(error), "access log can't be written; lines lost");
            }
        }
    }
}

/// The way to the thread, which ends with the last clone. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LineWriter(Arc<Handle>);

/// Ends the thread when it is dropped.
#[derive(Debug)]
struct Handle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Wakes the thread.
    work: Condvar,
    /// Tells that lines have left the memory, or that they don't.
    progress: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<u8>,
    /// Lines that found no room.
    lost: u64,
    /// What is to be written to from now on.
    file: Option<OwnedFd>,
    /// How lines look there.
    form: Form,
    thread: Thread,
    /// The log takes nothing at the moment.
    stalled: bool,
    /// A loss is to be told now, however lately one was.
    tell: bool,
    /// Nobody has lines any more.
    closed: bool,
}

/// What the thread is at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Thread {
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
        if state.thread == Thread::Waits {
            self.work.notify_one();
        }
    }
}

impl LineWriter {
    /// Makes the thread, which writes to `file`; to standard error, whatever that is then, when absent.
    ///
    /// # Errors
    /// When the thread can't be made.
    pub fn open(kind: Kind, file: Option<OwnedFd>) -> io::Result<Self> {
        let form = file.as_ref().map_or_else(|| Form::of(io::stderr()), Form::of);
        Self::open_as(kind, file, form)
    }

    fn open_as(kind: Kind, file: Option<OwnedFd>, form: Form) -> io::Result<Self> {
        let state = Mutex::new(State { form, ..State::default() });
        let shared = Arc::new(Shared { state, work: Condvar::new(), progress: Condvar::new() });
        let theirs = Arc::clone(&shared);
        std::thread::Builder::new().name(kind.thread().to_owned()).spawn(move || work(kind, &theirs, file))?;
        Ok(Self(Arc::new(Handle(shared))))
    }

    /// Has a line of this level, with its end, written. Never waits. What is of several lines is as many, in the journal.
    pub fn write(&self, level: Level, line: &[u8]) {
        let shared = &self.0.0;
        let mut state = shared.lock();
        let room = ROOM + if WRITES.get() { RESERVE } else { 0 };
        if state.lines.len() + line.len() > room {
            state.lost += 1;
            return;
        }
        if state.form == Form::Journal {
            for line in line.split_inclusive(|byte| *byte == b'\n') {
                state.lines.extend_from_slice(journal::prefix(level));
                state.lines.extend_from_slice(line);
            }
        } else {
            state.lines.extend_from_slice(line);
        }
        shared.wake(&state);
    }

    /// As [`write`](Self::write), but waits for room: up to `limit`, and not at all for a log that is stalled
    /// already. For threads that nobody depends on.
    pub fn write_within(&self, level: Level, line: &[u8], limit: Duration) {
        let full = |state: &mut State| !state.stalled && state.lines.len() + line.len() > ROOM;
        drop(self.wait_while(limit, full));
        self.write(level, line);
    }

    /// Has what follows, and what still waits, written to another file.
    pub fn redirect(&self, file: OwnedFd) {
        let form = Form::of(&file);
        self.redirect_as(file, form);
    }

    fn redirect_as(&self, file: OwnedFd, form: Form) {
        let mut state = self.0.0.lock();
        state.file = Some(file);
        if std::mem::replace(&mut state.form, form) == Form::Journal && form == Form::Plain {
            // What waits was meant for the journal.
            state.lines = journal::strip(&state.lines);
        }
        self.0.0.wake(&state);
    }

    /// Waits until everything is written: up to `limit`. Says whether it is.
    pub fn flush(&self, limit: Duration) -> bool {
        self.flush_while(limit, |_| true)
    }

    /// As [`flush`](Self::flush), but waits for no log that is stalled, or turns out to be.
    pub fn flush_unless_stalled(&self, limit: Duration) -> bool {
        self.flush_while(limit, |state| !state.stalled)
    }

    fn flush_while(&self, limit: Duration, worth: impl Fn(&State) -> bool) -> bool {
        let mut state = self.0.0.lock();
        state.tell = true;
        self.0.0.wake(&state);
        drop(state);
        let busy = |state: &State| state.tell || state.thread == Thread::Writes || !state.lines.is_empty();
        let mut state = self.wait_while(limit, |state| busy(state) && worth(state));
        let written = !busy(&state);
        state.stalled |= !written;
        written
    }

    #[cfg(test)]
    pub(super) fn is_stalled(&self) -> bool {
        self.0.0.lock().stalled
    }

    fn wait_while(&self, limit: Duration, condition: impl FnMut(&mut State) -> bool) -> MutexGuard<'_, State> {
        let waited = self.0.0.progress.wait_timeout_while(self.0.0.lock(), limit, condition);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closed = true;
        self.0.wake(&state);
    }
}

/// What the thread has to do next.
enum Work {
    Lines { lost: u64 },
    Tell,
    End,
}

/// Waits for something to do. Takes the lines that there are.
fn next(shared: &Shared, lines: &mut Vec<u8>, file: &mut Option<OwnedFd>, untold: bool) -> Work {
    let mut state = shared.lock();
    loop {
        if let Some(other) = state.file.take() {
            *file = Some(other);
        }
        if !state.lines.is_empty() || state.lost > 0 {
            state.thread = Thread::Writes;
            std::mem::swap(lines, &mut state.lines);
            let lost = std::mem::take(&mut state.lost);
            shared.progress.notify_all();
            return Work::Lines { lost };
        }
        if std::mem::take(&mut state.tell) && untold {
            state.thread = Thread::Writes;
            return Work::Tell;
        }
        state.thread = Thread::Waits;
        state.stalled = false;
        shared.progress.notify_all();
        if state.closed {
            return Work::End;
        }
        if untold {
            let (guard, waited) = shared.work.wait_timeout(state, TELL_EVERY).unwrap_or_else(PoisonError::into_inner);
            state = guard;
            state.tell |= waited.timed_out();
        } else {
            state = shared.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The life of the thread.
fn work(kind: Kind, shared: &Shared, mut file: Option<OwnedFd>) {
    WRITES.set(true);
    // Where that can't be, it writes as it can.
    let _ = signals::write_in_the_background();
    let mut lines = Vec::new();
    let mut losses = Losses { kind, lines: 0, last: None, told: Told::default() };
    loop {
        lines.clear();
        lines.shrink_to(KEPT);
        // What was told goes with the lines that are taken next.
        let told = std::mem::take(&mut losses.told);
        match next(shared, &mut lines, &mut file, losses.lines > 0) {
            Work::End => return losses.tell(None),
            Work::Tell => losses.tell(None),
            Work::Lines { lost } => {
                losses.add(lost, None);
                let stalls = || {
                    let mut state = shared.lock();
                    state.stalled = true;
                    shared.progress.notify_all();
                    let lost = std::mem::take(&mut state.lost);
                    drop(state);
                    // What tells of it waits behind the others, and the memory has a reserve for it.
                    losses.add(lost, None);
                };
                let (written, result) = match &file {
                    Some(file) => write(file.as_fd(), &lines, stalls),
                    None => write(io::stderr().as_fd(), &lines, stalls),
                };
                match result {
                    Ok(()) => shared.lock().stalled = false,
                    Err(error) => {
                        let lost = memchr::memchr_iter(b'\n', &lines[written..]).count() as u64;
                        losses.add((lost + told.lines).saturating_sub(told.times), Some(&error.into()));
                    }
                }
            }
        }
    }
}

/// Lines that were lost and that no line tells of yet.
struct Losses {
    kind: Kind,
    lines: u64,
    last: Option<Instant>,
    /// What the lines say that wait now. It counts again when they can't be written.
    told: Told,
}

#[derive(Default)]
struct Told {
    lines: u64,
    times: u64,
}

impl Losses {
    fn add(&mut self, lines: u64, error: Option<&io::Error>) {
        self.lines += lines;
        if self.last.is_none_or(|last| last.elapsed() >= TELL_EVERY) {
            self.tell(error);
        }
    }

    fn tell(&mut self, error: Option<&io::Error>) {
        let lines = std::mem::take(&mut self.lines);
        if lines > 0 {
            self.last = Some(Instant::now());
            self.told.lines += lines;
            self.told.times += 1;
            self.kind.tell(lines, error);
        }
    }
}

/// Writes whole lines, however long that takes; says how many bytes were. Calls `stalls` now and then while
/// nothing is taken.
fn write(log: BorrowedFd<'_>, lines: &[u8], mut stalls: impl FnMut()) -> (usize, nix::Result<()>) {
    let regular = nix::sys::stat::fstat(log).is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFREG);
    let mut written = 0;
    while written < lines.len() {
        let rest = &lines[written..];
        let slice = if regular { rest } else { whole_lines(rest) };
        let room = poll(&mut [PollFd::new(log, PollFlags::POLLOUT)], STALL);
        match room.and_then(|ready| if ready > 0 { nix::unistd::write(log, slice) } else { Ok(0) }) {
            Ok(0) => stalls(),
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
mod tests;
