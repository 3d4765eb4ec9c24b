//! Accepts connections from listeners and serves each in a task of its own.
//!
//! Owns the accept loop, what an error of `accept(2)` means, and the last call: the accept queue is emptied before a
//! listener is shut down, by the serving threads and then by the control thread for threads that an app blocks. How a
//! connection is served is for `connection`.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use socket2::{SockAddr, SockRef, Socket};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::timeout;

use app_host_core::message::Origin;
use app_host_platform::sys::socket::is_open;
use app_host_services::loader::{Address, Connection};

use crate::Listener;
use crate::client;
use crate::context::{ConnectionContext, ListenerRules, ThreadContext};
use crate::stream::{Socket as Movable, Stream};

/// How long a thread accepts nothing when the process or the system has run out of something.
const PAUSE: Duration = Duration::from_millis(100);

/// The least time between two log lines about that: it may last.
const WARN_EVERY: Duration = Duration::from_mins(1);

/// How long the last call at a listener may take, and how long the control thread waits for those of the serving threads.
pub(super) const LAST_CALL: Duration = Duration::from_millis(50);

/// How long the order to drain may take to arrive here after another worker, which got it first, has shut a listener down.
const ORDER_DELAY: Duration = Duration::from_secs(1);

/// After how many wake-ups without a connection in one wait the listener is registered anew. Either another worker was
/// faster each time, or the listener was shut down and listens again, and the runtime still takes it for shut down.
const MAX_SPURIOUS: u32 = 16;

/// Whether the accept loops take connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Intake {
    /// They don't yet: some thread can't accept, and the worker may still be told to end, or have to, at once.
    Waiting,
    /// They do.
    Open,
    /// They take those that wait already, and then no more: the listeners are about to be shut down.
    LastCall,
    /// They take none. Other workers take those that wait, and each thread the [unserved](UnservedConnection) ones.
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

/// A connection that the control thread has taken at the last call, and that no thread serves yet.
pub(super) struct UnservedConnection {
    /// The listener's index.
    pub(super) listener: usize,
    pub(super) socket: Socket,
    pub(super) peer: SockAddr,
}

/// A listener, registered with a serving thread's runtime.
pub(super) struct OpenListener {
    socket: ListenerSocket,
    /// The local address of every connection, unless it differs between them.
    local: Option<Address>,
    origin: Origin,
    rules: Arc<ListenerRules>,
}

enum ListenerSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

enum Accepted {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

/// What waiting for a connection has come to.
enum Arrival {
    Accepted(Accepted),
    /// The thread has as many connections as it may.
    NoRoom,
    /// The socket is shut down, or has been woken [`MAX_SPURIOUS`] times for nothing.
    NotListening,
    Failed(io::Error),
}

/// An IPv4 address as such, also where a socket of both families gives it as one of IPv6 (`::ffff:192.0.2.1`): a client
/// has the same address at every listener.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

impl OpenListener {
    /// Takes a duplicate of the listener into this thread's runtime.
    pub(super) fn take_over(listener: &Listener) -> Result<Self, TakeOverError> {
        let socket = Socket::from(listener.socket.try_clone()?);
        if !socket.is_listener().unwrap_or(false) {
            return Err(TakeOverError::NotListening);
        }
        socket.set_nonblocking(true)?;
        let bound = socket.local_addr()?.as_socket();
        let socket = OwnedFd::from(socket);
        let (socket, local) = if listener.rules.unix {
            (ListenerSocket::Unix(UnixListener::from_std(socket.into())?), Some(Address::Unix))
        } else {
            let known = bound.filter(|address| !address.ip().is_unspecified()).map(Address::Tcp);
            (ListenerSocket::Tcp(TcpListener::from_std(socket.into())?), known)
        };
        Ok(Self { socket, local, origin: listener.origin, rules: Arc::clone(&listener.rules) })
    }

