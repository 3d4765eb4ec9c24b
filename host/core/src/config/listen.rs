//! The keys `listen` and `app_listeners`: where to listen, and the bounds of it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use super::account::{Account, Rights};
use super::address::{self, Address};
use super::forms::{Forms, Written};
use super::front::{Front, Hsts, Redirect};
use super::peers::{Forwarded, Peers, ProxyProtocol, Trusted};
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
    /// Whom it believes what it is told of a client.
    pub peers: Peers,
    /// What it answers by itself.
    pub front: Front,
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

pub(super) enum RawListen {
    Port(u16),
    Text(String),
    Object(Box<RawListenObject>),
}

impl<'de> Deserialize<'de> for RawListen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const FORMS: Forms = Forms {
            expected: "\"IP:PORT\", \"localhost:PORT\", \":PORT\", a port, \"unix:PATH\" or an object with the keys \
                       address, name, backlog, mode, owner, group, freebind, tls, trusted_peers, proxy_protocol, forwarded, redirect, \
                       acme_challenges",
            port: true,
        };
        Ok(match FORMS.read(deserializer)? {
            Written::Port(port) => Self::Port(port),
            Written::Text(text) => Self::Text(text),
            Written::Object(object) => Self::Object(Box::new(object)),
        })
    }
}

#[derive(Default, Deserialize)]
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
    #[serde(default, deserialize_with = "super::peers::trusted")]
    pub(super) trusted_peers: Vec<Trusted>,
    pub(super) proxy_protocol: Option<ProxyProtocol>,
    pub(super) forwarded: Option<Forwarded>,
    #[serde(default, deserialize_with = "super::front::redirect")]
    pub(super) redirect: Option<Redirect>,
    #[serde(default, deserialize_with = "super::values::directory")]
    pub(super) acme_challenges: Option<PathBuf>,
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
        RawListen::Object(Box::new(RawListenObject {
            address,
            name: Some(name),
            backlog,
            mode,
            owner,
            group,
            freebind,
            ..RawListenObject::default()
        }))
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

/// Has redirects go to the first listener with TLS, unless they name a port.
pub(super) fn aim_redirects(all: &mut [Listen]) {
    let mut ports = all.iter().filter(|listen| listen.tls.is_some()).filter_map(|listen| listen.address.port());
    let port = ports.find(|port| *port != 0).unwrap_or(443);
    for redirect in all.iter_mut().filter_map(|listen| listen.front.redirect.as_mut()) {
        redirect.port.get_or_insert(port);
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
    fn new(name: String, address: Address) -> Self {
        let family = match address {
            Address::Everywhere(_) => Family::Both,
            _ => Family::System,
        };
        Self {
            name,
            address,
            backlog: BACKLOG,
            rights: Rights::NONE,
            family,
            freebind: false,
            tls: None,
            peers: Peers::default(),
            front: Front::default(),
        }
    }
}

impl RawListen {
    pub(super) fn parse(&self, directory: &Path) -> Result<Listen, String> {
        match self {
            Self::Port(port) => Ok(Listen::new(port.to_string(), Address::Everywhere(*port))),
            Self::Text(address) => Ok(Listen::new(address.clone(), address::parse(address, directory)?)),
            Self::Object(object) => {
                let address = address::parse(&object.address, directory)?;
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
                let peers = Peers {
                    trusted: object.trusted_peers.clone(),
                    proxy_protocol: object.proxy_protocol,
                    forwarded: object.forwarded,
                };
                peers.check()?;
                if object.redirect.is_some() && tls.is_some() {
                    return Err("\"redirect\" is for listeners without \"tls\"".to_owned());
                }
                let front = Front {
                    redirect: object.redirect,
                    acme_challenges: object.acme_challenges.as_ref().map(|path| directory.join(path)),
                    hsts: tls.as_ref().and_then(|tls| tls.hsts.as_ref()).map(Hsts::value),
                };
                Ok(Listen { backlog, rights, freebind, tls, peers, front, ..Listen::new(name, address) })
            }
        }
    }
}
