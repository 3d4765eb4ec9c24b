//! What a listener's handshakes are made with: certificates by name, clients' certificates, tickets.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::certificate::{CertificateError, CertificateInfo, Names, read_certificates};
use crate::handshake;
use crate::tickets::Tickets;

/// A certificate with its key, as they lie in their files.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct Identity {
    /// The certificate and those that lead to its authority, in PEM form.
    pub certificates: Vec<u8>,
    /// The private key, in PEM form.
    pub key: Vec<u8>,
    /// What the authority says of the certificate's validity, in DER form, for clients who want it stapled.
    pub ocsp: Option<Vec<u8>>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(…)")
    }
}

/// What is asked of clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientAuth {
    /// The authorities whose certificates are taken, in PEM form.
    pub authorities: Vec<u8>,
    /// Whether a client without a certificate is turned away.
    pub required: bool,
}

/// What a listener's TLS is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The first is for clients that name nobody, or somebody unknown. Never empty.
    pub identities: Vec<Identity>,
    /// `None`: no client is asked for a certificate.
    pub client_auth: Option<ClientAuth>,
}

/// What handshakes are made with. Cheap to clone.
#[derive(Clone)]
pub struct Server {
    pub(crate) config: Arc<ServerConfig>,
    /// Of each certificate, in the order of the settings.
    pub infos: Arc<[CertificateInfo]>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("infos", &self.infos).finish_non_exhaustive()
    }
}

impl Server {
    /// Reads the settings.
    ///
    /// # Errors
    /// What is wrong with which identity, by its number; `None` where it is the clients' authorities.
    pub fn new(settings: &Settings, tickets: Arc<Tickets>) -> Result<Self, (Option<usize>, CertificateError)> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut entries = Vec::new();
        let mut infos = Vec::new();
        for (number, identity) in settings.identities.iter().enumerate() {
            let (info, pair) = identity.load(&provider).map_err(|error| (Some(number), error))?;
            entries.push(Entry { names: Names::of(&info), pair: Arc::new(pair) });
            infos.push(info);
        }
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| (None, CertificateError::NoAuthority(error.to_string())))?;
        let builder = match &settings.client_auth {
            None => builder.with_no_client_auth(),
            Some(client_auth) => {
                builder.with_client_cert_verifier(client_auth.verifier(provider).map_err(|error| (None, error))?)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(Resolver(entries)));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = tickets;
        config.enable_secret_extraction = true;
        config.key_log = Arc::new(handshake::Capture);
        Ok(Self { config: Arc::new(config), infos: infos.into() })
    }
}

impl ClientAuth {
    fn verifier(
        &self,
        provider: Arc<CryptoProvider>,
    ) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, CertificateError> {
        let unusable = |error: &dyn fmt::Display| CertificateError::NoAuthority(error.to_string());
        let mut roots = RootCertStore::empty();
        for certificate in read_certificates(&self.authorities)? {
            roots.add(certificate).map_err(|error| unusable(&error))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier = if self.required { verifier } else { verifier.allow_unauthenticated() };
        verifier.build().map_err(|error| unusable(&error))
    }
}

#[derive(Debug)]
struct Entry {
    names: Names,
    pair: Arc<CertifiedKey>,
}

/// Chooses the certificate of a handshake.
#[derive(Debug)]
struct Resolver(Vec<Entry>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // A name may have several, an RSA one beside ECDSA for old clients.
        let usable = |entry: &&Entry| entry.pair.key.choose_scheme(hello.signature_schemes()).is_some();
        let name = hello.server_name().map(str::to_ascii_lowercase);
        let named = name.as_deref().and_then(|name| {
            let exact = self.0.iter().filter(|entry| entry.names.has(name));
            let wildcards = self.0.iter().filter(|entry| entry.names.covers(name));
            exact.chain(wildcards).find(usable)
        });
        // The default, or what this client can take at all.
        let entry = named.or_else(|| self.0.iter().find(usable))?;
        Some(Arc::clone(&entry.pair))
    }
}
