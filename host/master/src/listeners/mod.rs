//! The listening sockets: bound by the master, kept open for as long as they are configured.
//!
//! Owns the sockets. A generation holds a share in each of its
//! listeners, so a socket closes with the last generation that names it; those that a service manager has
//! passed on stay open. Who accepts is not its business.

mod bind;
mod bound;
mod health;
mod loopback;
mod options;
mod passed;
mod port_guard;

use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use socket2::{Socket, TcpKeepalive};

use app_host_core::config::{Address, Config, Listen};
use app_host_core::message::{ListenerInfo, Origin, Server};
use app_host_platform::identity::IdentityError;
pub use bound::Bound;
pub use health::{Damage, Harm, Remedy};
pub use loopback::Loopback;
pub use passed::Passed;

/// After how long a silent client is asked whether it is there, and how often.
const KEEPALIVE: Duration = Duration::from_mins(1);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// How long what was sent may stay unacknowledged.
const UNACKNOWLEDGED: Duration = Duration::from_mins(2);

/// A listener that can't be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("{address} can't be bound")]
    Bind { address: Address, source: io::Error },
    #[error(
        "{address} can't be bound: its port is taken; hint: ss -ltnp 'sport = :{port}' shows by whom, or change the address \
         in the configuration"
    )]
    Taken { address: Address, port: u16, source: io::Error },
    #[error(
        "{address} can't be bound: a port below 1024 needs CAP_NET_BIND_SERVICE, or a socket unit that passes the listener"
    )]
    NotAllowed { address: Address, source: io::Error },
    #[error(
        "{address} can't be bound: this machine doesn't have the address, or not yet; \"freebind\": true binds it all the \
         same"
    )]
    NotThere { address: Address, source: io::Error },
    #[error(
        "listener \"{name}\": \"freebind\" is for sockets that the master binds, and this one was passed; say FreeBind=yes \
         in its socket unit instead"
    )]
    FreebindOfPassed { name: String },
    #[error("unix:{} is in use: a process accepts connections on it", path.display())]
    Live { path: PathBuf },
    #[error("unix:{} can't be replaced: something that is no socket lies there", path.display())]
    NoSocket { path: PathBuf },
    #[error("{address} can't be bound: another listener of the configuration has the same file, by another path")]
    Twice { address: Address },
    #[error("{address} can't be bound with its owner and group")]
    Owner { address: Address, source: IdentityError },
    #[error("localhost can't be resolved")]
    Localhost(#[source] io::Error),
    #[error(
        "{address} can't be bound: {other} has the port for both families or all addresses, and is one socket; stop the \
         master and start it again"
    )]
    Overlaps { address: Address, other: Address },
    #[error(
        "{address} can't be bound: its port is taken by {other}, which is configured as well or still open; either one \
         listener has all addresses of a port, or each has its own"
    )]
    OurOwn { address: Address, other: Address, source: io::Error },
    #[error(
        "{address} can't be kept: whether it takes IPv4 as well depends on whether another listener has its port there, \
         and can't change while it is open; stop the master and start it again"
    )]
    Family { address: Address },
    #[error("{address} was shut down, and only who has passed it can bind it anew: restart its socket unit")]
    ShutDown { address: Address },
}

