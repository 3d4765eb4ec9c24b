//! One socket that is bound, shared by the generations that have it.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use socket2::Socket;

use app_host_core::config::{Address, Family, Listen};
use app_host_core::error::chain;
use app_host_core::message::Origin;
use app_host_platform::socket_file::SocketFile;

use super::options::Options;
use super::port_guard::PortGuard;
use super::{BindError, backlog, bind};

/// One bound, listening socket.
#[derive(Debug)]
pub struct Bound {
    /// As it is configured, or as it was passed.
    pub(super) address: Address,
    pub(super) family: Family,
    pub(super) socket: SharedSocket,
    /// The address as the kernel knows it, of a TCP socket.
    pub(super) local: Option<SocketAddr>,
    pub(super) file: Option<SocketFile>,
    pub(super) origin: Origin,
    /// Of a TCP socket that we have bound.
    pub(super) guard: Option<Rc<PortGuard>>,
    /// Those that it was given, since it listens.
    pub(super) options: RefCell<Option<Options>>,
}

impl Bound {
    /// Binds another in the place of this one, which is harmed for good, and listens.
    ///
    /// # Errors
    /// When that can't be, or when this one is somebody else's.
    pub(super) fn again(&self, listen: &Listen) -> Result<Rc<Self>, BindError> {
        if self.origin == Origin::Passed {
            return Err(BindError::ShutDown { address: self.address.clone() });
        }
        // The port that was found where any was wanted.
        let bound = if let (Some(guard), Some(address)) = (&self.guard, self.local) {
            // Two can't listen on one port, so this one has to stop; a process that has it may have had it insist
            // on its port.
            let _ = self.socket.shutdown(std::net::Shutdown::Both);
            let _ = self.socket.set_reuse_address(true);
            let bound = bind::tcp_socket(listen, address, self.family).and_then(|socket| {
                guard.admits(&socket, || socket.bind(&address.into()))?;
                Self::of_tcp(listen, socket, Rc::clone(guard))
            });
            bound.map_err(|source| self.failed(source))?
        } else {
            // Clients that wait in it are still served; its name is for the new one, which ours would keep it from.
            if let Some(file) = &self.file {
                file.give_up_name();
            }
            Self::one(listen)?
        };
        bound.listen(listen)?;
        Ok(Rc::new(bound))
    }

    pub(super) fn failed(&self, source: io::Error) -> BindError {
        BindError::Bind { address: self.address.clone(), source }
    }

    pub(super) fn listen(&self, listen: &Listen) -> Result<(), BindError> {
        let act = || self.socket.listen(backlog(listen));
        let done = self.guard.as_ref().map_or_else(act, |guard| guard.admits(&self.socket, act));
        done.map_err(|source| self.failed(source))?;
        *self.options.borrow_mut() = Some(Options::of(&self.socket));
        Ok(())
    }

    pub(super) fn apply_settings(&self, listen: &Listen) {
        // listen(2) again only changes the backlog.
        if let Err(error) = self.socket.listen(backlog(listen)) {
            tracing::warn!(listener = listen.name, error = %error, "backlog can't be changed");
        }
        // It counts when the socket is bound anew.
        if self.local.is_some()
            && let Err(error) = bind::set_freebind(&self.socket, listen.freebind)
        {
            tracing::warn!(listener = listen.name, error = %error, "freebind can't be changed");
        }
        if let Some(options) = &mut *self.options.borrow_mut() {
            options.expect_settings_of(&self.socket);
        }
        if let Some(file) = &self.file {
            let path = file.path().display();
            let changed = bind::owner(listen)
                .map_err(|error| chain(&error))
                .and_then(|owner| file.change_rights(listen.rights.mode, owner).map_err(|error| chain(&error)));
            if let Err(error) = changed {
                tracing::warn!(listener = listen.name, path = %path, error, "mode, owner or group can't be changed");
            }
        }
    }

    /// The address as the kernel knows it: with the real port where 0 was configured.
    pub fn local_address(&self) -> String {
        match self.local {
            Some(address) => address.to_string(),
            None => self.address.to_string(),
        }
    }

    /// The socket, to hand to a worker.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A socket that other processes have as well.
///
/// One that doesn't listen any more may have been connected elsewhere by one of them, and its last close waits for
/// that peer (`SO_LINGER`, `socket(7)`): so it is closed on a thread that nobody depends on.
#[derive(Debug)]
pub(super) struct SharedSocket(Option<Socket>);

impl From<Socket> for SharedSocket {
    fn from(socket: Socket) -> Self {
        Self(Some(socket))
    }
}

impl std::ops::Deref for SharedSocket {
    type Target = Socket;

    fn deref(&self) -> &Socket {
        self.0.as_ref().expect("only the drop takes it")
    }
}

impl Drop for SharedSocket {
    fn drop(&mut self) {
        if let Some(socket) = self.0.take()
            && !socket.is_listener().unwrap_or(false)
        {
            // Without a thread to spare it is closed here.
            let _ = std::thread::Builder::new().name("close".to_owned()).spawn(move || drop(socket));
        }
    }
}
