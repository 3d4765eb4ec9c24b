//! Certificates and keys: read from PEM, checked before anybody is served with them.

use std::net::IpAddr;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

use app_host_core::tls::{CertificateInfo, Identity};

/// What is wrong with a certificate, or its key, and in which of the files.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// The certificate's file has none.
    #[error("has no certificate in PEM form (-----BEGIN CERTIFICATE-----)")]
    NoCertificate,
    /// The certificate can't be read.
    #[error("has a certificate that can't be read: {0}")]
    Unreadable(String),
    /// It is for nobody: names are in the extension that browsers look at, or nowhere.
    #[error("has a certificate without a name (no DNS name or IP address in subjectAltName)")]
    NoName,
    /// Its time is over; seconds since 1970.
    #[error("has a certificate that expired")]
    Expired(i64),
    /// Its time has not begun; seconds since 1970.
    #[error("has a certificate that is not valid yet")]
    NotYetValid(i64),
    /// The key's file has none.
    #[error("has no private key in PEM form (-----BEGIN PRIVATE KEY-----)")]
    NoKey,
    /// The key is encrypted.
    #[error("has an encrypted private key, expected one without a password")]
    EncryptedKey,
    /// The key is of a kind that can't be used.
    #[error("has a private key that can't be used (RSA from 2048 bits on, ECDSA P-256 or P-384, Ed25519): {0}")]
    UnusableKey(String),
    /// The key is another one's.
    #[error("has a private key that does not match the certificate")]
    KeyMismatch,
    /// The stapled response is none.
    #[error("has no OCSP response in DER form")]
    NoOcsp,
    /// The certificate authorities can't be read.
    #[error("has no certificate authority that can be used: {0}")]
    NoAuthority(String),
}

impl CertificateError {
    /// Whether it is about the key's file, and not the certificate's.
    pub const fn is_of_key(&self) -> bool {
        matches!(self, Self::NoKey | Self::EncryptedKey | Self::UnusableKey(_) | Self::KeyMismatch)
    }
}

/// Reads a certificate in DER form.
fn read(der: &[u8]) -> Result<CertificateInfo, CertificateError> {
    let unreadable = |error: &dyn std::fmt::Display| CertificateError::Unreadable(error.to_string());
    let (_, certificate) = X509Certificate::from_der(der).map_err(|error| unreadable(&error))?;
    let mut names = Vec::new();
    for extension in certificate.extensions() {
        let ParsedExtension::SubjectAlternativeName(alternative) = extension.parsed_extension() else { continue };
        for name in &alternative.general_names {
            match name {
                GeneralName::DNSName(name) => names.push(name.to_ascii_lowercase()),
                GeneralName::IPAddress(bytes) => names.extend(ip(bytes).map(|ip| ip.to_string())),
                _ => {}
            }
        }
    }
    let validity = certificate.validity();
    let (not_before, not_after) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    Ok(CertificateInfo { names, not_before, not_after })
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

/// Which certificate a name gets: the one that is for it, for its domain (`*.example.org`), or none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names(Vec<String>);

impl Names {
    /// Of a certificate.
    pub(crate) fn of(info: &CertificateInfo) -> Self {
        Self(info.names.clone())
    }

    /// Whether it is for just this name, in lower case.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|known| known == name)
    }

    /// Whether a wildcard of its covers the name: exactly one label in its place (RFC 6125, section 6.4.3).
    pub(crate) fn covers(&self, name: &str) -> bool {
        let Some((label, domain)) = name.split_once('.') else { return false };
        !label.is_empty() && self.0.iter().any(|known| known.strip_prefix("*.") == Some(domain))
    }
}

/// Reads certificate and key, and checks that they belong together and are valid at `now`, in seconds since 1970.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(identity: &Identity, now: i64) -> Result<CertificateInfo, CertificateError> {
    let (info, _) = load(identity, &rustls::crypto::ring::default_provider())?;
    if info.names.is_empty() {
        return Err(CertificateError::NoName);
    }
    if now > info.not_after {
        return Err(CertificateError::Expired(info.not_after));
    }
    if now < info.not_before {
        return Err(CertificateError::NotYetValid(info.not_before));
    }
    Ok(info)
}

/// The pair, ready to be used.
pub(crate) fn load(
    identity: &Identity,
    provider: &CryptoProvider,
) -> Result<(CertificateInfo, CertifiedKey), CertificateError> {
    let chain = read_certificates(identity.certificates.as_bytes())?;
    let info = read(chain.first().ok_or(CertificateError::NoCertificate)?)?;
    let key = PrivateKeyDer::from_pem_slice(identity.key.reveal().as_bytes()).map_err(|_| no_key(identity))?;
    let key = provider
        .key_provider
        .load_private_key(key)
        .map_err(|error| CertificateError::UnusableKey(error.to_string()))?;
    let mut pair = CertifiedKey::new(chain, key);
    match pair.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
        Err(rustls::Error::InconsistentKeys(_)) => return Err(CertificateError::KeyMismatch),
        Err(error) => return Err(CertificateError::Unreadable(error.to_string())),
    }
    if let Some(ocsp) = &identity.ocsp {
        let (rest, _) = x509_parser::der_parser::parse_der(ocsp).map_err(|_| CertificateError::NoOcsp)?;
        if !rest.is_empty() {
            return Err(CertificateError::NoOcsp);
        }
        pair.ocsp = Some(ocsp.clone());
    }
    Ok((info, pair))
}

fn no_key(identity: &Identity) -> CertificateError {
    const ENCRYPTED: [&str; 2] = ["-----BEGIN ENCRYPTED PRIVATE KEY-----", "Proc-Type: 4,ENCRYPTED"];
    if ENCRYPTED.into_iter().any(|text| identity.key.reveal().contains(text)) {
        CertificateError::EncryptedKey
    } else {
        CertificateError::NoKey
    }
}

/// Reads the certificates of a file, in its order.
pub(crate) fn read_certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let read = read.map_err(|error| CertificateError::Unreadable(format!("{error:?}")))?;
    if read.is_empty() { Err(CertificateError::NoCertificate) } else { Ok(read) }
}
