//! Where a listener listens: addresses, how they are written, and which of them can't be there beside each other.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    Tcp(SocketAddr),
    /// All addresses of the machine, of both families, on this port.
    Everywhere(u16),
    /// Whatever loopback addresses `localhost` has, on this port: a socket each.
    Localhost(u16),
    Unix(PathBuf),
}

impl Address {
    /// Whether a socket on the address `found`, as the kernel knows it, is what is meant.
    pub fn is_met_by(&self, found: &Self) -> bool {
        match (self, found) {
            (Self::Everywhere(port), Self::Tcp(found)) => found.ip().is_unspecified() && found.port() == *port,
            (Self::Localhost(port), Self::Tcp(found)) => found.ip().is_loopback() && found.port() == *port,
            _ => self == found,
        }
    }

    /// The port of a TCP address.
    pub const fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp(address) => Some(address.port()),
            Self::Everywhere(port) | Self::Localhost(port) => Some(*port),
            Self::Unix(_) => None,
        }
    }

    /// Whether the two can't be bound beside each other, as far as that follows from what they are. Of two plain
    /// addresses only the kernel knows.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        if self == other {
            return true;
        }
        let same_port = self.port().is_some_and(|port| port != 0 && other.port() == Some(port));
        let local = |address: &Self| match address {
            Self::Tcp(address) => address.ip().is_loopback() || address.ip().is_unspecified(),
            Self::Everywhere(_) | Self::Localhost(_) => true,
            Self::Unix(_) => false,
        };
        same_port
            && match (self, other) {
                (Self::Everywhere(_), _) | (_, Self::Everywhere(_)) => true,
                (Self::Localhost(_), other) | (other, Self::Localhost(_)) => local(other),
                _ => false,
            }
    }

    /// Whether a bound one may keep the other from being bound: the same port, and all addresses or the same one.
    pub fn may_keep_out(&self, other: &Self) -> bool {
        let is_all = |address: &Self| match address {
            Self::Tcp(address) => address.ip().is_unspecified(),
            Self::Everywhere(_) => true,
            Self::Localhost(_) | Self::Unix(_) => false,
        };
        let same_port = self.port().is_some_and(|port| port != 0 && other.port() == Some(port));
        self.overlaps(other) || (same_port && (is_all(self) || is_all(other)))
    }

    /// How many sockets it may take.
    pub(super) const fn sockets(&self) -> usize {
        match self {
            Self::Localhost(_) => 2,
            Self::Tcp(_) | Self::Everywhere(_) | Self::Unix(_) => 1,
        }
    }

    /// Checks that one socket is enough, for what is given to somebody as one.
    pub(super) fn one_socket(&self) -> Result<(), String> {
        match self {
            Self::Localhost(port) => Err(format!(
                "\"localhost\" is two addresses, and this listener is one socket: \
                 say \"127.0.0.1:{port}\" or \"[::1]:{port}\""
            )),
            Self::Tcp(_) | Self::Everywhere(_) | Self::Unix(_) => Ok(()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Everywhere(port) => write!(f, ":{port}"),
            Self::Localhost(port) => write!(f, "localhost:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

pub(super) fn parse(text: &str, directory: &Path) -> Result<Address, String> {
    /// `sun_path` has 108 bytes with the final NUL (`unix(7)`).
    const MAX_PATH: usize = 107;
    if let Some(path) = text.strip_prefix("unix:") {
        if path.is_empty() || path.contains('\0') {
            return Err(format!("listener \"{text}\" has no path that a Unix socket can have"));
        }
        let path = directory.join(path);
        if path.as_os_str().len() > MAX_PATH {
            return Err(format!(
                "the path of listener \"{text}\" has {} bytes, and a Unix socket's has at most {MAX_PATH}",
                path.as_os_str().len()
            ));
        }
        return Ok(Address::Unix(path));
    }
    if let Ok(address) = text.parse() {
        return Ok(Address::Tcp(address));
    }
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    // Digits alone: a number's own parser takes a sign.
    let port = port.bytes().all(|byte| byte.is_ascii_digit()).then(|| port.parse().ok()).flatten();
    let hint = match (host, port) {
        ("", Some(port)) => return Ok(Address::Everywhere(port)),
        (host, Some(port)) if host.eq_ignore_ascii_case("localhost") => return Ok(Address::Localhost(port)),
        ("*", Some(port)) => format!("; for all addresses say \":{port}\""),
        (host, Some(port)) if host.contains(':') && host.parse::<Ipv6Addr>().is_ok() => {
            format!("; an IPv6 address stands in brackets: \"[{host}]:{port}\"")
        }
        (host, Some(_)) if !host.contains([':', '[', '/']) && host.parse::<Ipv4Addr>().is_err() => {
            "; no name but localhost is resolved: say the address".to_owned()
        }
        _ => String::new(),
    };
    Err(format!(
        "listener \"{text}\" is neither \"IP:PORT\", \"localhost:PORT\", \":PORT\" or a port (for all addresses) nor \
         \"unix:PATH\"{hint}"
    ))
}
