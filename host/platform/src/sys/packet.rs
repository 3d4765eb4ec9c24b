//! Packets with descriptors, over `SOCK_SEQPACKET` sockets (`unix(7)`).
//!
//! A packet arrives whole or not at all, and the end of the other side is seen: datagrams lack the
//! second, streams the first.
//!
//! rustix does that, because nix gives no descriptor out, and closes none, of a packet for which not all found a
//! place in this process.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::cmsg_space;
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_send_buffer_size;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The most descriptors that one packet carries (`SCM_MAX_FD`, `unix(7)`).
pub const MAX_DESCRIPTORS: usize = 253;

/// A connected pair; both ends are non-blocking and closed on exec.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// One end of a pair, known to the runtime that it was made in.
#[derive(Debug)]
pub struct Socket(AsyncFd<OwnedFd>);

impl Socket {
    /// Takes over a non-blocking socket. Must be called inside a runtime.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        #[expect(unsafe_code, reason = "tokio can't see that a descriptor stays the same")]
        // SAFETY: an `OwnedFd` is open, always names the same descriptor, and nothing takes it out.
        let registered = unsafe { AsyncFd::register(socket)? };
        Ok(Self(registered))
    }

    /// [`send`], waiting while the other side has too much to read.
    pub async fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.0.async_io(Interest::WRITABLE, |socket| send(socket.as_fd(), bytes, descriptors)).await
    }

    /// [`send`], at once or not at all: `WouldBlock` also before the runtime has looked at the socket.
    pub fn try_send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.0.try_io(Interest::WRITABLE, |socket| send(socket.as_fd(), bytes, descriptors))
    }

    /// Waits until [`try_send`](Self::try_send) is worth another try.
    pub async fn writable(&self) -> io::Result<()> {
        self.0.writable().await.map(drop)
    }

    /// [`receive`], waiting for a packet. Cancel-safe.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        self.0.async_io(Interest::READABLE, |socket| receive(socket.as_fd(), buffer)).await
    }

    /// As [`receive`](Self::receive), with descriptors in the place of `spare` ones if there is no other.
    pub async fn receive_into(&self, buffer: &mut [u8], spare: &Spare) -> io::Result<(usize, Vec<OwnedFd>)> {
        let receive = |socket: &OwnedFd| {
            let mut held = spare.0.lock().unwrap_or_else(PoisonError::into_inner);
            let wanted = held.capacity();
            held.clear();
            let received = receive(socket.as_fd(), buffer);
            fill(&mut held, socket, wanted);
            received
        };
        self.0.async_io(Interest::READABLE, receive).await
    }

    /// So many spare descriptors.
    pub fn spare(&self, count: usize) -> Spare {
        let mut held = Vec::with_capacity(count);
        fill(&mut held, self.0.get_ref(), count);
        Spare(Mutex::new(held))
    }

    /// [`receive_plain`], waiting for a packet. Cancel-safe.
    pub async fn receive_plain(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.async_io(Interest::READABLE, |socket| receive_plain(socket.as_fd(), buffer)).await
    }
}

/// Descriptors that are held so that others find a place when they come: what doesn't find one in a full table, the kernel
/// drops. Another thread may take it in the moment between; that is rare where threads without a descriptor pause.
#[derive(Debug)]
pub struct Spare(Mutex<Vec<OwnedFd>>);

/// Duplicates `of` until there are so many, or no more can be had.
fn fill(held: &mut Vec<OwnedFd>, of: &OwnedFd, count: usize) {
    while held.len() < count
        && let Ok(duplicate) = of.try_clone()
    {
        held.push(duplicate);
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}

/// Asks for room for so many bytes in what one end has sent and the other not read
/// (`SO_SNDBUF`, `socket(7)`; the kernel grants at most `net.core.wmem_max`).
pub fn make_room(socket: &impl AsFd, bytes: usize) -> io::Result<()> {
    Ok(set_socket_send_buffer_size(socket, bytes)?)
}

/// Has the kernel refuse packets with descriptors before they are queued (`SO_PASSRIGHTS`, Linux 6.16 and later).
/// Where it doesn't know that, [`receive_plain`] still takes none in, but closes them in this thread.
pub fn refuse_descriptors(socket: &impl AsFd) {
    // include/uapi/asm-generic/socket.h; libc has it for one machine only.
    const SO_PASSRIGHTS: libc::c_int = 83;
    let off: libc::c_int = 0;
    let length = libc::socklen_t::try_from(size_of::<libc::c_int>()).expect("four fits");
    #[expect(unsafe_code, reason = "no crate has this option yet")]
    // SAFETY: the pointer is to an integer of that length, and the descriptor is open.
    unsafe {
        libc::setsockopt(socket.as_fd().as_raw_fd(), libc::SOL_SOCKET, SO_PASSRIGHTS, (&raw const off).cast(), length);
    }
}

/// Sends one packet; `WouldBlock` when the other side has too much to read already.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors for one packet"));
    }
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives one packet into `buffer` and says how long it was; 0 means that the other side has closed.
///
/// The descriptors are closed on exec. There are fewer than were sent where not all of them find a place in this
/// process: the kernel installs them in their order until one fails (`RLIMIT_NOFILE`), and drops the rest.
///
/// # Errors
/// `InvalidData` when the packet did not fit; what arrived of it is closed.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message =
        behind_a_reset(|| recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::CMSG_CLOEXEC))?;
    let mut descriptors = Vec::new();
    for each in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = each {
            descriptors.extend(received);
        }
    }
    if message.flags.contains(ReturnFlags::TRUNC) { Err(cut_off()) } else { Ok((message.bytes, descriptors)) }
}

