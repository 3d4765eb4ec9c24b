//! The keys `listen` and `app_listeners`: where to listen, and the bounds of it.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use super::account::{Account, Rights};
use super::forms::{Forms, Written};
use super::section::Section;
use super::tls::{RawTls, Tls};

/// The most listeners of either kind: their descriptors must fit into one message with a few more
/// (`SCM_MAX_FD` is 253, `unix(7)`).
pub const MAX_LISTENERS: usize = 128;
pub const MAX_APP_LISTENERS: usize = 64;

/// How many connections may wait, when nothing else is said.
const BACKLOG: u32 = 1024;

/// One listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// What the app and the log call it; the address as written, unless named.
    pub name: String,
    pub address: Address,
    /// How many connections may wait to be accepted (`listen(2)`; the kernel caps it at
    /// `net.core.somaxconn`).
    pub backlog: u32,
    /// Those of the file of a Unix socket.
    pub rights: Rights,
    /// Which clients an IPv6 socket takes.
    pub family: Family,
    /// Whether it may be bound to an address that the machine doesn't have yet (`IP_FREEBIND`, `ip(7)`).
    pub freebind: bool,
    /// Whether clients speak TLS, and with whom.
    pub tls: Option<Tls>,
}

/// Which clients an IPv6 socket takes (`IPV6_V6ONLY`, `ipv6(7)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// As the system has it, which is both families unless `net.ipv6.bindv6only` says otherwise.
    System,
    /// Those of IPv6 alone: another listener has the same port for IPv4.
    Ipv6,
    /// Those of both.
    Both,
}

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
    fn overlaps(&self, other: &Self) -> bool {
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
    const fn sockets(&self) -> usize {
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

pub(super) enum RawListen {
    Port(u16),
    Text(String),
    Object(RawListenObject),
}

impl<'de> Deserialize<'de> for RawListen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const FORMS: Forms = Forms {
            expected: "\"IP:PORT\", \"localhost:PORT\", \":PORT\", a port, \"unix:PATH\" or an object with the keys \
                       address, name, backlog, mode, owner, group, freebind, tls",
            port: true,
        };
        Ok(match FORMS.read(deserializer)? {
            Written::Port(port) => Self::Port(port),
            Written::Text(text) => Self::Text(text),
            Written::Object(object) => Self::Object(object),
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawListenObject {
    pub(super) address: String,
    pub(super) name: Option<String>,
    pub(super) backlog: Option<u32>,
    pub(super) mode: Option<String>,
    pub(super) freebind: Option<bool>,
    pub(super) owner: Option<Account>,
    pub(super) group: Option<Account>,
    #[serde(default, deserialize_with = "super::tls::tls")]
    pub(super) tls: Option<RawTls>,
}

/// The app finds a listener by its name, so each must have one.
#[derive(Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "an object with the keys name, address, backlog, mode, owner, group, freebind"
)]
pub(super) struct RawAppListener {
    name: String,
    address: String,
    backlog: Option<u32>,
    mode: Option<String>,
    freebind: Option<bool>,
    owner: Option<Account>,
    group: Option<Account>,
}

/// Checks the app's listeners, as far as it goes without those of `listen`.
pub(super) fn app_listeners<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<RawListen>, D::Error> {
    let raw = Vec::<Section<RawAppListener>>::deserialize(deserializer)?;
    if raw.len() > MAX_APP_LISTENERS {
        let most = format!("at most {MAX_APP_LISTENERS} listeners of the app's");
        return Err(D::Error::invalid_length(raw.len(), &most.as_str()));
    }
    let raw = raw.into_iter().map(|Section(listener)| {
        let RawAppListener { name, address, backlog, mode, owner, group, freebind } = listener;
        RawListen::Object(RawListenObject {
            address,
            name: Some(name),
            backlog,
            mode,
            owner,
            group,
            freebind,
            tls: None,
        })
    });
    let raw: Vec<_> = raw.collect();
    for listen in &raw {
        let parsed = listen.parse(Path::new("/")).map_err(D::Error::custom)?;
        parsed.address.one_socket().map_err(D::Error::custom)?;
    }
    Ok(raw)
}

/// The first of the app's listeners whose name or address another has already, and what is wrong.
pub(super) fn clash(listen: &[Listen], app: &[Listen]) -> Option<(usize, String)> {
    let mut earlier: Vec<(&Listen, &str)> = listen.iter().map(|each| (each, "listen")).collect();
    for (index, each) in app.iter().enumerate() {
        for (other, key) in &earlier {
            if let Some(message) = taken(&each.address, &other.address, key) {
                return Some((index, message));
            }
            if other.name == each.name {
                return Some((index, format!("the name \"{}\" is in \"{key}\" already", each.name)));
            }
        }
        earlier.push((each, "app_listeners"));
    }
    None
}

/// What is wrong with an address beside another one, which is in the list `key`.
pub(super) fn taken(address: &Address, other: &Address, key: &str) -> Option<String> {
    if address == other {
        Some(format!("the address {address} is in \"{key}\" already"))
    } else {
        address
            .overlaps(other)
            .then(|| format!("the address {address} overlaps {other}, which is in \"{key}\" already"))
    }
}

/// Makes an IPv6 wildcard leave IPv4 to others where another listener has its port there: alone it would take both, and
/// the two couldn't be bound beside each other (nginx has it so for all, `ipv6only=on`).
pub(super) fn part_families<'a>(all: impl Iterator<Item = &'a mut Listen>) {
    let mut all: Vec<_> = all.collect();
    let ipv4: Vec<u16> = all
        .iter()
        .filter_map(|listen| match listen.address {
            Address::Tcp(SocketAddr::V4(address)) => Some(address.port()),
            _ => None,
        })
        .collect();
    for listen in &mut all {
        if let Address::Tcp(SocketAddr::V6(address)) = listen.address
            && address.ip().is_unspecified()
            && address.port() != 0
            && ipv4.contains(&address.port())
        {
            listen.family = Family::Ipv6;
        }
    }
}

/// Checks the listeners while their line is still known.
pub(super) fn listeners<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<RawListen>, D::Error> {
    let raw = Vec::<RawListen>::deserialize(deserializer)?;
    if raw.is_empty() {
        return Err(D::Error::invalid_length(0, &"at least one listener"));
    }
    if raw.len() > MAX_LISTENERS {
        return Err(D::Error::invalid_length(raw.len(), &format!("at most {MAX_LISTENERS} listeners").as_str()));
    }
    // The directory does not matter here: two spellings of one relative path stay equal under any.
    let parsed = raw
        .iter()
        .map(|listen| listen.parse(Path::new("/")))
        .collect::<Result<Vec<_>, _>>()
        .map_err(D::Error::custom)?;
    let sockets: usize = parsed.iter().map(|listen| listen.address.sockets()).sum();
    if sockets > MAX_LISTENERS {
        let text =
            format!("they are {sockets} sockets, because \"localhost\" is two, expected at most {MAX_LISTENERS}");
        return Err(D::Error::custom(text));
    }
    for (index, listen) in parsed.iter().enumerate() {
        for earlier in &parsed[..index] {
            if earlier.address == listen.address {
                return Err(D::Error::custom(format_args!("listener {} is there twice", listen.address)));
            }
            if earlier.address.overlaps(&listen.address) {
                let (one, other) = (&earlier.address, &listen.address);
                return Err(D::Error::custom(format_args!("listeners {one} and {other} overlap")));
            }
            if earlier.name == listen.name {
                return Err(D::Error::custom(format_args!("two listeners are named \"{}\"", listen.name)));
            }
        }
    }
    Ok(raw)
}

impl Listen {
    const fn new(name: String, address: Address) -> Self {
        let family = match address {
            Address::Everywhere(_) => Family::Both,
            _ => Family::System,
        };
        Self { name, address, backlog: BACKLOG, rights: Rights::NONE, family, freebind: false, tls: None }
    }
}

impl RawListen {
    pub(super) fn parse(&self, directory: &Path) -> Result<Listen, String> {
        match self {
            Self::Port(port) => Ok(Listen::new(port.to_string(), Address::Everywhere(*port))),
            Self::Text(address) => Ok(Listen::new(address.clone(), parse_address(address, directory)?)),
            Self::Object(object) => {
                let address = parse_address(&object.address, directory)?;
                let unix_only = [
                    ("mode", object.mode.is_some()),
                    ("owner", object.owner.is_some()),
                    ("group", object.group.is_some()),
                ];
                if !matches!(address, Address::Unix(_))
                    && let Some((key, _)) = unix_only.into_iter().find(|(_, given)| *given)
                {
                    return Err(format!("\"{key}\" is for Unix sockets, and {address} is none"));
                }
                let rights = Rights::parse(object.mode.as_deref(), object.owner.clone(), object.group.clone())?;
                let freebind = object.freebind.unwrap_or(false);
                if freebind && matches!(address, Address::Unix(_)) {
                    return Err(format!("\"freebind\" is for IP addresses, and {address} is a Unix socket"));
                }
                let backlog = object.backlog.unwrap_or(BACKLOG);
                if !(1..=65_535).contains(&backlog) {
                    return Err(format!("\"backlog\" is {backlog}, expected a number from 1 to 65535"));
                }
                let name = object.name.clone().unwrap_or_else(|| object.address.clone());
                if name.is_empty() || name.len() > 255 {
                    return Err("a listener's \"name\" must have from 1 to 255 bytes".to_owned());
                }
                let tls = object.tls.as_ref().map(|tls| tls.resolve(directory)).transpose()?;
                Ok(Listen { backlog, rights, freebind, tls, ..Listen::new(name, address) })
            }
        }
    }
}

fn parse_address(text: &str, directory: &Path) -> Result<Address, String> {
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
