//! The service `listener` of the ABI: the listeners that the app serves itself, taken by name, once each.
//!
//! Owns which of them were taken and which could not be, so that a start that failed for it can report it. The app gets
//! duplicates; the originals are for the worker's control thread, which shuts the sockets down when the service stops.
//! Which protocol the app speaks on them is up to the app.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, IntoRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use abi_stable::prefix_type::WithMetadata;
use abi_stable::std_types::{RErr, ROk, RResult, RStr};
use app_abi::abi::{FfiFault, FfiListener, ListenerService};
use socket2::SockRef;

use app_host_core::error::chain;
use app_host_core::message::Origin;

use super::services::info;

pub(super) const TABLE: &WithMetadata<ListenerService> = &WithMetadata::new(ListenerService { take });

/// A listener that the master has sent for the app.
#[derive(Debug)]
pub struct AppListener {
    pub name: String,
    pub unix: bool,
    pub origin: Origin,
    pub socket: OwnedFd,
}

/// Why the app doesn't get a listener.
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
    /// Why the first listener was refused that the app asked for and didn't get.
    refused: Option<String>,
}

#[derive(Debug)]
struct Entry {
    name: String,
    unix: bool,
    origin: Origin,
    /// `None` once the worker has closed it.
    socket: Option<OwnedFd>,
    taken: bool,
}

impl AppListeners {
    /// The listeners that came with the setup.
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

    /// The lock is held for a system call or two, none of which waits.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the first listener was refused that the app asked for and didn't get.
    #[must_use]
    pub fn refused(&self) -> Option<String> {
        self.lock().refused.clone()
    }

    /// The names of the listeners that the app hasn't taken.
    #[must_use]
    pub fn untaken(&self) -> Vec<String> {
        self.lock().listeners.iter().filter(|entry| !entry.taken).map(|entry| entry.name.clone()).collect()
    }

    /// Refuses new clients at once, although the app and other processes may hold the sockets open: `shutdown(2)` acts on
    /// the socket, not on the descriptor. Returns what went wrong. Sockets that were passed to the master are only closed.
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

    /// Closes the sockets, which other workers go on serving. The app's duplicates stay open.
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
    // SAFETY: the app passes the `data` that it got at its start.
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
