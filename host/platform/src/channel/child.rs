//! A child's end. The master is believed; its descriptors are taken.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::unix::pipe;

use super::frames::frame;
use super::{BESIDE, ChannelError, INLINE, MAX_BESIDE, MAX_INLINE, PIPE};
use crate::sys::packet::{self, Socket, Spare};
use crate::sys::sealed::is_sealed;

/// Both directions, as a child has them.
#[derive(Debug)]
pub struct Channel {
    from: FromMaster,
    to: pipe::Sender,
}

impl Channel {
    /// The end that this process was given. Must be called inside a runtime.
    pub fn from_owned_fd(socket: OwnedFd) -> io::Result<Self> {
        // It was sent before this process began.
        let (length, descriptors) = packet::receive(socket.as_fd(), &mut [0; 1])?;
        let pipe = descriptors.into_iter().next().filter(|_| length == 1);
        let pipe = pipe.ok_or_else(|| io::Error::other("the control socket came without its pipe"))?;
        Ok(Self { from: FromMaster::new(socket)?, to: pipe::Sender::from_owned_fd(pipe)? })
    }

    /// Sends a message. Waits while the master has too much to read. Short ones, of at most `PIPE_BUF` bytes
    /// (`pipe(7)`), are sent whole or not at all, so that this is cancel-safe for them.
    pub async fn send<M: Serialize>(&self, message: &M) -> Result<(), ChannelError> {
        let bytes = frame(&serde_json::to_vec(message)?)?;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            self.to.writable().await?;
            match self.to.try_write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// As [`FromMaster::receive`].
    pub async fn receive<M: DeserializeOwned>(&self) -> Result<Option<(M, Vec<OwnedFd>)>, ChannelError> {
        self.from.receive().await
    }
}

/// What only the master speaks on.
#[derive(Debug)]
pub struct FromMaster {
    socket: Socket,
    spare: Spare,
}

impl FromMaster {
    /// Must be called inside a runtime.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        Self::with_spare(socket, 0)
    }

    /// As [`new`](Self::new), and so many messages can bring a descriptor after this process has run out of them.
    pub fn with_spare(socket: OwnedFd, count: usize) -> io::Result<Self> {
        let socket = Socket::new(socket)?;
        Ok(Self { spare: socket.spare(count), socket })
    }

    /// The next message and its descriptors, fewer than were sent where not all of them find a place in this
    /// process; `None` when the master has closed. Cancel-safe.
    pub async fn receive<M: DeserializeOwned>(&self) -> Result<Option<(M, Vec<OwnedFd>)>, ChannelError> {
        let mut buffer = vec![0; MAX_INLINE + 1];
        let (length, mut descriptors) = self.socket.receive_into(&mut buffer, &self.spare).await?;
        let text = match buffer[..length].split_first() {
            None => return Ok(None),
            Some((&INLINE, text)) => text,
            Some((&BESIDE, [])) if !descriptors.is_empty() => {
                buffer = read_sealed(&File::from(descriptors.remove(0)))?;
                &buffer
            }
            Some((&PIPE | _, _)) => return Err(ChannelError::Form),
        };
        Ok(Some((serde_json::from_slice(text)?, descriptors)))
    }
}

/// Reads a memory file that can't change any more, and nothing else: whatever kind of descriptor came, this ends.
fn read_sealed(file: &File) -> Result<Vec<u8>, ChannelError> {
    if !is_sealed(file) {
        return Err(ChannelError::Unsealed);
    }
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    if length > MAX_BESIDE {
        return Err(ChannelError::Unsealed);
    }
    let mut text = vec![0; length];
    file.read_exact_at(&mut text, 0)?;
    Ok(text)
}
