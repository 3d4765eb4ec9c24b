//! What the master's log says, a line at a time.
//!
//! Pure. The lines may be anybody's: whatever prints to the log's end is in it.

use std::fmt::Write as _;
use std::net::SocketAddr;

use serde_json::{Map, Value};

use app_host_core::foreign;

/// What stands in every line, or says where in the host it comes from.
const USUAL: [&str; 10] = ["v", "name", "msg", "level", "hostname", "pid", "time", "target", "line", "file"];

/// What is learned from the log.
#[derive(Debug, PartialEq)]
pub enum News {
    /// Where the app is reached.
    Address(SocketAddr),
    /// New clients get this version from now on.
    Live {
        version: String,
    },
    Verdict(RestartOutcome),
    /// For whoever looks at the terminal. Levels are bunyan's.
    Line {
        level: u64,
        text: String,
    },
}

/// What became of a restart.
#[derive(Debug, PartialEq)]
pub enum RestartOutcome {
    Complete { version: String },
    Refused { reason: String, detail: String },
    Failed { reason: String, detail: String },
}

/// Makes news of lines. Knows how far a roll has come.
#[derive(Debug, Default)]
pub struct Reader {
    /// The candidate of the roll in flight, and how many of its workers aren't ready yet.
    awaited: Option<(u64, u64)>,
    /// Its version.
    version: String,
}

impl Reader {
    /// What a line says.
    pub fn line(&mut self, line: &str) -> Vec<News> {
        let line = line.trim_end();
        let Ok(Value::Object(fields)) = serde_json::from_str(line) else {
            // The app's own words to its standard error, or to its output.
            return vec![News::Line { level: 30, text: line.to_owned() }];
        };
        let text = |key: &str| {
            let text = fields.get(key).and_then(Value::as_str).unwrap_or_default();
            foreign::line(text, foreign::MAX_TEXT)
        };
        let number = |key: &str| fields.get(key).and_then(Value::as_u64).unwrap_or_default();
        let level = number("level");
        match text("msg").as_str() {
            "listening" => text("address").parse().map(News::Address).into_iter().collect(),
            "serving" => vec![News::Live { version: text("version") }],
            "restart preflight passed" => {
                self.version = text("version");
                vec![]
            }
            "restart roll started" => {
                self.awaited = Some((number("to"), number("workers")));
                vec![]
            }
            "worker ready" => match &mut self.awaited {
                Some((generation, left)) if *generation == number("generation") => {
                    *left = left.saturating_sub(1);
                    if *left > 0 {
                        return vec![];
                    }
                    self.awaited = None;
                    vec![News::Live { version: self.version.clone() }]
                }
                _ => vec![],
            },
            "zero-downtime restart complete" => {
                vec![News::Verdict(RestartOutcome::Complete { version: text("version") })]
            }
            "zero-downtime restart refused" => {
                vec![News::Verdict(RestartOutcome::Refused { reason: text("reason"), detail: text("detail") })]
            }
            "zero-downtime restart failed" => {
                vec![News::Verdict(RestartOutcome::Failed { reason: text("reason"), detail: text("detail") })]
            }
            // `failed` says all of it.
            "locked" => vec![],
            _ if level >= 40 || is_of_the_app(&text("target")) => {
                vec![News::Line { level, text: in_short(&fields) }]
            }
            _ => vec![],
        }
    }
}

/// The crates that the host is made of.
const HOST_CRATES: [&str; 7] = [
    "app_host",
    "app_host_core",
    "app_host_master",
    "app_host_platform",
    "app_host_services",
    "app_host_tls",
    "app_host_worker",
];

/// Whether a line comes from the app; the host's own say where in the host they come from.
fn is_of_the_app(target: &str) -> bool {
    !HOST_CRATES.contains(&target.split("::").next().unwrap_or_default())
}

/// A line for people.
fn in_short(fields: &Map<String, Value>) -> String {
    let mut text = fields.get("msg").and_then(Value::as_str).unwrap_or_default().to_owned();
    for (key, value) in fields.iter().filter(|(key, _)| !USUAL.contains(&key.as_str())) {
        let _ = match value {
            Value::String(value) => write!(text, "  {key}={value}"),
            value => write!(text, "  {key}={value}"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_is_live_once_the_last_new_worker_is_ready() {
        let mut reader = Reader::default();
        let quiet = |reader: &mut Reader, line: &str| assert_eq!(reader.line(line), [], "{line}");
        quiet(
            &mut reader,
            r#"{"msg":"restart preflight passed","level":30,"version":"abc","target":"app_host_master::log"}"#,
        );
        quiet(
            &mut reader,
            r#"{"msg":"restart roll started","level":30,"to":2,"workers":2,"target":"app_host_master::log"}"#,
        );
        quiet(&mut reader, r#"{"msg":"worker ready","level":30,"generation":2,"target":"app_host_master::log"}"#);
        // A respawn of the active one.
        quiet(&mut reader, r#"{"msg":"worker ready","level":30,"generation":1,"target":"app_host_master::log"}"#);
        let last = r#"{"msg":"worker ready","level":30,"generation":2,"target":"app_host_master::log"}"#;
        assert_eq!(reader.line(last), [News::Live { version: "abc".to_owned() }]);
        quiet(&mut reader, last);
    }

    #[test]
    fn the_apps_lines_and_complaints_are_shown_and_the_rest_is_not() {
        let mut reader = Reader::default();
        assert_eq!(reader.line("plain\n"), [News::Line { level: 30, text: "plain".to_owned() }]);
        let app = r#"{"msg":"hello","level":20,"target":"shop::cart","items":3,"pid":7}"#;
        assert_eq!(reader.line(app), [News::Line { level: 20, text: "hello  items=3".to_owned() }]);
        let host = r#"{"msg":"worker exited","level":50,"target":"app_host_master::log","slot":1}"#;
        assert_eq!(reader.line(host), [News::Line { level: 50, text: "worker exited  slot=1".to_owned() }]);
        assert_eq!(reader.line(r#"{"msg":"draining","level":30,"target":"app_host_worker"}"#), []);
    }
}
