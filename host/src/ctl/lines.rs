//! The lines that a master writes to a client.
//!
//! Pure, and bounded: whoever listens at the socket may be another version of a master, or none.

use serde_json::Value;

use app_host_core::command::Answer;
use app_host_core::foreign;

/// The longest line that a master writes: the status of as many workers as there can be, with room.
const MAX_LINE: usize = 4 * 1024 * 1024;

/// A line of the master's.
#[derive(Debug)]
pub(super) enum Line {
    Answer(Answer),
    Event(Value),
}

/// What no master says.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoLine {
    #[error("a line of more than {MAX_LINE} bytes")]
    TooLong,
    #[error("{0}")]
    Neither(String),
}

/// What has come and wasn't taken.
#[derive(Debug, Default)]
pub(super) struct Lines {
    bytes: Vec<u8>,
    /// What of them is known to have no newline.
    seen: usize,
}

impl Lines {
    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next line, if all of it is there.
    pub(super) fn next(&mut self) -> Result<Option<Line>, NoLine> {
        if let Some(end) = self.bytes[self.seen..].iter().position(|byte| *byte == b'\n') {
            let rest = self.bytes.split_off(self.seen + end + 1);
            let line = std::mem::replace(&mut self.bytes, rest);
            self.seen = 0;
            return understand(&line).map(Some);
        }
        self.seen = self.bytes.len();
        if self.seen > MAX_LINE { Err(NoLine::TooLong) } else { Ok(None) }
    }
}

fn understand(line: &[u8]) -> Result<Line, NoLine> {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end_matches('\n');
    if let Some(answer) = Answer::parse(text) {
        return Ok(Line::Answer(answer));
    }
    match serde_json::from_str(text) {
        Ok(event @ Value::Object(_)) => Ok(Line::Event(event)),
        _ => Err(NoLine::Neither(foreign::line(text, foreign::MAX_TEXT))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_one_by_one_however_they_are_cut_and_none_is_endless() {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for byte in b"ACK\n{\"event\":\"x\"}\nNACK no\n" {
            lines.put(&[*byte]);
            found.extend(lines.next().unwrap());
        }
        assert!(matches!(&found[..], [Line::Answer(Answer::Ack), Line::Event(_), Line::Answer(Answer::Nack(_))]));
        lines.put(b"what\x1b[2J?\n");
        assert_eq!(lines.next().unwrap_err().to_string(), "what\\u{1b}[2J?");
        lines.put(&vec![b'x'; MAX_LINE + 1]);
        assert!(matches!(lines.next(), Err(NoLine::TooLong)));
    }
}
