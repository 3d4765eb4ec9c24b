//! The keys `listen` and `app_listeners`: where to listen, and the bounds of it.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

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
    /// The permissions of a Unix socket; the umask decides when absent.
    pub mode: Option<u32>,
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "expected \"IP:PORT\", \"unix:PATH\" or an object with the keys address, name, backlog, mode"
)]
pub(super) enum RawListen {
    Text(String),
    Object(RawListenObject),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawListenObject {
    pub(super) address: String,
    pub(super) name: Option<String>,
    pub(super) backlog: Option<u32>,
    pub(super) mode: Option<String>,
}

/// The app finds a listener by its name, so each must have one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with the keys name, address, backlog, mode")]
pub(super) struct RawAppListener {
    name: String,
    address: String,
    backlog: Option<u32>,
    mode: Option<String>,
}

/// Checks the app's listeners, as far as it goes without those of `listen`.
pub(super) fn app_listeners<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<RawListen>, D::Error> {
    let raw = Vec::<RawAppListener>::deserialize(deserializer)?;
    if raw.len() > MAX_APP_LISTENERS {
        let most = format!("at most {MAX_APP_LISTENERS} listeners of the app's");
        return Err(D::Error::invalid_length(raw.len(), &most.as_str()));
    }
    let raw = raw.into_iter().map(|RawAppListener { name, address, backlog, mode }| {
        RawListen::Object(RawListenObject { address, name: Some(name), backlog, mode })
    });
    let raw: Vec<_> = raw.collect();
    for listen in &raw {
        listen.parse(Path::new("/")).map_err(D::Error::custom)?;
    }
    Ok(raw)
}

/// The first of the app's listeners whose name or address another has already, and what is wrong.
pub(super) fn clash(listen: &[Listen], app: &[Listen]) -> Option<(usize, String)> {
    let mut earlier: Vec<(&Listen, &str)> = listen.iter().map(|each| (each, "listen")).collect();
    for (index, each) in app.iter().enumerate() {
        for (other, key) in &earlier {
            if other.address == each.address {
                return Some((index, format!("the address {} is in \"{key}\" already", each.address)));
            }
            if other.name == each.name {
                return Some((index, format!("the name \"{}\" is in \"{key}\" already", each.name)));
            }
        }
        earlier.push((each, "app_listeners"));
    }
    None
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
    for (index, listen) in parsed.iter().enumerate() {
        for earlier in &parsed[..index] {
            if earlier.address == listen.address {
                return Err(D::Error::custom(format_args!("listener {} is there twice", listen.address)));
            }
            if earlier.name == listen.name {
                return Err(D::Error::custom(format_args!("two listeners are named \"{}\"", listen.name)));
            }
        }
    }
    Ok(raw)
}

impl RawListen {
    pub(super) fn parse(&self, directory: &Path) -> Result<Listen, String> {
        match self {
            Self::Text(address) => Ok(Listen {
                name: address.clone(),
                address: parse_address(address, directory)?,
                backlog: BACKLOG,
                mode: None,
            }),
            Self::Object(object) => {
                let address = parse_address(&object.address, directory)?;
                let mode = match (&object.mode, &address) {
                    (None, _) => None,
                    (Some(mode), Address::Unix(_)) => Some(parse_mode(mode)?),
                    (Some(_), Address::Tcp(address)) => {
                        return Err(format!("\"mode\" is for Unix sockets, and {address} is none"));
                    }
                };
                let backlog = object.backlog.unwrap_or(BACKLOG);
                if !(1..=65_535).contains(&backlog) {
                    return Err(format!("\"backlog\" is {backlog}, expected a number from 1 to 65535"));
                }
                let name = object.name.clone().unwrap_or_else(|| object.address.clone());
                if name.is_empty() || name.len() > 255 {
                    return Err("a listener's \"name\" must have from 1 to 255 bytes".to_owned());
                }
                Ok(Listen { name, address, backlog, mode })
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
    text.parse().map(Address::Tcp).map_err(|_| format!("listener \"{text}\" is neither \"IP:PORT\" nor \"unix:PATH\""))
}

fn parse_mode(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| format!("\"mode\" is \"{text}\", expected octal digits up to \"777\""))
}
