//! Maps errors of the server and of the crate to the faults that an app gets.
//!
//! Owns the codes. The crate's errors can be pages long and hold the topology: a fault has their kind and first line,
//! without secrets.

use mongodb::error::{Error, ErrorKind, WriteFailure};

use app_host_core::config::databank::redact;

use super::super::Fault;

/// The most bytes of an error that are shown.
const SHOWN: usize = 400;

// `src/mongo/base/error_codes.yml` of the server; those above 10,000 have no names there.
const BAD_VALUE: i32 = 2;
const TYPE_MISMATCH: i32 = 14;
const OVERFLOW: i32 = 15;
const PATH_NOT_VIABLE: i32 = 28;
const DOCUMENT_VALIDATION_FAILURE: i32 = 121;
const CANNOT_INDEX_PARALLEL_ARRAYS: i32 = 171;
const OBJECT_TOO_LARGE: i32 = 10334;
const DUPLICATE_KEY: i32 = 11000;
const GROWN_TOO_LARGE: [i32; 2] = [17419, 17420];
const INDEX_CONFLICTS: [i32; 3] = [67, 85, 86];

/// Whether the document is there already; or another one, if there is a unique index that the host didn't make.
pub fn is_duplicate(error: &Error) -> bool {
    code(error) == Some(DUPLICATE_KEY)
}

/// The fault that an error is, `place` being the document or the type that it was about.
pub fn fault(place: &impl std::fmt::Display, error: &Error) -> Fault {
    let text = format!("{place}: {}", cause(error));
    match code(error) {
        Some(
            BAD_VALUE
            | TYPE_MISMATCH
            | OVERFLOW
            | PATH_NOT_VIABLE
            | DOCUMENT_VALIDATION_FAILURE
            | CANNOT_INDEX_PARALLEL_ARRAYS
            | OBJECT_TOO_LARGE
            | DUPLICATE_KEY,
        ) => Fault::Invalid(text),
        Some(code) if GROWN_TOO_LARGE.contains(&code) || INDEX_CONFLICTS.contains(&code) => Fault::Invalid(text),
        // Before anything is sent: a document larger than the server takes, for one.
        None if matches!(*error.kind, ErrorKind::InvalidArgument { .. }) => Fault::Invalid(text),
        _ => Fault::Unavailable(text),
    }
}

/// Whether the server refused to add, because the sum doesn't fit.
pub fn is_overflow(error: &Error) -> bool {
    code(error) == Some(BAD_VALUE) && cause(error).contains("$inc")
}

/// The fault of every call when the URI can't be used. The crate may quote what it doesn't understand of it, and that may
/// be a password which isn't escaped, so that the server's address seems to be in it.
pub fn unusable(uri: &str, error: &Error) -> Fault {
    let words = |text: &str| -> Vec<String> {
        text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_owned).collect()
    };
    let mut text = cause(error);
    if matches!(*error.kind, ErrorKind::InvalidArgument { .. }) {
        let secret = uri.rsplit_once('@').or_else(|| uri.split_once('?')).map_or(uri, |(before, _)| before);
        let secret =
            secret.strip_prefix("mongodb://").or_else(|| secret.strip_prefix("mongodb+srv://")).unwrap_or(secret);
        let secret = words(secret);
        if words(&text).iter().any(|word| secret.contains(word)) {
            "it is no valid connection string".clone_into(&mut text);
        }
    }
    Fault::Unavailable(format!("databank.uri can't be used: {text}"))
}

/// The server's own code.
fn code(error: &Error) -> Option<i32> {
    match &*error.kind {
        ErrorKind::Command(error) => Some(error.code),
        ErrorKind::Write(WriteFailure::WriteError(error)) => Some(error.code),
        ErrorKind::Write(WriteFailure::WriteConcernError(error)) => Some(error.code),
        _ => None,
    }
}

/// The cause in one line, without secrets.
pub fn cause(error: &Error) -> String {
    let text = match &*error.kind {
        ErrorKind::Command(error) => format!("{} ({})", error.message, error.code_name),
        ErrorKind::Write(WriteFailure::WriteError(error)) => error.message.clone(),
        ErrorKind::Write(WriteFailure::WriteConcernError(error)) => {
            format!("it isn't sure that the write lasts: {} ({})", error.message, error.code_name)
        }
        ErrorKind::Io(error) => error.to_string(),
        ErrorKind::InvalidArgument { message, .. } => message.clone(),
        ErrorKind::ServerSelection { message, .. } => no_server(message),
        other => other.to_string(),
    };
    short(&redact(&text))
}

/// What the crate says of each server, out of its description of the topology. If that has another form than in 3.9, it is
/// shown as it is.
fn no_server(message: &str) -> String {
    let servers: Vec<_> = message.split("Address: ").skip(1).map(server).collect();
    if servers.is_empty() { message.to_owned() } else { format!("no server can be used: {}", servers.join("; ")) }
}

fn server(description: &str) -> String {
    let behind = |name: &str| {
        let (_, text) = description.split_once(name)?;
        text.split([',', '}']).next().map(str::trim)
    };
    let address = description.split(',').next().unwrap_or_default();
    match (behind("Error: Kind: "), behind("Type: ")) {
        (Some(error), _) => format!("{address}: {error}"),
        (None, Some(kind)) => format!("{address} is a {kind}"),
        (None, None) => address.to_owned(),
    }
}

/// The first line of a text, cut if it is long.
fn short(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().map(|(at, _)| at).find(|at| *at > SHOWN) {
        Some(end) => format!("{} …", &line[..end]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(code: i32, message: &str) -> Error {
        let error = json!({ "code": code, "codeName": "Name", "errmsg": message });
        ErrorKind::Command(serde_json::from_value(error).unwrap()).into()
    }

    #[test]
    fn what_an_app_can_mend_is_invalid_and_all_else_unavailable() {
        for code in [2, 14, 28, 85, 86, 171, 10334, 17419] {
            assert_eq!(fault(&"note/x", &refused(code, "no")), Fault::Invalid("note/x: no (Name)".to_owned()));
        }
        // Unauthorized, max time, write concern, not primary, stepped down, interrupted, out of disk, cache.
        for code in [13, 50, 64, 10107, 189, 11601, 11602, 14031, -31800, 99999] {
            assert!(matches!(fault(&"note/x", &refused(code, "no")), Fault::Unavailable(_)), "{code}");
        }
        let broken = Error::from(std::io::Error::other("it broke"));
        assert_eq!(fault(&"note", &broken), Fault::Unavailable("note: it broke".to_owned()));
        assert!(is_duplicate(&refused(11000, "E11000")));
        assert!(is_overflow(&refused(2, "Failed to apply $inc operations")));
        assert!(!is_overflow(&refused(2, "other")));
    }

    #[test]
    fn a_cause_is_one_short_line_without_secrets() {
        assert_eq!(cause(&refused(1, "see mongodb://u:hunter2@h/ for it")), "see mongodb://(secret)@h/ for it (Name)");
        assert_eq!(short("one\ntwo"), "one");
        assert!(short(&"é".repeat(1000)).len() < SHOWN + 10);
        let description = "Server selection timeout: No available servers. Topology: { Type: Unknown, Servers: [ \
             { Address: h:1, Type: Unknown, Error: Kind: I/O error: Connection refused (os error 111), labels: {}, \
             source: None, server response: None }, { Address: i:2, Type: RSSecondary, Average RTT: 1ms } ] }";
        assert_eq!(
            no_server(description),
            "no server can be used: h:1: I/O error: Connection refused (os error 111); i:2 is a RSSecondary"
        );
        assert_eq!(no_server("something else"), "something else");
    }
}
