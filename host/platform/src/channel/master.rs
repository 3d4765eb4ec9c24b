//! The master's end. Nothing here believes what a child says, and nothing here takes a descriptor.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{Shutdown, shutdown};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::unix::pipe;

use app_host_core::foreign;

use super::frames::{FrameError, Frames};
use super::{BESIDE, ChannelError, INLINE, MAX_BESIDE, MAX_INLINE, PIPE};
use crate::sys::packet::{self, Socket};
use crate::sys::sealed::Writing;

/// How many bytes of a child's are read at once: most messages are shorter.
const CHUNK: usize = 4096;

/// Both directions, as the master has them.
#[derive(Debug)]
pub struct MasterEnd {
    pub to: ToChild,
    pub from: FromChild,
}

impl MasterEnd {
    /// The master's end, and what a child gets as its standard input. Must be called inside a runtime.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = one_way()?;
        let (reader, writer) = io::pipe()?;
        packet::send(ours.as_fd(), &[PIPE], &[writer.as_fd()])?;
        let to = ToChild { socket: Socket::new(ours)? };
        let from = FromChild {
            pipe: Some(pipe::Receiver::from_owned_fd(reader.into())?),
            frames: Frames::default(),
            buffer: vec![0; CHUNK],
        };
        Ok((Self { to, from }, theirs))
    }
}

/// A pair of sockets of which the first only sends and the second only receives.
///
/// Whatever the second sends fails with `EPIPE` before it is queued (`unix_dgram_sendmsg` in `net/unix/af_unix.c`).
pub fn one_way() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = packet::pair()?;
    shutdown(ours.as_raw_fd(), Shutdown::Read)?;
    Ok((ours, theirs))
}

/// What the master sends on.
#[derive(Debug)]
pub struct ToChild {
    socket: Socket,
}

impl ToChild {
    /// Sends a message without descriptors. Waits while the other side has too much to read.
    pub async fn send<M: Serialize>(&self, message: &M) -> Result<(), ChannelError> {
        self.send_with(message, &[]).await
    }

    /// Sends a message and duplicates of `descriptors`, in their order.
    pub async fn send_with<M: Serialize>(
        &self,
        message: &M,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), ChannelError> {
        let text = serde_json::to_vec(message)?;
        let beside;
        let mut all = Vec::with_capacity(descriptors.len() + 1);
        let mut bytes = Vec::with_capacity(text.len().min(MAX_INLINE) + 1);
        if text.len() <= MAX_INLINE {
            bytes.push(INLINE);
            bytes.extend_from_slice(&text);
        } else if text.len() <= MAX_BESIDE {
            bytes.push(BESIDE);
            beside = sealed(&text)?;
            all.push(beside.as_fd());
        } else {
            return Err(FrameError::Length(text.len()).into());
        }
        all.extend_from_slice(descriptors);
        self.socket.send(&bytes, &all).await?;
        Ok(())
    }
}

/// Sends a short message and descriptors on a socket that no runtime knows, or fails at once.
pub fn send_now<M: Serialize>(
    socket: BorrowedFd<'_>,
    message: &M,
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), ChannelError> {
    let mut bytes = vec![INLINE];
    serde_json::to_writer(&mut bytes, message)?;
    packet::send(socket, &bytes, descriptors)?;
    Ok(())
}

/// A memory file with this text that nobody can change any more.
fn sealed(text: &[u8]) -> io::Result<OwnedFd> {
    let mut writing = Writing::new(c"app-host message", MAX_BESIDE as u64);
    writing.add(text)?;
    writing.seal()?.map(|(file, _)| file).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// What a child says, once it has said something that no child of this binary says.
#[derive(Debug, thiserror::Error)]
pub enum Garbage {
    #[error("its pipe can't be read")]
    Pipe(#[source] io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The parser's words quote the message.
    #[error("a message that is not understood: {0}")]
    Message(String),
}

/// What the master reads from. It is closed with the first thing that isn't a message.
#[derive(Debug)]
pub struct FromChild {
    pipe: Option<pipe::Receiver>,
    frames: Frames,
    buffer: Vec<u8>,
}

impl FromChild {
    /// The next message; `None` when the child has closed its end, or this one is closed. Cancel-safe.
    ///
    /// # Errors
    /// When what comes is no message. Nothing more is read then: it is said once.
    pub async fn receive<M: DeserializeOwned>(&mut self) -> Result<Option<M>, Garbage> {
        let received = self.next().await;
        let message = received.and_then(|text| text.map(|text| parse(&text)).transpose());
        if !matches!(message, Ok(Some(_))) {
            self.pipe = None;
        }
        message
    }

    async fn next(&mut self) -> Result<Option<Vec<u8>>, Garbage> {
        let Some(pipe) = &self.pipe else { return Ok(None) };
        loop {
            if let Some(text) = self.frames.take()? {
                return Ok(Some(text));
            }
            pipe.readable().await.map_err(Garbage::Pipe)?;
            let room = self.frames.room().min(self.buffer.len());
            match pipe.try_read(&mut self.buffer[..room]) {
                Ok(0) => {
                    self.frames.end()?;
                    return Ok(None);
                }
                Ok(length) => self.frames.put(&self.buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(Garbage::Pipe(error)),
            }
        }
    }
}

fn parse<M: DeserializeOwned>(text: &[u8]) -> Result<M, Garbage> {
    serde_json::from_slice(text).map_err(|error| Garbage::Message(foreign::line(&error.to_string(), foreign::MAX_NAME)))
}
