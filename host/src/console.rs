//! What a command says: its answer on standard output, everything else on standard error.
//!
//! Owns what becomes of it where nobody can read it. (`println!` and `eprintln!` would panic.)

use std::io::{self, ErrorKind, Write};

/// Who reads the answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    Reads,
    /// Has seen enough and closed the pipe, which is no error: the exit code is the answer.
    Gone,
}

/// Writes an answer, or a part of one.
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

/// Says something besides. Where nobody can be told, the exit code has to do.
pub fn note(text: &str) {
    let _ = io::stderr().write_all(format!("{text}\n").as_bytes());
}