/// Receives also what the other side sent before it closed with something of ours unread: on a socket of this type the
/// kernel (6.18) reports `ECONNRESET` once, and before those packets. On a stream it does so behind them.
fn behind_a_reset<T>(mut receive: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    match receive() {
        Err(Errno::CONNRESET) => receive(),
        received => received,
    }
}

fn cut_off() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a packet was cut off")
}

/// As [`receive`], for a socket on which no descriptors travel: those that come all the same are
/// never taken in (`unix(7)`).
///
/// # Errors
/// `InvalidData` when the packet did not fit, or came with descriptors.
pub fn receive_plain(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    let mut none = RecvAncillaryBuffer::default();
    let message =
        behind_a_reset(|| recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut none, RecvFlags::CMSG_CLOEXEC))?;
    if message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) { Err(cut_off()) } else { Ok(message.bytes) }
}

/// Whether the other side is merely gone.
pub fn is_the_end(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_before_the_end_arrives_even_when_something_of_ours_was_never_read() {
        for plain in [false, true] {
            let (ours, theirs) = pair().unwrap();
            send(ours.as_fd(), b"unread", &[]).unwrap();
            send(theirs.as_fd(), b"first", &[]).unwrap();
            send(theirs.as_fd(), b"second", &[]).unwrap();
            drop(theirs);
            let mut buffer = [0; 16];
            for expected in [&b"first"[..], b"second", b"", b""] {
                let length = if plain {
                    receive_plain(ours.as_fd(), &mut buffer).unwrap()
                } else {
                    receive(ours.as_fd(), &mut buffer).unwrap().0
                };
                assert_eq!(&buffer[..length], expected);
            }
        }
    }

    #[test]
    fn descriptors_travel_and_the_end_is_seen() {
        let (left, right) = pair().unwrap();
        let (inner, _outer) = pair().unwrap();
        send(left.as_fd(), b"hello", &[inner.as_fd()]).unwrap();
        let mut buffer = [0; 16];
        let (length, descriptors) = receive(right.as_fd(), &mut buffer).unwrap();
        assert_eq!((&buffer[..length], descriptors.len()), (&b"hello"[..], 1));
        drop(left);
        assert_eq!(receive(right.as_fd(), &mut buffer).unwrap().0, 0);
    }

    #[tokio::test]
    async fn a_spare_descriptor_makes_room_for_one_that_comes() {
        let (left, right) = pair().unwrap();
        let right = Socket::new(right).unwrap();
        let spare = right.spare(3);
        let held = || spare.0.lock().unwrap().len();
        let (inner, _outer) = pair().unwrap();
        send(left.as_fd(), b"hello", &[inner.as_fd()]).unwrap();
        assert_eq!(held(), 3);
        let (length, descriptors) = right.receive_into(&mut [0; 16], &spare).await.unwrap();
        assert_eq!((length, descriptors.len(), held()), (5, 1, 3));
    }

    #[test]
    fn where_no_descriptors_travel_none_is_taken_in() {
        let (left, right) = pair().unwrap();
        let (inner, outer) = pair().unwrap();
        send(left.as_fd(), b"with one", &[inner.as_fd()]).unwrap();
        send(left.as_fd(), b"without", &[]).unwrap();
        let mut buffer = [0; 16];
        let error = receive_plain(right.as_fd(), &mut buffer).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert_eq!(receive_plain(right.as_fd(), &mut buffer).unwrap(), 7);
        // It is open nowhere else: the end is seen.
        drop(inner);
        assert_eq!(receive_plain(outer.as_fd(), &mut buffer).unwrap(), 0);
    }

    #[test]
    fn where_descriptors_are_refused_what_has_none_arrives() {
        let (left, right) = pair().unwrap();
        refuse_descriptors(&right);
        let (inner, _outer) = pair().unwrap();
        let mut buffer = [0; 16];
        match send(left.as_fd(), b"with one", &[inner.as_fd()]) {
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
            // An old kernel.
            Ok(()) => assert!(receive_plain(right.as_fd(), &mut buffer).is_err()),
        }
        send(left.as_fd(), b"without", &[]).unwrap();
        assert_eq!(receive_plain(right.as_fd(), &mut buffer).unwrap(), 7);
    }

    #[test]
    fn a_packet_that_does_not_fit_is_an_error() {
        let (left, right) = pair().unwrap();
        send(left.as_fd(), b"much too long", &[]).unwrap();
        let error = receive(right.as_fd(), &mut [0; 4]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
