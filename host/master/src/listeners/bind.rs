//! Binding: from an address as it is configured to the sockets that it takes.

use std::cell::RefCell;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;

use nix::errno::Errno;
use socket2::{Domain, Socket, Type};

use app_host_core::config::{Address, Family, Listen};
use app_host_core::message::Origin;
use app_host_platform::held::Owner;
use app_host_platform::identity;
use app_host_platform::socket_file::{SocketFile, SocketFileError};

use super::port_guard::PortGuard;
use super::{BindError, Bound, Listeners, Loopback, watch_clients};

/// How often another port is tried where any will do and all addresses are to have the same.
const TRIES: u32 = 16;

impl Bound {
    /// Binds all sockets of a listener.
    pub(super) fn all(listen: &Listen, loopback: &Loopback, running: &Listeners) -> Result<Vec<Rc<Self>>, BindError> {
        let sockets = match &listen.address {
            Address::Tcp(address) => Self::tcp(listen, *address).map(|bound| vec![bound]),
            Address::Everywhere(port) => Self::everywhere(listen, *port).map(|bound| vec![bound]),
            Address::Localhost(port) => Self::localhost(listen, *port, loopback),
            Address::Unix(_) => Self::unix(listen).map(|bound| vec![bound]),
        };
        let sockets = sockets.map_err(|error| running.explain(listen, not_there(error)))?;
        Ok(sockets.into_iter().map(Rc::new).collect())
    }

    /// Binds the one socket of a listener that has only one.
    pub(super) fn one(listen: &Listen) -> Result<Self, BindError> {
        match &listen.address {
            Address::Tcp(address) => Self::tcp(listen, *address).map_err(not_there),
            Address::Everywhere(port) => Self::everywhere(listen, *port),
            Address::Localhost(_) => Err(failed(listen.address.clone())(io::ErrorKind::Unsupported.into())),
            Address::Unix(_) => Self::unix(listen),
        }
    }

    /// Binds one TCP socket of a listener, to an address that may be one of several.
    pub(super) fn tcp(listen: &Listen, address: SocketAddr) -> Result<Self, BindError> {
        let failed = failed(Address::Tcp(address));
        bind_tcp(listen, address, listen.family).map_err(failed)
    }

    /// One socket for both families; where there is no IPv6, one for IPv4.
    fn everywhere(listen: &Listen, port: u16) -> Result<Self, BindError> {
        let all = (Ipv6Addr::UNSPECIFIED, port).into();
        let bound = match bind_tcp(listen, all, Family::Both) {
            Err(error) if is_missing(&error) => bind_tcp(listen, (Ipv4Addr::UNSPECIFIED, port).into(), Family::Both),
            bound => bound,
        };
        bound.map_err(failed(listen.address.clone()))
    }

