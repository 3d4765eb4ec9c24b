//! What the master and its children say to each other: typed messages, each a text in JSON.
//!
//! The two directions are two types, because they are two kinds of trust. What the master sends goes over a
//! `SOCK_SEQPACKET` socket, with descriptors. What a child sends comes through a **pipe**, which carries bytes and
//! nothing else: no descriptor of a child's ever reaches the master, not even to be closed there (the last close of
//! a socket that lingers waits for its peer, in whichever process it happens; `socket(7)`). The master's end of the
//! socket is shut down for reading, so nothing can wait in it either.
//!
//! ```text
//! master                                        child
//! ToChild    ══ socket: messages, descriptors ══▶ FromMaster
//! FromChild  ◀══ pipe: texts of at most 32 KiB ══ ToMaster
//! ```
//! The end of the pipe that is the child's lies in the socket before the child begins.
//!
//! Owns framing and its bounds. What the messages mean is for `message` and the roles.

mod child;
pub mod frames;
mod master;

use std::io;

pub use child::{Channel, FromMaster};
use frames::FrameError;
pub use master::{FromChild, Garbage, MasterEnd, ToChild, one_way, send_now};

/// The longest text that travels inside its packet; a longer one goes beside it, in a sealed memory file, because a
/// packet must fit into the socket's buffer.
const MAX_INLINE: usize = frames::MAX_TEXT;

/// The longest text that the master sends, in bytes: an app's configuration, escaped, and a little more.
const MAX_BESIDE: usize = 32 * 1024 * 1024;

/// The first byte of a packet: where its text is, or that it brings the pipe.
const INLINE: u8 = b'i';
const BESIDE: u8 = b'b';
pub const PIPE: u8 = b'p';

/// A message that could not be sent or received.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    #[error("the control socket failed")]
    Socket(#[from] io::Error),
    #[error("a message on the control socket is not what was expected")]
    Message(#[from] serde_json::Error),
    #[error("a packet on the control socket has no known form")]
    Form,
    #[error("a text beside a packet is no sealed memory file of at most {MAX_BESIDE} bytes")]
    Unsealed,
    #[error("a message can't be sent")]
    TooLong(#[from] FrameError),
}

#[cfg(test)]
mod tests;
