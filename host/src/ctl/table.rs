//! The status as a table for people.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use app_host_core::status::{Status, WorkerStatus};

/// The end of the year 9999, in milliseconds since the epoch: nobody can print a later moment.
const LAST_MOMENT: u64 = 253_402_300_799_999;

/// How many columns there are.
const COLUMNS: usize = 14;

const HEAD: [&str; COLUMNS] = [
    "SLOT",
    "GENERATION",
    "VERSION",
    "PID",
    "STATE",
    "UPTIME",
    "IN FLIGHT",
    "REQUESTS",
    "HANDED OVER",
    "RECEIVED",
    "CLOSED",
    "CUT",
    "CPU",
    "MEMORY",
];

/// Which columns are text, so flush left.
const LEFT: [bool; COLUMNS] =
    [false, false, true, false, true, false, false, false, false, false, false, false, false, false];

/// The status, and how busy the workers were since an earlier one that is that old.
pub(super) fn status(status: &Status, before: Option<(&Status, Duration)>) -> String {
    let mut out = String::new();
    // Writing to a string never fails.
    let _ = writeln!(
        out,
        "{} {}: {}, generation {}, version {}, up {}",
        status.app,
        status.app_version,
        status.phase,
        status.generation,
        short(&status.version),
        duration(Duration::from_millis(status.uptime_ms)),
    );
    let _ = writeln!(
        out,
        "master {}, app-host {}, magic {}, {} workers configured, log level {}",
        status.pid, status.app_host, status.magic, status.workers_configured, status.log_level
    );
    if let Some(databank) = &status.databank {
        let _ = writeln!(out, "databank {} {}", databank.driver, databank.place.as_deref().unwrap_or("of each worker"));
    }
    if let Some(wanted) = status.workers_wanted.filter(|wanted| *wanted != status.workers_configured) {
        let _ = writeln!(out, "{wanted} workers wanted, as was asked for while it runs");
    }
    if status.out_of_rotation {
        let _ = writeln!(out, "out of rotation: not ready, until ctl drain off");
    }
    if !status.listeners_down.is_empty() {
        let _ = writeln!(out, "listeners that turn clients away: {}", status.listeners_down.join(", "));
    }
    for certificate in status.certificates.iter().filter(|certificate| certificate.ends_soon) {
        let (names, listener) = (certificate.names.join(", "), &certificate.listener);
        let _ = writeln!(out, "certificate of {listener} for {names} ends: {}", certificate.not_after);
    }
    if let Some(last) = status.verdicts.last() {
        let detail = last
            .detail
            .as_ref()
            .zip(last.reason.as_ref())
            .map_or("", |(detail, reason)| detail.strip_prefix(reason.as_str()).unwrap_or(detail));
        let detail = if last.unchanged { " (unchanged=true)" } else { detail };
        let _ = writeln!(
            out,
            "last restart: {} {}{detail}, asked for by {}, took {}, {}",
            last.request,
            last.verdict,
            last.by,
            duration(Duration::from_millis(last.took_ms)),
            last.time
        );
    }
    let mut workers: Vec<&WorkerStatus> = status.workers.iter().collect();
    workers.sort_by_key(|worker| (worker.slot, worker.generation, worker.pid));
    let rows: Vec<[String; COLUMNS]> = workers.into_iter().map(|worker| row(worker, before)).collect();
    out.push('\n');
    lines(&mut out, &rows);
    out
}

/// The generations of `VERSIONS`, a line each, and how a rollback names them.
pub(super) fn versions(versions: &[Value]) -> String {
    let mut out = String::from("STATE        VERSION:CONFIGURATION      SINCE                 APP\n");
    for version in versions {
        let text = |key: &str| version[key].as_str().unwrap_or_default();
        let since = Duration::from_millis(version["since"].as_u64().unwrap_or_default().min(LAST_MOMENT));
        let since = humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + since);
        let (state, pair) = (text("state"), format!("{}:{}", short(text("version")), short(text("config"))));
        // Writing to a string never fails.
        let _ = writeln!(
            out,
            "{}",
            format!("{state:<11}  {pair:<25}  {since}  {} {}  {}", text("app"), text("app_version"), text("reason"))
                .trim_end()
        );
    }
    out
}

