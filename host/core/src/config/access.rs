//! The key `access_log`: whether each request is a line of a log, of which one, and whose request ids
//! are taken over.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

/// The most peers that may be named.
const MAX_PEERS: usize = 256;

/// What is logged of each request, if anything is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// A file of its own; the log itself when absent.
    pub file: Option<PathBuf>,
    /// Whose `x-request-id` is taken over.
    pub trusted_peers: Vec<Trusted>,
}

/// Clients that are believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trusted {
    /// Those with an address of this network.
    Network(IpNet),
    /// Whoever may connect to our Unix sockets.
    Unix,
}

impl Trusted {
    /// Whether a client with this address is one of them; those at a Unix socket have none.
    pub fn includes(self, peer: Option<IpAddr>) -> bool {
        match (self, peer) {
            // A socket that serves both families gives IPv4 clients as IPv6 ones (RFC 4291, section 2.5.5.2).
            (Self::Network(network), Some(peer)) => network.contains(&peer) || network.contains(&peer.to_canonical()),
            (Self::Unix, None) => true,
            (Self::Network(_), None) | (Self::Unix, Some(_)) => false,
        }
    }
}

fn trusted<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Trusted>, D::Error> {
    use serde::de::Error;

    let texts = Vec::<String>::deserialize(deserializer)?;
    if texts.len() > MAX_PEERS {
        return Err(D::Error::invalid_length(texts.len(), &format!("at most {MAX_PEERS} peers").as_str()));
    }
    let one = |text: &String| {
        if text == "unix" {
            return Ok(Trusted::Unix);
        }
        let address = text.parse::<IpAddr>().map(IpNet::from);
        address.or_else(|_| text.parse::<IpNet>()).map(Trusted::Network).map_err(|_| {
            D::Error::custom(format_args!(
                "\"{text}\" is no peer: expected an address (\"10.0.0.1\"), a network (\"10.0.0.0/8\") or \"unix\""
            ))
        })
    };
    texts.iter().map(one).collect()
}

/// The key as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAccessLog {
    file: Option<PathBuf>,
    #[serde(default, deserialize_with = "trusted")]
    trusted_peers: Vec<Trusted>,
}

impl RawAccessLog {
    pub(super) fn resolve(self, directory: &Path) -> AccessLog {
        AccessLog { file: self.file.map(|file| directory.join(file)), trusted_peers: self.trusted_peers }
    }
}

/// Reads `true` and `false`, or an object, which says that there is one.
pub(super) fn access_log<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<RawAccessLog>, D::Error> {
    struct Either;

    impl<'de> Visitor<'de> for Either {
        type Value = Option<RawAccessLog>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("true, false or an object with the keys file, trusted_peers")
        }

        fn visit_bool<E>(self, wanted: bool) -> Result<Self::Value, E> {
            Ok(wanted.then(|| RawAccessLog { file: None, trusted_peers: Vec::new() }))
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            RawAccessLog::deserialize(MapAccessDeserializer::new(map)).map(Some)
        }
    }

    deserializer.deserialize_any(Either)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusts(list: &str, peer: Option<&str>) -> bool {
        let raw: RawAccessLog = serde_json::from_str(&format!(r#"{{"trusted_peers": {list}}}"#)).unwrap();
        let peer = peer.map(|peer| peer.parse().unwrap());
        raw.trusted_peers.iter().any(|trusted| trusted.includes(peer))
    }

    #[test]
    fn peers_are_trusted_by_address_by_network_or_for_being_on_this_machine() {
        for (list, peer, expected) in [
            ("[]", Some("127.0.0.1"), false),
            (r#"["127.0.0.1"]"#, Some("127.0.0.1"), true),
            (r#"["127.0.0.1"]"#, Some("127.0.0.2"), false),
            (r#"["10.0.0.0/8"]"#, Some("10.200.0.1"), true),
            (r#"["10.0.0.0/8"]"#, Some("::ffff:10.200.0.1"), true),
            (r#"["10.0.0.0/8"]"#, None, false),
            (r#"["fd00::/8", "unix"]"#, Some("fd12::1"), true),
            (r#"["fd00::/8", "unix"]"#, None, true),
            (r#"["unix"]"#, Some("::1"), false),
        ] {
            assert_eq!(trusts(list, peer), expected, "{list} {peer:?}");
        }
    }
}
