//! The sections `http` and `connections`: what clients may ask for, and how long they may take.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::numbers::{Bytes, Number};
use super::values::{second_or_more, second_or_more_or_null};

/// The longest URI that hyper reads, in bytes.
const MOST_URI: u64 = 65_534;

/// The most lines of a head: hyper makes room for so many on the stack before it reads one.
const MOST_HEADERS: u64 = 1000;

/// What requests and their connections are bounded by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// The most bytes of a head: request line and headers.
    #[serde(deserialize_with = "max_head")]
    pub max_head: u32,
    /// The most header lines.
    #[serde(deserialize_with = "max_headers")]
    pub max_headers: u16,
    /// The most bytes of a request's path and query.
    #[serde(deserialize_with = "max_uri")]
    pub max_uri: u16,
    /// How long the first head may take from the accept on, and each later one from when it was seen to have begun.
    #[serde(serialize_with = "as_text", deserialize_with = "second_or_more")]
    pub head_timeout: Duration,
    /// How long a connection is kept without a request.
    #[serde(serialize_with = "as_text", deserialize_with = "second_or_more")]
    pub idle_timeout: Duration,
    /// The fewest bytes a second that a body must come with, or a response must be taken with, while somebody waits for it.
    #[serde(deserialize_with = "min_rate")]
    pub min_rate: Option<u64>,
    /// How long the rate is measured before it is judged.
    #[serde(serialize_with = "as_text", deserialize_with = "second_or_more")]
    pub min_rate_grace: Duration,
    /// The most bytes of a request's body.
    #[serde(deserialize_with = "max_body")]
    pub max_body: Option<u64>,
    /// The most requests that are in flight in a worker.
    #[serde(deserialize_with = "some_number")]
    pub max_in_flight: Option<u64>,
    /// How many requests a connection may have.
    #[serde(deserialize_with = "some_number")]
    pub max_requests: Option<u64>,
    /// The most requests of an HTTP/2 connection that are in flight.
    #[serde(deserialize_with = "max_streams")]
    pub max_streams: u32,
    /// How long a client that has ended its side is still answered: it may as well have gone.
    #[serde(serialize_with = "as_text", deserialize_with = "second_or_more")]
    pub half_closed_timeout: Duration,
    /// CONNECT that asks for a tunnel to somewhere else goes to the app.
    pub allow_connect: bool,
    /// TRACE goes to the app.
    pub allow_trace: bool,
    /// Lines of a head may end with a line feed alone (RFC 9112, section 2.2).
    pub allow_bare_line_feeds: bool,
    /// How many requests an HTTP/2 client may give up before they are answered, in the time between two looks at its
    /// connection.
    #[serde(deserialize_with = "max_reset_streams")]
    pub max_reset_streams: u32,
}

/// What connections are bounded by, whatever is spoken on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConnectionLimits {
    /// How long a TLS handshake may take.
    #[serde(serialize_with = "as_text", deserialize_with = "second_or_more")]
    pub handshake_timeout: Duration,
    /// The most connections in all workers together.
    #[serde(deserialize_with = "some_number")]
    pub max: Option<u64>,
    /// The most connections that a worker accepts.
    #[serde(deserialize_with = "some_number")]
    pub max_per_worker: Option<u64>,
    /// The most connections of one client in a worker.
    #[serde(deserialize_with = "some_number")]
    pub max_per_address: Option<u64>,
    /// How long a connection may be open.
    #[serde(serialize_with = "as_text_or_null", deserialize_with = "second_or_more_or_null")]
    pub max_lifetime: Option<Duration>,
}

/// All that clients are bounded by, as workers are told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientLimits {
    pub http: Http,
    pub connections: ConnectionLimits,
    /// After what time a client that owes something, and moves nothing, is cut off while its worker drains.
    pub stall_timeout: Duration,
    /// What becomes of HTTP/2 connections while their worker drains.
    pub http2: Http2Restart,
}

/// What becomes of HTTP/2 connections in a restart (`restart.http2`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Http2Restart {
    /// Their clients are told GOAWAY (RFC 9113, section 6.8), and connect again.
    Goaway,
    /// They go on in another worker. One that can't is ended by GOAWAY, and counted ([`crate::not_moved::NotMoved`]).
    Move,
}

impl Http {
    /// What holds where the configuration says nothing.
    pub const DEFAULT: Self = Self {
        max_head: 64 * 1024,
        max_headers: 100,
        max_uri: 16 * 1024,
        head_timeout: Duration::from_secs(30),
        // Longer than the 60 s for which proxies commonly keep theirs, so that it is they who close.
        idle_timeout: Duration::from_secs(90),
        min_rate: Some(240),
        min_rate_grace: Duration::from_secs(5),
        max_body: None,
        max_in_flight: None,
        max_requests: None,
        max_streams: 250,
        max_reset_streams: 1000,
        half_closed_timeout: Duration::from_secs(30),
        allow_connect: false,
        allow_trace: false,
        allow_bare_line_feeds: false,
    };
}

