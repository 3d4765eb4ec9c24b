//! Whether a listener still lets clients in, and how one is repaired that somebody has harmed.
//!
//! A listening socket is one for all processes that have it: `shutdown(2)` in any of them, a worker's app for
//! instance, closes it for all, and clients are refused from then on; by its options it can turn them away silently;
//! and the file of a Unix socket can be removed. Nobody is told; so it is asked.
//!
//! A TCP socket can be made to listen again, in its place: every process that has it can accept again. Where it
//! was bound to port 0 the shutdown has given its port away, and it is bound to the same one first. A Unix socket
//! stays shut down for ever. What can't be repaired is replaced by another.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use rustix::net::connect_unspec;

use app_host_core::config::Listen;
use app_host_core::error::chain;
use app_host_core::message::{Origin, Server};
use app_host_platform::sys::socket::is_open;

use super::options::Options;
use super::{AdminListener, BindError, Bound, Configured, Listeners};

/// A listener that isn't any more what the master has made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    pub name: String,
    pub address: String,
    pub harm: Harm,
    pub remedy: Remedy,
}

/// What somebody has done to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Harm {
    /// It was shut down, or listens elsewhere.
    ShutDown,
    /// The path of a Unix socket doesn't lead to it.
    FileGone,
    /// These options aren't what they were.
    Changed(Vec<&'static str>),
}

/// What helps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// It is as it was, and whoever accepts on it notices.
    Revived,
    /// Workers that are spawned from now on can accept on it, or on another in its place.
    NewWorkers,
    /// A service manager must bind it anew.
    Manager,
    /// Another can't be bound in its place for this reason; it is tried again at the next look.
    NextLook(String),
}

impl Bound {
    /// Whether it listens where it was bound; so it is taken where the kernel can't say.
    pub(super) fn is_open(&self) -> bool {
        is_open(&*self.socket) && self.is_at(self.local)
    }

    fn is_at(&self, address: Option<SocketAddr>) -> bool {
        address.is_none() || !self.socket.local_addr().is_ok_and(|found| found.as_socket() != address)
    }

    /// What is wrong with it. The options of an app's own listener are the app's to set.
    fn harm(&self, server: Server) -> Option<Harm> {
        if !self.is_open() {
            return Some(Harm::ShutDown);
        }
        if self.file.as_ref().is_some_and(|file| !file.is_in_place()) {
            return Some(Harm::FileGone);
        }
        let options = self.options.borrow();
        let before = options.as_ref().filter(|_| server == Server::Worker)?;
        let changed = before.changed(&Options::of(&self.socket));
        (!changed.is_empty()).then_some(Harm::Changed(changed))
    }

    /// Has it as it was, if that can be.
    fn repair(&self, listen: &Listen, server: Server) -> bool {
        if !self.is_open() && self.revive(super::backlog(listen)).is_err() {
            return false;
        }
        if let Some(options) = &*self.options.borrow()
            && server == Server::Worker
        {
            options.restore(&self.socket);
        }
        self.harm(server).is_none()
    }

    /// This one, if it is as it was or can be made so; another in its place, where that can be.
    pub(super) fn or_healed(self: Rc<Self>, listen: &Listen, server: Server) -> Result<Rc<Self>, BindError> {
        if self.harm(server).is_none() || self.repair(listen, server) { Ok(self) } else { self.again(listen) }
    }

    /// As [`or_healed`](Self::or_healed); but this one as it is, where it listens and can't be made anew: something else
    /// lies in the place of its file, or somebody has its options locked. Else whoever has harmed it could have every
    /// restart refused, also the one that brings his end.
    pub(super) fn or_healed_or_hidden(self: Rc<Self>, listen: &Listen, server: Server) -> Result<Rc<Self>, BindError> {
        let listens = matches!(self.harm(server), Some(Harm::FileGone | Harm::Changed(_)));
        match Rc::clone(&self).or_healed(listen, server) {
            Err(error) if listens => {
                let (address, error) = (&self.address, chain(&error));
                tracing::warn!(listener = listen.name, %address, error, "a listener stays as it is, harmed");
                Ok(self)
            }
            other => other,
        }
    }

    /// Has a TCP socket listen again.
    fn revive(&self, backlog: i32) -> io::Result<()> {
        let Some(address) = self.local else { return Err(io::ErrorKind::Unsupported.into()) };
        let act = || {
            // Only the first shutdown closes it; another one marks the closed socket as shut down in both directions,
            // and every connection that it accepts later would inherit that and end at once. Disconnecting takes the
            // mark away (`inet_shutdown` in net/ipv4/af_inet.c, `tcp_disconnect` in net/ipv4/tcp.c; Linux 6.18).
            connect_unspec(&*self.socket)?;
            // Fails where the port was kept, as it should be.
            let _ = self.socket.bind(&address.into());
            self.socket.listen(backlog)
        };
        self.guard.as_ref().map_or_else(act, |guard| guard.admits(&self.socket, act))?;
        if self.is_open() { Ok(()) } else { Err(io::ErrorKind::NotConnected.into()) }
    }
}

impl Configured {
    fn harm(&self) -> Option<Harm> {
        self.bound.harm(self.server)
    }

    /// Makes sure that it is as it was or can be replaced; says so, where that isn't a matter of course.
    fn heal(&self) -> Option<Damage> {
        let harm = self.harm()?;
        let repaired = self.bound.repair(&self.listen, self.server);
        let remedy = match (repaired, self.server, self.bound.origin) {
            (true, Server::Worker, _) => Remedy::Revived,
            // An app's own loop may have ended.
            (true, Server::App, _) | (false, _, Origin::Bound) => Remedy::NewWorkers,
            (false, _, Origin::Passed) => Remedy::Manager,
        };
        let (name, address) = (self.listen.name.clone(), self.bound.local_address());
        Some(Damage { name, address, harm, remedy })
    }
}

impl Listeners {
    /// The names of those that turn clients away.
    pub fn harmed(&self) -> impl Iterator<Item = &str> {
        self.configured.iter().filter(|it| it.harm().is_some()).map(|it| it.listen.name.as_str())
    }

    /// The same, with others in the place of those that can't be repaired.
    ///
    /// # Errors
    /// When another can't be bound.
    pub fn healed(&self) -> Result<Self, BindError> {
        let healed = |it: &Configured| {
            Ok(Configured { bound: Rc::clone(&it.bound).or_healed(&it.listen, it.server)?, ..it.clone() })
        };
        Ok(Self { configured: self.configured.iter().map(healed).collect::<Result<_, _>>()?, ..self.clone() })
    }

    /// Repairs whatever can be repaired where it is; says what was harmed.
    pub fn heal(&self) -> Vec<Damage> {
        self.configured.iter().filter_map(Configured::heal).collect()
    }
}

impl AdminListener {
    /// One that is as the master has made it, where this one isn't any more and that can be; whoever serves on it
    /// must be given it anew.
    pub fn heal(&self) -> Option<(Damage, Option<Self>)> {
        let harm = self.bound.harm(Server::Worker)?;
        let (remedy, healed) = match self.bound.clone().or_healed(&self.listen, Server::Worker) {
            Ok(bound) => (Remedy::Revived, Some(Self { bound, ..self.clone() })),
            Err(error) => (Remedy::NextLook(chain(&error)), None),
        };
        Some((Damage { name: "admin".to_owned(), address: self.local_address(), harm, remedy }, healed))
    }

    /// Whether it is as the master has made it.
    pub fn is_whole(&self) -> bool {
        self.bound.harm(Server::Worker).is_none()
    }
}

#[cfg(test)]
mod tests;
