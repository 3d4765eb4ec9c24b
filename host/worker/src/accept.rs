//! Accepting: from a listener to connections in the care of `http`.
//!
//! Owns the loop, what an error of `accept(2)` means, and the last call that empties a queue before
//! a listener is shut down: by the threads that serve, and then by the control thread for those that
//! an app holds up.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use socket2::{SockAddr, SockRef, Socket};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::Listener;
use super::gate::{self, Gate};
use super::serving::Connected;
use super::stream::{Socket as Movable, Stream};
use crate::access::AccessLog;
use crate::http::{self, DrainSignal, Handover};
use app_host_core::message::Origin;
use app_host_platform::sys::socket::is_open;
use app_host_platform::sys::stats::Lane;
use app_host_services::loader::{Address, Connection, LoadedApp};

/// How long a thread rests when the process or the system has run out of something.
const PAUSE: Duration = Duration::from_millis(100);

/// How often that is logged at most.
const WARN_EVERY: Duration = Duration::from_secs(1);

/// How long the last call at a listener may take, and how long the control thread waits for the
/// threads to have made theirs.
pub(super) const LAST_CALL: Duration = Duration::from_millis(50);

/// How long the news may take that listeners are shut down, if another worker heard it first.
const NEWS: Duration = Duration::from_secs(1);

/// After how many wake-ups without a connection in one wait the listener is registered anew. Another worker may have
/// been faster so often; or it was shut down and listens again, which the runtime never forgets.
const IN_VAIN: u32 = 16;

/// Whether connections are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Intake {
    /// Yes.
    Open,
    /// Those that wait already, and then no more: the listeners are about to be shut down.
    LastCall,
    /// No more than those that the control thread has left over; others take those that wait.
    Closed,
}

/// A listener that can't be taken over.
#[derive(Debug, thiserror::Error)]
pub(super) enum TakeOverError {
    #[error("the descriptor is no listening socket")]
    NotListening,
    #[error("the socket can't be used")]
    Socket(#[from] io::Error),
}

/// A connection that was taken at a last call.
pub(super) struct LeftOver {
    /// The listener's place among all.
    pub(super) listener: usize,
    pub(super) socket: Socket,
    pub(super) peer: SockAddr,
}

/// What a connection of this thread gets.
#[derive(Clone)]
pub(super) struct Seat {
    pub(super) app: LoadedApp,
    pub(super) lane: &'static Lane,
    pub(super) drain: DrainSignal,
    /// Where requests are logged, if they are.
    pub(super) access: Option<Arc<AccessLog>>,
    /// The way to other workers.
    pub(super) gate: Arc<Gate>,
    /// Held by each connection until its end.
    pub(super) held: mpsc::Sender<Infallible>,
}

/// A listener on a serving thread.
pub(super) struct Open {
    socket: Accepting,
    name: &'static str,
    /// What every connection's own end is, if that is known beforehand.
    local: Option<Address>,
    origin: Origin,
}

enum Accepting {
    Tcp(TcpListener),
    Unix(UnixListener),
}

enum Accepted {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

/// An IPv4 address as itself, also where a socket of both families gives it as one of IPv6 (`::ffff:192.0.2.1`): a client
/// is the same whichever listener it comes by.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

impl Open {
    /// Takes a duplicate of the listener into this thread's runtime.
    pub(super) fn take_over(listener: &Listener) -> Result<Self, TakeOverError> {
        let socket = Socket::from(listener.socket.try_clone()?);
        if !socket.is_listener().unwrap_or(false) {
            return Err(TakeOverError::NotListening);
        }
        socket.set_nonblocking(true)?;
        let bound = socket.local_addr()?.as_socket();
        let socket = OwnedFd::from(socket);
        let (socket, local) = if listener.unix {
            (Accepting::Unix(UnixListener::from_std(socket.into())?), Some(Address::Unix))
        } else {
            let known = bound.filter(|address| !address.ip().is_unspecified()).map(Address::Tcp);
            (Accepting::Tcp(TcpListener::from_std(socket.into())?), known)
        };
        Ok(Self { socket, name: listener.name, local, origin: listener.origin })
    }