    /// A socket for each of the addresses, with one port for all. One that this machine doesn't have, as without IPv6,
    /// is left out unless it is the only one.
    fn localhost(listen: &Listen, port: u16, loopback: &Loopback) -> Result<Vec<Self>, BindError> {
        let mut tries = 0;
        'again: loop {
            tries += 1;
            let (mut bound, mut missing) = (Vec::<Self>::new(), None);
            for ip in loopback.addresses() {
                // Where any port will do, the first socket has found it.
                let port = bound.first().and_then(|first| first.local).map_or(port, |local| local.port());
                match Self::tcp(listen, SocketAddr::new(*ip, port)) {
                    Ok(socket) => bound.push(socket),
                    Err(BindError::Bind { source, address }) if is_missing(&source) => {
                        missing = Some(BindError::Bind { source, address });
                    }
                    Err(error) if error.is_in_use() && !bound.is_empty() && listen.address == Address::Localhost(0) => {
                        if tries < TRIES {
                            continue 'again;
                        }
                        return Err(error);
                    }
                    Err(error) => return Err(error),
                }
            }
            return match missing {
                Some(error) if bound.is_empty() => Err(error),
                _ => Ok(bound),
            };
        }
    }

    fn unix(listen: &Listen) -> Result<Self, BindError> {
        let failed = failed(listen.address.clone());
        let Address::Unix(path) = &listen.address else { return Err(failed(io::ErrorKind::Unsupported.into())) };
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(&failed)?;
        let owner = owner(listen)?;
        let file = SocketFile::bind(&socket, path, listen.rights.mode, owner).map_err(|error| match error {
            SocketFileError::Live => BindError::Live { path: path.clone() },
            SocketFileError::NoSocket => BindError::NoSocket { path: path.clone() },
            SocketFileError::Exchanged | SocketFileError::Give { .. } => failed(io::Error::other(error)),
            SocketFileError::System(source) => failed(source),
        })?;
        socket.set_nonblocking(true).map_err(&failed)?;
        Ok(Self {
            address: listen.address.clone(),
            family: listen.family,
            socket: socket.into(),
            local: None,
            file: Some(file),
            origin: Origin::Bound,
            guard: None,
            options: RefCell::default(),
        })
    }

    /// One that is bound to the address of a listener, or to one of its addresses.
    pub(super) fn of_tcp(listen: &Listen, socket: Socket, guard: Rc<PortGuard>) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            address: listen.address.clone(),
            family: listen.family,
            local: socket.local_addr()?.as_socket(),
            socket: socket.into(),
            file: None,
            origin: Origin::Bound,
            guard: Some(guard),
            options: RefCell::default(),
        })
    }
}

impl Listeners {
    /// Says which listener of ours has an address that is in use already, if it is one of ours in part: both families
    /// are one socket, and what it is can't change while it is open.
    fn explain(&self, listen: &Listen, error: BindError) -> BindError {
        let BindError::Bind { address: Address::Tcp(wanted), source } = &error else { return error };
        if source.kind() != io::ErrorKind::AddrInUse {
            return error;
        }
        let covers = |bound: &Bound| {
            let has = bound.local.filter(|has| has.port() == wanted.port() && bound.address != listen.address);
            has.is_some_and(|has| has.ip().is_unspecified() || wanted.ip().is_unspecified())
        };
        match self.configured.iter().find(|it| covers(&it.bound)) {
            Some(it) => BindError::Overlaps { address: listen.address.clone(), other: it.bound.address.clone() },
            None => error,
        }
    }
}

/// Whose the file of a listener's socket is to be.
pub(super) fn owner(listen: &Listen) -> Result<Owner, BindError> {
    identity::owner(&listen.rights).map_err(|source| BindError::Owner { address: listen.address.clone(), source })
}

fn failed(address: Address) -> impl Fn(io::Error) -> BindError {
    move |source| BindError::Bind { address: address.clone(), source }
}

/// Whether this machine has no such address, or no such family at all.
fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(Errno::EAFNOSUPPORT as i32)
}

/// The same error with what can be done about it, where the machine doesn't have the address.
fn not_there(error: BindError) -> BindError {
    match error {
        BindError::Bind { address, source } if source.kind() == io::ErrorKind::AddrNotAvailable => {
            BindError::NotThere { address, source }
        }
        error => error,
    }
}

fn bind_tcp(listen: &Listen, address: SocketAddr, family: Family) -> io::Result<Bound> {
    let socket = tcp_socket(listen, address, family)?;
    socket.bind(&address.into())?;
    let guard = Rc::new(PortGuard::of(&socket)?);
    Bound::of_tcp(listen, socket, guard)
}

/// A socket that can be bound to the address.
pub(super) fn tcp_socket(listen: &Listen, address: SocketAddr, family: Family) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        match family {
            Family::System => {}
            Family::Ipv6 => socket.set_only_v6(true)?,
            Family::Both => socket.set_only_v6(false)?,
        }
    }
    // So that connections in TIME_WAIT don't keep the next master from its port (socket(7)).
    socket.set_reuse_address(true)?;
    if listen.freebind {
        set_freebind(&socket, true)?;
    }
    watch_clients(&socket)?;
    Ok(socket)
}

