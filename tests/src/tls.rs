//! Certificates for tests, and clients that trust them.

use std::fs;
use std::io;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, KeyLog, RootCertStore, StreamOwned, SupportedProtocolVersion};
use serde_json::{Value, json};
use time::OffsetDateTime;

/// An authority, and where what it signs is written.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: PathBuf,
}

/// The files of a certificate.
#[derive(Clone, Debug)]
pub struct Files {
    /// In PEM form.
    pub certificate: PathBuf,
    /// In PEM form.
    pub key: PathBuf,
}

impl Files {
    /// As the configuration has them.
    pub fn config(&self) -> Value {
        json!({ "certificate": self.certificate, "key": self.key })
    }
}

impl Authority {
    /// A new one, which writes to this directory: itself to `ca.pem`.
    pub fn new(directory: &Path) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Two of the same name would be taken for each other.
        params.distinguished_name.push(rcgen::DnType::CommonName, directory.display().to_string());
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        let this = Self { issuer, directory: directory.to_owned() };
        fs::write(this.file(), this.issuer.pem()).expect("it can be written");
        this
    }

    /// Its own certificate.
    pub fn file(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    /// Writes a certificate for these names, valid from the beginning of one year to that of another, to `NAME.pem` and
    /// its key to `NAME.key`.
    pub fn sign(&self, name: &str, names: &[&str], (from, to): (i32, i32)) -> Files {
        self.write(name, names, (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1)))
    }

    /// As [`Self::sign`], valid since 2020 until this moment.
    pub fn sign_until(&self, name: &str, names: &[&str], until: SystemTime) -> Files {
        self.write(name, names, (date_time_ymd(2020, 1, 1), until.into()))
    }

    fn write(&self, name: &str, names: &[&str], (from, to): (OffsetDateTime, OffsetDateTime)) -> Files {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).expect("names");
        (params.not_before, params.not_after) = (from, to);
        self.write_signed(name, &params, &KeyPair::generate().expect("a key"))
    }

    /// As [`Self::localhost`], for a key in PEM form, to `NAME.pem` and `NAME.key`.
    pub fn sign_key(&self, name: &str, key: &str) -> Files {
        let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("names");
        self.write_signed(name, &params, &KeyPair::from_pem(key).expect("a key"))
    }

    fn write_signed(&self, name: &str, params: &CertificateParams, key: &KeyPair) -> Files {
        let certificate = params.clone().signed_by(key, &self.issuer).expect("a certificate");
        let files = Files {
            certificate: self.directory.join(format!("{name}.pem")),
            key: self.directory.join(format!("{name}.key")),
        };
        // As an ACME client does it.
        for (path, text) in [(&files.certificate, certificate.pem()), (&files.key, key.serialize_pem())] {
            let new = path.with_extension("new");
            fs::write(&new, text).expect("it can be written");
            fs::rename(&new, path).expect("it can be renamed");
        }
        files
    }

    /// The usual one, for `localhost`.
    pub fn localhost(&self) -> Files {
        self.sign("localhost", &["localhost"], (2020, 2100))
    }

    /// A client that trusts it.
    pub fn trust(&self, name: &str) -> Trust {
        self.trust_with(name, rustls::ALL_VERSIONS, None)
    }

    /// A client that trusts it, speaks these versions, and shows a certificate if it has one.
    pub fn trust_with(
        &self,
        name: &str,
        versions: &[&'static SupportedProtocolVersion],
        shows: Option<&Files>,
    ) -> Trust {
        let mut roots = RootCertStore::empty();
        let own = CertificateDer::from_pem_slice(self.issuer.pem().as_bytes()).expect("a certificate");
        roots.add(own).expect("an authority");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).expect("versions");
        let builder = builder.with_root_certificates(roots);
        let mut config = match shows {
            None => builder.with_no_client_auth(),
            Some(Files { certificate, key }) => {
                let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect).expect("a chain");
                let key = PrivateKeyDer::from_pem_file(key).expect("a key");
                builder.with_client_auth_cert(chain, key).expect("they fit")
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Trust { config: Arc::new(config), name: ServerName::try_from(name.to_owned()).expect("a name") }
    }
}

/// Whom a client trusts, and whom it asks for. Clones remember each other's tickets.
#[derive(Clone, Debug)]
pub struct Trust {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl PartialEq for Trust {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.config, &other.config) && self.name == other.name
    }
}

impl Eq for Trust {}

impl Trust {
    /// What a client of another library than this one's needs: its configuration, and the name that it asks for.
    pub fn parts(&self) -> (Arc<ClientConfig>, ServerName<'static>) {
        (Arc::clone(&self.config), self.name.clone())
    }

    /// The same, but each handshake is a whole one.
    #[must_use]
    pub fn without_tickets(self) -> Self {
        let mut config = ClientConfig::clone(&self.config);
        config.resumption = rustls::client::Resumption::disabled();
        Self { config: Arc::new(config), ..self }
    }

    /// The same, but tells the secrets of its connections.
    #[must_use]
    pub fn telling(self, log: Arc<dyn KeyLog>) -> Self {
        let mut config = ClientConfig::clone(&self.config);
        config.key_log = log;
        Self { config: Arc::new(config), ..self }
    }

    /// Shakes hands with whoever is at the other end.
    pub fn shake(&self, socket: TcpStream) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
        let connection =
            ClientConnection::new(Arc::clone(&self.config), self.name.clone()).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(connection, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(stream)
    }
}
