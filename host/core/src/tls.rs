//! What a listener's TLS is made of, as it travels from the master, which reads the files, to the workers.

use serde::{Deserialize, Serialize};

use crate::config::databank::Secret;

/// The bytes of a key that seals session tickets: eight that name it, and the key itself.
pub const TICKET_KEY_BYTES: usize = 40;

/// How many ticket keys a worker knows at a time. The newest, which comes first, seals; all open.
pub const TICKET_KEYS: usize = 2;

/// For how long a client may come back with a ticket, in seconds; keys are made as often.
pub const TICKET_LIFETIME: u32 = 6 * 60 * 60;

/// The most bytes of a client's certificate with which its connection can travel to another worker.
pub const MAX_CLIENT_CERTIFICATE: usize = 16 * 1024;

/// A certificate with its key, as they lie in their files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The certificate and those that lead to its authority, in PEM form.
    pub certificates: String,
    /// The private key, in PEM form.
    pub key: Secret,
    /// What the authority says of the certificate's validity, in DER form, for clients who want it stapled.
    pub ocsp: Option<Vec<u8>>,
}

/// What is asked of clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientAuth {
    /// The authorities whose certificates are taken, in PEM form.
    pub authorities: String,
    /// Whether a client without a certificate is turned away.
    pub required: bool,
}

/// What a listener's TLS is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsSettings {
    /// The first is for clients that name nobody, or somebody unknown. Never empty.
    pub identities: Vec<Identity>,
    /// `None`: no client is asked for a certificate.
    pub client_auth: Option<ClientAuth>,
}

/// What there is to know of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateInfo {
    /// The names that it is for, as it has them, in lower case.
    pub names: Vec<String>,
    /// From when on it is valid; seconds since 1970.
    pub not_before: i64,
    /// Until when; seconds since 1970.
    pub not_after: i64,
}
