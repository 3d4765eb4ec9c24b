//! Errors as text: the message and its causes, once, on one line.
//!
//! Pure, and used wherever an error becomes a field of the log or a reason in a message. Errors quote what they are
//! about, a path or an app's own words, so the line is made of them as of all [`foreign`] text.

use crate::foreign;

/// An error and its causes on one line, of at most [`foreign::MAX_TEXT`] bytes.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = foreign::line(&error.to_string(), foreign::MAX_TEXT);
    let mut cause = error.source();
    while let Some(each) = cause
        && text.len() < foreign::MAX_TEXT
    {
        text.push_str(": ");
        text.push_str(&foreign::line(&each.to_string(), foreign::MAX_TEXT));
        cause = each.source();
    }
    foreign::line(&text, foreign::MAX_TEXT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Error {
        text: String,
        source: Option<Box<Error>>,
    }

    #[test]
    fn an_error_is_one_bounded_line_whatever_its_causes_say() {
        let inner = Error { text: "x\n".repeat(4 << 20), source: None };
        let outer = Error { text: "start failed\u{1b}[2J".to_owned(), source: Some(Box::new(inner)) };
        let text = chain(&outer);
        assert!(text.starts_with("start failed\\u{1b}[2J: x\\nx\\n"), "{text:.80}");
        assert!(text.len() <= foreign::MAX_TEXT && text.ends_with(" bytes)"), "{}", text.len());
    }
}
