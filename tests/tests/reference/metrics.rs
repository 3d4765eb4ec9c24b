//! Every metric, its labels, and the alerts on them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use app_host_tests::Host;

use super::{hold, named, quoted, read, rows, section};

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
