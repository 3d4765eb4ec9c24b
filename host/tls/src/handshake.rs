//! The handshake, which is rustls', and its end, where the keys are taken from it.

use std::cell::RefCell;
use std::fmt;

use rustls::{ConnectionTrafficSecrets, ExtractedSecrets, HandshakeKind, KeyLog, ProtocolVersion, ServerConnection};
use serde::{Deserialize, Serialize};

use crate::alert::{Alert, TlsError};
use crate::keys::{Direction, Kind, Material, Suite, Version};
use crate::records::{HEADER, MAX_PLAINTEXT, Records};
use crate::server::TlsServer;

/// What a handshake has agreed on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The version of TLS.
    pub version: Version,
    /// How records are protected.
    pub suite: Suite,
    /// Whether HTTP/2 was agreed on (ALPN `h2`).
    pub http2: bool,
    /// The name that the client asked for (SNI).
    pub server_name: Option<Box<str>>,
    /// The client's certificate in DER form, which its authority has signed.
    pub client_certificate: Option<Box<[u8]>>,
    /// Whether the client has shown a ticket of an earlier connection.
    pub resumed: bool,
}

/// How far a handshake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The client's next record is needed.
    Wait,
    /// It is done: [`Handshake::finish`].
    Done,
}

/// A handshake in progress.
pub struct Handshake {
    /// Large, and gone with the handshake.
    connection: Box<ServerConnection>,
    secrets: Secrets,
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handshake(…)")
    }
}

/// The first traffic secrets of TLS 1.3.
#[derive(Default)]
struct Secrets {
    client: Option<Material>,
    server: Option<Material>,
}

thread_local! {
    /// The secrets of the handshake that is worked on in this thread: rustls tells them to what is configured for all
    /// connections, in the middle of a call for one.
    static TOLD: RefCell<Secrets> = RefCell::default();
}

/// Listens for the secrets that keys are updated from, and nothing else.
#[derive(Debug)]
pub(crate) struct Capture;

const CLIENT: &str = "CLIENT_TRAFFIC_SECRET_0";
const SERVER: &str = "SERVER_TRAFFIC_SECRET_0";

impl KeyLog for Capture {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        TOLD.with_borrow_mut(|told| match label {
            CLIENT => told.client = Material::new(&[secret]),
            SERVER => told.server = Material::new(&[secret]),
            _ => {}
        });
    }

    fn will_log(&self, label: &str) -> bool {
        matches!(label, CLIENT | SERVER)
    }
}

impl Handshake {
    /// A handshake that begins.
    ///
    /// # Errors
    /// Only where a setting can't be used, which [`TlsServer::new`] would have said.
    pub fn new(server: &TlsServer) -> Result<Self, TlsError> {
        let connection = ServerConnection::new(server.config()).map_err(|error| failed(&error))?;
        Ok(Self { connection: Box::new(connection), secrets: Secrets::default() })
    }

    /// How many bytes the first record in `bytes` has, its header included; `None` while less than a header is there.
    ///
    /// # Errors
    /// When these bytes are no handshake of TLS.
    pub fn length(bytes: &[u8]) -> Result<Option<usize>, TlsError> {
        /// From a change of cipher to data: what may come before a handshake is done.
        const TYPES: std::ops::RangeInclusive<u8> = 20..=23;
        if bytes.first().is_some_and(|kind| !TYPES.contains(kind)) {
            return Err(TlsError::broken("it does not speak TLS", Alert::UnexpectedMessage));
        }
        let Some(header) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if length > MAX_PLAINTEXT + 256 {
            return Err(TlsError::broken("a record is too long", Alert::RecordOverflow));
        }
        Ok(Some(HEADER + length))
    }

    /// Takes one whole record, never more: what lies behind the last one of the handshake is not for rustls. What is to be
    /// answered is appended to `out`.
    ///
    /// # Errors
    /// When the handshake fails. The alert that says so to the client is in `out` then.
    pub fn feed(&mut self, record: &[u8], out: &mut Vec<u8>) -> Result<Progress, TlsError> {
        TOLD.take();
        let mut rest = record;
        let mut result = Ok(());
        while !rest.is_empty() && result.is_ok() {
            result = match self.connection.read_tls(&mut rest) {
                Ok(0) => Err(TlsError::Handshake("it takes no more bytes".to_owned())),
                Ok(_) => self.connection.process_new_packets().map(drop).map_err(|error| failed(&error)),
                Err(error) => Err(TlsError::Handshake(error.to_string())),
            };
        }
        let Secrets { client, server } = TOLD.take();
        self.secrets.client = client.or(self.secrets.client.take());
        self.secrets.server = server.or(self.secrets.server.take());
        while self.connection.wants_write() {
            // A vector takes all.
            if self.connection.write_tls(out).is_err() {
                break;
            }
        }
        result?;
        Ok(if self.connection.is_handshaking() { Progress::Wait } else { Progress::Done })
    }

    /// Whether the client has been answered anything: until then it could begin anew elsewhere.
    pub fn has_begun(&self) -> bool {
        self.connection.protocol_version().is_some()
    }

    /// Takes the keys, when the handshake is [`Progress::Done`].
    ///
    /// # Errors
    /// When rustls gives none, or has told no secret, which only a fault of ours or of its could make it do.
    pub fn finish(self) -> Result<(Records, Facts), TlsError> {
        let Self { connection, secrets } = self;
        let version = match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => Version::Tls13,
            Some(ProtocolVersion::TLSv1_2) => Version::Tls12,
            other => return Err(TlsError::Handshake(format!("version {other:?} is none of ours"))),
        };
        let http2 = connection.alpn_protocol() == Some(b"h2");
        let server_name = connection.server_name().map(Into::into);
        let client_certificate =
            connection.peer_certificates().and_then(<[_]>::first).map(|certificate| certificate.as_ref().into());
        let resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
        let ExtractedSecrets { tx, rx } = connection.dangerous_extract_secrets().map_err(|error| failed(&error))?;
        let (read, write) = (direction(version, &rx, secrets.client)?, direction(version, &tx, secrets.server)?);
        let suite = read.kind().suite;
        let facts = Facts { version, suite, http2, server_name, client_certificate, resumed };
        Ok((Records::new(read, write), facts))
    }
}

fn failed(error: &rustls::Error) -> TlsError {
    TlsError::Handshake(error.to_string())
}

/// The direction of these keys. In TLS 1.3 the secret is what they were made of.
fn direction(
    version: Version,
    (sequence, secrets): &(u64, ConnectionTrafficSecrets),
    secret: Option<Material>,
) -> Result<Direction, TlsError> {
    let wrong = || TlsError::Handshake("the keys are not those of the handshake".to_owned());
    let (suite, key, iv) = match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Suite::Aes128Gcm, key, iv),
        ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Suite::Aes256Gcm, key, iv),
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (Suite::ChaCha20Poly1305, key, iv),
        _ => return Err(TlsError::Handshake("the cipher suite is none of ours".to_owned())),
    };
    let material = match version {
        Version::Tls13 => secret,
        Version::Tls12 => Material::new(&[key.as_ref(), iv.as_ref()]),
    };
    let kind = Kind { version, suite };
    Direction::with_key(kind, material.ok_or_else(wrong)?, key.as_ref(), iv.as_ref(), *sequence).ok_or_else(wrong)
}
