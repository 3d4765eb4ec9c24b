//! What a listener's TLS is made of, as it travels from the master, which reads the files, to the workers.

use serde::{Deserialize, Serialize};

use crate::secret::Secret;

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

impl TlsSettings {
    /// What was read of each file, in the order of the configuration's own
    /// [files](crate::config::Tls::files).
    pub fn contents(&self) -> impl Iterator<Item = &[u8]> {
        let identities = self.identities.iter().flat_map(|identity| {
            let texts = [Some(identity.certificates.as_bytes()), Some(identity.key.reveal().as_bytes())];
            texts.into_iter().chain([identity.ocsp.as_deref()]).flatten()
        });
        identities.chain(self.client_auth.iter().map(|clients| clients.authorities.as_bytes()))
    }
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

/// How long a certificate's operator has for the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remains {
    Enough,
    /// Up to two weeks.
    Little,
    /// It is valid no more.
    Nothing,
}

impl CertificateInfo {
    /// How much of its time is left at `now`, in seconds since 1970.
    pub const fn remains(&self, now: i64) -> Remains {
        /// Renewals are usually tried 30 days before the end, so it is late by then.
        const LITTLE: i64 = 14 * 24 * 60 * 60;
        if now > self.not_after {
            Remains::Nothing
        } else if now > self.not_after.saturating_sub(LITTLE) {
            Remains::Little
        } else {
            Remains::Enough
        }
    }
}

/// Which file of a listener's TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TlsFile {
    /// The certificate of the identity with this number.
    Certificate(usize),
    /// Its key.
    Key(usize),
    /// What its authority says of it.
    Ocsp(usize),
    /// The authorities of clients.
    Authorities,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_has_two_weeks_from_the_first_warning_on() {
        let info = |not_after| CertificateInfo { names: Vec::new(), not_before: 0, not_after };
        let day = 24 * 60 * 60;
        for (not_after, now, remains) in [
            (100 * day, 86 * day, Remains::Enough),
            (100 * day, 86 * day + 1, Remains::Little),
            (100 * day, 100 * day, Remains::Little),
            (100 * day, 100 * day + 1, Remains::Nothing),
            (i64::MIN, 0, Remains::Nothing),
            (i64::MAX, i64::MAX, Remains::Little),
        ] {
            assert_eq!(info(not_after).remains(now), remains, "{not_after} {now}");
        }
    }
}