    /// Another registration of the same socket.
    fn again(&self) -> io::Result<Self> {
        let socket = self.descriptor().try_clone_to_owned()?;
        let socket = match &self.socket {
            Accepting::Tcp(_) => Accepting::Tcp(TcpListener::from_std(socket.into())?),
            Accepting::Unix(_) => Accepting::Unix(UnixListener::from_std(socket.into())?),
        };
        Ok(Self { socket, name: self.name, local: self.local, origin: self.origin })
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Accepting::Tcp(listener) => listener.as_fd(),
            Accepting::Unix(listener) => listener.as_fd(),
        }
    }

    /// The next connection; `None` when it was woken in vain again and again. To be called by one task alone.
    ///
    /// Not with tokio's `accept`: on a Unix socket that was shut down it finds nothing, is told at once that there is
    /// something, and never gives the thread back. `poll_accept` does, whenever the task's budget is used up.
    async fn accept(&self) -> Option<io::Result<Accepted>> {
        let mut in_vain = 0;
        poll_fn(|context| match self.poll_accept(context) {
            Poll::Ready(accepted) => Poll::Ready(Some(accepted)),
            Poll::Pending if in_vain >= IN_VAIN => Poll::Ready(None),
            Poll::Pending => {
                in_vain += 1;
                Poll::Pending
            }
        })
        .await
    }

    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        match &self.socket {
            Accepting::Tcp(listener) => {
                listener.poll_accept(context).map_ok(|(stream, peer)| Accepted::Tcp(stream, peer))
            }
            Accepting::Unix(listener) => listener.poll_accept(context).map_ok(|(stream, _)| Accepted::Unix(stream)),
        }
    }

    /// Starts a task that serves a connection.
    fn take(&self, accepted: Accepted, seat: &Seat) {
        seat.lane.accepted();
        match accepted {
            Accepted::Tcp(stream, peer) => {
                // The client is gone when either fails; serving it would only tell so later.
                let local = || stream.local_addr().map(|address| Address::Tcp(plain(address)));
                let Ok(local) = self.local.map_or_else(local, Ok) else { return };
                if stream.set_nodelay(true).is_ok() {
                    self.serve(stream, Address::Tcp(plain(peer)), local, seat.clone());
                }
            }
            Accepted::Unix(stream) => self.serve(stream, Address::Unix, Address::Unix, seat.clone()),
        }
    }

    fn serve<S: Movable>(&self, stream: S, peer: Address, local: Address, seat: Seat) {
        let connection = Arc::new(Connection { peer, local, listener: self.name, scheme: "http" });
        let known = Known { connection, opened: Instant::now() };
        tokio::spawn(see_to(Handover::accepted(Stream::own(stream)), known, seat));
    }

    fn last_call(&self, seat: &Seat) {
        let queue = match &self.socket {
            Accepting::Tcp(listener) => SockRef::from(listener),
            Accepting::Unix(listener) => SockRef::from(listener),
        };
        last_call(&queue, |socket, peer| self.adopt(socket, &peer, seat));
    }

    /// Starts a task that serves a connection which was taken at a last call.
    pub(super) fn adopt(&self, socket: Socket, peer: &SockAddr, seat: &Seat) {
        let accepted = match (&self.socket, peer.as_socket()) {
            (Accepting::Tcp(_), Some(peer)) => {
                TcpStream::from_std(socket.into()).map(|stream| Accepted::Tcp(stream, peer))
            }
            // Its client has gone already, and its address with it.
            (Accepting::Tcp(_), None) => return,
            (Accepting::Unix(_), _) => UnixStream::from_std(socket.into()).map(Accepted::Unix),
        };
        match accepted {
            Ok(accepted) => self.take(accepted, seat),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(listener = self.name, error, "a connection can't be served");
            }
        }
    }
}

/// What is known of a connection as long as it is open, in whichever worker.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) connection: Arc<Connection>,
    pub(super) opened: Instant,
}

