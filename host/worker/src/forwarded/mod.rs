//! Who is asking, by the header fields `X-Forwarded-…` and `Forwarded`.
//!
//! Pure: owns which of them is believed, and what the app gets to see of them. [`hops`] reads them.
//!
//! A proxy that passes a request on adds the peer that it has it from at the right end. So the list is gone through from
//! the right, beginning with our own peer, for as long as the hop that says the next one is trusted: the first that isn't is
//! the client, and what stands to the left of it is that client's own, which anybody can write. It is cut off. So an app that
//! takes the first entry of the list, as many do, takes the same client as the log; and what isn't believed at all, because
//! the peer isn't trusted or the field is of the other kind, is removed.

mod hops;
#[cfg(test)]
mod tests;

use app_host_core::config::{Forwarded, Peers};
use app_host_services::loader::{Address, Client, Connection};
use http::header::{FORWARDED, HeaderMap, HeaderName, HeaderValue};
use http::uri::Authority;

use crate::client::address_of;
use hops::{ClientEntry, Hop};

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// Has no list, so nobody knows who has written it.
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// What all fields of one kind begin with.
const PREFIX: &str = "x-forwarded-";

/// Says who the client of a request is, if its header fields do, and leaves of those what is believed.
pub fn settle(peers: &Peers, connection: &Connection, headers: &mut HeaderMap) -> Option<Client> {
    let kind = peers.forwarded?;
    let nearest = connection.client.as_deref();
    let address = nearest.map_or(connection.peer, |client| client.address);
    headers.remove(REAL_IP);
    // A proxy of TCP that names nobody has written no field: those are the client's.
    let names_nobody = peers.proxy_protocol.is_some() && nearest.is_none();
    if names_nobody || !peers.trust(address_of(address)) {
        headers.remove(FORWARDED);
        remove_kind(headers);
        return None;
    }
    let mut client =
        nearest.cloned().unwrap_or(Client { address, encrypted: connection.tls.is_some(), host: None, tls: None });
    let believed = match kind {
        Forwarded::XForwarded => {
            headers.remove(FORWARDED);
            let found = hops::walk(headers, &FOR, hops::element, peers);
            cut(headers, &FOR, found.as_ref());
            let (proto, host) = (last(headers, &PROTO, scheme), last(headers, &HOST, authority));
            let hop = found.map(|found| found.hop);
            (hop.is_some() || proto.is_some() || host.is_some()).then(|| Hop {
                address: hop.and_then(|hop| hop.address),
                encrypted: proto,
                host,
            })
        }
        Forwarded::Forwarded => {
            for name in [FOR, PROTO, HOST] {
                headers.remove(name);
            }
            let found = hops::walk(headers, &FORWARDED, hops::pairs, peers);
            cut(headers, &FORWARDED, found.as_ref());
            found.map(|found| found.hop)
        }
    };
    let Hop { address, encrypted, host } = believed?;
    if let Some(address) = address {
        // What was told of the TLS of another one's connection.
        client.tls = client.tls.filter(|_| client.address == Address::Tcp(address));
        client.address = Address::Tcp(address);
    }
    client.encrypted = encrypted.unwrap_or(client.encrypted);
    client.host = host;
    Some(client)
}

/// Removes all fields of the kind that has no standard.
fn remove_kind(headers: &mut HeaderMap) {
    let names: Vec<HeaderName> = headers.keys().filter(|name| name.as_str().starts_with(PREFIX)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// Leaves of a list what begins with the client.
fn cut(headers: &mut HeaderMap, name: &HeaderName, found: Option<&ClientEntry>) {
    let Some(ClientEntry { line, begin, .. }) = found else {
        headers.remove(name);
        return;
    };
    if (*line, *begin) == (0, 0) {
        return;
    }
    let lines: Vec<HeaderValue> = headers.get_all(name).iter().skip(*line).cloned().collect();
    headers.remove(name);
    for (index, value) in lines.into_iter().enumerate() {
        let begin = if index == 0 { *begin } else { 0 };
        let rest = value.as_bytes()[begin..].trim_ascii();
        // A part of what is a value is one.
        if let Ok(value) = HeaderValue::from_bytes(rest) {
            headers.append(name, value);
        }
    }
}

/// The last entry of a field without hops, which the nearest proxy has written or passed on, and nothing else of it.
fn last<T>(headers: &mut HeaderMap, name: &HeaderName, read: impl Fn(&str) -> Option<T>) -> Option<T> {
    let value = headers.get_all(name).iter().next_back()?.clone();
    headers.remove(name);
    let text = value.to_str().ok()?.rsplit(',').next()?.trim();
    let found = read(text)?;
    headers.insert(name, HeaderValue::from_str(text).ok()?);
    Some(found)
}

/// Whether a scheme is one with TLS. Some proxies name that of a WebSocket.
fn scheme(text: &str) -> Option<bool> {
    let is = |known: [&str; 2]| known.iter().any(|known| text.eq_ignore_ascii_case(known));
    if is(["https", "wss"]) { Some(true) } else { is(["http", "ws"]).then_some(false) }
}

/// A host, and its port if there is one.
fn authority(text: &str) -> Option<Box<str>> {
    /// A name has up to 253 bytes, and a port five.
    const MAX: usize = 260;
    let parsed: Authority = text.parse().ok().filter(|_| text.len() <= MAX)?;
    (!text.contains('@') && !parsed.host().is_empty()).then(|| text.into())
}