impl ConnectionLimits {
    /// What holds where the configuration says nothing.
    pub const DEFAULT: Self = Self {
        handshake_timeout: Duration::from_secs(10),
        max: None,
        max_per_worker: None,
        max_per_address: None,
        max_lifetime: None,
    };

    /// What each of so many workers is told: its part of what all may have together. Each may have one connection.
    #[must_use]
    pub fn of_one(self, workers: u16) -> Self {
        let part = self.max.map(|most| (most / u64::from(workers.max(1))).max(1));
        let both = [self.max_per_worker, part];
        Self { max_per_worker: both.into_iter().flatten().min(), ..self }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

fn max_head<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    narrow(Bytes { least: 4096, most: 1 << 20, ..Bytes::ANY }.read(deserializer)?)
}

fn max_headers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    narrow(Number { least: 1, most: MOST_HEADERS, null: false }.read(deserializer)?)
}

fn max_uri<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    narrow(Bytes { least: 256, most: MOST_URI, ..Bytes::ANY }.read(deserializer)?)
}

fn min_rate<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Number { least: 1, most: 1 << 30, null: true }.read(deserializer)
}

fn max_body<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Bytes { null: true, ..Bytes::ANY }.read(deserializer)
}

fn some_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Number { least: 1, most: u64::MAX, null: true }.read(deserializer)
}

fn max_streams<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    narrow(Number { least: 1, most: 10_000, null: false }.read(deserializer)?)
}

fn max_reset_streams<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    narrow(Number { least: 1, most: 10_000, null: false }.read(deserializer)?)
}

/// As the configuration writes it: workers read with the same reader.
fn as_text<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_duration(*duration))
}

#[allow(clippy::ref_option, reason = "serde calls it so")]
fn as_text_or_null<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => as_text(duration, serializer),
        None => serializer.serialize_none(),
    }
}

/// A number that was read with bounds which this type includes, and can't be null.
fn narrow<T: TryFrom<u64>, E: serde::de::Error>(number: Option<u64>) -> Result<T, E> {
    number.and_then(|number| T::try_from(number).ok()).ok_or_else(|| E::custom("expected a number within its bounds"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(text: &str) -> Result<Http, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_not_said_is_the_default_and_each_key_has_its_bounds() {
        assert_eq!(http("{}").unwrap(), Http::DEFAULT);
        let some = http(r#"{"max_head": "16KiB", "max_uri": 300, "min_rate": null, "idle_timeout": "5m"}"#).unwrap();
        let five = Duration::from_mins(5);
        assert_eq!((some.max_head, some.max_uri, some.min_rate, some.idle_timeout), (16 << 10, 300, None, five));
        for (text, expected) in [
            (r#"{"max_head": "2MiB"}"#, "a number of bytes from 4096 to 1048576"),
            (r#"{"max_head": null}"#, "invalid type: null, expected a number of bytes"),
            (r#"{"max_uri": 65535}"#, "from 256 to 65534"),
            (r#"{"max_headers": 0}"#, "a number from 1 to 1000"),
            (r#"{"head_timeout": "1ms"}"#, "a duration from a second"),
            (r#"{"max_body": -1}"#, "null, a number of bytes"),
            (r#"{"min_rate": 0}"#, "null, or a number from 1"),
            (r#"{"max": 0}"#, "unknown field `max`"),
        ] {
            let error = http(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn what_workers_are_told_is_what_was_read() {
        let text = r#"{"max_body": "1MiB", "head_timeout": "7s 20ms", "idle_timeout": "24h", "min_rate": null}"#;
        for http in [http(text).unwrap(), Http::DEFAULT] {
            let sent = serde_json::to_string(&http).unwrap();
            assert_eq!(serde_json::from_str::<Http>(&sent).unwrap(), http, "{sent}");
        }
        let connections = ConnectionLimits {
            handshake_timeout: Duration::from_millis(1001),
            max: Some(9),
            max_per_worker: Some(7),
            max_per_address: Some(3),
            max_lifetime: Some(Duration::from_hours(1)),
        };
        let sent = serde_json::to_string(&connections).unwrap();
        assert_eq!(serde_json::from_str::<ConnectionLimits>(&sent).unwrap(), connections, "{sent}");
        let sent = serde_json::to_string(&ConnectionLimits::DEFAULT).unwrap();
        assert_eq!(serde_json::from_str::<ConnectionLimits>(&sent).unwrap(), ConnectionLimits::DEFAULT, "{sent}");
    }

    #[test]
    fn what_all_workers_may_have_is_divided_among_them() {
        let limits = |max, max_per_worker| ConnectionLimits { max, max_per_worker, ..ConnectionLimits::DEFAULT };
        for (max, max_per_worker, workers, expected) in [
            (None, None, 2, None),
            (None, Some(5), 2, Some(5)),
            (Some(100), None, 3, Some(33)),
            (Some(100), Some(40), 2, Some(40)),
            (Some(100), Some(60), 2, Some(50)),
            (Some(1), None, 4, Some(1)),
        ] {
            assert_eq!(limits(max, max_per_worker).of_one(workers).max_per_worker, expected, "{max:?} of {workers}");
        }
    }
}
