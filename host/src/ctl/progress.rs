//! Events as lines for people.

use std::fmt::Write as _;

use serde_json::Value;

/// A restart, told a slot at a time. Knows which generation is the new one.
#[derive(Debug, Default)]
pub(super) struct Progress {
    candidate: Option<u64>,
}

impl Progress {
    /// What to say about an event; `None` for one that is no step of a restart.
    pub(super) fn line(&mut self, event: &Value) -> Option<String> {
        let text = |key: &str| event[key].as_str().unwrap_or_default();
        let number = |key: &str| event[key].as_u64().unwrap_or_default();
        let is_new = self.candidate == Some(number("generation"));
        let worker =
            format!("slot {}: {} worker {}", number("slot"), if is_new { "new" } else { "old" }, number("worker_pid"));
        Some(match text("event") {
            "restart preflight passed" => {
                let (app, version) = (text("app"), text("version"));
                format!("preflight passed: {app} {}, version {version}", text("app_version"))
            }
            "restart roll started" => {
                self.candidate = event["to"].as_u64();
                format!(
                    "generation {} takes the place of {}, in {} slots",
                    number("to"),
                    number("from"),
                    number("workers")
                )
            }
            "restart probation started" => format!("probation of {} ms", number("probation_ms")),
            "restart probation passed" => "probation passed".to_owned(),
            "worker spawned" => format!("{worker} spawned"),
            "worker ready" => format!("{worker} ready"),
            "worker ordered to drain" => format!("{worker} drains"),
            "worker exited" => format!("{worker} has gone ({})", text("status")),
            "worker killed" => format!("{worker} killed: {}", text("why")),
            "worker can't serve" => format!("{worker} can't serve: {}", text("detail")),
            "locked" => "the master is locked: restart it as soon as possible".to_owned(),
            "lost" => format!("{} events were lost: this terminal is too slow", number("events")),
            _ => return None,
        })
    }
}

/// An event as one line: its time, its name, its fields.
pub(super) fn plain(event: &Value) -> String {
    let mut line = String::new();
    if let Some(time) = event["time"].as_str() {
        line.push_str(time);
        line.push(' ');
    }
    line.push_str(event["event"].as_str().unwrap_or_default());
    for (key, value) in event.as_object().into_iter().flatten() {
        if key != "event" && key != "time" && !value.is_null() {
            // Texts stay quoted and escaped: an app's error may have anything in it.
            let _ = write!(line, " {key}={value}");
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_restart_is_told_a_slot_at_a_time() {
        let mut progress = Progress::default();
        let mut say = |event| progress.line(&event);
        assert_eq!(say(json!({ "event": "restart requested", "request": 1 })), None);
        assert_eq!(
            say(json!({ "event": "restart roll started", "request": 1, "from": 1, "to": 2, "workers": 2 })).unwrap(),
            "generation 2 takes the place of 1, in 2 slots"
        );
        let worker =
            |event, generation| json!({ "event": event, "slot": 1, "generation": generation, "worker_pid": 7 });
        assert_eq!(say(worker("worker ready", 2)).unwrap(), "slot 1: new worker 7 ready");
        assert_eq!(say(worker("worker ordered to drain", 1)).unwrap(), "slot 1: old worker 7 drains");
        assert_eq!(say(json!({ "event": 1 })), None);
    }

    #[test]
    fn an_event_is_one_line_whatever_is_in_it() {
        let event = json!({ "event": "verdict", "time": "T", "detail": "a\nb", "reason": null, "request": 3 });
        assert_eq!(plain(&event), r#"T verdict detail="a\nb" request=3"#);
    }
}
