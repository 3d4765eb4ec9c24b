//! What a proxy tells of the TLS that it has taken off a client's connection, or looked into.

use serde::{Deserialize, Serialize};

/// The most bytes of each text.
pub const MAX_TEXT: usize = 255;

/// What a trusted proxy has told of a client's TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxiedTls {
    /// Whether the client speaks TLS to the proxy. If not, the proxy has only read the client's first words of TLS, which
    /// follow.
    pub ends_there: bool,
    /// The version, in the proxy's words: `TLSv1.3`.
    pub version: Option<Box<str>>,
    /// The name that the client asked for (SNI).
    pub server_name: Option<Box<str>>,
    /// The protocol that was agreed on inside it (ALPN).
    pub alpn: Option<Box<[u8]>>,
    /// The common name of the client's certificate, if the proxy has verified it.
    pub client_name: Option<Box<str>>,
}
