//! Every line that the host can log, as its page or an example of the book shows it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;

use app_host_tests::{App, Host};

use super::{quoted, read, rows, section, sources, texts_behind};

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
