//! Whether a listener still listens, and how one is revived that somebody has shut down.
//!
//! A listening socket is one for all processes that have it: `shutdown(2)` in any of them, a worker's app for
//! instance, closes it for all, and clients are refused from then on. Nobody is told; so it is asked.
//!
//! A TCP socket can be made to listen again, in its place: every process that has it can accept again. Where it
//! was bound to port 0 the shutdown has given its port away, and it is bound to the same one first. A Unix socket
//! stays shut down for ever, and another takes its place.

use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::connect_unspec;
use socket2::SockRef;

use super::{AdminListener, BindError, Bound, Configured, Listeners};
use crate::config::Listen;
use crate::message::{Origin, Server};

/// Whether connections are queued on a listening socket. Not `SO_ACCEPTCONN` alone: a Unix socket that was shut
/// down says that it listens.
pub fn is_open(socket: &impl AsFd) -> bool {
    let mut polled = [PollFd::new(socket, PollFlags::RDHUP)];
    let hung_up = poll(&mut polled, Some(&Timespec::default())).is_ok()
        && polled[0].revents().intersects(PollFlags::RDHUP | PollFlags::HUP);
    !hung_up && SockRef::from(&socket.as_fd()).is_listener().unwrap_or(false)
}

/// A listener that was found shut down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShutDown {
    pub name: String,
    pub address: String,
    pub remedy: Remedy,
}

/// What helps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// It listens again, and whoever accepts for it notices.
    Revived,
    /// Workers that are spawned from now on can accept on it, or on another in its place.
    NewWorkers,
    /// A service manager must bind it anew.
    Manager,
}

impl Bound {
    pub(super) fn is_open(&self) -> bool {
        is_open(&*self.socket)
    }

    /// This one, if it listens or can be made to; another in its place, where that can be.
    pub(super) fn or_healed(self: Rc<Self>, listen: &Listen) -> Result<Rc<Self>, BindError> {
        if self.is_open() || self.revive(super::backlog(listen)).is_ok() { Ok(self) } else { self.again(listen) }
    }

    /// Has a TCP socket listen again.
    fn revive(&self, backlog: i32) -> io::Result<()> {
        let Some(address) = self.local else { return Err(io::ErrorKind::Unsupported.into()) };
        // Only the first shutdown closes it; another one marks the closed socket as shut down in both directions, and
        // every connection that it accepts later would inherit that and end at once. Disconnecting takes the mark away
        // (`inet_shutdown` in net/ipv4/af_inet.c, `tcp_disconnect` in net/ipv4/tcp.c; Linux 6.18).
        connect_unspec(&*self.socket)?;
        // Fails where the port was kept, as it should be.
        let _ = self.socket.bind(&address.into());
        self.socket.listen(backlog)?;
        let is_same = self.socket.local_addr().is_ok_and(|found| found.as_socket() == Some(address));
        if is_same && self.is_open() { Ok(()) } else { Err(io::ErrorKind::NotConnected.into()) }
    }
}

impl Configured {
    /// Makes sure that it listens or can be replaced; says so, where that isn't a matter of course.
    fn heal(&self) -> Option<ShutDown> {
        if self.bound.is_open() {
            return None;
        }
        let revived = self.bound.revive(super::backlog(&self.listen)).is_ok();
        let remedy = match (revived, self.server, self.bound.origin) {
            (true, Server::Worker, _) => Remedy::Revived,
            // An app's own loop may have ended.
            (true, Server::App, _) | (false, _, Origin::Bound) => Remedy::NewWorkers,
            (false, _, Origin::Passed) => Remedy::Manager,
        };
        let (name, address) = (self.listen.name.clone(), self.bound.local_address());
        Some(ShutDown { name, address, remedy })
    }
}

impl Listeners {
    /// The names of those on which no client is accepted.
    pub fn shut_down(&self) -> impl Iterator<Item = &str> {
        self.configured.iter().filter(|it| !it.bound.is_open()).map(|it| it.listen.name.as_str())
    }

    /// Revives whatever can be revived where it is; says what was shut down.
    pub fn heal(&self) -> Vec<ShutDown> {
        self.configured.iter().filter_map(Configured::heal).collect()
    }
}

impl AdminListener {
    /// Whether it listens.
    pub fn is_open(&self) -> bool {
        self.bound.is_open()
    }

