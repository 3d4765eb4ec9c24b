//! Reads the host's log in bunyan's format while it grows.
//!
//! Lines that are no JSON (the last words of an app that aborts) are kept as text, so that a report
//! shows them, and match no message.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde_json::Value;

/// One line of the log.
#[derive(Clone, Debug)]
pub struct Line {
    text: String,
    value: Value,
}

impl Line {
    /// Parses one line; text that is no JSON gives a line without fields.
    pub fn parse(text: &str) -> Self {
        Self { text: text.to_owned(), value: serde_json::from_str(text).unwrap_or(Value::Null) }
    }

    /// The line as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// All fields, `null` when the line is no JSON.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// The constant message, empty when there is none.
    pub fn msg(&self) -> &str {
        self.str("msg")
    }

    /// A field as text; numbers are printed, an absent field is empty.
    pub fn str(&self, key: &str) -> &str {
        self.value.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    /// A field as a number, also when it was written as text.
    pub fn number(&self, key: &str) -> Option<u64> {
        let field = self.value.get(key)?;
        field.as_u64().or_else(|| field.as_str()?.parse().ok())
    }

    /// A field as truth, also when it was written as text.
    pub fn flag(&self, key: &str) -> Option<bool> {
        let field = self.value.get(key)?;
        field.as_bool().or_else(|| field.as_str()?.parse().ok())
    }

    /// The process that wrote the line.
    pub fn pid(&self) -> u32 {
        self.number("pid").and_then(|pid| pid.try_into().ok()).unwrap_or_default()
    }

    /// The process that the line is about.
    pub fn worker_pid(&self) -> u32 {
        self.number("worker_pid").and_then(|pid| pid.try_into().ok()).unwrap_or_default()
    }

    /// Seconds since midnight UTC, from the line's `time`.
    pub fn seconds(&self) -> Option<f64> {
        let clock = self.str("time").split_once('T')?.1;
        let end = clock.find(['Z', '+', '-']).unwrap_or(clock.len());
        let mut parts = clock[..end].splitn(3, ':');
        let hours: f64 = parts.next()?.parse().ok()?;
        let minutes: f64 = parts.next()?.parse().ok()?;
        let seconds: f64 = parts.next()?.parse().ok()?;
        Some((hours * 60.0 + minutes) * 60.0 + seconds)
    }
}

/// The lines read so far of a growing log file.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    offset: u64,
    partial: Vec<u8>,
    lines: Vec<Line>,
}

impl Log {
    /// A log that need not exist yet.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), offset: 0, partial: Vec::new(), lines: Vec::new() }
    }

    /// Reads what was written since, and returns all lines. A line counts once it is whole.
    pub fn lines(&mut self) -> &[Line] {
        if let Ok(mut file) = File::open(&self.path)
            && file.seek(SeekFrom::Start(self.offset)).is_ok()
            && let Ok(read) = file.read_to_end(&mut self.partial)
        {
            self.offset += read as u64;
            if let Some(end) = self.partial.iter().rposition(|byte| *byte == b'\n') {
                let rest = self.partial.split_off(end + 1);
                let text = String::from_utf8_lossy(&self.partial);
                self.lines.extend(text.lines().map(Line::parse));
                self.partial = rest;
            }
        }
        &self.lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_counts_once_it_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut log = Log::new(&path);
        assert!(log.lines().is_empty());
        std::fs::write(&path, "{\"msg\":\"one\",\"n\":1}\n{\"msg\":\"tw").unwrap();
        assert_eq!(log.lines().len(), 1);
        assert_eq!(log.lines()[0].number("n"), Some(1));
        std::fs::write(&path, "{\"msg\":\"one\",\"n\":1}\n{\"msg\":\"two\"}\nabort\n").unwrap();
        assert_eq!(log.lines()[1].msg(), "two");
        assert_eq!(log.lines()[2].msg(), "");
    }

    #[test]
    fn the_time_is_read_to_the_microsecond() {
        let line = Line::parse(r#"{"time":"2026-11-22T01:00:02.000500Z"}"#);
        assert!((line.seconds().unwrap() - 3602.0005).abs() < 1e-9);
    }
}
