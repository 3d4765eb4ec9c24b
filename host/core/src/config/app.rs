//! The section `app`: the library, and the app's own configuration with the secrets that stand in files.
//!
//! Pure: who reads a file is told its path. `app.config` is the app's, and is handed to it as it is written, but for one
//! thing: an object `{"file": "PATH"}` in it, with this key alone, stands for the text of that file; where all of
//! `app.config` is one, for the JSON in it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::secret::Secret;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

/// How deep it may be nested: as deep as an app can read it (`serde_json`).
const MAX_DEPTH: usize = 127;

/// A secret that is shorter is not looked for in a text: every other word has it.
const MIN_HIDDEN: usize = 4;

/// Nor is a variable's value that is shorter: `true`, `8080` and `release` are no secrets, and say much.
const MIN_HIDDEN_VARIABLE: usize = 8;

/// The app: its library, and what is handed to it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct App {
    pub library: PathBuf,
    /// Shared, because every generation's snapshot and every spawn refers to it.
    #[serde(default = "super::defaults::app_config")]
    pub config: Arc<RawValue>,
}

/// What the app gets as its configuration, with the secrets in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppConfig {
    /// JSON.
    pub text: Secret,
    /// What in it is not to be shown.
    secrets: Vec<Secret>,
}

/// What can't be put together, and where.
#[derive(Debug, thiserror::Error)]
#[error("app.config{key}: {message}")]
pub struct AppConfigError {
    key: String,
    message: String,
}

impl App {
    /// Whether its configuration names the file of a secret.
    pub fn has_secrets(&self) -> bool {
        // Asked for one, it would have it.
        self.resolve(Path::new("/"), |_| Err(String::new())).is_err()
    }

    /// The keys of objects that have a text `file` among others: they are handed to the app as they are, and somebody may
    /// have meant the text of that file.
    pub fn near_secrets(&self) -> Vec<String> {
        fn look(value: &Value, key: &str, found: &mut Vec<String>) {
            match value {
                Value::Object(entries) => {
                    if entries.len() > 1 && entries.get("file").is_some_and(Value::is_string) {
                        found.push(key.to_owned());
                    }
                    entries.iter().for_each(|(name, value)| look(value, &format!("{key}.{name}"), found));
                }
                Value::Array(items) => {
                    items.iter().enumerate().for_each(|(at, item)| look(item, &format!("{key}[{at}]"), found));
                }
                _ => {}
            }
        }
        let mut found = Vec::new();
        // What can't be read is somebody else's to say.
        if let Ok(value) = serde_json::from_str(self.config.get()) {
            look(&value, "app.config", &mut found);
        }
        found
    }

    /// The app's configuration; `read` reads the file of a secret. A relative path is relative to `directory`.
    pub fn resolve(
        &self,
        directory: &Path,
        read: impl Fn(&Path) -> Result<String, String>,
    ) -> Result<AppConfig, AppConfigError> {
        let read = |file: &str| {
            if file.is_empty() {
                return Err("\"file\" is empty; expected the path of a file".to_owned());
            }
            read(&directory.join(file)).map(|text| trimmed(&text).to_owned())
        };
        let whole = |message| AppConfigError { key: String::new(), message };
        if let Some(file) = file_of(&self.config) {
            let text = read(&file).map_err(whole)?;
            let value: Value = serde_json::from_str(&text).map_err(|error| {
                // The parser's own words may quote what it has found.
                let (path, line, column) = (directory.join(&file), error.line(), error.column());
                whole(format!("{}:{line}:{column}: expected JSON, all of the app's configuration", path.display()))
            })?;
            let mut secrets = Vec::new();
            texts(&value, &mut secrets);
            return Ok(AppConfig { text: Secret::new(text), secrets });
        }
        let mut found = Vec::new();
        let text = match expand(&self.config, &mut Vec::new(), &mut |key, file| {
            let text = read(file).map_err(|message| AppConfigError { key: key.concat(), message })?;
            found.push(Secret::new(text.clone()));
            Ok(text)
        })? {
            Some(text) => text,
            // As it was written, to the last space.
            None => self.config.get().to_owned(),
        };
        Ok(AppConfig { text: Secret::new(text), secrets: found })
    }
}

