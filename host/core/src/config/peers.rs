//! Whom the service believes what it is told of a client, and what it believes: the keys `trusted_peers`, `proxy_protocol`
//! and `forwarded`.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::de::Deserializer;
use serde::{Deserialize, Serialize};

/// The most peers that may be named.
const MAX_PEERS: usize = 256;

/// Whom a listener believes, and what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peers {
    /// Who is believed.
    pub trusted: Vec<Trusted>,
    /// Whether each connection begins with a header of the PROXY protocol.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Which header fields say who the client is.
    pub forwarded: Option<Forwarded>,
}

/// Who must begin a connection with a header of the PROXY protocol. There is no value for "may": a receiver that guesses
/// takes a client's own bytes for the proxy's word (section 2 of the specification).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyProtocol {
    /// Everybody. Who isn't trusted is turned away.
    Require,
}

/// The header fields that are believed. Never both kinds: a proxy writes one, and passes on what a client has put into the
/// other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Forwarded {
    /// `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Host`.
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

impl Peers {
    /// Whether a peer or hop with this address is believed; one at a Unix socket has none.
    pub fn trust(&self, address: Option<IpAddr>) -> bool {
        self.trusted.iter().any(|trusted| trusted.includes(address))
    }

    /// Checks that what is to be believed has somebody who says it.
    pub(super) fn check(&self) -> Result<(), String> {
        let keys = [("proxy_protocol", self.proxy_protocol.is_some()), ("forwarded", self.forwarded.is_some())];
        match keys.into_iter().find(|(_, given)| *given && self.trusted.is_empty()) {
            Some((key, _)) => Err(format!(
                "\"{key}\" needs \"trusted_peers\", the proxies that are believed: \"10.0.0.1\", \"10.0.0.0/8\", \"unix\""
            )),
            None => Ok(()),
        }
    }
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

pub(super) fn trusted<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Trusted>, D::Error> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn trusts(list: &str, peer: Option<&str>) -> bool {
        let list = trusted(&mut serde_json::Deserializer::from_str(list)).unwrap();
        let peer = peer.map(|peer| peer.parse().unwrap());
        list.iter().any(|trusted| trusted.includes(peer))
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
