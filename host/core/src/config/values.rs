//! Numbers, durations and lists of the configuration, with their bounds.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, Unexpected, Visitor};

use super::numbers::{Bytes, Number};
use super::{Account, MAX_GROUPS, MAX_STATE, MAX_THREADS, MAX_VERSIONS_KEPT, MAX_WORKERS};

pub(super) fn versions_kept<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    within(deserializer, MAX_VERSIONS_KEPT)
}

pub(super) fn workers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    within(deserializer, MAX_WORKERS)
}

pub(super) fn threads<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    within(deserializer, MAX_THREADS)
}

pub(super) fn state_limit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let bytes = Bytes { most: MAX_STATE, ..Bytes::ANY }.read(deserializer)?;
    Ok(bytes.expect("null is none of its forms"))
}

/// An empty path would be the directory that relative ones begin at, which is what none is for.
pub(super) fn directory<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    let path = Option::<PathBuf>::deserialize(deserializer)?;
    match &path {
        Some(path) if path.as_os_str().is_empty() => {
            Err(D::Error::invalid_value(Unexpected::Str(""), &"null, or the path of a directory"))
        }
        _ => Ok(path),
    }
}

pub(super) fn groups<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Account>>, D::Error> {
    let groups = Option::<Vec<Account>>::deserialize(deserializer)?;
    match &groups {
        Some(groups) if groups.len() > MAX_GROUPS => {
            Err(D::Error::invalid_length(groups.len(), &format!("at most {MAX_GROUPS} groups").as_str()))
        }
        _ => Ok(groups),
    }
}

fn within<'de, D: Deserializer<'de>>(deserializer: D, most: u16) -> Result<u16, D::Error> {
    let number = Number { least: 1, most: most.into(), null: false }.read(deserializer)?;
    Ok(number.and_then(|number| u16::try_from(number).ok()).expect("it is within its bounds"))
}

pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = deserializer.deserialize_str(DurationText)?;
    let expected = "a duration of at most a day, such as \"250ms\", \"30s\" or \"2m\"";
    parse_duration(&text).ok_or_else(|| D::Error::invalid_value(Unexpected::Str(&text), &expected))
}

/// The text of a duration. Numbers have no unit.
struct DurationText;

impl Visitor<'_> for DurationText {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration with its unit, such as \"30s\"")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }
}

pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    /// The longest duration: what needs more than a day is not a time-out of ours.
    const MOST: Duration = Duration::from_hours(24);
    humantime::parse_duration(text).ok().filter(|duration| *duration <= MOST)
}

pub(super) fn positive_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let duration = duration(deserializer)?;
    if duration.is_zero() {
        return Err(D::Error::invalid_value(Unexpected::Str("0s"), &"a duration longer than zero"));
    }
    Ok(duration)
}

/// Reads a time-out of a second or more, or `null` for none.
pub(super) fn second_or_more_or_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    const EXPECTED: &str = "null, or a duration from a second to a day, such as \"60s\"";
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    let duration = parse_duration(&text).filter(|duration| *duration >= Duration::from_secs(1));
    duration.map(Some).ok_or_else(|| D::Error::invalid_value(Unexpected::Str(&text), &EXPECTED))
}

/// A time-out of which less than a second would be for nobody's good.
pub(super) fn second_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let duration = duration(deserializer)?;
    if duration < Duration::from_secs(1) {
        let text = humantime::format_duration(duration).to_string();
        return Err(D::Error::invalid_value(
            Unexpected::Str(&text),
            &"a duration from a second to a day, such as \"30s\"",
        ));
    }
    Ok(duration)
}
