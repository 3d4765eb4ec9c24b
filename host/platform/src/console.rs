//! What a command says: its answer on standard output, everything else on standard error.
//!
//! Owns what becomes of it where nobody can read it. (`println!` and `eprintln!` would panic, and wait for a reader that
//! has stopped for as long as it has.)

use std::io::{self, ErrorKind, Write};
use std::sync::OnceLock;
use std::time::Duration;

use tracing::Level;

use crate::logging::{Kind, LineWriter};

/// How long a note waits to be written.
const PATIENCE: Duration = Duration::from_secs(1);

/// Who reads the answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    Reads,
    /// Has seen enough and closed the pipe, which is no error: the exit code is the answer.
    Gone,
}

/// Writes an answer, or a part of one. Waits for its reader.
///
/// # Errors
/// When it can't be written, to a full disk for instance: then the command has not done what it was asked for.
pub fn answer(text: &str) -> io::Result<Reader> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(Reader::Reads),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(error),
    }
}

/// Says something besides. Where nobody can be told, or nobody reads, the exit code has to do.
pub fn note(text: &str) {
    say(Level::INFO, text);
}

/// As [`note`], of what an operator should know.
pub fn warning(text: &str) {
    say(Level::WARN, text);
}

/// As [`note`], of what went wrong.
pub fn error(text: &str) {
    say(Level::ERROR, text);
}

fn say(level: Level, text: &str) {
    static STDERR: OnceLock<Option<LineWriter>> = OnceLock::new();
    let line = format!("{text}\n");
    match STDERR.get_or_init(|| LineWriter::open(Kind::Main, None).ok()) {
        Some(writer) => {
            writer.write(level, line.as_bytes());
            writer.flush_unless_stalled(PATIENCE);
        }
        // Without a thread to spare.
        None => drop(io::stderr().write_all(line.as_bytes())),
    }
}
