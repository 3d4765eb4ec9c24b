//! What a listener answers by itself, before the app is asked, and adds to what the app answers: the keys `redirect`,
//! `acme_challenges` and `tls.hsts`.

use std::path::PathBuf;
use std::time::Duration;

use serde::de::{Deserializer, Error as _, Unexpected};
use serde::{Deserialize, Serialize};

/// What workers are told of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Front {
    /// Where requests without TLS are sent.
    pub redirect: Option<Redirect>,
    /// The directory whose files answer HTTP-01 challenges (RFC 8555, section 8.3).
    pub acme_challenges: Option<PathBuf>,
    /// The value of `Strict-Transport-Security` in responses over TLS.
    pub hsts: Option<String>,
}

/// To HTTPS, with the same host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redirect {
    /// The port there. `None`: that of the first listener with TLS, or 443 where there is none.
    pub port: Option<u16>,
}

/// What browsers are to remember: that this host is to be asked by HTTPS alone (RFC 6797).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hsts {
    /// For how long, in whole seconds.
    #[serde(deserialize_with = "max_age")]
    pub max_age: Duration,
    /// Whether that is so for all names below it as well.
    #[serde(default)]
    pub include_subdomains: bool,
    /// Whether browsers may have it in the list that they come with.
    #[serde(default)]
    pub preload: bool,
}

/// The longest time that browsers can be told: two years, as the list of preloaded hosts advises.
const LONGEST: Duration = Duration::from_hours(2 * 365 * 24);

/// The shortest that the list takes.
const PRELOAD: Duration = Duration::from_hours(365 * 24);

fn max_age<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let age = humantime::parse_duration(&text).ok().filter(|age| *age <= LONGEST && age.subsec_nanos() == 0);
    let expected = "a duration in whole seconds of at most 730 days, such as \"365d\" or \"0s\"";
    age.ok_or_else(|| D::Error::invalid_value(Unexpected::Str(&text), &expected))
}

impl Hsts {
    /// Checks what the list of preloaded hosts asks for.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.preload && !(self.include_subdomains && self.max_age >= PRELOAD) {
            return Err("\"hsts\" with \"preload\" needs \"include_subdomains\": true, and a \"max_age\" of at least \
                        \"365d\""
                .to_owned());
        }
        Ok(())
    }

    /// The value of the header field (RFC 6797, section 6.1).
    pub fn value(&self) -> String {
        let subdomains = if self.include_subdomains { "; includeSubDomains" } else { "" };
        let preload = if self.preload { "; preload" } else { "" };
        format!("max-age={}{subdomains}{preload}", self.max_age.as_secs())
    }
}

/// Reads `"https"` and `"https:PORT"`.
pub(super) fn redirect<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Redirect>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    let port = match text.strip_prefix("https") {
        Some("") => Some(None),
        // Digits alone: a number's own parser takes a sign.
        Some(rest) => rest
            .strip_prefix(':')
            .filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|port| port.parse().ok())
            .filter(|port| *port > 0)
            .map(Some),
        None => None,
    };
    let port = port.ok_or_else(|| {
        D::Error::invalid_value(Unexpected::Str(&text), &"\"https\", or with its port \"https:8443\"")
    })?;
    Ok(Some(Redirect { port }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_are_told_what_they_are_to_remember() {
        for (hsts, value) in [
            (r#"{"max_age": "365d"}"#, Some("max-age=31536000")),
            (r#"{"max_age": "0s"}"#, Some("max-age=0")),
            (r#"{"max_age": "730d", "include_subdomains": true}"#, Some("max-age=63072000; includeSubDomains")),
            (
                r#"{"max_age": "365d", "include_subdomains": true, "preload": true}"#,
                Some("max-age=31536000; includeSubDomains; preload"),
            ),
            (r#"{"max_age": "364d", "include_subdomains": true, "preload": true}"#, None),
            (r#"{"max_age": "365d", "preload": true}"#, None),
            (r#"{"max_age": "731d"}"#, None),
            (r#"{"max_age": "1500ms"}"#, None),
            ("{}", None),
        ] {
            let read = serde_json::from_str::<Hsts>(hsts).ok().filter(|hsts| hsts.check().is_ok());
            assert_eq!(read.map(|hsts| hsts.value()).as_deref(), value, "{hsts}");
        }
    }

    #[test]
    fn a_redirect_goes_to_https_and_may_name_its_port() {
        let read =
            |text: &str| redirect(&mut serde_json::Deserializer::from_str(&format!("\"{text}\""))).ok().flatten();
        assert_eq!(read("https"), Some(Redirect { port: None }));
        assert_eq!(read("https:8443"), Some(Redirect { port: Some(8443) }));
        for text in ["http", "https:", "https:0", "https:+1", "https:65536", "https://a", "HTTPS", ""] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
