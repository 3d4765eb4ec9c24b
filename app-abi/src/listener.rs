//! Listeners of the app's own: named in the configuration, bound by the master, served by the app.
//!
//! Owns [`Host::listener`] and its types. What is spoken on such a listener is the app's business
//! alone.
#![expect(unsafe_code, reason = "calls into the table of the host, and a descriptor that comes as a number")]

use crate::Host;
use crate::abi::{FfiFault, FfiListener};
use abi_stable::std_types::{RErr, ROk, RStr};
use std::{
    net::TcpListener,
    os::{
        fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::net::UnixListener,
    },
};

/// A listener of the app's own. Dropping it stops nothing but this worker's accepting.
#[derive(Debug)]
pub enum AppListener {
    /// Its address is `IP:PORT`.
    Tcp(TcpListener),
    /// Its address is `unix:PATH`.
    Unix(UnixListener),
}

/// Why a listener can't be had. If the app's start fails after any of these, the restart ends as
/// `failed: cannot listen`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListenerError {
    /// `app_listeners` has none of this name; the text has those that there are.
    #[error("{0}")]
    Unknown(String),
    /// This worker has asked for it before.
    #[error("{0}")]
    Taken(String),
    /// The socket can't be used, or the process has no descriptor left for it.
    #[error("{0}")]
    Unusable(String),
}

impl Host {
    /// The listener that the configuration names so under `app_listeners`: the master has bound it and
    /// keeps it open over restarts. Take it in [`App::start`](crate::App::start), once a worker, and
    /// serve on it what you like.
    ///
    /// - All workers share the socket, those of both generations during a restart: each connection goes
    ///   to one that accepts. So say the same protocol in both, or raise the epoch.
    /// - It is **not blocking** and must stay so, because that belongs to the socket which all share: hand
    ///   it to `tokio::net::TcpListener::from_std`, or wait for it with poll(2). A connection may wait and
    ///   be gone when you accept: another worker was faster.
    /// - When the worker drains ([`Host::draining`]), drop it and finish what is in flight; connections that
    ///   wait are the others' then. Whatever is still open when the drain has ended for HTTP and
    ///   [`App::stop`](crate::App::stop) has returned is cut by the end of the process: wait for it in
    ///   there.
    /// - When the whole service stops, and when the master dies, the host shuts the socket down: accepting
    ///   fails with `InvalidInput`, and new clients are refused, at once and in all workers. The last
    ///   clients that waited are reset.
    ///
    /// ```
    /// use app_abi::{AppListener, Host, StartError};
    ///
    /// fn take(host: &Host) -> Result<std::net::TcpListener, StartError> {
    ///     match host.listener("smtp")? {
    ///         AppListener::Tcp(listener) => Ok(listener),
    ///         AppListener::Unix(_) => Err(StartError::new("smtp must have the address of an IP")),
    ///     }
    /// }
    /// ```
    pub fn listener(&self, name: &str) -> Result<AppListener, ListenerError> {
        // SAFETY: `data` came together with the table, and the name is only lent for the call.
        match unsafe { (self.listeners.take())(self.ffi.data, RStr::from_str(name)) } {
            ROk(FfiListener { descriptor, kind }) => {
                // SAFETY: the host has made this descriptor for us and knows it no more.
                let socket = unsafe { OwnedFd::from_raw_fd(descriptor) };
                match kind {
                    1 => Ok(AppListener::Tcp(socket.into())),
                    2 => Ok(AppListener::Unix(socket.into())),
                    _ => Err(ListenerError::Unusable(format!("listener \"{name}\" is of a kind from a later host"))),
                }
            }
            RErr(FfiFault { code, text }) => Err(match code {
                1 => ListenerError::Unknown(text.into()),
                2 => ListenerError::Taken(text.into()),
                // 4, and whatever a later host may add.
                _ => ListenerError::Unusable(text.into()),
            }),
        }
    }
}

impl AsFd for AppListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}
