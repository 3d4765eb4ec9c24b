//! Keeps the port of a listening socket, also while that doesn't listen.
//!
//! A process that has a listening socket can shut it down, and bind one of its own to the port at once: all it takes is
//! `SO_REUSEADDR`, which the master must set for its own sake. So the master binds a second socket to the same
//! address, which never listens and allows nobody beside it but a socket of the same user with `SO_REUSEPORT`. The
//! listening socket has that only while the master has it listen: otherwise a second master could have the port as
//! well. A thief of another user finds no moment that is his (`inet_csk_get_port` in
//! `net/ipv4/inet_connection_sock.c`; none in 100,000 turns with a busy one, Linux 6.18).

use std::io;

use socket2::{Domain, Socket, Type};

use super::bind::{freebind, set_freebind};

/// See the module.
#[derive(Debug)]
pub(super) struct PortGuard {
    /// Only open.
    _socket: Socket,
}

impl PortGuard {
    /// Guards the address of a socket that is bound to it, with `SO_REUSEADDR`, and doesn't listen yet.
    pub(super) fn of(bound: &Socket) -> io::Result<Self> {
        let domain = bound.domain()?;
        let socket = Socket::new(domain, Type::STREAM, None)?;
        if domain == Domain::IPV6 {
            socket.set_only_v6(bound.only_v6()?)?;
        }
        socket.set_reuse_address(true)?;
        if freebind(bound)? {
            set_freebind(&socket, true)?;
        }
        socket.bind(&bound.local_addr()?)?;
        socket.set_reuse_address(false)?;
        socket.set_reuse_port(true)?;
        Ok(Self { _socket: socket })
    }

    /// Does with `socket` what must bind it to the port or have it listen there.
    #[expect(clippy::unused_self, reason = "who has no guard has no business beside it")]
    pub(super) fn admits<T>(&self, socket: &Socket, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        socket.set_reuse_port(true)?;
        let done = act();
        socket.set_reuse_port(false)?;
        done
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn socket(address: SocketAddr) -> Socket {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket
    }

    /// As another master of the same user does it.
    fn second(address: SocketAddr) -> io::Result<PortGuard> {
        let socket = socket(address);
        socket.bind(&address.into())?;
        let guard = PortGuard::of(&socket)?;
        guard.admits(&socket, || socket.listen(1))?;
        Ok(guard)
    }

    #[test]
    fn nobody_takes_the_port_of_a_socket_that_was_shut_down_but_who_has_the_guard() {
        for address in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"] {
            let ours = socket(address.parse().unwrap());
            ours.bind(&address.parse::<SocketAddr>().unwrap().into()).unwrap();
            let address = ours.local_addr().unwrap().as_socket().unwrap();
            let guard = PortGuard::of(&ours).unwrap();
            guard.admits(&ours, || ours.listen(1)).unwrap();
            assert_eq!(second(address).unwrap_err().kind(), io::ErrorKind::AddrInUse, "{address}");
            ours.shutdown(std::net::Shutdown::Both).unwrap();
            assert_eq!(second(address).unwrap_err().kind(), io::ErrorKind::AddrInUse, "{address}");
            let next = socket(address);
            guard.admits(&next, || next.bind(&address.into()).and_then(|()| next.listen(1))).unwrap();
            assert_eq!(second(address).unwrap_err().kind(), io::ErrorKind::AddrInUse, "{address}");
            drop((ours, next, guard));
            second(address).unwrap();
        }
    }
}
