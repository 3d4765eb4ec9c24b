//! Whom a request is for: a page of somebody else's in a browser on this machine must not get an answer.
//!
//! Such a page can have its own name resolve to this machine (DNS rebinding), and is then of the same origin
//! as what answers here. The browser says its name in `Host`, so on the loopback interface only names that
//! nobody else can own are answered: addresses, and `localhost` (RFC 6761, section 6.3).
//!
//! Pure. For everything of ours that a browser is meant to reach, on the loopback interface: metrics and page, and
//! the page of `dev` that reloads.

use std::net::IpAddr;

/// Whether `host`, with a port or without, names this machine whatever a resolver says.
pub fn is_ours(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((inner, rest)) if rest.is_empty() || is_port(rest) => return inner.parse::<IpAddr>().is_ok(),
        Some(_) => return false,
        None => match host.rfind(':') {
            Some(at) if is_port(&host[at..]) => &host[..at],
            Some(_) => return false,
            None => host,
        },
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_localhost = name.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case("localhost"));
    is_localhost || name.parse::<IpAddr>().is_ok()
}

fn is_port(text: &str) -> bool {
    text.strip_prefix(':').is_some_and(|digits| digits.len() <= 5 && digits.bytes().all(|digit| digit.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_localhost_are_ours_and_every_other_name_may_be_somebody_elses() {
        for ours in [
            "127.0.0.1",
            "127.0.0.1:9090",
            "10.1.2.3:80",
            "[::1]",
            "[::1]:9090",
            "localhost",
            "LOCALHOST:1",
            "localhost.",
            "a.localhost:9090",
            "localhost:",
        ] {
            assert!(is_ours(ours), "{ours}");
        }
        for foreign in [
            "",
            ":80",
            "evil.example",
            "evil.example:9090",
            "localhost.evil.example",
            "notlocalhost",
            "127.0.0.1.nip.io",
            "[::1",
            "[::1]x",
            "[evil.example]",
            "::1",
            "localhost:http",
            "127.1",
        ] {
            assert!(!is_ours(foreign), "{foreign}");
        }
    }
}