/// Whether the socket may have an address that the machine doesn't have (`ip(7)`, `ipv6(7)`).
pub(super) fn set_freebind(socket: &Socket, on: bool) -> io::Result<()> {
    if socket.domain()? == Domain::IPV6 { socket.set_freebind_v6(on) } else { socket.set_freebind_v4(on) }
}

pub(super) fn freebind(socket: &Socket) -> io::Result<bool> {
    if socket.domain()? == Domain::IPV6 { socket.freebind_v6() } else { socket.freebind_v4() }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::path::Path;

    use super::*;
    use app_host_core::config::Config;

    fn config(listen: &str) -> Config {
        let text = format!(r#"{{"app": {{"library": "a"}}, "listen": {listen}}}"#);
        Config::parse(text.as_bytes(), Path::new("/c.json")).unwrap()
    }

    fn bind(listen: &str, running: &Listeners) -> Result<Listeners, BindError> {
        Listeners::for_config(&config(listen), running)
    }

    /// A port that is free in both families; none where this machine has only one.
    fn port() -> Option<u16> {
        (0..100).find_map(|_| {
            let four = TcpListener::bind("0.0.0.0:0").ok()?;
            let port = four.local_addr().ok()?.port();
            drop(four);
            TcpListener::bind(("::", port)).ok().map(|_| port)
        })
    }

    fn connects(port: u16) -> [bool; 2] {
        ["127.0.0.1", "::1"].map(|ip| TcpStream::connect((ip, port)).is_ok())
    }

    fn addresses(listeners: &Listeners) -> Vec<(String, String)> {
        listeners.addresses().map(|(name, address)| (name.to_owned(), address)).collect()
    }

    #[test]
    fn both_wildcards_of_one_port_are_bound_whichever_comes_first_and_kept_by_the_next_generation() {
        let Some(port) = port() else { return };
        for text in [format!(r#"["0.0.0.0:{port}", "[::]:{port}"]"#), format!(r#"["[::]:{port}", "0.0.0.0:{port}"]"#)] {
            let first = bind(&text, &Listeners::default()).unwrap();
            assert_eq!(connects(port), [true, true]);
            let second = bind(&text, &first).unwrap();
            assert_eq!(second.without(&first).addresses().count(), 0);
        }
        // So are a wildcard of one family and an address of the other.
        let first = bind(&format!(r#"["127.0.0.1:{port}", "[::]:{port}"]"#), &Listeners::default()).unwrap();
        assert_eq!((connects(port), first.infos().len()), ([true, true], 2));
    }

    #[test]
    fn a_lone_ipv6_wildcard_is_what_the_system_says_and_a_port_alone_is_both() {
        let Some(port) = port() else { return };
        let by_itself = std::fs::read_to_string("/proc/sys/net/ipv6/bindv6only").unwrap();
        for (text, expected) in [
            (format!(r#"["[::]:{port}"]"#), [by_itself.trim() == "0", true]),
            (format!(r#"[":{port}"]"#), [true, true]),
            (format!(r#"["{port}"]"#), [true, true]),
            (format!("[{port}]"), [true, true]),
            (format!(r#"["localhost:{port}"]"#), [true, true]),
        ] {
            let listeners = bind(&text, &Listeners::default()).unwrap();
            assert_eq!(connects(port), expected, "{text}");
            // It keeps its sockets, and closes with its last user.
            let second = bind(&text, &listeners).unwrap();
            assert_eq!((addresses(&second), second.without(&listeners).infos().len()), (addresses(&listeners), 0));
            drop((listeners, second));
            assert_eq!(connects(port), [false, false], "{text}");
        }
    }

    #[test]
    fn localhost_is_one_listener_with_a_socket_an_address_and_one_port() {
        if port().is_none() {
            return;
        }
        let listeners = bind(r#"["localhost:0"]"#, &Listeners::default()).unwrap();
        let found = addresses(&listeners);
        let port = found[0].1.rsplit_once(':').unwrap().1;
        let expected = [format!("127.0.0.1:{port}"), format!("[::1]:{port}")];
        assert_eq!(found.iter().map(|(_, address)| address.clone()).collect::<Vec<_>>(), expected);
        assert!(found.iter().all(|(name, _)| name == "localhost:0"));
        // Half of it is none.
        let taken = TcpListener::bind("[::1]:0").unwrap();
        let half = format!(r#"["localhost:{}"]"#, taken.local_addr().unwrap().port());
        assert!(bind(&half, &Listeners::default()).unwrap_err().is_in_use());
    }

    #[test]
    fn a_socket_that_was_shut_down_comes_back_for_the_families_that_it_had() {
        let Some(port) = port() else { return };
        let listeners = bind(&format!(r#"["0.0.0.0:{port}", "[::]:{port}"]"#), &Listeners::default()).unwrap();
        for socket in listeners.descriptors() {
            socket2::SockRef::from(&socket).shutdown(std::net::Shutdown::Both).unwrap();
        }
        assert_eq!(connects(port), [false, false]);
        listeners.heal();
        assert_eq!(connects(port), [true, true]);
    }

    #[test]
    fn a_family_that_would_have_to_change_while_its_socket_is_open_is_refused_in_its_own_words() {
        let Some(port) = port() else { return };
        let both = bind(&format!(r#"["0.0.0.0:{port}", "[::]:{port}"]"#), &Listeners::default()).unwrap();
        let error = bind(&format!(r#"["[::]:{port}"]"#), &both).unwrap_err();
        assert!(matches!(error, BindError::Family { .. }), "{error}");
        drop(both);
        let lone = bind(&format!(r#"["[::]:{port}"]"#), &Listeners::default()).unwrap();
        for text in [format!(r#"["0.0.0.0:{port}", "[::]:{port}"]"#), format!(r#"["0.0.0.0:{port}"]"#)] {
            let error = bind(&text, &lone).unwrap_err();
            assert!(matches!(error, BindError::Overlaps { .. } | BindError::Family { .. }), "{error}");
            assert!(error.to_string().contains("stop the master"), "{error}");
        }
    }

    #[test]
    fn an_address_that_the_machine_has_not_is_bound_where_that_is_asked_for_and_else_said_in_words() {
        // Those of documentation (RFC 5737, RFC 3849).
        for address in ["203.0.113.1", "[2001:db8::1]"] {
            if address.starts_with('[') && TcpListener::bind("[::1]:0").is_err() {
                continue;
            }
            let listen = |freebind: bool| format!(r#"[{{"address": "{address}:0", "freebind": {freebind}}}]"#);
            let error = bind(&listen(false), &Listeners::default()).unwrap_err();
            assert!(matches!(error, BindError::NotThere { .. }), "{error}");
            assert!(error.to_string().contains(r#""freebind": true binds it"#), "{error}");
            let first = bind(&listen(true), &Listeners::default()).unwrap();
            assert!(first.addresses().next().unwrap().1.starts_with(address));
            assert!(first.heal().is_empty(), "nothing is wrong with it");
            // The socket stays when the setting goes, and nothing is wrong with it then.
            let second = bind(&listen(false), &first).unwrap();
            assert_eq!(second.without(&first).infos().len(), 0);
            second.apply_settings();
            assert!(second.heal().is_empty());
            second.configured[0].bound.socket.set_linger(Some(std::time::Duration::ZERO)).unwrap();
            set_freebind(&second.configured[0].bound.socket, true).unwrap();
            let harm = format!("{:?}", second.heal()[0].harm);
            assert!(harm.contains("FREEBIND"), "{harm}");
        }
    }

    #[test]
    fn an_address_that_the_machine_has_not_is_left_out_of_localhost_unless_it_is_the_only_one() {
        let listen = &config(r#"["localhost:0"]"#).listen[0];
        let bind = |addresses: &[&str]| {
            let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
            Bound::all(listen, &Loopback::for_tests(addresses), &Listeners::default())
        };
        assert_eq!(bind(&["127.0.0.1", "203.0.113.1"]).unwrap().len(), 1);
        assert!(bind(&["203.0.113.1"]).is_err());
    }
}
