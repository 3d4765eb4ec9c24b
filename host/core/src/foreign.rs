//! Foreign text: what an app, a library, a client or a child wrote, made fit for a line of ours.
//!
//! Pure. The one place that says which characters may stand in a line for people, and how long such a text may be.
//! What comes from a child or a library goes through here where it comes in; what is printed for people once more.
//! Names in JSON are left to JSON's own escapes.

use std::borrow::Cow;
use std::fmt::Write;

use serde_json::Value;

/// The most bytes of a text that says why something has failed.
pub const MAX_TEXT: usize = 8 * 1024;

/// The most bytes of a name, or of a few words.
pub const MAX_NAME: usize = 255;

/// Room for the note that says how much is missing.
const NOTE: usize = "… (cut: 18446744073709551615 bytes)".len();

/// What could end a line, move a terminal's cursor, or show text in another order than it has.
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text on one line, its unsafe characters as escapes, in at most `most` bytes with a note of what was cut.
///
/// What comes out of this is left as it is by a second time.
pub fn line(text: &str, most: usize) -> String {
    let mut out = String::with_capacity(text.len().min(most));
    // How much of both fits before the note.
    let mut kept = (0, 0);
    for (at, c) in text.char_indices() {
        if out.len() <= most.saturating_sub(NOTE) {
            kept = (at, out.len());
        }
        if is_unsafe(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
        if out.len() > most {
            out.truncate(kept.1);
            // Writing to a string never fails.
            let _ = write!(out, "… (cut: {} bytes)", text.len() - kept.0);
            break;
        }
    }
    out
}

/// The text without the codes for colours and styles (`ESC [ … m`, ECMA-48 8.3.117), which a subscriber prints that takes
/// a log for a terminal. Other codes do something, and are left for [`line()`] to show.
pub fn without_styles(text: &str) -> Cow<'_, str> {
    const BEGIN: &str = "\u{1b}[";
    if !text.contains(BEGIN) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(BEGIN) {
        let code = &rest[at + BEGIN.len()..];
        let end = code.find(|c: char| !matches!(c, '0'..='9' | ';' | ':'));
        if let Some(end) = end.filter(|end| code[*end..].starts_with('m')) {
            plain.push_str(&rest[..at]);
            rest = &code[end + 1..];
        } else {
            plain.push_str(&rest[..at + BEGIN.len()]);
            rest = code;
        }
    }
    plain.push_str(rest);
    Cow::Owned(plain)
}

/// As [`line()`], of any length.
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.contains(is_unsafe) { Cow::Owned(line(text, usize::MAX)) } else { Cow::Borrowed(text) }
}

/// Makes every text in `value` [`printable`].
pub fn make_printable(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Cow::Owned(escaped) = printable(text) {
                *text = escaped;
            }
        }
        Value::Array(values) => values.iter_mut().for_each(make_printable),
        Value::Object(fields) => fields.values_mut().for_each(make_printable),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_and_styles_are_left_out_and_no_other_code_is() {
        for (text, plain) in [
            ("plain", "plain"),
            ("\u{1b}[2m2026\u{1b}[0m \u{1b}[32m INFO\u{1b}[0m a\u{1b}[38;5;1mb\u{1b}[m", "2026  INFO ab"),
            ("\u{1b}[2Ja\u{1b}[", "\u{1b}[2Ja\u{1b}["),
            ("\u{1b}[31", "\u{1b}[31"),
            ("\u{1b}[\u{1b}[1mé", "\u{1b}[é"),
        ] {
            assert_eq!(without_styles(text), plain, "{text:?}");
        }
    }
    use proptest::prelude::*;

    #[test]
    fn nothing_that_moves_a_cursor_or_ends_a_line_is_left() {
        let hostile = "a\r\nERROR forged\u{1b}[2J\u{2028}\u{202e}\u{200f}\u{61c}b\0\u{85}\u{9b}31m\t\\\"é漢";
        assert_eq!(
            line(hostile, MAX_TEXT),
            "a\\r\\nERROR forged\\u{1b}[2J\\u{2028}\\u{202e}\\u{200f}\\u{61c}b\\u{0}\\u{85}\\u{9b}31m\\t\\\"é漢"
        );
        assert_eq!(printable(hostile), line(hostile, MAX_TEXT));
    }

    #[test]
    fn what_is_too_long_is_cut_and_says_so() {
        let text = line(&"é".repeat(8 << 20), MAX_TEXT);
        assert!(text.len() <= MAX_TEXT && text.starts_with('é'), "{}", text.len());
        assert!(text.ends_with(" bytes)") && text.contains("… (cut: 16"), "{}", &text[text.len() - 60..]);
        assert_eq!(line(&"x".repeat(MAX_TEXT), MAX_TEXT), "x".repeat(MAX_TEXT), "what just fits isn't cut");
        assert_eq!(line("", 0), "");
    }

    proptest! {
        #[test]
        fn a_line_is_bounded_and_comes_out_of_itself(text in "(\\PC|[\u{0}-\u{9f}\u{2020}-\u{2070}]){0,300}", most in 100_usize..400) {
            let once = line(&text, most);
            prop_assert!(once.len() <= most);
            prop_assert!(!once.contains(is_unsafe));
            prop_assert_eq!(&line(&once, most), &once);
        }
    }
}
