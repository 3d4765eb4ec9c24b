//! What a listener's handshakes are made with: certificates by name, clients' certificates, tickets.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};

use app_host_core::tls::{ClientAuth, TlsSettings};

use crate::certificate::{CertificateError, Names, load, read_certificates};
use crate::handshake;
use crate::tickets::Tickets;

/// What handshakes are made with. Cheap to clone.
#[derive(Clone)]
pub struct TlsServer {
    config: Arc<RwLock<Arc<ServerConfig>>>,
    tickets: Arc<Tickets>,
}

impl fmt::Debug for TlsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsServer(…)")
    }
}

impl TlsServer {
    /// Reads the settings.
    ///
    /// # Errors
    /// What is wrong with which identity, by its number; `None` where it is the clients' authorities.
    pub fn new(settings: &TlsSettings, tickets: Arc<Tickets>) -> Result<Self, (Option<usize>, CertificateError)> {
        let config = config(settings, Arc::clone(&tickets))?;
        Ok(Self { config: Arc::new(RwLock::new(config)), tickets })
    }

    /// Reads other settings, for handshakes that begin from now on, also at its clones.
    ///
    /// # Errors
    /// As [`Self::new`]; then nothing changes.
    pub fn replace(&self, settings: &TlsSettings) -> Result<(), (Option<usize>, CertificateError)> {
        let config = config(settings, Arc::clone(&self.tickets))?;
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn config(
    settings: &TlsSettings,
    tickets: Arc<Tickets>,
) -> Result<Arc<ServerConfig>, (Option<usize>, CertificateError)> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut entries = Vec::new();
    for (number, identity) in settings.identities.iter().enumerate() {
        let (info, pair) = load(identity, &provider).map_err(|error| (Some(number), error))?;
        entries.push(Entry { names: Names::of(&info), pair: Arc::new(pair) });
    }
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|error| (None, CertificateError::NoAuthority(error.to_string())))?;
    let builder = match &settings.client_auth {
        None => builder.with_no_client_auth(),
        Some(client_auth) => {
            builder.with_client_cert_verifier(verifier(client_auth, provider).map_err(|error| (None, error))?)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(Resolver(entries)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = tickets;
    config.enable_secret_extraction = true;
    config.key_log = Arc::new(handshake::Capture);
    Ok(Arc::new(config))
}

fn verifier(
    client_auth: &ClientAuth,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, CertificateError> {
    let unusable = |error: &dyn fmt::Display| CertificateError::NoAuthority(error.to_string());
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(client_auth.authorities.as_bytes())? {
        roots.add(certificate).map_err(|error| unusable(&error))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let verifier = if client_auth.required { verifier } else { verifier.allow_unauthenticated() };
    verifier.build().map_err(|error| unusable(&error))
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
