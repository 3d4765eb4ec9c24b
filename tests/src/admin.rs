//! A reader of the admin listener: metrics, health, and what is pushed to pages.

use std::collections::BTreeMap;
use std::io;

use crate::client::{Address, Connection};
use crate::host::Host;
use crate::process;
use crate::said;

/// What one scrape has brought.
#[derive(Clone, Debug)]
pub struct Metrics {
    kinds: BTreeMap<String, String>,
    samples: BTreeMap<String, f64>,
}

impl Metrics {
    /// Reads Prometheus' text format.
    pub fn parse(text: &str) -> Self {
        let (mut kinds, mut samples) = (BTreeMap::new(), BTreeMap::new());
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap_or_else(|| panic!("{line}"));
                kinds.insert(name.to_owned(), kind.to_owned());
            } else if !line.starts_with('#') {
                let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
                let value = value.parse().unwrap_or_else(|error| panic!("{line}: {error}"));
                assert!(samples.insert(series.to_owned(), value).is_none(), "{series} is there twice");
            }
        }
        Self { kinds, samples }
    }

    /// One series of ours, by its name without the prefix and with its labels; it must be there.
    pub fn get(&self, series: &str) -> f64 {
        self.find(series).unwrap_or_else(|| panic!("there is no {series}: {:#?}", self.samples))
    }

    /// As [`Self::get`], for what is counted.
    pub fn count(&self, series: &str) -> u64 {
        let value = self.get(series);
        assert!(value.fract() == 0.0 && value >= 0.0, "{series} is {value}, which is no number of anything");
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is whole, and not negative")]
        let count = value as u64;
        count
    }

    /// As [`Self::get`], where it may be missing.
    pub fn find(&self, series: &str) -> Option<f64> {
        self.samples.get(&format!("app_host_{series}")).copied()
    }

    /// The names of every metric.
    pub fn names(&self) -> Vec<&str> {
        self.kinds.keys().map(String::as_str).collect()
    }

    /// Checks that no counter has gone backwards since an earlier scrape. One that was there and isn't any more
    /// belongs to a generation that is gone.
    #[track_caller]
    pub fn assert_grown_since(&self, earlier: &Self) {
        for (series, before) in &earlier.samples {
            let name = series.split('{').next().unwrap_or_default();
            let of = ["_bucket", "_sum", "_count"].into_iter().find_map(|suffix| name.strip_suffix(suffix));
            let kind = self.kinds.get(name).or_else(|| self.kinds.get(of?));
            if kind.is_some_and(|kind| kind == "counter" || kind == "histogram")
                && let Some(now) = self.samples.get(series)
            {
                assert!(now >= before, "{series} has gone from {before} to {now}");
            }
        }
    }
}

/// Asks for a path in the name of this machine; returns the status.
pub fn get(connection: &mut Connection, path: &str) -> io::Result<u16> {
    connection.send(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes())?;
    connection.receive()
}

impl Host {
    /// Where metrics are served, as the log says it last.
    pub fn admin_address(&self) -> Address {
        self.wait("the admin listener", || {
            let line = self.lines_with(said::ADMIN_LISTENING).pop()?;
            Some(Address::parse(line.str("address")).unwrap_or_else(|| panic!("no address: {}", line.text())))
        })
    }

    /// A new connection to it.
    pub fn admin(&self) -> Connection {
        let address = self.admin_address();
        Connection::connect(&address).unwrap_or_else(|error| panic!("connecting to {address:?}: {error}"))
    }

    /// Asks on a connection of its own; returns the status and the text.
    pub fn ask_admin(&self, path: &str) -> (u16, String) {
        let mut connection = self.admin();
        let status = get(&mut connection, path).unwrap_or_else(|error| panic!("GET {path}: {error}"));
        (status, connection.text())
    }

    /// What the metrics say now.
    pub fn metrics(&self) -> Metrics {
        let (status, text) = self.ask_admin("/metrics");
        assert_eq!(status, 200, "{text}");
        Metrics::parse(&text)
    }

    /// The process that serves them, if there is one at the moment.
    pub fn admin_process(&self) -> Option<u32> {
        let is_it = |pid: &u32| process::command_line(*pid).contains(" internal-admin");
        process::children(self.master()).into_iter().find(is_it)
    }
}