    /// Registers the same socket once more.
    fn register_again(&self) -> io::Result<Self> {
        let socket = self.descriptor().try_clone_to_owned()?;
        let socket = match &self.socket {
            ListenerSocket::Tcp(_) => ListenerSocket::Tcp(TcpListener::from_std(socket.into())?),
            ListenerSocket::Unix(_) => ListenerSocket::Unix(UnixListener::from_std(socket.into())?),
        };
        Ok(Self { socket, local: self.local, origin: self.origin, rules: Arc::clone(&self.rules) })
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        match &self.socket {
            ListenerSocket::Tcp(listener) => listener.as_fd(),
            ListenerSocket::Unix(listener) => listener.as_fd(),
        }
    }

    pub(super) const fn rules(&self) -> &Arc<ListenerRules> {
        &self.rules
    }

    /// Waits for the next connection. Only one task may call it.
    ///
    /// tokio's `accept` won't do: on a Unix socket that was shut down it finds nothing, is woken at once, and never yields
    /// the thread. `poll_accept` yields when the task's budget is used up.
    async fn accept(&self, thread: &ThreadContext) -> Arrival {
        let mut spurious = 0;
        poll_fn(|context| {
            // The thread's other listeners may have filled it meanwhile.
            if thread.room.is_full().is_some() {
                return Poll::Ready(Arrival::NoRoom);
            }
            match self.poll_accept(context) {
                Poll::Ready(Ok(accepted)) => Poll::Ready(Arrival::Accepted(accepted)),
                Poll::Ready(Err(error)) if is_shut_down(&error) => Poll::Ready(Arrival::NotListening),
                Poll::Ready(Err(error)) => Poll::Ready(Arrival::Failed(error)),
                Poll::Pending if spurious >= MAX_SPURIOUS => Poll::Ready(Arrival::NotListening),
                Poll::Pending => {
                    spurious += 1;
                    Poll::Pending
                }
            }
        })
        .await
    }

    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        match &self.socket {
            ListenerSocket::Tcp(listener) => {
                listener.poll_accept(context).map_ok(|(stream, peer)| Accepted::Tcp(stream, peer))
            }
            ListenerSocket::Unix(listener) => {
                listener.poll_accept(context).map_ok(|(stream, _)| Accepted::Unix(stream))
            }
        }
    }

    /// Starts the task that serves a connection.
    fn spawn(&self, accepted: Accepted, context: &ConnectionContext) {
        context.thread.stats.accepted();
        match accepted {
            Accepted::Tcp(stream, peer) => {
                // If either fails, the client is gone.
                let local = || stream.local_addr().map(|address| Address::Tcp(canonical(address)));
                let Ok(local) = self.local.map_or_else(local, Ok) else { return };
                if stream.set_nodelay(true).is_ok() {
                    self.spawn_task(stream, Address::Tcp(canonical(peer)), local, context.clone());
                }
            }
            Accepted::Unix(stream) => self.spawn_task(stream, Address::Unix, Address::Unix, context.clone()),
        }
    }

    fn spawn_task<S: Movable>(&self, stream: S, peer: Address, local: Address, context: ConnectionContext) {
        let connection = Connection { peer, local, listener: self.rules.name, tls: None, client: None };
        client::begin(Stream::own(stream), connection, context);
    }

    fn last_call(&self, context: &ConnectionContext) {
        let queue = match &self.socket {
            ListenerSocket::Tcp(listener) => SockRef::from(listener),
            ListenerSocket::Unix(listener) => SockRef::from(listener),
        };
        last_call(&queue, |socket, peer| self.spawn_unserved(socket, &peer, context));
    }

    /// Starts the task that serves a connection which was taken at the last call.
    pub(super) fn spawn_unserved(&self, socket: Socket, peer: &SockAddr, context: &ConnectionContext) {
        let accepted = match (&self.socket, peer.as_socket()) {
            (ListenerSocket::Tcp(_), Some(peer)) => {
                TcpStream::from_std(socket.into()).map(|stream| Accepted::Tcp(stream, peer))
            }
            // The client has gone already, and its address with it.
            (ListenerSocket::Tcp(_), None) => return,
            (ListenerSocket::Unix(_), _) => UnixStream::from_std(socket.into()).map(Accepted::Unix),
        };
        match accepted {
            Ok(accepted) => self.spawn(accepted, context),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(listener = self.rules.name, error, "a connection can't be served");
            }
        }
    }
}

