//! The reference pages of the book say what there is: each name of the code's own lists stands on its page, and each name
//! of a page's table is one of the code's.
//!
//! Tables behind a comment `<!-- made by … -->` are written by these tests: `UPDATE_DOCS=1 cargo test --release -p
//! app-host-tests --test promises -- reference`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use app_host_core::command;
use app_host_core::config::{Config, SCHEMA};
use app_host_core::restart::{FailureReason, RefusalReason};
use app_host_tests::build::workspace;
use app_host_tests::{App, Host};
use serde_json::Value;

fn path(page: &str) -> PathBuf {
    workspace().join("docs").join(page)
}

fn read(page: &str) -> String {
    fs::read_to_string(path(page)).unwrap_or_else(|error| panic!("{page}: {error}"))
}

/// The rows of all tables, as cells.
fn rows(text: &str) -> Vec<Vec<String>> {
    let lines = text.lines().filter(|line| line.starts_with('|') && !line.starts_with("|---"));
    lines.map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The section of a page under this heading.
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let (_, rest) = page.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no heading {heading:?}"));
    rest.split("\n## ").next().unwrap_or_default()
}

/// The first names between backticks in the first cells of all tables.
fn named(text: &str) -> BTreeSet<String> {
    rows(text).iter().filter_map(|row| quoted(&row[0]).next().map(str::to_owned)).collect()
}

/// Holds the tables that a page has behind `<!-- made by {maker}: … -->` to what `make` makes of the words there, or
/// writes them. Returns all of those words.
fn hold(page: &str, maker: &str, make: impl Fn(&[&str]) -> String) -> Vec<String> {
    let text = read(page);
    let begin = format!("<!-- made by {maker}: ");
    let mut held = String::new();
    let mut words = Vec::new();
    let mut rest = text.as_str();
    while let Some((before, behind)) = rest.split_once(&begin) {
        let (these, behind) = behind.split_once(" -->\n").expect("the comment ends its line");
        let these: Vec<&str> = these.split(' ').collect();
        let _ = write!(held, "{before}{begin}{} -->\n\n{}", these.join(" "), make(&these));
        words.extend(these.into_iter().map(str::to_owned));
        // What is there is a table, or nothing yet.
        let table = behind.trim_start().split_inclusive('\n').take_while(|line| line.starts_with('|'));
        rest = behind.trim_start()[table.map(str::len).sum()..].trim_start();
        if !rest.is_empty() {
            held.push('\n');
        }
    }
    held.push_str(rest);
    if held != text && std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(path(page), held).unwrap();
    } else {
        assert!(held == text, "{page} isn't what the code says; UPDATE_DOCS=1 writes it. Expected:\n{held}");
    }
    words
}

/// What a value may be, in words.
fn values(says: &Value) -> String {
    let number = |key: &str| says[key].as_u64();
    let mut forms = Vec::new();
    if let Some(several) = says["anyOf"].as_array().or(says["allOf"].as_array()) {
        forms.extend(several.iter().map(values));
    } else if let Some(words) = says["enum"].as_array() {
        forms.extend(words.iter().map(|word| format!("`{word}`")));
    } else if !says["const"].is_null() {
        forms.push(format!("`{}`", says["const"]));
    } else if let Some(name) = says["$ref"].as_str() {
        forms.push(match name.rsplit('/').next().unwrap_or_default() {
            "duration" => "a duration".to_owned(),
            "account" => "a name or a number".to_owned(),
            "bytes" => "`\"512MiB\"`".to_owned(),
            "variables" => "a list of names".to_owned(),
            other => panic!("{other} has no words"),
        });
    } else {
        let kinds: Vec<&str> = match &says["type"] {
            Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
            kind => kind.as_str().into_iter().collect(),
        };
        forms.extend(kinds.into_iter().map(|kind| match (kind, number("minimum"), number("maximum")) {
            ("integer", Some(least), Some(most)) => format!("{least} to {most}"),
            ("integer", Some(least), None) => format!("a number from {least}"),
            ("boolean", ..) => "`true` or `false`".to_owned(),
            ("string", ..) => "a text".to_owned(),
            ("array", ..) => "a list".to_owned(),
            ("object", ..) => "an object".to_owned(),
            ("null", ..) => "`null`".to_owned(),
            (other, ..) => panic!("{other} has no words"),
        }));
    }
    // Nothing is the last that one thinks of.
    forms.sort_by_key(|form| form == "`null`");
    let mut seen = BTreeSet::new();
    forms.retain(|form| seen.insert(form.clone()));
    match says["x-least"].as_str() {
        Some(least) if least != "1ns" => format!("{} (from `\"{least}\"`)", forms.join(", ")),
        _ if forms.is_empty() => "anything".to_owned(),
        _ => forms.join(", "),
    }
}

