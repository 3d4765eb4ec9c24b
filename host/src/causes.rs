//! Errors as text: the message and its causes, once, on one line.
//!
//! Pure, and used wherever an error becomes a field of the log or a reason in a message.

/// An error and its causes on one line.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(each) = cause {
        text.push_str(": ");
        text.push_str(&each.to_string());
        cause = each.source();
    }
    text
}
