//! The key `tls` of a listener: its certificates, and what is asked of clients.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use super::front::Hsts;
use super::section::Section;
use crate::secret::Secret;
use crate::tls::{ClientAuth, Identity, TlsFile, TlsSettings};

/// The most certificates of one listener.
pub const MAX_CERTIFICATES: usize = 64;

/// The files of a listener's TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The first is for clients that name nobody, or somebody unknown.
    pub certificates: Vec<CertificateFiles>,
    /// Whether clients are asked for a certificate, and whose are taken.
    pub clients: Option<Clients>,
    /// What browsers are told to remember.
    pub hsts: Option<Hsts>,
}

/// A certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateFiles {
    /// In PEM form: the certificate, and those that lead to its authority.
    pub certificate: PathBuf,
    /// In PEM form.
    pub key: PathBuf,
    /// In DER form: what the authority says of the certificate's validity.
    pub ocsp: Option<PathBuf>,
}

/// What is asked of clients.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clients {
    /// In PEM form: the authorities whose certificates are taken.
    pub authorities: PathBuf,
    /// What becomes of a client that has none.
    #[serde(default)]
    pub certificate: ClientCertificate,
}

/// What becomes of a client without a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificate {
    /// It is turned away.
    #[default]
    Require,
    /// It is served, and the app sees that it has none.
    Request,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTls {
    #[serde(deserialize_with = "certificates")]
    certificates: Vec<CertificateFiles>,
    #[serde(default)]
    clients: Option<Section<Clients>>,
    #[serde(default)]
    hsts: Option<Section<Hsts>>,
}

fn certificates<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<CertificateFiles>, D::Error> {
    let read = Vec::<Section<CertificateFiles>>::deserialize(deserializer)?;
    if read.is_empty() || read.len() > MAX_CERTIFICATES {
        let expected = format!("from 1 to {MAX_CERTIFICATES} certificates");
        return Err(D::Error::invalid_length(read.len(), &expected.as_str()));
    }
    Ok(read.into_iter().map(|Section(files)| files).collect())
}

/// Checks it while its line is still known.
pub(super) fn tls<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<RawTls>, D::Error> {
    let tls = Option::<Section<RawTls>>::deserialize(deserializer)?.map(|Section(tls)| tls);
    tls.as_ref().map(|tls| tls.resolve(Path::new("/"))).transpose().map_err(D::Error::custom)?;
    Ok(tls)
}

impl RawTls {
    pub(super) fn resolve(&self, directory: &Path) -> Result<Tls, String> {
        let absolute = |path: &Path| {
            if path.as_os_str().is_empty() {
                Err("a path of \"tls\" is empty".to_owned())
            } else {
                Ok(directory.join(path))
            }
        };
        let certificates = self.certificates.iter().map(|files| {
            Ok(CertificateFiles {
                certificate: absolute(&files.certificate)?,
                key: absolute(&files.key)?,
                ocsp: files.ocsp.as_deref().map(absolute).transpose()?,
            })
        });
        let certificates = certificates.collect::<Result<_, String>>()?;
        let clients = self.clients.as_ref().map(|Section(clients)| {
            Ok::<_, String>(Clients { authorities: absolute(&clients.authorities)?, ..clients.clone() })
        });
        let hsts = self.hsts.as_ref().map(|Section(hsts)| hsts.clone());
        hsts.as_ref().map_or(Ok(()), Hsts::check)?;
        Ok(Tls { certificates, clients: clients.transpose()?, hsts })
    }
}

impl Tls {
    /// What its files hold, by whoever may read a text and, for what a responder has sent, bytes.
    ///
    /// # Errors
    /// What `text` or `bytes` says of the first file that can't be read.
    pub fn read(
        &self,
        text: impl Fn(&Path) -> Result<String, String>,
        bytes: impl Fn(&Path) -> Result<Vec<u8>, String>,
    ) -> Result<TlsSettings, String> {
        let identities = self.certificates.iter().map(|files| {
            Ok(Identity {
                certificates: text(&files.certificate)?,
                key: Secret::new(text(&files.key)?),
                ocsp: files.ocsp.as_deref().map(&bytes).transpose()?,
            })
        });
        let identities = identities.collect::<Result<_, String>>()?;
        let client_auth = self.clients.as_ref().map(|clients| {
            let required = clients.certificate == ClientCertificate::Require;
            Ok::<_, String>(ClientAuth { authorities: text(&clients.authorities)?, required })
        });
        Ok(TlsSettings { identities, client_auth: client_auth.transpose()? })
    }

    /// Where one of them is.
    pub fn file(&self, file: TlsFile) -> Option<&Path> {
        let files = |number: usize| self.certificates.get(number);
        Some(match file {
            TlsFile::Certificate(number) => &files(number)?.certificate,
            TlsFile::Key(number) => &files(number)?.key,
            TlsFile::Ocsp(number) => files(number)?.ocsp.as_deref()?,
            TlsFile::Authorities => &self.clients.as_ref()?.authorities,
        })
    }

    /// All its files.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let certificates = self
            .certificates
            .iter()
            .flat_map(|files| [Some(&files.certificate), Some(&files.key), files.ocsp.as_ref()].into_iter().flatten());
        certificates.chain(self.clients.iter().map(|clients| &clients.authorities)).map(PathBuf::as_path)
    }
}