impl BindError {
    /// Says why an address can't be bound: which of these, of listeners of our own, keeps it from being bound, if one of
    /// them does, or what to do about it.
    #[must_use]
    pub fn explained<'a>(self, mut ours: impl Iterator<Item = &'a Address>) -> Self {
        match self {
            Self::Bind { address, source } if source.kind() == io::ErrorKind::AddrInUse => {
                match (ours.find(|other| **other != address && other.may_keep_out(&address)), address.port()) {
                    (Some(other), _) => Self::OurOwn { address, other: other.clone(), source },
                    (None, Some(port)) => Self::Taken { address, port, source },
                    (None, None) => Self::Bind { address, source },
                }
            }
            Self::Bind { address, source }
                if source.kind() == io::ErrorKind::PermissionDenied && address.port().is_some() =>
            {
                Self::NotAllowed { address, source }
            }
            error => error,
        }
    }

    /// Whether the address is merely taken at the moment.
    pub fn is_in_use(&self) -> bool {
        match self {
            Self::Bind { source, .. } => source.kind() == io::ErrorKind::AddrInUse,
            Self::Live { .. } | Self::Taken { .. } => true,
            Self::NotAllowed { .. }
            | Self::NotThere { .. }
            | Self::FreebindOfPassed { .. }
            | Self::NoSocket { .. }
            | Self::Twice { .. }
            | Self::Owner { .. }
            | Self::Localhost(_)
            | Self::Overlaps { .. }
            | Self::OurOwn { .. }
            | Self::Family { .. }
            | Self::ShutDown { .. } => false,
        }
    }
}

/// Has a client that has vanished noticed, while nothing is sent and while what was sent isn't
/// acknowledged (`tcp(7)`). Accepted sockets inherit both.
fn watch_clients(socket: &Socket) -> io::Result<()> {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE_INTERVAL).with_retries(4);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))
}

fn backlog(listen: &Listen) -> i32 {
    i32::try_from(listen.backlog).unwrap_or(i32::MAX)
}

/// The listeners of one generation, in the order of its configuration: those for HTTP, then the app's.
#[derive(Clone, Debug, Default)]
pub struct Listeners {
    configured: Vec<Configured>,
    passed: Passed,
}

/// A listener with the settings that one generation has for it.
#[derive(Clone, Debug)]
struct Configured {
    listen: Listen,
    server: Server,
    bound: Rc<Bound>,
}

impl Listeners {
    /// No listeners yet, but the sockets that were passed to us.
    pub fn with_passed(passed: Passed) -> Self {
        Self { configured: Vec::new(), passed }
    }

    /// The listeners that `config` names: those that were passed to us, shared with `running` where it has
    /// them already, bound where they are new. A listener may have more than one socket.
    ///
    /// # Errors
    /// When one that is new can't be bound; those bound before it are closed again.
    pub fn bind(config: &Config, running: &Self, loopback: &Loopback) -> Result<Self, BindError> {
        let http = config.listen.iter().map(|listen| (listen, Server::Worker));
        let configured = http
            .chain(config.app_listeners.iter().map(|listen| (listen, Server::App)))
            .map(|(listen, server)| {
                let mut known = running.passed.of(listen, config);
                if listen.freebind && !known.is_empty() {
                    return Err(BindError::FreebindOfPassed { name: listen.name.clone() });
                }
                if known.is_empty() {
                    known = running.find(listen)?;
                }
                let bound = if known.is_empty() {
                    Bound::all(listen, loopback, running)?
                } else {
                    // What somebody has harmed is no use to new workers.
                    known
                        .into_iter()
                        .map(|bound| bound.or_healed_or_hidden(listen, server))
                        .collect::<Result<_, _>>()?
                };
                Ok(bound.into_iter().map(move |bound| Configured { listen: listen.clone(), server, bound }))
            })
            .collect::<Result<Vec<_>, _>>()?
            .into_iter()
            .flatten()
            .collect();
        let listeners = Self { configured, passed: running.passed.clone() };
        let new = listeners.without(running).configured;
        // The second of two that are one has replaced what it took for the file of a dead process.
        if let Some(lost) = new.iter().find(|it| it.bound.file.as_ref().is_some_and(|file| !file.is_in_place())) {
            return Err(BindError::Twice { address: lost.bound.address.clone() });
        }
        // Only now: a client must not be taken in by one listener and reset because of the next.
        for Configured { listen, bound, .. } in &new {
            if bound.origin == Origin::Bound {
                bound.listen(listen)?;
            }
        }
        Ok(listeners)
    }

