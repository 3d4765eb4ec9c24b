//! An app's event as a line of the log, in either format.
//!
//! Pure. Owns the bound of a line and the promise that one event is one line: whatever an app, or
//! whoever sent it a request, writes into a text, no second line and no escape sequence comes of it.
//! The host's own lines are made by the layers in [`super`]; these look the same.

use std::collections::HashSet;
use std::fmt::Write;

use serde::ser::{SerializeMap, Serializer};
use serde_json::{Map, Value, json};
use tracing::Level;

use app_host_core::config::LogFormat;
use app_host_core::foreign::is_unsafe;

use crate::logging::{AppEvent, AppField, AppValue};

/// About the most bytes of a line, counted as they are written, escapes included.
pub(super) const MAX_BYTES: usize = 64 * 1024;

/// The most fields of an event or of a span, and the most spans.
const MAX_FIELDS: usize = 128;

/// What each field costs besides its texts: quotes, a comma, a number.
const OVERHEAD: usize = 32;

/// What a line says that isn't the app's to say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame<'a> {
    /// In UTC, as RFC 3339 has it.
    pub time: &'a str,
    pub hostname: &'a str,
    pub pid: u32,
    pub colours: bool,
}

/// Makes the line, with its end.
pub(super) fn render(format: LogFormat, frame: Frame<'_>, event: &AppEvent<'_>) -> Vec<u8> {
    let mut budget = Budget { left: MAX_BYTES, lost: 0 };
    let message = budget.text(event.message);
    let target = budget.text(event.target);
    let fields = budget.fields(&event.fields);
    let spans: Vec<_> = event
        .spans
        .iter()
        .take(MAX_FIELDS)
        .map_while(|(name, fields)| budget.affords(name).then(|| (*name, budget.fields(fields))))
        .collect();
    for (name, _) in event.spans.iter().skip(spans.len()) {
        budget.lost += name.len();
    }
    let line = Line { level: event.level, message, target, fields, spans, lost: budget.lost };
    match format {
        LogFormat::Text => text(frame, &line),
        LogFormat::Bunyan => bunyan(frame, &line),
    }
}

/// What is left of an event within the bound.
struct Line<'a> {
    level: Level,
    message: &'a str,
    target: &'a str,
    fields: Vec<AppField<'a>>,
    spans: Vec<(&'a str, Vec<AppField<'a>>)>,
    /// How many bytes of the app's texts were left out.
    lost: usize,
}

struct Budget {
    left: usize,
    lost: usize,
}

impl Budget {
    /// As much of a text as there is room for.
    fn text<'a>(&mut self, text: &'a str) -> &'a str {
        for (at, c) in text.char_indices() {
            let cost = cost(c);
            if cost > self.left {
                self.lost += text.len() - at;
                self.left = 0;
                return &text[..at];
            }
            self.left -= cost;
        }
        text
    }

    /// Whether there is room for a whole name.
    fn affords(&mut self, name: &str) -> bool {
        let cost = name.chars().map(cost).sum::<usize>() + OVERHEAD;
        let affords = cost <= self.left;
        self.left -= if affords { cost } else { self.left };
        affords
    }

    fn fields<'a>(&mut self, fields: &[AppField<'a>]) -> Vec<AppField<'a>> {
        let mut kept = Vec::with_capacity(fields.len().min(MAX_FIELDS));
        for (key, value) in fields {
            if kept.len() < MAX_FIELDS && self.affords(key) {
                kept.push((
                    *key,
                    if let AppValue::Text(text) = value { AppValue::Text(self.text(text)) } else { *value },
                ));
            } else {
                self.lost += key.len() + if let AppValue::Text(text) = value { text.len() } else { 0 };
            }
        }
        kept
    }
}

/// The most bytes that a character becomes in either format.
fn cost(c: char) -> usize {
    match c {
        '"' | '\\' => 2,
        c if is_unsafe(c) => 8,
        c => c.len_utf8(),
    }
}

/// As `tracing_subscriber`'s text has it: time, level, spans, target, message, fields.
fn text(frame: Frame<'_>, line: &Line<'_>) -> Vec<u8> {
    let mut out = String::with_capacity(256);
    let (dim, plain) = if frame.colours { ("\u{1b}[2m", "\u{1b}[0m") } else { ("", "") };
    let colour = match line.level {
        _ if !frame.colours => "",
        Level::ERROR => "\u{1b}[31m",
        Level::WARN => "\u{1b}[33m",
        Level::INFO => "\u{1b}[32m",
        Level::DEBUG => "\u{1b}[34m",
        Level::TRACE => "\u{1b}[35m",
    };
    // Writing to a string never fails.
    let _ = write!(out, "{dim}{}{plain} {colour}{:>5}{plain} ", frame.time, line.level.as_str());
    for (name, fields) in &line.spans {
        escape(&mut out, name, Quotes::Without);
        if !fields.is_empty() {
            out.push('{');
            text_fields(&mut out, fields, "");
            out.push('}');
        }
        out.push(':');
    }
    if !line.spans.is_empty() {
        out.push(' ');
    }
    out.push_str(dim);
    escape(&mut out, line.target, Quotes::Without);
    let _ = write!(out, ":{plain} ");
    escape(&mut out, line.message, Quotes::Without);
    text_fields(&mut out, &line.fields, if line.message.is_empty() { "" } else { " " });
    if line.lost > 0 {
        let _ = write!(out, " cut={}", line.lost);
    }
    out.push('\n');
    out.into_bytes()
}

