//! What is known of the TLS of a connection.

use bytes::Bytes;
use std::fmt;

/// What a client and the host have agreed on, and what the client has shown. By [`RequestExt::tls`](crate::RequestExt::tls),
/// and among the extensions of a request of a tower service, if the connection came by TLS to the host itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsInfo {
    /// The version of TLS.
    pub version: TlsVersion,
    /// The name that the client asked for (SNI), in lower case.
    pub server_name: Option<String>,
    /// The client's certificate in DER form. Its authority is one of those that the listener's configuration names, and it
    /// was valid when the connection began.
    pub client_certificate: Option<Bytes>,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum TlsVersion {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

impl TlsVersion {
    /// By the number that the protocol gives it.
    pub(crate) const fn from_number(number: u16) -> Option<Self> {
        match number {
            0x0303 => Some(Self::Tls12),
            0x0304 => Some(Self::Tls13),
            _ => None,
        }
    }

    /// By the name that [`fmt::Display`] and OpenSSL give it.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        [Self::Tls12, Self::Tls13].into_iter().find(|version| version.to_string() == name)
    }
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tls12 => "TLSv1.2",
            Self::Tls13 => "TLSv1.3",
        })
    }
}