/// A row for each key that is below this one.
fn keys(prefix: &str, says: &Value, changes: &str, table: &mut String) {
    let several = says["anyOf"].as_array().into_iter().flatten();
    for form in std::iter::once(says).chain(several) {
        for (key, says) in form["properties"].as_object().into_iter().flatten() {
            let name = format!("{prefix}.{key}");
            row(&name, says, says["x-changes"].as_str().unwrap_or(changes), table);
        }
        if form["items"].is_object() {
            keys(&format!("{prefix}[]"), &form["items"], changes, table);
        }
    }
}

fn row(name: &str, says: &Value, changes: &str, table: &mut String) {
    let default = match (&says["default"], says["x-default"].as_str()) {
        (_, Some(text)) => text.to_owned(),
        (Value::Null, None) if says.get("default").is_none() => String::new(),
        (default, None) => format!("`{default}`"),
    };
    let changes = says["x-changes"].as_str().unwrap_or(changes);
    let meaning = says["description"].as_str().expect("each key has a description");
    let is_section = says["properties"].is_object();
    if !is_section {
        let _ = writeln!(table, "| `{name}` | {} | {default} | {changes} | {meaning} |", values(says));
    }
    keys(name, says, changes, table);
}

#[test]
fn every_key_of_the_configuration_stands_on_a_page_with_its_values_and_default() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let make = |names: &[&str]| {
        let mut table = "| key | values | default | brought in by | meaning |\n|---|---|---|---|---|\n".to_owned();
        for name in names {
            let says = &schema["properties"][name];
            assert!(says.is_object(), "there is no key {name}");
            row(name, says, "", &mut table);
        }
        table
    };
    let mut shown = Vec::new();
    for page in ["", "-listeners", "-workers", "-databank", "-restart", "-logs"] {
        shown.extend(hold(&format!("reference/configuration{page}.md"), "schema.json", make));
    }
    let there: BTreeMap<_, _> = schema["properties"].as_object().unwrap().iter().collect();
    let count = shown.len();
    let shown: BTreeSet<_> = shown.iter().collect();
    assert_eq!(shown.len(), count, "a key is shown twice");
    assert_eq!(shown, there.keys().copied().collect(), "shown (left), there (right)");
    assert!(make(&["restart"]).lines().count() > 8);
}

#[test]
fn every_reason_of_a_refusal_or_a_failure_stands_in_its_table_and_no_other() {
    let page = read("operate/restart.md");
    let refused: BTreeSet<_> = RefusalReason::ALL.iter().map(|reason| reason.as_str().to_owned()).collect();
    let failed: BTreeSet<_> = FailureReason::ALL.iter().map(|reason| reason.as_str().to_owned()).collect();
    let mut table = named(section(&page, "## Refused: no worker was touched"));
    assert!(table.remove("refused: …"), "the head of the table");
    assert_eq!(table, refused, "on the page (left), in the code (right)");
    let mut table = named(section(&page, "## Failed: workers were touched, and it went wrong"));
    assert!(table.remove("failed: …"), "the head of the table");
    assert_eq!(table, failed, "on the page (left), in the code (right)");
}

/// The labels of a series and their values.
fn labels(line: &str) -> Vec<(&str, &str)> {
    let braces = line.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}')).map_or("", |(labels, _)| labels);
    braces.split("\",").filter_map(|pair| pair.trim_end_matches('"').split_once("=\"")).collect()
}

/// The metrics of a service as a table: name, kind, labels, help.
fn metrics(text: &str) -> String {
    let mut table = "| metric | kind | labels | |\n|---|---|---|---|\n".to_owned();
    let mut of: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        let name = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        let these = labels(line).into_iter().map(|(label, _)| label).filter(|label| *label != "le");
        of.entry(name).or_default().extend(these);
    }
    let mut help = "";
    for line in text.lines() {
        if let Some((_, text)) = line.strip_prefix("# HELP ").and_then(|line| line.split_once(' ')) {
            help = text;
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|line| line.split_once(' ')) {
            let labels = of.get(name).into_iter().flatten().map(|label| format!("`{label}`"));
            let labels = labels.collect::<Vec<_>>().join(", ");
            let _ = writeln!(table, "| `{name}` | {kind} | {labels} | {help} |");
        }
    }
    table
}

