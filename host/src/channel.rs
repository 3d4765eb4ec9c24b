//! A worker's control socket: typed messages, one JSON text a packet, descriptors beside them.
//!
//! Owns framing and its bounds. What the messages mean is for `message` and the roles.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::sys::packet::{self, Socket};

/// The longest text that travels inside its packet; a longer one goes beside it, in a memory file,
/// because a packet must fit into the socket's buffer.
const MAX_INLINE: usize = 32 * 1024;

/// The longest text at all, in bytes: an app's configuration, escaped, and a little more.
const MAX_TEXT: u64 = 32 * 1024 * 1024;

/// The first byte of a packet: where its text is.
const INLINE: u8 = b'i';
const BESIDE: u8 = b'b';

/// A message that could not be sent or received.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    #[error("the control socket failed")]
    Socket(#[from] io::Error),
    #[error("a message on the control socket is not what was expected")]
    Message(#[from] serde_json::Error),
    #[error("a packet on the control socket has no known form")]
    Form,
}

/// One end of a control socket.
#[derive(Debug)]
pub struct Channel {
    socket: Socket,
}

impl Channel {
    /// Two connected ends: one for this process, and one to give to a child.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = packet::pair()?;
        Ok((Self::from_owned_fd(ours)?, theirs))
    }

    /// The end that this process was given. Must be called inside a runtime.
    pub fn from_owned_fd(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self { socket: Socket::new(socket)? })
    }

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
        } else {
            bytes.push(BESIDE);
            beside = memory_file(&text)?;
            all.push(beside.as_fd());
        }
        all.extend_from_slice(descriptors);
        self.socket.send(&bytes, &all).await?;
        Ok(())
    }

    /// The next message and its descriptors, fewer than were sent where not all of them find a place in this
    /// process; `None` when the other side has closed. Cancel-safe.
    pub async fn receive<M: DeserializeOwned>(&self) -> Result<Option<(M, Vec<OwnedFd>)>, ChannelError> {
        let mut buffer = vec![0; MAX_INLINE + 1];
        let (length, mut descriptors) = match self.socket.receive(&mut buffer).await {
            Ok(received) => received,
            // The other side died with something of ours unread: it has closed all the same.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let text = match buffer[..length].split_first() {
            None => return Ok(None),
            Some((&INLINE, text)) => text,
            Some((&BESIDE, [])) if !descriptors.is_empty() => {
                let mut file = File::from(descriptors.remove(0));
                file.rewind()?;
                buffer.clear();
                file.take(MAX_TEXT).read_to_end(&mut buffer)?;
                &buffer
            }
            Some(_) => return Err(ChannelError::Form),
        };
        Ok(Some((serde_json::from_slice(text)?, descriptors)))
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

fn memory_file(text: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create(c"app-host message", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(text)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_of_any_length_arrive_with_their_descriptors() {
        let (ours, theirs) = Channel::pair().unwrap();
        let theirs = Channel::from_owned_fd(theirs).unwrap();
        for length in [0, MAX_INLINE, 3_000_000] {
            let message = "x".repeat(length);
            let (extra, _) = packet::pair().unwrap();
            ours.send_with(&message, &[extra.as_fd()]).await.unwrap();
            let (received, descriptors) = theirs.receive::<String>().await.unwrap().unwrap();
            assert_eq!(received, message);
            assert_eq!(descriptors.len(), 1);
        }
        drop(ours);
        assert!(theirs.receive::<String>().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_message_of_another_kind_is_an_error_and_the_channel_goes_on() {
        let (ours, theirs) = Channel::pair().unwrap();
        let theirs = Channel::from_owned_fd(theirs).unwrap();
        ours.send(&"text").await.unwrap();
        ours.send(&7).await.unwrap();
        assert!(matches!(theirs.receive::<u8>().await, Err(ChannelError::Message(_))));
        assert_eq!(theirs.receive::<u8>().await.unwrap().unwrap().0, 7);
    }
}