impl AppConfig {
    /// One that the app finds nothing in.
    pub fn empty() -> Self {
        Self { text: Secret::new("{}".to_owned()), secrets: Vec::new() }
    }

    /// Has these hidden as well: variables of the app's, of which short ones are words.
    pub fn hide_also<'a>(&mut self, variables: impl Iterator<Item = &'a Secret>) {
        self.secrets.extend(variables.filter(|value| value.reveal().len() >= MIN_HIDDEN_VARIABLE).cloned());
    }

    /// Text without the secrets that stand in it as they are, or quoted as a parser does.
    pub fn hide(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in self.secrets.iter().map(Secret::reveal).filter(|secret| secret.len() >= MIN_HIDDEN) {
            let quoted = format!("{secret:?}");
            text = text.replace(secret, "(secret)").replace(&quoted[1..quoted.len() - 1], "(secret)");
        }
        text
    }
}

/// Files end with a line's end, and no secret does.
pub(super) fn trimmed(text: &str) -> &str {
    text.trim_end_matches(['\r', '\n'])
}

/// The texts in a value: numbers and names of keys tell nobody much.
fn texts(value: &Value, found: &mut Vec<Secret>) {
    match value {
        Value::String(text) => found.push(Secret::new(text.clone())),
        Value::Array(items) => items.iter().for_each(|item| texts(item, found)),
        Value::Object(entries) => entries.values().for_each(|item| texts(item, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The path in `{"file": "PATH"}`; nothing of anything else.
fn file_of(value: &RawValue) -> Option<String> {
    let Ok(JsonObject(entries)) = serde_json::from_str(value.get()) else { return None };
    let [(key, path)] = entries.as_slice() else { return None };
    if key == "file" { serde_json::from_str(path.get()).ok() } else { None }
}

/// What reads a file's text; it is told the key where that stands.
type Read<'a> = &'a mut dyn FnMut(&[String], &str) -> Result<String, AppConfigError>;

/// The value with the texts of files in it; `None` when there are none, so that it stays what it is.
fn expand(value: &RawValue, key: &mut Vec<String>, read: Read<'_>) -> Result<Option<String>, AppConfigError> {
    let text = value.get();
    if !text.starts_with(['{', '[']) {
        return Ok(None);
    }
    if key.len() >= MAX_DEPTH {
        let message = format!("it is nested deeper than {MAX_DEPTH}, which no app could read");
        return Err(AppConfigError { key: String::new(), message });
    }
    if let Some(file) = file_of(value).filter(|_| !key.is_empty()) {
        let text = read(key, &file)?;
        return Ok(Some(Value::from(text).to_string()));
    }
    let mut changed = false;
    let mut one = |value: &RawValue, name: String, read: Read<'_>| {
        key.push(name);
        let expanded = expand(value, key, read)?;
        key.pop();
        changed |= expanded.is_some();
        Ok(expanded.unwrap_or_else(|| value.get().to_owned()))
    };
    let unreadable = |_| AppConfigError { key: String::new(), message: "it can't be read".to_owned() };
    let parts = if text.starts_with('{') {
        let JsonObject(entries) = serde_json::from_str(text).map_err(unreadable)?;
        let part = |(name, value): (String, &RawValue)| {
            let value = one(value, format!(".{name}"), read)?;
            Ok(format!("{}:{value}", Value::from(name)))
        };
        entries.into_iter().map(part).collect::<Result<Vec<_>, _>>()?
    } else {
        let items: Vec<&RawValue> = serde_json::from_str(text).map_err(unreadable)?;
        items.into_iter().enumerate().map(|(at, item)| one(item, format!("[{at}]"), read)).collect::<Result<_, _>>()?
    };
    let (open, close) = if text.starts_with('{') { ('{', '}') } else { ('[', ']') };
    Ok(changed.then(|| format!("{open}{}{close}", parts.join(","))))
}

/// An object as it is written: its order, and keys that are there twice.
struct JsonObject<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for JsonObject<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = JsonObject<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(JsonObject(entries))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Self::Value, A::Error> {
                Err(serde::de::Error::custom("an object is expected"))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(config: &str) -> Result<AppConfig, String> {
        let app = App { library: PathBuf::new(), config: RawValue::from_string(config.to_owned()).unwrap().into() };
        let read = |path: &Path| match path.to_str() {
            Some("/etc/app/key") => Ok("hunter\"2\r\n\n".to_owned()),
            Some("/run/whole") => Ok("{\"user\": \"admin7\", \"port\": 1}\n".to_owned()),
            Some("/run/broken") => Ok("{\"password\": hunter2}".to_owned()),
            _ => Err(format!("{} can't be read", path.display())),
        };
        app.resolve(Path::new("/etc/app"), read).map_err(|error| error.to_string())
    }

    fn text(config: &str) -> String {
        resolve(config).unwrap().text.reveal().to_owned()
    }

    #[test]
    fn what_has_no_secret_stays_as_it_is_written() {
        for config in [
            "{}",
            r#"{"b":  [1, 1e400, "é"], "a": {"a": 1, "a": 2}}"#,
            r#"{"upload": {"file": "key", "mode": 1}}"#,
            r#"{"upload": {"file": 1}}"#,
            r#"[ "file", "key" ]"#,
            "null",
        ] {
            assert_eq!(text(config), config);
        }
    }

    #[test]
    fn a_file_stands_for_its_text_wherever_it_is_and_all_else_stays() {
        let config =
            r#"{"z": 1e400, "smtp": {"password": {"file": "key"}}, "all": [0, {"\u0066ile": "/etc/app/key"}]}"#;
        let expected = r#"{"z":1e400,"smtp":{"password":"hunter\"2"},"all":[0,"hunter\"2"]}"#;
        assert_eq!(text(config), expected);
        assert_eq!(text(r#"{"file": "/run/whole"}"#), r#"{"user": "admin7", "port": 1}"#);
    }

    #[test]
    fn an_error_names_key_and_file_and_nothing_of_the_secret() {
        for (config, expected) in [
            (r#"{"a": [{"b": {"file": "none"}}]}"#, "app.config.a[0].b: /etc/app/none can't be read"),
            (r#"{"file": "none"}"#, "app.config: /etc/app/none can't be read"),
            (r#"{"file": "/run/broken"}"#, "app.config: /run/broken:1:14: expected JSON"),
        ] {
            let error = resolve(config).unwrap_err();
            assert!(error.starts_with(expected) && !error.contains("hunter"), "{error}");
        }
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(resolve(&deep).unwrap_err().contains("nested deeper"));
    }

    #[test]
    fn secrets_are_neither_shown_nor_left_in_what_somebody_says_of_them() {
        let config = resolve(r#"{"key": {"file": "key"}}"#).unwrap();
        assert!(!format!("{config:?}").contains("hunter"));
        let said = config.hide("key: invalid type: string \"hunter\\\"2\", expected u16: hunter\"2");
        assert_eq!(said, "key: invalid type: string \"(secret)\", expected u16: (secret)");
        assert_eq!(resolve(r#"{"file": "/run/whole"}"#).unwrap().hide("no user admin7"), "no user (secret)");
    }

    #[test]
    fn an_object_that_is_nearly_a_secret_is_found() {
        for (config, expected) in [
            (r#"{"file": "x", "b": 1}"#, vec!["app.config"]),
            (
                r#"{"a": [{"file": "x"}, {"file": "x", "b": 1}], "c": {"d": {"file": "y", "e": 2}}}"#,
                vec!["app.config.a[1]", "app.config.c.d"],
            ),
            (r#"{"a": {"file": "x"}, "b": {"file": 7, "c": 1}}"#, vec![]),
        ] {
            let app: App = serde_json::from_str(&format!(r#"{{"library": "a", "config": {config}}}"#)).unwrap();
            assert_eq!(app.near_secrets(), expected, "{config}");
        }
    }
}