#[test]
fn every_metric_and_label_stands_on_its_page_as_a_service_serves_it() {
    let host = Host::misbehaving().with("/admin", "127.0.0.1:0").start();
    // So that all labels are there.
    host.restart_completes();
    let (status, text) = host.ask_admin("/metrics");
    assert_eq!(status, 200, "{text}");
    let table = metrics(&text);
    assert!(table.lines().count() > 25, "{table}");
    hold("reference/metrics.md", "/metrics", |_| table.clone());

    let page = read("reference/metrics.md");
    let table = rows(section(&page, "## Labels"));
    let named: BTreeSet<_> = table.iter().flat_map(|row| quoted(&row[0])).collect();
    let series = text.lines().filter(|line| !line.starts_with('#')).flat_map(labels).collect::<BTreeSet<_>>();
    // Of apps and builds, which their metrics explain.
    let own = ["app", "app_version", "version", "le"];
    let there: BTreeSet<_> = series.iter().map(|(label, _)| *label).filter(|label| !own.contains(label)).collect();
    assert_eq!(named, there, "on the page (left), served (right)");
    for label in ["state", "phase", "stage", "expected"] {
        let row = table.iter().find(|row| quoted(&row[0]).eq([label])).unwrap_or_else(|| panic!("no row of {label}"));
        let shown: BTreeSet<_> = quoted(&row[1]).collect();
        let there: BTreeSet<_> = series.iter().filter(|(it, _)| *it == label).map(|(_, value)| *value).collect();
        assert_eq!(shown, there, "{label}: on the page (left), served (right)");
    }
}

#[test]
fn every_configuration_that_the_book_shows_is_read() {
    let mut looked = 0;
    let mut left = vec![workspace().join("docs"), workspace().join("README.md")];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let page = fs::read_to_string(&path).unwrap();
        for shown in page.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next()) {
            let mut config: Value =
                serde_json::from_str(shown).unwrap_or_else(|error| panic!("{}: {error}\n{shown}", path.display()));
            if config["app"]["library"].is_null() {
                config["app"]["library"] = "libshop.so".into();
            }
            let read = Config::parse(config.to_string().as_bytes(), Path::new("/etc/shop/app-host.json"));
            assert!(read.is_ok(), "{}: {}\n{shown}", path.display(), read.unwrap_err());
            looked += 1;
        }
    }
    assert!(looked > 8, "{looked}");
}

#[test]
fn every_alert_is_on_a_metric_with_labels_that_a_service_has() {
    let host = Host::misbehaving().with("/admin", "127.0.0.1:0").start();
    let (_, text) = host.ask_admin("/metrics");
    let page = read("operate/metrics.md");
    let alerts = named(section(&page, "## What to alert on"));
    let mut looked = 0;
    for alert in &alerts {
        let is_name = |c: char| c == '_' || c.is_ascii_alphanumeric();
        for (at, _) in alert.match_indices("app_host_") {
            let name: String = alert[at..].chars().take_while(|c| is_name(*c)).collect();
            let labels =
                alert[at + name.len()..].strip_prefix('{').and_then(|rest| rest.split('}').next()).unwrap_or("");
            for label in labels.split("\",").filter(|label| !label.is_empty()) {
                let (label, value) = label.split_once("!=").or(label.split_once('=')).expect("a matcher");
                let series = format!("{label}={}\"", value.trim_end_matches('"'));
                // An alert of what has happened sees the first time only where the series was there before.
                let there = text.lines().any(|line| line.starts_with(&name) && line.contains(&series));
                assert!(there, "{alert}: no {name} with {series} in\n{text}");
                looked += 1;
            }
            assert!(text.contains(&format!("\n{name}")), "{alert}: no {name} in\n{text}");
        }
    }
    assert!(alerts.len() > 7 && looked > 4, "{alerts:?}");
}