    /// Applies the settings that a listener can take over while it is open.
    pub fn apply_settings(&self) {
        let ours = self.configured.iter().filter(|configured| configured.bound.origin == Origin::Bound);
        for Configured { listen, bound, .. } in ours {
            bound.apply_settings(listen);
        }
    }

    /// What workers are told of them.
    pub fn infos(&self) -> Vec<ListenerInfo> {
        self.configured
            .iter()
            .map(|Configured { listen, server, bound }| ListenerInfo {
                name: listen.name.clone(),
                unix: matches!(bound.address, Address::Unix(_)),
                server: *server,
                origin: bound.origin,
                tls: None,
                peers: listen.peers.clone(),
                front: listen.front.clone(),
            })
            .collect()
    }

    /// Their sockets, in the same order.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.configured.iter().map(|configured| configured.bound.as_fd())
    }

    /// Their names and real addresses, in the same order.
    pub fn addresses(&self) -> impl Iterator<Item = (&str, String)> {
        self.configured.iter().map(|Configured { listen, bound, .. }| (listen.name.as_str(), bound.local_address()))
    }

    /// Those of ours that `other` lacks.
    pub fn without(&self, other: &Self) -> Self {
        let is_new = |ours: &&Configured| !other.configured.iter().any(|each| Rc::ptr_eq(&each.bound, &ours.bound));
        Self { configured: self.configured.iter().filter(is_new).cloned().collect(), passed: self.passed.clone() }
    }

    /// The sockets that were passed to us and are for no listener of `config`, in words: clients wait there
    /// in vain.
    pub fn left_over(&self, config: &Config) -> Vec<String> {
        self.passed.left_over(config)
    }

    /// Those that we have bound for a listener.
    fn find(&self, listen: &Listen) -> Result<Vec<Rc<Bound>>, BindError> {
        let bound = self.configured.iter().map(|configured| &configured.bound);
        let found = bound.filter(|bound| bound.origin == Origin::Bound && bound.address == listen.address);
        let fits = |bound: &Rc<Bound>| {
            // The kernel doesn't change it once a socket is bound.
            let fits = bound.family == listen.family;
            if fits { Ok(Rc::clone(bound)) } else { Err(BindError::Family { address: listen.address.clone() }) }
        };
        found.map(fits).collect()
    }

    /// Whether a listener with this address is bound already.
    fn has(&self, address: &Address) -> bool {
        self.configured.iter().any(|configured| configured.bound.address == *address)
    }

    #[cfg(test)]
    pub fn for_config(config: &Config, running: &Self) -> Result<Self, BindError> {
        Self::bind(config, running, &Loopback::both())
    }
}

/// The listener of metrics and page, which no worker gets.
#[derive(Clone, Debug)]
pub struct AdminListener {
    listen: Listen,
    bound: Rc<Bound>,
}

impl AdminListener {
    /// The listener that `config` names, if it does: shared with `running` where it has that already, bound
    /// where it is new.
    ///
    /// # Errors
    /// When one that is new can't be bound.
    pub fn for_config(config: &Config, running: Option<&Self>) -> Result<Option<Self>, BindError> {
        let Some(listen) = &config.admin else { return Ok(None) };
        let bound = match running {
            Some(running) if running.listen.address == listen.address && running.bound.family == listen.family => {
                Rc::clone(&running.bound)
            }
            _ => {
                let bound = Bound::one(listen)?;
                bound.listen(listen)?;
                Rc::new(bound)
            }
        };
        Ok(Some(Self { listen: listen.clone(), bound }))
    }

    /// Applies the settings that a listener can take over while it is open.
    pub fn apply_settings(&self) {
        self.bound.apply_settings(&self.listen);
    }

    /// Whether the socket is the same.
    pub fn is(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.bound, &other.bound)
    }

    /// Where it listens.
    pub const fn address(&self) -> &Address {
        &self.listen.address
    }

    /// The address as the kernel knows it.
    pub fn local_address(&self) -> String {
        self.bound.local_address()
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.bound.as_fd()
    }
}

#[cfg(test)]
mod tests;
