//! The page: HTML made on the server, whole without JavaScript.

use crate::NEWEST;
use crate::guestbook::{Draft, Entry, LONGEST_NAME, LONGEST_TEXT};
use app_abi::{Document, Host};
use std::{
    fmt::Write,
    time::{SystemTime, UNIX_EPOCH},
};

pub const STYLE: &str = include_str!("page.css");
pub const SCRIPT: &str = include_str!("page.js");

/// What the browser may load and run: what comes from here. An entry that got around the escaping
/// would still run nothing.
pub const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
    img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The page. `visits` is `None` where the databank is away; `draft` stands in the form, and what was
/// wrong above it.
pub fn html(
    host: &Host,
    greeting: &str,
    visits: Option<i64>,
    entries: &[Document<Entry>],
    draft: &Draft,
    problem: Option<&str>,
) -> String {
    let mut list = String::new();
    for Document { id, value: Entry { name, text, at }, .. } in entries {
        let (name, text, ago) = (escape(name), escape(text), ago(*at));
        // Writing to a text can't fail.
        let _ = write!(list, include_str!("entry.html"), id = id, name = name, text = text, at = at, ago = ago);
    }
    format!(
        include_str!("page.html"),
        greeting = escape(greeting),
        visits = visits.map_or_else(|| "?".to_owned(), |visits| visits.to_string()),
        slot = host.slot(),
        generation = host.generation(),
        pid = host.worker_pid(),
        hidden = if problem.is_some() { "" } else { "hidden" },
        problem = escape(problem.unwrap_or_default()),
        name = escape(&draft.name),
        text = escape(&draft.text),
        longest_name = LONGEST_NAME,
        longest_text = LONGEST_TEXT,
        most = NEWEST,
        entries = list,
    )
}

/// Text as it may stand in an element or between the quotes of an attribute.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// How long ago that was, `at` in milliseconds since 1970.
fn ago(at: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let minutes = now.saturating_sub(at / 1000) / 60;
    let (count, unit) = match minutes {
        0 => return "just now".to_owned(),
        1..60 => (minutes, "minute"),
        60..1440 => (minutes / 60, "hour"),
        _ => (minutes / 1440, "day"),
    };
    format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" })
}

/// The fields of a form or a query (WHATWG URL Standard, "application/x-www-form-urlencoded").
pub fn fields(form: &[u8]) -> impl Iterator<Item = (String, String)> {
    form.split(|byte| *byte == b'&').filter(|field| !field.is_empty()).map(|field| {
        let (name, value) =
            field.iter().position(|byte| *byte == b'=').map_or((field, &[][..]), |at| (&field[..at], &field[at + 1..]));
        (decode(name), decode(value))
    })
}

fn decode(text: &[u8]) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [byte, tail @ ..] = rest {
        let escaped = tail.get(..2).filter(|_| *byte == b'%').and_then(|digits| {
            // Two digits and no sign, which the parser would take.
            let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
            u8::from_str_radix(digits, 16).ok()
        });
        decoded.push(escaped.unwrap_or(if *byte == b'+' { b' ' } else { *byte }));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}
