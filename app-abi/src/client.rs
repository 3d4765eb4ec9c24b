//! Who is asking: the client itself, where trusted proxies are between it and the host.

use crate::{Address, ConnectionInfo, TlsVersion};
use bytes::Bytes;

/// Who is asking, by [`RequestExt::client`](crate::RequestExt::client).
///
/// Nothing of it is a stranger's word: it is what the proxies that the configuration trusts have said (`trusted_peers` of the
/// listener), by the PROXY protocol or by header fields, and for all others what is known of the connection. It is what the
/// access log has.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientInfo {
    /// The client's address; the port is 0 where only its IP address was said.
    pub address: Address,
    /// What it speaks, to the host or to its proxy: `http` or `https`.
    pub scheme: &'static str,
    /// The host that it has asked its proxy for, and its port if there is one, if the proxy has said that.
    pub host: Option<String>,
    /// What a proxy has told of the client's TLS by version 2 of the PROXY protocol.
    pub tls: Option<ProxiedTls>,
}

/// What a proxy has told of the TLS between itself and the client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProxiedTls {
    /// The version of TLS, if the client speaks it to the proxy, and it is one of these.
    pub version: Option<TlsVersion>,
    /// The name that the client asked for (SNI), in lower case.
    pub server_name: Option<String>,
    /// The protocol that was agreed on inside (ALPN): `h2`, `http/1.1`.
    pub alpn: Option<Bytes>,
    /// The common name of the client's certificate, if the proxy has verified that.
    pub client_name: Option<String>,
}

impl ClientInfo {
    /// A client that speaks `scheme`, which is `http` or `https`. For tests: put it among the extensions of a request.
    #[must_use]
    pub const fn new(address: Address, scheme: &'static str) -> Self {
        Self { address, scheme, host: None, tls: None }
    }
}

impl From<ConnectionInfo> for ClientInfo {
    /// Of a connection without proxies: the client is its peer.
    fn from(connection: ConnectionInfo) -> Self {
        Self::new(connection.peer, connection.scheme)
    }
}