    /// One that listens, in its place where that can be; whoever serves on it must be given it anew.
    ///
    /// # Errors
    /// When another can't be bound.
    pub fn healed(&self) -> Result<Self, BindError> {
        let revived = self.bound.revive(super::backlog(&self.listen)).is_ok();
        let bound = if revived { self.bound.clone() } else { self.bound.again(&self.listen)? };
        Ok(Self { listen: self.listen.clone(), bound })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{Shutdown, TcpStream};
    use std::os::unix::net::UnixStream;
    use std::path::Path;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::config::Config;

    fn config(text: &str) -> Config {
        let text = format!(r#"{{"app": {{"library": "a"}}, {text}}}"#);
        Config::parse(text.as_bytes(), Path::new("/c.json")).unwrap()
    }

    fn shut_down(listeners: &Listeners) {
        for socket in listeners.descriptors() {
            // A duplicate, as a worker has one.
            let theirs = socket2::Socket::from(socket.try_clone_to_owned().unwrap());
            theirs.shutdown(Shutdown::Both).unwrap();
        }
    }

    #[test]
    fn a_tcp_listener_is_revived_on_its_port_as_often_as_it_is_shut_down() {
        let config = config(r#""listen": ["127.0.0.1:0"]"#);
        let listeners = Listeners::for_config(&config, &Listeners::default()).unwrap();
        let address = listeners.addresses().next().unwrap().1;
        assert_eq!(listeners.heal(), []);
        for _ in 0..3 {
            shut_down(&listeners);
            assert!(TcpStream::connect(&address).is_err());
            assert_eq!(listeners.shut_down().count(), 1);
            let healed = listeners.heal();
            assert_eq!((&healed[0].address, healed[0].remedy), (&address, Remedy::Revived));
            assert_eq!(listeners.shut_down().count(), 0);
            assert!(TcpStream::connect(&address).is_ok());
        }
    }

    #[test]
    fn connections_of_a_revived_listener_live_however_often_it_was_shut_down_before() {
        let config = config(r#""listen": ["127.0.0.1:0"]"#);
        let listeners = Listeners::for_config(&config, &Listeners::default()).unwrap();
        let address = listeners.addresses().next().unwrap().1;
        shut_down(&listeners);
        let theirs = socket2::Socket::from(listeners.descriptors().next().unwrap().try_clone_to_owned().unwrap());
        // That it isn't connected any more doesn't keep the kernel from marking it.
        assert!(theirs.shutdown(Shutdown::Both).is_err());
        listeners.heal();
        let mut client = TcpStream::connect(&address).unwrap();
        theirs.set_nonblocking(false).unwrap();
        let (accepted, _) = theirs.accept().unwrap();
        accepted.send(b"x").expect("it can be written to");
        client.read_exact(&mut [0]).expect("what was written arrives");
    }

    #[test]
    fn the_last_close_of_a_listener_waits_for_no_peer_that_somebody_has_connected_it_to() {
        let config = config(r#""listen": ["127.0.0.1:0"]"#);
        let listeners = Listeners::for_config(&config, &Listeners::default()).unwrap();
        let sink = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        {
            let theirs = socket2::Socket::from(listeners.descriptors().next().unwrap().try_clone_to_owned().unwrap());
            theirs.shutdown(Shutdown::Both).unwrap();
            theirs.set_nonblocking(false).unwrap();
            theirs.connect(&sink.local_addr().unwrap().into()).unwrap();
            theirs.set_nonblocking(true).unwrap();
            while theirs.send(&[0; 8192]).is_ok() {}
            theirs.set_linger(Some(Duration::from_mins(1))).unwrap();
        }
        let began = Instant::now();
        drop(listeners);
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    }

    #[test]
    fn a_unix_listener_is_replaced_by_the_next_generation_and_keeps_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let config = config(&format!(r#""listen": ["unix:{}"]"#, path.display()));
        let first = Listeners::for_config(&config, &Listeners::default()).unwrap();
        shut_down(&first);
        assert!(UnixStream::connect(&path).is_err());
        assert_eq!(first.heal()[0].remedy, Remedy::NewWorkers);
        assert_eq!(first.shut_down().count(), 1);
        let second = Listeners::for_config(&config, &first).unwrap();
        assert_eq!((second.shut_down().count(), second.without(&first).shut_down().count()), (0, 0));
        assert_eq!(second.without(&first).addresses().count(), 1);
        drop(first);
        assert!(UnixStream::connect(&path).is_ok());
    }

    #[test]
    fn an_apps_listener_is_revived_and_wants_new_workers() {
        let config = config(r#""app_listeners": [{"name": "smtp", "address": "127.0.0.1:0"}]"#);
        let listeners = Listeners::for_config(&config, &Listeners::default()).unwrap();
        let second = listeners.descriptors().nth(1).unwrap().try_clone_to_owned().unwrap();
        socket2::Socket::from(second).shutdown(Shutdown::Read).unwrap();
        let healed = listeners.heal();
        assert_eq!(healed.len(), 1);
        assert_eq!((healed[0].name.as_str(), healed[0].remedy), ("smtp", Remedy::NewWorkers));
        assert_eq!(listeners.shut_down().count(), 0);
    }

    #[test]
    fn a_tcp_socket_that_was_connected_elsewhere_is_revived_on_its_port() {
        let config = config(r#""listen": ["127.0.0.1:0"]"#);
        let first = Listeners::for_config(&config, &Listeners::default()).unwrap();
        let address = first.addresses().next().unwrap().1;
        let elsewhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        shut_down(&first);
        let theirs = socket2::Socket::from(first.descriptors().next().unwrap().try_clone_to_owned().unwrap());
        theirs.set_nonblocking(false).unwrap();
        let _ = theirs.bind(&address.parse::<std::net::SocketAddr>().unwrap().into());
        theirs.connect(&elsewhere.local_addr().unwrap().into()).unwrap();
        assert_eq!(first.heal()[0].remedy, Remedy::Revived);
        assert_eq!(first.addresses().next().unwrap().1, address);
        assert!(TcpStream::connect(&address).is_ok());
    }
}
