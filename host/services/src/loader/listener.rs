//! The listeners that the app serves itself: handed out by name, once each.
//!
//! Owns what of them was taken and what couldn't be, so that a start which failed for it can say so.
//! The app gets duplicates; what is kept here is for the worker's control thread, which shuts the
//! sockets down when the service stops. What the app speaks on them is its own business.

use super::services::info;
use abi_stable::{
    prefix_type::WithMetadata,
    std_types::{RErr, ROk, RResult, RStr},
};
use app_abi::abi::{FfiFault, FfiListener, ListenerService};
use app_host_core::error::chain;
use app_host_core::message::Origin;
use socket2::SockRef;
use std::{
    io,
    net::Shutdown,
    os::fd::{AsFd, IntoRawFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub(super) const TABLE: &WithMetadata<ListenerService> = &WithMetadata::new(ListenerService { take });

/// One listener as the master handed it over.
#[derive(Debug)]
pub struct AppListener {
    pub name: String,
    pub unix: bool,
    pub origin: Origin,
    pub socket: OwnedFd,
}

/// Why a listener isn't handed to the app.
#[derive(Debug, thiserror::Error)]
enum TakeError {
    #[error("there is no listener \"{name}\" in app_listeners, which has {}", in_words(.known))]
    Unknown { name: String, known: Vec<String> },
    #[error("listener \"{0}\" was taken before")]
    Taken(String),
    #[error("listener \"{0}\" can't be taken: the descriptor is no listening socket")]
    NotListening(String),
    #[error("listener \"{name}\" can't be taken: {}", chain(source))]
    Socket { name: String, source: io::Error },
    #[error("listener \"{0}\" is closed already: the worker drains")]
    Closed(String),
}

fn in_words(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { format!("\"{}\"", names.join("\", \"")) }
}

/// All listeners of the app's in this worker. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AppListeners(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    listeners: Vec<Entry>,
    /// The first that the app asked for in vain.
    refused: Option<String>,
}

#[derive(Debug)]
struct Entry {
    name: String,
    unix: bool,
    origin: Origin,
    /// Until the worker closes it.
    socket: Option<OwnedFd>,
    taken: bool,
}

impl AppListeners {
    /// What came with the setup.
    #[must_use]
    pub fn new(listeners: Vec<AppListener>) -> Self {
        let entry = |AppListener { name, unix, origin, socket }| Entry {
            name,
            unix,
            origin,
            socket: Some(socket),
            taken: false,
        };
        let listeners = listeners.into_iter().map(entry).collect();
        Self(Arc::new(Mutex::new(State { listeners, refused: None })))
    }

    /// Whoever holds the lock holds it for a system call or two, none of which waits.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first listener that the app asked for in vain, and why it wasn't given.
    #[must_use]
    pub fn refused(&self) -> Option<String> {
        self.lock().refused.clone()
    }

    /// The names of those that the app hasn't asked for.
    #[must_use]
    pub fn untaken(&self) -> Vec<String> {
        self.lock().listeners.iter().filter(|entry| !entry.taken).map(|entry| entry.name.clone()).collect()
    }

    /// Refuses new clients at once, whoever else holds the sockets open, the app included
    /// (`shutdown(2)` acts on the socket, not on the descriptor); gives what went wrong. Those that were
    /// passed to the master are only closed here.
    #[must_use]
    pub fn shut_down(&self) -> Vec<(String, io::Error)> {
        let mut failed = Vec::new();
        for entry in &mut self.lock().listeners {
            if let Some(socket) = entry.socket.take()
                && entry.origin == Origin::Bound
                && let Err(error) = SockRef::from(&socket).shutdown(Shutdown::Both)
                // Another worker may have been faster.
                && error.kind() != io::ErrorKind::NotConnected
            {
                failed.push((entry.name.clone(), error));
            }
        }
        failed
    }

    /// Lets go of the sockets, which others go on serving; the app's duplicates are its own.
    pub fn close(&self) {
        for entry in &mut self.lock().listeners {
            entry.socket = None;
        }
    }

    fn take(&self, name: &str) -> Result<FfiListener, TakeError> {
        let mut state = self.lock();
        let outcome = state.take(name);
        if let Err(error) = &outcome {
            state.refused.get_or_insert_with(|| error.to_string());
        }
        outcome
    }
}

impl State {
    fn take(&mut self, name: &str) -> Result<FfiListener, TakeError> {
        let Some(entry) = self.listeners.iter_mut().find(|entry| entry.name == name) else {
            let known = self.listeners.iter().map(|entry| entry.name.clone()).collect();
            return Err(TakeError::Unknown { name: name.to_owned(), known });
        };
        let name = || name.to_owned();
        if entry.taken {
            return Err(TakeError::Taken(name()));
        }
        let socket = entry.socket.as_ref().ok_or_else(|| TakeError::Closed(name()))?;
        if !SockRef::from(socket).is_listener().unwrap_or(false) {
            return Err(TakeError::NotListening(name()));
        }
        let failed = |source| TakeError::Socket { name: name(), source };
        let duplicate = socket.as_fd().try_clone_to_owned().map_err(failed)?;
        entry.taken = true;
        Ok(FfiListener { descriptor: duplicate.into_raw_fd(), kind: if entry.unix { 2 } else { 1 } })
    }
}

unsafe extern "C" fn take(data: *const (), name: RStr<'_>) -> RResult<FfiListener, FfiFault> {
    // SAFETY: the app passes what it was handed at its start.
    let info = unsafe { info(data) };
    match info.listeners.take(name.as_str()) {
        Ok(listener) => ROk(listener),
        Err(error) => {
            let code = match error {
                TakeError::Unknown { .. } => 1,
                TakeError::Taken(_) => 2,
                TakeError::NotListening(_) | TakeError::Socket { .. } | TakeError::Closed(_) => 4,
            };
            RErr(FfiFault { code, text: error.to_string().into() })
        }
    }
}