fn text_fields(out: &mut String, fields: &[AppField<'_>], before_first: &str) {
    for (index, (key, value)) in fields.iter().enumerate() {
        out.push_str(if index == 0 { before_first } else { " " });
        escape(out, key, Quotes::Without);
        out.push('=');
        let _ = match value {
            AppValue::Text(text) => {
                out.push('"');
                escape(out, text, Quotes::Within);
                out.push('"');
                Ok(())
            }
            AppValue::Int(number) => write!(out, "{number}"),
            AppValue::Uint(number) => write!(out, "{number}"),
            AppValue::Float(number) => write!(out, "{number}"),
            AppValue::Bool(truth) => write!(out, "{truth}"),
        };
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Quotes {
    Within,
    Without,
}

fn escape(out: &mut String, text: &str, quotes: Quotes) {
    for c in text.chars() {
        if is_unsafe(c) || (quotes == Quotes::Within && matches!(c, '"' | '\\')) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
}

/// What bunyan and this host say themselves; a field of the app's with such a name gets a `_`.
const TAKEN: [&str; 10] = ["v", "name", "msg", "level", "hostname", "pid", "time", "target", "spans", "cut"];

fn bunyan(frame: Frame<'_>, line: &Line<'_>) -> Vec<u8> {
    let level = match line.level {
        Level::ERROR => 50,
        Level::WARN => 40,
        Level::INFO => 30,
        Level::DEBUG => 20,
        Level::TRACE => 10,
    };
    let mut out = Vec::with_capacity(512);
    let mut serializer = serde_json::Serializer::new(&mut out);
    let written = serializer.serialize_map(None).and_then(|mut map| {
        map.serialize_entry("v", &0)?;
        map.serialize_entry("name", crate::sys::PROCESS_NAME)?;
        map.serialize_entry("msg", line.message)?;
        map.serialize_entry("level", &level)?;
        map.serialize_entry("hostname", frame.hostname)?;
        map.serialize_entry("pid", &frame.pid)?;
        map.serialize_entry("time", frame.time)?;
        map.serialize_entry("target", line.target)?;
        for (key, value) in distinct(&line.fields, &TAKEN) {
            map.serialize_entry(&key, &value)?;
        }
        if !line.spans.is_empty() {
            let spans: Vec<Value> = line
                .spans
                .iter()
                .map(|(name, fields)| {
                    let mut span = Map::from_iter([("name".to_owned(), json!(name))]);
                    span.extend(distinct(fields, &["name"]));
                    span.into()
                })
                .collect();
            map.serialize_entry("spans", &spans)?;
        }
        if line.lost > 0 {
            map.serialize_entry("cut", &line.lost)?;
        }
        map.end()
    });
    // Texts and numbers can always be written to memory.
    debug_assert!(written.is_ok());
    out.push(b'\n');
    if out.is_ascii() && !out.contains(&0x7f) { out } else { plain(&String::from_utf8_lossy(&out)) }
}

/// A line that another process has made, as it may stand in the log: with its end, and with everything escaped that
/// no line of ours has. With the level that it says it has. Nothing where it is none of this format.
pub(super) fn foreign(format: LogFormat, line: &str) -> Option<(Level, Vec<u8>)> {
    match format {
        LogFormat::Text => {
            let mut out = String::with_capacity(line.len() + 1);
            escape(&mut out, line, Quotes::Without);
            out.push('\n');
            // Behind the time, as `text` has it; in words, because a number would be taken for a level, too.
            let word = line.split_ascii_whitespace().nth(1);
            let word = word.filter(|word| word.bytes().all(|byte| byte.is_ascii_uppercase()));
            let level = word.and_then(|word| word.parse().ok());
            Some((level.unwrap_or(Level::INFO), out.into_bytes()))
        }
        LogFormat::Bunyan => {
            /// What makes a line one of bunyan's.
            #[derive(serde::Deserialize)]
            #[expect(dead_code, reason = "only asked whether they are there")]
            struct Core<'a> {
                v: u8,
                level: u16,
                pid: u32,
                #[serde(borrow)]
                time: std::borrow::Cow<'a, str>,
                #[serde(borrow)]
                msg: std::borrow::Cow<'a, str>,
            }
            let level = match serde_json::from_str::<Core<'_>>(line).ok()?.level {
                50.. => Level::ERROR,
                40.. => Level::WARN,
                30.. => Level::INFO,
                20.. => Level::DEBUG,
                _ => Level::TRACE,
            };
            let mut line = plain(line);
            line.push(b'\n');
            Some((level, line))
        }
    }
}

/// The same JSON without the characters that JSON lets pass and a terminal, or a reader of lines, doesn't.
fn plain(json: &str) -> Vec<u8> {
    let mut plain = String::with_capacity(json.len());
    for c in json.chars() {
        if c != '\n' && is_unsafe(c) {
            let _ = write!(plain, "\\u{:04x}", u32::from(c));
        } else {
            plain.push(c);
        }
    }
    plain.into_bytes()
}

/// The fields under names of which none is there twice, nor taken.
fn distinct(fields: &[AppField<'_>], taken: &[&str]) -> Vec<(String, Value)> {
    let mut seen: HashSet<String> = taken.iter().map(|name| (*name).to_owned()).collect();
    let one = |(key, value): &AppField<'_>| {
        let mut key = (*key).to_owned();
        while !seen.insert(key.clone()) {
            key.push('_');
        }
        let value = match value {
            AppValue::Text(text) => json!(text),
            AppValue::Int(number) => json!(number),
            AppValue::Uint(number) => json!(number),
            // JSON has no word for those that aren't finite.
            AppValue::Float(number) if number.is_finite() => json!(number),
            AppValue::Float(number) => json!(number.to_string()),
            AppValue::Bool(truth) => json!(truth),
        };
        (key, value)
    };
    fields.iter().map(one).collect()
}

#[cfg(test)]
mod tests;
