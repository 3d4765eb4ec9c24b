//! Lists of hops, read from their right end: `X-Forwarded-For`, and `Forwarded` (RFC 7239).
//!
//! From the right, because only there stands what a trusted proxy has written: whatever a client has put before it, a quote
//! that never ends, say, changes nothing.

use std::net::{IpAddr, SocketAddr};

use app_host_core::config::Peers;
use http::header::{HeaderMap, HeaderName};

use super::{authority, scheme};

/// What an entry says of whom a proxy has a request from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hop {
    /// Its address; the port is 0 where none is said. `None` where it hides, or nothing is said.
    pub address: Option<SocketAddr>,
    /// Whether it spoke TLS.
    pub encrypted: Option<bool>,
    /// The host that it asked for.
    pub host: Option<Box<str>>,
}

/// The client's entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientEntry {
    pub hop: Hop,
    /// Where it begins: in which line of the field, and at which byte.
    pub line: usize,
    pub begin: usize,
}

/// Finds the client's entry: the rightmost whose address is not trusted; else the leftmost that can be read and has an
/// address, or is the only one. `None` if not even the rightmost can be read.
pub fn walk(
    headers: &HeaderMap,
    name: &HeaderName,
    read: impl Fn(&str) -> Option<Hop>,
    peers: &Peers,
) -> Option<ClientEntry> {
    let lines: Vec<_> = headers.get_all(name).iter().collect();
    let mut found: Option<ClientEntry> = None;
    for (line, value) in lines.into_iter().enumerate().rev() {
        let Ok(text) = value.to_str() else { break };
        let mut end = text.len();
        loop {
            let begin = element_begin(&text[..end]);
            let element = text[begin..end].trim();
            // Empty ones count for nothing (RFC 9110, section 5.6.1.2).
            if !element.is_empty() {
                let Some(hop) = read(element) else { return found };
                let Some(address) = hop.address else {
                    // It hides: what follows is its own word. Of the nearest one the rest counts all the same.
                    return found.or(Some(ClientEntry { hop, line, begin }));
                };
                found = Some(ClientEntry { hop, line, begin });
                if !peers.trust(Some(address.ip())) {
                    return found;
                }
            }
            if begin == 0 {
                break;
            }
            end = begin - 1;
        }
    }
    found
}

/// Where the last element of a list begins: behind the last comma that is not within quotes.
fn element_begin(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut quoted = false;
    for (at, byte) in bytes.iter().enumerate().rev() {
        match byte {
            b'"' => {
                let escapes = bytes[..at].iter().rev().take_while(|byte| **byte == b'\\').count();
                quoted ^= escapes % 2 == 0;
            }
            b',' if !quoted => return at + 1,
            _ => {}
        }
    }
    0
}

/// An entry of `X-Forwarded-For`.
pub fn element(text: &str) -> Option<Hop> {
    Some(Hop { address: Some(node(text)?), ..Hop::default() })
}

/// An entry of `Forwarded`: `for`, `proto` and `host` of its pairs, each at most once (RFC 7239, section 4).
pub fn pairs(text: &str) -> Option<Hop> {
    let (mut source, mut proto, mut host) = (None, None, None);
    let mut rest = text;
    loop {
        let (name, behind) = rest.split_once('=')?;
        let (value, behind) = value(behind)?;
        let place = match name.trim() {
            name if name.eq_ignore_ascii_case("for") => Some(&mut source),
            name if name.eq_ignore_ascii_case("proto") => Some(&mut proto),
            name if name.eq_ignore_ascii_case("host") => Some(&mut host),
            name if !name.is_empty() && name.bytes().all(is_token) => None,
            _ => return None,
        };
        if let Some(place) = place
            && place.replace(value).is_some()
        {
            return None;
        }
        let behind = behind.trim_start();
        if behind.is_empty() {
            break;
        }
        rest = behind.strip_prefix(';')?;
        // Some proxies end the last pair so.
        if rest.trim().is_empty() {
            break;
        }
    }
    let hidden = |name: &str| name.eq_ignore_ascii_case("unknown") || name.starts_with('_');
    let address = match source {
        Some(source) if hidden(&source) => None,
        Some(source) => Some(node(&source)?),
        None => None,
    };
    Some(Hop {
        address,
        encrypted: proto.and_then(|proto| scheme(&proto)),
        host: host.and_then(|host| authority(&host)),
    })
}

/// The value at the beginning of a text, a token or quoted, and what is behind it. A token may have what stands in an
/// address, too: not all proxies quote that.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.bytes().position(|byte| !is_token(byte) && !b":[]".contains(&byte)).unwrap_or(text.len());
        return (end > 0).then(|| (text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

/// RFC 9110, section 5.6.2.
const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        )
}

/// An address, with a port or without: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`. A port
/// that hides (`_x`, RFC 7239, section 6) is none.
pub fn node(text: &str) -> Option<SocketAddr> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(SocketAddr::new(ip.to_canonical(), 0));
    }
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        (IpAddr::V6(host.parse().ok()?), if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
    } else {
        let (host, port) = text.split_once(':')?;
        (IpAddr::V4(host.parse().ok()?), Some(port))
    };
    let port = match port {
        None => 0,
        Some(port) if port.starts_with('_') => 0,
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => port.parse().ok()?,
        Some(_) => return None,
    };
    Some(SocketAddr::new(host.to_canonical(), port))
}
