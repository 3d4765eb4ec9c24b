//! A client of rustls' and a server of ours, joined without a socket.

use std::io::{Read, Write};
use std::sync::Arc;

use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedCipherSuite};

use app_host_core::secret::Secret;
use app_host_core::tls::{Identity, TICKET_KEY_BYTES, TlsSettings};

use crate::*;

/// An authority and what it signs.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn identity(&self, names: &[&str]) -> Identity {
        self.identity_with(&CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap())
    }

    pub(crate) fn identity_with(&self, params: &CertificateParams) -> Identity {
        let key = KeyPair::generate().unwrap();
        let certificate = params.clone().signed_by(&key, &self.0).unwrap();
        Identity { certificates: certificate.pem(), key: Secret::new(key.serialize_pem()), ocsp: None }
    }

    /// A client that trusts this authority, and speaks only what is named.
    pub(crate) fn client(&self, suites: &[SupportedCipherSuite], identity: Option<&Identity>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem().as_bytes()).unwrap()).unwrap();
        let mut provider = rustls::crypto::ring::default_provider();
        if !suites.is_empty() {
            provider.cipher_suites = suites.to_vec();
        }
        let builder =
            ClientConfig::builder_with_provider(Arc::new(provider)).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let chain =
                    CertificateDer::pem_slice_iter(identity.certificates.as_bytes()).collect::<Result<_, _>>().unwrap();
                builder
                    .with_client_auth_cert(
                        chain,
                        PrivateKeyDer::from_pem_slice(identity.key.reveal().as_bytes()).unwrap(),
                    )
                    .unwrap()
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config)
    }
}

/// Every suite that both can, with its version.
pub(crate) const SUITES: [SupportedCipherSuite; 9] = {
    use rustls::crypto::ring::cipher_suite::*;
    [
        TLS13_AES_128_GCM_SHA256,
        TLS13_AES_256_GCM_SHA384,
        TLS13_CHACHA20_POLY1305_SHA256,
        TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ]
};

/// Of those, the ones that an ECDSA certificate serves.
pub(crate) fn ecdsa_suites() -> &'static [SupportedCipherSuite] {
    &SUITES[..6]
}

pub(crate) fn server(identity: Identity) -> TlsServer {
    let settings = TlsSettings { identities: vec![identity], client_auth: None };
    TlsServer::new(&settings, tickets()).unwrap()
}

pub(crate) fn tickets() -> Arc<Tickets> {
    Arc::new(Tickets::new(&[7; TICKET_KEY_BYTES]))
}

/// A client's connection, and what is on its way to it.
pub(crate) struct Client {
    pub(crate) tls: ClientConnection,
}

impl Client {
    pub(crate) fn new(config: &Arc<ClientConfig>, name: &str) -> Self {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        Self { tls: ClientConnection::new(Arc::clone(config), name).unwrap() }
    }

    /// What it wants to send.
    pub(crate) fn sends(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    /// Gives it bytes; returns the plaintext that it has read.
    pub(crate) fn takes(&mut self, mut bytes: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let mut plain = Vec::new();
        while !bytes.is_empty() {
            self.tls.read_tls(&mut bytes).unwrap();
            self.tls.process_new_packets()?;
            let mut space = [0; 16 * 1024];
            while let Ok(read @ 1..) = self.tls.reader().read(&mut space) {
                plain.extend_from_slice(&space[..read]);
            }
        }
        Ok(plain)
    }

    /// The records that carry these bytes.
    pub(crate) fn seals(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::new();
        for part in plain.chunks(32 * 1024) {
            self.tls.writer().write_all(part).unwrap();
            sealed.extend_from_slice(&self.sends());
        }
        sealed
    }
}

/// Shakes hands; returns the server's side.
pub(crate) fn shake(server: &TlsServer, client: &mut Client) -> (Records, Facts) {
    let mut handshake = Handshake::new(server).unwrap();
    let mut wire = client.sends();
    loop {
        let Some(length) = Handshake::length(&wire).unwrap().filter(|length| *length <= wire.len()) else {
            let more = client.sends();
            assert!(!more.is_empty(), "nobody has anything to say");
            wire.extend_from_slice(&more);
            continue;
        };
        let record: Vec<u8> = wire.drain(..length).collect();
        let mut out = Vec::new();
        let progress = handshake.feed(&record, &mut out).unwrap();
        assert!(client.takes(&out).unwrap().is_empty());
        if progress == Progress::Done {
            assert!(wire.is_empty());
            return handshake.finish().unwrap();
        }
    }
}

/// Opens all records in `wire`; returns their plaintext.
pub(crate) fn open_all(records: &mut Records, mut wire: &[u8], out: &mut Vec<u8>) -> Result<Vec<u8>, TlsError> {
    let mut plain = Vec::new();
    while let Some(length) = records.length(wire)? {
        let (record, rest) = wire.split_at(length);
        if let Opened::Data(data) = records.open(&mut record.to_vec(), out)? {
            plain.extend_from_slice(data);
        }
        wire = rest;
    }
    assert!(wire.is_empty(), "whole records");
    Ok(plain)
}
