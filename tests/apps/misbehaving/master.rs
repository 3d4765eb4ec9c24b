//! Messages to the master that are none, on whatever leads there.

#![expect(unsafe_code, reason = "an app can reach every descriptor of its process by number")]

use std::fs;
use std::io::{IoSlice, Write};
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::net::sockopt::{set_socket_linger, socket_domain, socket_type};
use rustix::net::{AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketType, sendmsg};

/// The descriptors of this process, without the standard three, whose links have this in their names.
fn descriptors(kind: &str) -> Vec<BorrowedFd<'static>> {
    let entries = fs::read_dir("/proc/self/fd").expect("/proc is mounted").flatten();
    let is_of_kind =
        |path: &std::path::Path| fs::read_link(path).is_ok_and(|target| target.to_string_lossy().starts_with(kind));
    entries
        .filter(|entry| is_of_kind(&entry.path()))
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|number| *number > 2)
        // SAFETY: it was just listed; the worker's own stay open, and what has gone is an error.
        .map(|number| unsafe { BorrowedFd::borrow_raw(number) })
        .collect()
}

/// Writes to every pipe that can be written to; how many those were.
pub(crate) fn write_garbage() -> usize {
    let write = |pipe: &BorrowedFd<'_>| rustix::io::write(pipe, &[0xff; 1000]).is_ok();
    descriptors("pipe:").iter().filter(|pipe| write(pipe)).count()
}

/// Sends packets of every known form, each with a descriptor, on every socket that has packets; how many went.
pub(crate) fn smuggle() -> usize {
    // A blocking one can be rewound, and a read of it never ends.
    let event = eventfd(0, EventfdFlags::empty()).expect("there is room for an eventfd");
    let mut sent = 0;
    for socket in descriptors("socket:") {
        let is_packets = socket_type(socket).is_ok_and(|kind| kind == SocketType::SEQPACKET)
            && socket_domain(socket).is_ok_and(|family| family == AddressFamily::UNIX);
        if is_packets {
            for form in [&b"b"[..], b"i\"Ready\"", b"p", &vec![0xff; 60_000]] {
                sent += usize::from(send(socket, form, event.as_fd()));
                let lingers = lingering();
                sent += usize::from(send(socket, form, lingers.as_fd()));
                // Whoever is last waits, and this may be us.
                std::thread::spawn(move || drop(lingers));
            }
        }
    }
    sent
}

fn send(socket: BorrowedFd<'_>, bytes: &[u8], descriptor: BorrowedFd<'_>) -> bool {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(std::slice::from_ref(&descriptor)))
        && sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::DONTWAIT | SendFlags::NOSIGNAL).is_ok()
}

/// A connection whose last close waits for a minute, in whichever process that is.
fn lingering() -> OwnedFd {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let mut client = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
    let (peer, _) = listener.accept().expect("a client is there");
    client.set_nonblocking(true).expect("it is a socket");
    while client.write(&vec![0; 65_536]).is_ok() {}
    set_socket_linger(&client, Some(Duration::from_mins(1))).expect("it is a socket");
    std::mem::forget(peer);
    client.into()
}
