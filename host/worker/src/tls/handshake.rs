//! The handshake of a connection that was accepted, with its deadline, and while the worker drains.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout};

use app_host_services::loader::TlsInfo;
use app_host_tls::{Alert, Handshake, Progress, TlsError, TlsServer};

use super::{Layer, info};
use crate::connection::{DrainSignal, Ending, Limits, Phase};

/// How long the last words of a failed one may take.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// How many bytes are read at a time: all of most handshakes' flights.
const READ: usize = 4096;

/// The most bytes of a client that are held before its handshake is done.
const MAX_UNREAD: usize = 64 * 1024;

/// What somebody gets who speaks plain HTTP where TLS is spoken.
const PLAIN_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 47\r\n\
connection: close\r\n\r\nThis port speaks HTTPS, and you have sent HTTP.";

/// A handshake that is done.
#[derive(Debug)]
pub struct Shaken {
    /// The stream from now on.
    pub layer: Layer,
    /// What was agreed on.
    pub info: Arc<TlsInfo>,
    /// Whether the client has shown a ticket.
    pub resumed: bool,
}

/// A handshake that is not done.
#[derive(Debug)]
pub enum Unshaken {
    /// The worker drains, and the client has been answered nothing: another worker can begin. What it has sent.
    Leaves(Vec<u8>),
    /// The client went without a word, or the worker is cut.
    Gone,
    /// It has failed, and this is why.
    Failed(String),
}

/// Shakes hands with a client. `read` was read of it before, by another worker.
pub async fn shake<S>(
    socket: &mut S,
    server: &TlsServer,
    read: Vec<u8>,
    drain: &mut DrainSignal,
    limits: &Limits,
) -> Result<Shaken, Unshaken>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let handshake = Handshake::new(server).map_err(|error| failed(&error))?;
    let mut client = Client { handshake, read, fed: 0, out: Vec::new(), progress: Progress::Wait, failure: None };
    let mut deadline = Instant::now() + limits.connections.handshake_timeout;
    let mut phase = drain.phase();
    loop {
        // Whoever was being told so was interrupted, and isn't told again.
        if let Some(error) = &client.failure {
            return Err(failed(error));
        }
        match phase {
            Phase::Serving => {}
            Phase::Draining { ending, .. } => {
                if ending == Ending::HandOver && !client.handshake.has_begun() {
                    return Err(Unshaken::Leaves(client.read));
                }
                deadline = deadline.min(Instant::now() + limits.stall);
            }
            Phase::Cut => return Err(Unshaken::Gone),
        }
        tokio::select! {
            biased;
            changed = drain.next() => phase = changed,
            () = sleep_until(deadline) => return Err(Unshaken::Failed("it took too long".to_owned())),
            // All steps, and not each by itself: to begin to wait for the others takes longer than most of them.
            done = client.finish(socket) => {
                done?;
                break;
            }
        }
    }
    let Client { handshake, read, fed, .. } = client;
    let (records, facts) = handshake.finish().map_err(|error| failed(&error))?;
    Ok(Shaken { layer: Layer::new(records, read[fed..].to_vec()), info: info(&facts), resumed: facts.resumed })
}

fn failed(error: &TlsError) -> Unshaken {
    Unshaken::Failed(error.to_string())
}

/// A client in its handshake.
struct Client {
    handshake: Handshake,
    /// What it has sent.
    read: Vec<u8>,
    /// How much of that has been fed to the handshake.
    fed: usize,
    /// What it is answered and has not been sent.
    out: Vec<u8>,
    progress: Progress,
    /// Why it has failed, from then on: it is being told so, and can't begin anew elsewhere.
    failure: Option<TlsError>,
}

impl Client {
    /// Goes on until the handshake is done. Cancel-safe.
    async fn finish<S>(&mut self, socket: &mut S) -> Result<(), Unshaken>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        while !self.step(socket).await? {}
        Ok(())
    }

    /// Sends something, feeds one record, or reads more. Returns whether the handshake is done. Cancel-safe: what was not
    /// sent is sent by the next call.
    async fn step<S>(&mut self, socket: &mut S) -> Result<bool, Unshaken>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        if !self.out.is_empty() {
            let sent = socket.write(&self.out).await.map_err(|error| Unshaken::Failed(error.to_string()))?;
            self.out.drain(..sent);
            return Ok(self.out.is_empty() && self.progress == Progress::Done);
        }
        let waiting = &self.read[self.fed..];
        let length = match Handshake::length(waiting) {
            Ok(length) => length.filter(|length| *length <= waiting.len()),
            Err(error) => {
                let text: &[u8] = if waiting.first().is_some_and(u8::is_ascii_uppercase) {
                    PLAIN_HTTP
                } else {
                    &[21, 3, 1, 0, 2, 2, Alert::UnexpectedMessage.code()]
                };
                return Err(self.fail(error, socket, text).await);
            }
        };
        let Some(length) = length else {
            if self.read.len() >= MAX_UNREAD {
                return Err(Unshaken::Failed("it has sent too much".to_owned()));
            }
            self.read.reserve(READ);
            return match socket.read_buf(&mut self.read).await {
                Ok(0) | Err(_) if self.read.is_empty() => Err(Unshaken::Gone),
                Ok(0) => Err(Unshaken::Failed("the client has gone".to_owned())),
                Ok(_) => Ok(false),
                Err(error) => Err(Unshaken::Failed(error.to_string())),
            };
        };
        let fed = self.handshake.feed(&waiting[..length], &mut self.out);
        self.fed += length;
        match fed {
            Ok(progress) => {
                self.progress = progress;
                Ok(self.out.is_empty() && progress == Progress::Done)
            }
            Err(error) => {
                let out = std::mem::take(&mut self.out);
                Err(self.fail(error, socket, &out).await)
            }
        }
    }
}

impl Client {
    /// Says the last words. Known to have failed before the first of them.
    async fn fail<S>(&mut self, error: TlsError, socket: &mut S, words: &[u8]) -> Unshaken
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let why = failed(&error);
        self.failure = Some(error);
        say(socket, words).await;
        why
    }
}

/// Last words: whether they arrive changes nothing. What the client still sends is read, because closing a socket with
/// something unread takes them back.
async fn say<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut S, bytes: &[u8]) {
    let _ = timeout(LAST_WORDS, async {
        socket.write_all(bytes).await?;
        socket.shutdown().await?;
        let mut rest = [0; 1024];
        while socket.read(&mut rest).await? > 0 {}
        Ok::<_, io::Error>(())
    })
    .await;
}