/// Takes every connection that waits in a non-blocking listener's queue, up to a deadline: clients that never stop coming
/// don't hold the drain up.
///
/// Asks the socket itself, because a runtime may not have noticed yet that it has become ready.
pub(super) fn last_call(queue: &SockRef<'_>, mut take: impl FnMut(Socket, SockAddr)) {
    let until = Instant::now() + LAST_CALL;
    while Instant::now() < until {
        let accepted = queue.accept().and_then(|(socket, peer)| {
            socket.set_nonblocking(true)?;
            Ok((socket, peer))
        });
        match accepted {
            Ok((socket, peer)) => take(socket, peer),
            Err(error) if is_clients_fault(&error) => {}
            // The queue is empty, another worker has shut the listener down already, or there are no
            // descriptors left: nothing more can be taken.
            Err(_) => break,
        }
    }
}

/// Waits until the master has made a listener listen again that was shut down. Returns whether it did before the intake
/// closed.
async fn listens_again(listener: &OpenListener, intake: &mut watch::Receiver<Intake>) -> bool {
    let begin = Instant::now();
    let mut logged = false;
    while !is_open(&listener.descriptor()) {
        if timeout(PAUSE, closing(intake)).await.is_ok() {
            return false;
        }
        if begin.elapsed() >= ORDER_DELAY && !std::mem::replace(&mut logged, true) {
            tracing::error!(listener = listener.rules.name, "listener was shut down under a worker that serves");
        }
    }
    true
}

/// Accepts until the intake closes, whatever errors there are, and never spins.
pub(super) async fn run(
    mut listener: Arc<OpenListener>,
    context: ConnectionContext,
    mut intake: watch::Receiver<Intake>,
) {
    let mut warned: Option<Instant> = None;
    let mut may_warn = move || {
        let may = warned.is_none_or(|last| last.elapsed() >= WARN_EVERY);
        if may {
            warned = Some(Instant::now());
        }
        may
    };
    if context.thread.room.is_none() {
        let _ = closing(&mut intake).await;
    }
    loop {
        if let Some(connections) = context.thread.room.is_full() {
            if may_warn() {
                tracing::warn!(
                    listener = listener.rules.name,
                    connections,
                    "connections are at their limit; clients wait"
                );
            }
            if timeout(PAUSE, closing(&mut intake)).await.is_err() {
                continue;
            }
        }
        let arrival = tokio::select! {
            biased;
            now = closing(&mut intake) => {
                // Connections that wait in a socket which stays open are not lost.
                if now == Intake::LastCall && listener.origin == Origin::Bound {
                    listener.last_call(&context);
                }
                return;
            }
            arrival = listener.accept(&context.thread) => arrival,
        };
        match arrival {
            Arrival::Accepted(accepted) => listener.spawn(accepted, &context),
            Arrival::NoRoom => {}
            Arrival::NotListening => {
                if !listens_again(&listener, &mut intake).await {
                    return;
                }
                match listener.register_again() {
                    Ok(again) => listener = Arc::new(again),
                    Err(_) => drop(timeout(PAUSE, closing(&mut intake)).await),
                }
            }
            Arrival::Failed(error) if is_clients_fault(&error) => {}
            Arrival::Failed(error) => {
                if may_warn() {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(listener = listener.rules.name, error, "connections can't be accepted");
                }
                // The close of the intake ends the pause at once.
                let _ = timeout(PAUSE, closing(&mut intake)).await;
            }
        }
    }
}

/// Waits until the intake is no longer open.
async fn closing(intake: &mut watch::Receiver<Intake>) -> Intake {
    // Without its sender the process is about to end.
    intake.wait_for(|intake| *intake != Intake::Open).await.map_or(Intake::Closed, |intake| *intake)
}

/// Whether the client of a waiting connection is the reason of an error (`accept(2)`, "Error handling").
fn is_clients_fault(error: &io::Error) -> bool {
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

/// Whether the error says that the socket no longer listens.
fn is_shut_down(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EBADF | libc::ENOTSOCK))
}
