//! Where the master of a configuration is reached, whatever else is wrong in the file.
//!
//! A master goes on with what it has read, and must be reached while the file on disk is broken: then most of all.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::databank::redact;
use super::{ConfigError, control, defaults, without_place};

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whereabouts {
    pub socket: PathBuf,
    /// What is to be said of it, where the file doesn't say it plainly.
    pub doubt: Option<String>,
}

/// The control socket of the master that runs with the file at `path`, which must be absolute.
pub fn find(bytes: &[u8], path: &Path) -> Whereabouts {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let (found, fault) = match serde_json::from_slice::<Value>(bytes) {
        Ok(value) => (Found::of_json(&value), None),
        Err(error) => {
            let error = ConfigError::Invalid {
                path: path.to_owned(),
                line: error.line().max(1),
                column: error.column().max(1),
                key: ".".to_owned(),
                message: redact(&without_place(&error)),
            };
            (Found::of_text(&String::from_utf8_lossy(bytes)), Some(error.to_string()))
        }
    };
    let state_dir = directory.join(found.state_dir.clone().unwrap_or_else(defaults::state_dir));
    let socket = control::path(found.control_socket.clone(), directory, &state_dir);
    let doubt = match (fault, &found.wrong) {
        (None, None) => None,
        (None, Some(wrong)) => Some(format!("{wrong} in {}; the default is taken", path.display())),
        (Some(fault), _) => {
            let by = match (&found.control_socket, &found.state_dir) {
                (Some(_), _) => "as \"control_socket\" in it says",
                (None, Some(_)) => "as \"state_dir\" in it says",
                (None, None) => "where it is by default",
            };
            Some(format!("the configuration can't be read ({fault}); the control socket is looked for {by}"))
        }
    };
    Whereabouts { socket, doubt }
}

#[derive(Debug, Default)]
struct Found {
    state_dir: Option<PathBuf>,
    control_socket: Option<PathBuf>,
    /// A key that is there and says nothing.
    wrong: Option<String>,
}

impl Found {
    fn of_json(value: &Value) -> Self {
        let mut found = Self::default();
        if !value.is_object() {
            found.wrong = Some("there is no object".to_owned());
        }
        let mut take = |key: &str, value: Option<&Value>| match value {
            None | Some(Value::Null) => None,
            Some(Value::String(path)) => Some(PathBuf::from(path)),
            Some(_) => {
                found.wrong = Some(format!("\"{key}\" is no path"));
                None
            }
        };
        let state_dir = take("state_dir", value.get("state_dir"));
        let control_socket = match value.get("control_socket") {
            Some(Value::Object(object)) => take("control_socket.path", object.get("path")),
            other => take("control_socket", other),
        };
        found.state_dir = state_dir;
        found.control_socket = control_socket;
        found
    }

    /// What a text that is no JSON says all the same: the string that follows a key and a colon.
    fn of_text(text: &str) -> Self {
        let value = |key: &str| {
            let key = format!("\"{key}\"");
            text.match_indices(&key).find_map(|(at, _)| {
                let rest = text[at + key.len()..].trim_start().strip_prefix(':')?.trim_start();
                // Of an object its path, as far as its end.
                let rest = match rest.strip_prefix('{') {
                    Some(object) => {
                        let object = object.split('}').next()?;
                        let (_, rest) = object.split_once("\"path\"")?;
                        rest.trim_start().strip_prefix(':')?.trim_start()
                    }
                    None => rest,
                };
                let mut strings = serde_json::Deserializer::from_str(rest).into_iter::<String>();
                strings.next()?.ok().filter(|path| !path.is_empty()).map(PathBuf::from)
            })
        };
        Self { state_dir: value("state_dir"), control_socket: value("control_socket"), wrong: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_found_in_whatever_the_file_has_become() {
        let default = "/c/state/control.sock";
        for (text, socket, doubt) in [
            (r#"{"app": {"library": "a"}}"#, default, None),
            (r#"{"nonsense": 1, "workers": "x", "state_dir": "s"}"#, "/c/s/control.sock", None),
            (r#"{"control_socket": "/run/c", "app": 7}"#, "/run/c", None),
            (r#"{"control_socket": {"path": "c", "group": "deploy", "bad": 1}}"#, "/c/c", None),
            (r#"{"control_socket": {"group": "deploy"}, "state_dir": "s"}"#, "/c/s/control.sock", None),
            (r#"{"control_socket": 7}"#, default, Some("\"control_socket\" is no path in /c/c.json")),
            (r#"{"control_socket": {"path": []}}"#, default, Some("\"control_socket.path\" is no path")),
            ("[]", default, Some("there is no object in /c/c.json")),
            ("", default, Some("looked for where it is by default")),
            ("{", default, Some("/c/c.json:1:1: EOF")),
            (r#"{"state_dir": "s", "app": {"library": "a",}}"#, "/c/s/control.sock", Some("\"state_dir\" in it says")),
            (r#"{"control_socket": "/run/c" "app""#, "/run/c", Some("\"control_socket\" in it says")),
            (r#"{"control_socket" : {"mode": "660", "path": "/run/\u0063"}, x"#, "/run/c", Some("/c/c.json:1:")),
            (r#"{"state_dir": "unfinished"#, default, Some("by default")),
            (r#"{"a": "state_dir", "state_dir": "s"#, default, Some("by default")),
            ("\u{feff}{\"state_dir\": \"s\"}", "/c/s/control.sock", Some("/c/c.json:1:1: ")),
        ] {
            let found = find(text.as_bytes(), Path::new("/c/c.json"));
            assert_eq!(found.socket, Path::new(socket), "{text}");
            match (doubt, &found.doubt) {
                (None, found) => assert_eq!(*found, None, "{text}"),
                (Some(doubt), found) => {
                    assert!(found.as_ref().is_some_and(|found| found.contains(doubt)), "{text}: {found:?}");
                }
            }
        }
        assert_eq!(find(b"\xff\"state_dir\":\"s\"", Path::new("/c.json")).socket, Path::new("/s/control.sock"));
    }
}