/// All sources of a crate of the host, without its tests.
fn sources(directory: &str) -> String {
    let mut text = String::new();
    let mut left = vec![workspace().join(directory)];
    while let Some(path) = left.pop() {
        if path.is_dir() && !path.ends_with("tests") {
            left.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|it| it == "rs") && !path.ends_with("tests.rs") {
            let source = fs::read_to_string(&path).unwrap();
            text.push_str(source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default());
        }
    }
    text
}

/// Every text among the arguments of a call, whose name and bracket are before this.
fn texts_of_call(rest: &str) -> Vec<String> {
    let mut depth = 1;
    let mut texts = Vec::new();
    for (at, part) in rest.split('"').enumerate() {
        if at % 2 == 1 {
            texts.push(part.to_owned());
            continue;
        }
        for c in part.chars() {
            depth += i32::from(c == '(') - i32::from(c == ')');
            if depth == 0 {
                return texts;
            }
        }
    }
    texts
}

/// Every text that stands behind one of these in the source.
fn texts_behind(source: &str, begins: &[&str]) -> BTreeSet<String> {
    let behind = begins.iter().flat_map(|begin| source.split(begin).skip(1));
    behind.filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next()).map(str::to_owned).collect()
}

#[test]
fn every_command_of_the_control_protocol_and_every_answer_to_a_bad_one_stands_on_its_page() {
    let page = read("reference/control-protocol.md");
    let commands: BTreeSet<_> = command::names().split(' ').map(str::to_owned).collect();
    let shown: BTreeSet<_> = named(section(&page, "## Commands"))
        .iter()
        .map(|line| line.split(' ').next().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(shown, commands, "on the page (left), in the code (right)");
    let source = sources("host/master/src");
    let mut reasons: BTreeSet<_> = source.split("nack(").skip(1).flat_map(texts_of_call).collect();
    reasons.extend(texts_behind(&source, &["TOO_LONG: &str ="]));
    reasons.extend([command::Misunderstood::Unknown, command::Misunderstood::Invalid].map(|it| it.reason().to_owned()));
    reasons.insert(command::NOT_ALLOWED.to_owned());
    assert!(reasons.len() > 6, "{reasons:?}");
    let shown =
        named(section(&page, "## Answers")).into_iter().filter(|it| !it.starts_with("ACK")).collect::<BTreeSet<_>>();
    assert_eq!(shown, reasons, "on the page (left), in the code (right)");
}

#[test]
fn every_fact_of_the_log_and_the_events_stands_on_its_page_with_its_level_and_known_fields() {
    let facts = sources("host/master/src");
    let there: BTreeSet<(String, String)> = ["info", "warn", "error"]
        .iter()
        .flat_map(|level| {
            let names = texts_behind(&facts, &[&format!("Fact::{level}(")]);
            names.into_iter().map(move |name| (name, (*level).to_owned()))
        })
        .collect();
    assert!(there.len() > 30, "{there:?}");
    let page = read("reference/log-events.md");
    let (page, _) = page.split_once("\n## Other lines\n").expect("what is no event has a section");
    let rows: Vec<_> = rows(page).into_iter().filter(|row| row[0].contains('`')).collect();
    let shown: BTreeSet<(String, String)> = rows
        .iter()
        .flat_map(|row| {
            let name = quoted(&row[0]).next().expect("a message");
            row[1].split(", ").map(move |level| (name.to_owned(), level.to_owned()))
        })
        .collect();
    assert_eq!(shown, there, "on the page (left), in the code (right)");

    let defined = facts.split("\nfields! {").nth(1).and_then(|rest| rest.split("\n}").next()).expect("all fields");
    let lines = defined.lines().map(str::trim).filter(|line| !line.starts_with("///"));
    let defined: BTreeSet<_> = lines.filter_map(|line| line.split_once(':')).map(|(name, _)| name).collect();
    let mut shown: BTreeSet<_> = rows.iter().flat_map(|row| quoted(&row[2])).collect();
    // Those of every worker, which the page says once.
    shown.extend(["slot", "generation", "worker_pid"]);
    assert_eq!(shown, defined, "fields on the page (left), in the code (right)");
}

/// The message of a line that is logged, whose macro's name and bracket are before this: the last text among its arguments.
fn message(rest: &str) -> String {
    let (mut depth, mut message, mut text) = (1, String::new(), None::<String>);
    let mut characters = rest.chars();
    while let Some(c) = characters.next() {
        match (&mut text, c) {
            (Some(open), '\\') => match characters.next().expect("a text ends") {
                // The text goes on with the next line's first word.
                '\n' => {
                    let rest = characters.as_str().trim_start();
                    characters = rest.chars();
                }
                escaped => open.push(escaped),
            },
            (Some(_), '"') => {
                let closed = text.take().unwrap_or_default();
                if depth == 1 {
                    message = closed;
                }
            }
            (Some(open), c) => open.push(c),
            (None, '"') => text = Some(String::new()),
            (None, '(' | '[' | '{') => depth += 1,
            (None, ')' | ']' | '}') => depth -= 1,
            (None, _) => {}
        }
        if depth == 0 {
            return message;
        }
    }
    panic!("a macro doesn't end: {}", rest.lines().next().unwrap_or_default());
}

#[test]
fn every_line_that_the_host_can_log_stands_on_a_page_of_its_level() {
    let mut text = String::new();
    for directory in ["core/src", "platform/src", "services/src", "worker/src", "master/src", "src"] {
        text.push_str(&sources(&format!("host/{directory}")));
    }
    for (level, page, heading) in [
        ("error", "reference/log-errors.md", None),
        ("warn", "reference/log-warnings.md", None),
        ("info", "reference/log-events.md", Some("## Other lines")),
    ] {
        let call = format!("{level}!(");
        let is_whole = |at: usize| !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let calls = text.match_indices(&call).filter(|(at, _)| is_whole(*at));
        let there: BTreeSet<_> = calls.map(|(at, _)| message(&text[at + call.len()..])).collect();
        // Facts have tables of their own, and what an app says is its own.
        let own: BTreeSet<_> = there.iter().filter(|message| message.starts_with('{')).cloned().collect();
        assert!(own.iter().all(|it| it == "{}" || it == "{message}"), "data are fields: {own:?}");
        let there: BTreeSet<_> = there.difference(&own).cloned().collect();
        assert!(there.len() > 10, "{there:?}");
        let page = read(page);
        let tables = heading.map_or(page.as_str(), |heading| section(&page, heading));
        let names = rows(tables).into_iter().map(|row| row[0].clone()).filter(|cell| cell.starts_with('`'));
        let names: Vec<String> = names.map(|cell| cell.trim_matches('`').to_owned()).collect();
        let shown: BTreeSet<_> = names.iter().cloned().collect();
        assert_eq!(shown.len(), names.len(), "{level}: a line stands there twice");
        assert_eq!(shown, there, "{level}: on the page (left), in the code (right)");
    }
}

/// A line of a log without its values: the message, the names of its fields, and whether each value is a text.
fn shape(line: &str) -> Option<String> {
    let (level, rest) =
        ["INFO ", "WARN ", "ERROR "].iter().find_map(|level| Some((*level, line.split_once(level)?.1)))?;
    let mut shape = level.to_owned();
    let mut within = false;
    // Values are left out, whatever is in them; what is between quotes has no names.
    for word in rest.split(' ') {
        let name = word.split_once('=').filter(|(name, _)| name.chars().all(|c| c == '_' || c.is_ascii_lowercase()));
        match name {
            Some((name, value)) if !within => {
                let is_text = value.starts_with('"');
                let _ = write!(shape, "{name}={} ", if is_text { "text" } else { "" });
                within = is_text && (value.len() == 1 || !value.ends_with('"'));
            }
            _ if within => within = !word.ends_with('"'),
            _ => drop(write!(shape, "{word} ")),
        }
    }
    Some(shape)
}

#[test]
fn every_line_of_a_log_that_readme_and_book_show_is_one_that_a_service_writes() {
    let host = Host::new(&App::build().example()).with("/log", serde_json::json!({ "format": "text" }));
    host.spawn();
    let log = || fs::read_to_string(host.path("log")).unwrap_or_default();
    let wait = |text: &str| host.wait(text, || log().contains(text).then_some(()));
    wait("INFO serving ");
    let pid = fs::read_to_string(host.path("state/app-host.pid")).unwrap().trim().parse().unwrap();
    let signal = || app_host_tests::process::signal(pid, nix::sys::signal::Signal::SIGUSR2);
    host.install_fresh(&App::build().example());
    signal();
    wait("zero-downtime restart complete");
    host.install_bytes(b"no library");
    signal();
    wait("zero-downtime restart refused");
    let written: BTreeSet<String> = log().lines().filter_map(shape).collect();

    let mut shown = 0;
    for page in ["../README.md", "operate/restart.md", "operate/rollback.md", "guide/first-app.md"] {
        let text = read(page);
        for line in text.split("```text").skip(1).filter_map(|rest| rest.split("```").next()).flat_map(str::lines) {
            if let Some(shape) = shape(line) {
                assert!(written.contains(&shape), "{page}: {line}\n{shape}\n{written:#?}");
                shown += 1;
            }
        }
    }
    assert!(shown > 5, "{shown}");
}

/// What a help of clap's lists as commands.
fn commands_of(help: &[&str]) -> BTreeSet<String> {
    let output = Command::new(App::build().host()).args(help).output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let lines =
        help.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   ") && !line.starts_with("  -"));
    lines.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn every_command_and_option_of_the_command_line_stands_on_its_page() {
    let page = read("reference/cli.md");
    let word = |line: &String, at: usize| line.split(' ').nth(at).unwrap_or_default().to_owned();
    let (commands, orders) = page.split_once("## Orders of `ctl`").unwrap();
    let shown: BTreeSet<_> = named(commands).iter().map(|line| word(line, 1)).collect();
    let there = commands_of(&["--help"]);
    assert_eq!(shown, there, "on the page (left), in the code (right)");
    let mut there = commands_of(&["ctl", "--help"]);
    there.remove("help");
    let shown: BTreeSet<_> =
        named(orders).iter().map(|line| word(line, 0)).filter(|it| !it.starts_with("--")).collect();
    assert_eq!(shown, there, "on the page (left), in the code (right)");

    // Options: those of each command in its row, and none that it doesn't have.
    let options = |text: &str| -> BTreeSet<String> {
        let words = text.split(|c: char| c.is_whitespace() || "[]`,".contains(c)).filter(|it| it.starts_with("--"));
        words.map(str::to_owned).collect()
    };
    let general: BTreeSet<String> = ["--config", "--help", "--json", "--socket"].map(str::to_owned).into();
    let lines = named(commands).into_iter().map(|line| (vec![word(&line, 1)], line));
    let lines = lines.chain(named(orders).into_iter().map(|line| (vec!["ctl".to_owned(), word(&line, 0)], line)));
    let mut compared = 0;
    for (command, line) in lines.filter(|(command, _)| !command.iter().any(|it| it.starts_with("--"))) {
        let output = Command::new(App::build().host()).args(&command).arg("--help").output().unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        let listed = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
        let mut has: BTreeSet<String> = listed.flat_map(&options).collect();
        let is_of_ctl = command[0] == "ctl";
        has.retain(|option| !general.contains(option) || (!is_of_ctl && option == "--json"));
        assert_eq!(options(&line), has, "{command:?}: on the page (left), in the code (right)");
        compared += 1;
    }
    assert!(compared > 15, "{compared}");
}

#[test]
fn every_exit_code_stands_on_its_page() {
    let page = read("reference/exit-codes.md");
    let codes = |heading: &str| -> BTreeSet<u8> {
        rows(section(&page, heading)).iter().filter_map(|row| row[0].trim().parse().ok()).collect()
    };
    let numbers_behind = |source: &str, begin: &str| -> BTreeSet<u8> {
        let digits = |rest: &str| rest.trim_start().chars().take_while(char::is_ascii_digit).collect::<String>();
        source.split(begin).skip(1).filter_map(|rest| digits(rest).parse().ok()).collect()
    };
    // 2 is the command line's own (clap), 0 and 1 those of any program.
    let ctl = sources("host/src/ctl");
    let outcome =
        ctl.split("enum Outcome {").nth(1).and_then(|rest| rest.split('}').next()).expect("the outcomes of ctl");
    let mut of_ctl = numbers_behind(outcome, " = ");
    of_ctl.insert(2);
    assert_eq!(codes("## Of `ctl`"), of_ctl, "on the page (left), in the code (right)");
    let mut of_run = numbers_behind(&sources("host/master/src"), "EXIT_LOCKED_AND_EMPTY: u8 =");
    assert_eq!(of_run.len(), 1);
    of_run.extend([0, 1, 2]);
    assert_eq!(codes("## Of `run`"), of_run, "on the page (left), in the code (right)");
}
