//! The PROXY protocol: what a proxy says of a client before the client's first byte.
//!
//! Owns the wait for the [header], its deadline, and what a drain does to a connection meanwhile. Who may send one is for
//! the configuration's [`Peers`](app_host_core::config::Peers); what follows it, TLS or HTTP, is not looked at.
//!
//! ```text
//! accepted ─── a whole header ──▶ handshake, or HTTP, with the bytes behind it
//!    ├── drain with a transfer ──▶ to another worker, with what has been read
//!    ├── drain with a close, `linger` over; cut ──▶ dismissed
//!    ├── the end, before the first byte ──▶ gone: a balancer that only looks whether somebody listens
//!    └── no header, a longer one, its end, 10 s over, counted from the accept by whichever worker ──▶ refused
//! ```

pub mod header;

use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::sleep_until;

use crate::connection::{DrainSignal, Ending, Phase};
use header::{Header, HeaderError};

/// How long a header may take. A proxy sends it with the connection.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How many bytes are read at a time: most headers, and the beginning of what follows.
const READ: usize = 2048;

/// A connection whose client is not known.
#[derive(Debug)]
pub enum Unannounced {
    /// The worker drains, and another one goes on waiting. What has been read.
    Leaves(Vec<u8>),
    /// The drain has ended it.
    Dismissed,
    /// The peer went without a word.
    Gone,
    /// It is not as it must be.
    Refused(Refused),
}

/// Why a connection is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error("the PROXY header took longer than 10 seconds")]
    Late,
    #[error("the peer has gone within its PROXY header")]
    Gone,
}

/// Reads the header of a connection that was accepted at `opened`. Returns it with the bytes behind it. `read` was read
/// before, by another worker.
pub async fn receive<S>(
    socket: &mut S,
    mut read: Vec<u8>,
    opened: Instant,
    drain: &mut DrainSignal,
) -> Result<(Header, Vec<u8>), Unannounced>
where
    S: AsyncRead + Unpin,
{
    let late = opened + TIMEOUT;
    let mut phase = drain.phase();
    loop {
        match header::read(&read) {
            Ok(Some((header, length))) => {
                read.drain(..length);
                return Ok((header, read));
            }
            Ok(None) => {}
            Err(error) => return Err(Unannounced::Refused(error.into())),
        }
        let (deadline, over) = match phase {
            Phase::Draining { ending: Ending::HandOver, .. } => return Err(Unannounced::Leaves(read)),
            Phase::Draining { ending: Ending::Close, since, linger } if since + linger < late => {
                (since + linger, Unannounced::Dismissed)
            }
            Phase::Cut => return Err(Unannounced::Dismissed),
            Phase::Serving | Phase::Draining { .. } => (late, Unannounced::Refused(Refused::Late)),
        };
        read.reserve(READ);
        tokio::select! {
            biased;
            changed = drain.next() => phase = changed,
            // Before the timer, which is then made for few connections: a header comes with its connection.
            length = socket.read_buf(&mut read) => match length {
                Ok(1..) => {}
                Ok(0) | Err(_) if read.is_empty() => return Err(Unannounced::Gone),
                Ok(0) | Err(_) => return Err(Unannounced::Refused(Refused::Gone)),
            },
            () = sleep_until(deadline.into()) => return Err(over),
        }
    }
}

#[cfg(test)]
mod tests;