fn row(worker: &WorkerStatus, before: Option<(&Status, Duration)>) -> [String; COLUMNS] {
    let cpu = worker.measured.cpu_ms.map(|now| {
        let earlier = before.and_then(|(status, elapsed)| {
            let same = status.workers.iter().find(|other| other.pid == worker.pid)?;
            Some((same.measured.cpu_ms?, u64::try_from(elapsed.as_millis()).ok().filter(|it| *it > 0)?))
        });
        match earlier {
            Some((earlier, elapsed)) => format!("{}%", now.saturating_sub(earlier).saturating_mul(100) / elapsed),
            None => format!("{}.{:02} s", now / 1000, now % 1000 / 10),
        }
    });
    let memory =
        worker.measured.memory_bytes.map(|bytes| format!("{}.{} MiB", bytes >> 20, (bytes >> 10) % 1024 * 10 / 1024));
    [
        worker.slot.to_string(),
        worker.generation.to_string(),
        short(&worker.version).to_owned(),
        worker.pid.to_string(),
        worker.state.clone(),
        duration(Duration::from_millis(worker.uptime_ms)),
        worker.in_flight.to_string(),
        worker.requests.to_string(),
        worker.handed_over.to_string(),
        worker.received.to_string(),
        worker.closed.to_string(),
        worker.cut.to_string(),
        cpu.unwrap_or_else(|| "-".to_owned()),
        memory.unwrap_or_else(|| "-".to_owned()),
    ]
}

fn lines(out: &mut String, rows: &[[String; COLUMNS]]) {
    let width = |column: usize| {
        rows.iter().map(|row| row[column].chars().count()).chain([HEAD[column].len()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    for row in std::iter::once(&HEAD.map(str::to_owned)).chain(rows) {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            let _ = if LEFT[column] { write!(line, "{cell:<width$}  ") } else { write!(line, "{cell:>width$}  ") };
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
}

pub(super) fn short(version: &str) -> &str {
    version.get(..12).unwrap_or(version)
}

/// A duration with its two largest units, which is enough to read.
pub(super) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..60 => format!("{seconds}.{} s", duration.subsec_millis() / 100),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_that_no_calendar_has_is_printed_all_the_same() {
        let text = versions(&[serde_json::json!({ "since": u64::MAX, "state": "kept" })]);
        assert!(text.contains("9999-12-31T23:59:59Z"), "{text}");
    }

    #[test]
    fn a_status_is_a_table() {
        let text = r#"{"app_host":"0.1.0","pid":10,"uptime_ms":90061000,"phase":"rolling","app":"shop","app_version":"1.2.3",
            "magic":"00000001_00000001","generation":1,"version":"0123456789abcdef","workers_configured":1,"log_level":"info",
            "databank":{"driver":"sqlite","place":"/d/databank.sqlite"},"workers":[
              {"slot":0,"generation":2,"version":"fedcba9876543210","pid":12,"state":"ready","uptime_ms":250,"connections":1,
               "in_flight":0,"requests":7,"cpu_ms":null,"memory_bytes":null},
              {"slot":0,"generation":1,"version":"0123456789abcdef","pid":11,"state":"draining","uptime_ms":61000,"connections":1,
               "in_flight":3,"requests":12345,"handed_over":250,"received":7,"closed":2,"cut":1,"cpu_ms":1230,"memory_bytes":5400000}],
            "verdicts":[{"request":4,"by":"SIGUSR2","verdict":"refused: bad config","reason":"bad config",
              "detail":"bad config: /c.json:1:1: EOF","generation":1,"took_ms":12,"time":"2026-11-22T01:02:03.000000Z"}]}"#;
        let later: Status = serde_json::from_str(text).unwrap();
        assert_eq!(
            status(&later, None),
            "shop 1.2.3: rolling, generation 1, version 0123456789ab, up 1 d 1 h\n\
             master 10, app-host 0.1.0, magic 00000001_00000001, 1 workers configured, log level info\n\
             databank sqlite /d/databank.sqlite\n\
             last restart: 4 refused: bad config: /c.json:1:1: EOF, asked for by SIGUSR2, took 12 ms, 2026-11-22T01:02:03.000000Z\n\
             \n\
             SLOT  GENERATION  VERSION       PID  STATE        UPTIME  IN FLIGHT  REQUESTS  HANDED OVER  RECEIVED  CLOSED  CUT     CPU   MEMORY\n   \
                0           1  0123456789ab   11  draining  1 min 1 s          3     12345          250         7       2    1  1.23 s  5.1 MiB\n   \
                0           2  fedcba987654   12  ready        250 ms          0         7            0         0       0    0       -        -\n"
        );
        let text =
            status(&Status { workers_wanted: Some(4), listeners_down: vec!["web".into()], ..later.clone() }, None);
        assert!(text.contains("\n4 workers wanted") && text.contains("turn clients away: web\n"), "{text}");
        let mut earlier = later.clone();
        earlier.workers[1].measured.cpu_ms = Some(730);
        assert!(status(&later, Some((&earlier, Duration::from_secs(1)))).contains(" 50% "));
    }
}