/// Serves a connection until its end here, which is that of the connection, another worker's begin, or a rest.
pub(super) async fn see_to<S: Movable>(connection: Handover<Stream<S>>, known: Known, seat: Seat) {
    let connected = Connected { app: seat.app, connection: Arc::clone(&known.connection) };
    let Connection { peer, listener, .. } = *known.connection;
    let visitor = seat.access.as_ref().map(|access| access.visitor(peer, listener));
    let leaving = http::serve_connection(connection, connected, seat.lane, seat.drain.clone(), visitor).await;
    if let Some(leaving) = leaving {
        gate::leave(leaving, &known, seat);
    }
}

/// Takes every connection that waits in a non-blocking listener's queue.
///
/// The queue itself is asked, not a runtime, which may not have noticed yet that it has become ready.
/// Clients that never stop coming don't hold the drain up: there is a deadline.
pub(super) fn last_call(queue: &SockRef<'_>, mut take: impl FnMut(Socket, SockAddr)) {
    let until = Instant::now() + LAST_CALL;
    while Instant::now() < until {
        let accepted = queue.accept().and_then(|(socket, peer)| {
            socket.set_nonblocking(true)?;
            Ok((socket, peer))
        });
        match accepted {
            Ok((socket, peer)) => take(socket, peer),
            Err(error) if is_the_clients(&error) => {}
            // The queue is empty, another worker has shut the listener down already, or there are no
            // descriptors left: nothing more can be taken.
            Err(_) => break,
        }
    }
}

/// Waits until a listener that was shut down listens again, which the master sees to; `false` when the intake closes
/// before.
async fn revived(listener: &Open, intake: &mut watch::Receiver<Intake>) -> bool {
    let begin = Instant::now();
    let mut said = false;
    while !is_open(&listener.descriptor()) {
        if timeout(PAUSE, closing(intake)).await.is_ok() {
            return false;
        }
        if begin.elapsed() >= NEWS && !std::mem::replace(&mut said, true) {
            tracing::error!(listener = listener.name, "listener was shut down under a worker that serves");
        }
    }
    true
}

/// Accepts until the intake closes. Never gives up, and never spins.
pub(super) async fn run(mut listener: Arc<Open>, seat: Seat, mut intake: watch::Receiver<Intake>) {
    let mut warned: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            biased;
            now = closing(&mut intake) => {
                // Those that wait in a socket which stays open are not lost.
                if now == Intake::LastCall && listener.origin == Origin::Bound {
                    listener.last_call(&seat);
                }
                return;
            }
            accepted = listener.accept() => accepted,
        };
        let accepted = match accepted {
            Some(Err(error)) if is_shut_down(&error) => None,
            accepted => accepted,
        };
        let Some(accepted) = accepted else {
            if !revived(&listener, &mut intake).await {
                return;
            }
            match listener.again() {
                Ok(again) => listener = Arc::new(again),
                Err(_) => drop(timeout(PAUSE, closing(&mut intake)).await),
            }
            continue;
        };
        match accepted {
            Ok(accepted) => listener.take(accepted, &seat),
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                if warned.is_none_or(|last| last.elapsed() >= WARN_EVERY) {
                    warned = Some(Instant::now());
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(listener = listener.name, error, "connections can't be accepted");
                }
                // An order to close ends the rest and is taken up right after.
                let _ = timeout(PAUSE, closing(&mut intake)).await;
            }
        }
    }
}

/// Waits until no more connections are taken.
async fn closing(intake: &mut watch::Receiver<Intake>) -> Intake {
    // Without its sender the process is about to end.
    intake.wait_for(|intake| *intake != Intake::Open).await.map_or(Intake::Closed, |intake| *intake)
}

/// Whether the client of a connection that waited was the reason (`accept(2)`, "Error handling").
fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::ECONNRESET
                | libc::EINTR
                | libc::EPERM
                | libc::EPROTO
                | libc::ENETDOWN
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::ETIMEDOUT
        )
    ) || error.kind() == io::ErrorKind::ConnectionAborted
}

/// Whether the socket no longer listens.
fn is_shut_down(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EBADF | libc::ENOTSOCK))
}
