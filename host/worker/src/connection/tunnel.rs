//! Tunnels: connections, and HTTP/2 streams, that the app has upgraded to another protocol.
//!
//! Owns what the app gets of them, a [`Tunnel`], and their end. A tunnel is used on threads of the app's, and reads and
//! writes the transport right there. It ends here, on the serving thread, which alone writes its statistics and has
//! timers.
//!
//! ```text
//! Upgrade ── the app answers 101 ──▶ GrantedUpgrade ── hyper has written the head ──▶ Tunnel
//!                                      (the request is in flight all the while)         │
//!                            the app drops it: lingering close ◀────────────────────────┤
//!                            Phase::Cut: counted, and the transport is closed ◀─────────┘
//! ```

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

use super::driver::{Ended, Wakeups};
use super::shared::{InFlight, Shared};
use super::state::Phase;
use super::transport::Transport;

/// The app's side of a requested upgrade. Dropping it changes nothing: the response decides.
pub struct Upgrade {
    protocol: String,
    tunnel: oneshot::Receiver<Tunnel>,
}

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
#[error("the app's answer granted no upgrade, or the client has gone")]
pub struct NotUpgraded;

impl Upgrade {
    /// Both sides of an upgrade to `protocol`, which HTTP/2 gives by name (RFC 8441).
    pub(super) fn requested(protocol: &str) -> (RequestedUpgrade, Self) {
        let (sender, receiver) = oneshot::channel();
        (RequestedUpgrade(sender), Self { protocol: protocol.to_owned(), tunnel: receiver })
    }

    /// The pseudo header `:protocol`, empty if there was none.
    pub fn protocol(&self) -> &str {
        &self.protocol
    }

    /// Waits for the tunnel, until the response that grants it has been sent. On any thread.
    pub async fn tunnel(self) -> Result<Tunnel, NotUpgraded> {
        self.tunnel.await.map_err(|_| NotUpgraded)
    }
}

/// The host's side of an [`Upgrade`], until the app answers.
pub(super) struct RequestedUpgrade(oneshot::Sender<Tunnel>);

impl RequestedUpgrade {
    /// The upgrade, once the app has granted it.
    pub(super) fn grant(self, mut in_flight: InFlight) -> GrantedUpgrade {
        in_flight.stop_the_clock();
        GrantedUpgrade { tunnel: self.0, in_flight }
    }
}

/// An upgrade that the app has granted, while its response goes out.
pub(super) struct GrantedUpgrade {
    tunnel: oneshot::Sender<Tunnel>,
    in_flight: InFlight,
}

/// Where the granted upgrade of an HTTP/1 connection waits for hyper to write the response.
#[derive(Clone, Default)]
pub(super) struct PendingUpgrade(Arc<Mutex<Option<GrantedUpgrade>>>);

impl PendingUpgrade {
    pub(super) fn set(&self, granted: GrantedUpgrade) {
        *lock(&self.0) = Some(granted);
    }

    pub(super) fn take(&self) -> Option<GrantedUpgrade> {
        lock(&self.0).take()
    }
}

/// Locks what is changed in single steps only, so that a panic of another owner can't leave it half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads and writes bytes.
trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// Bytes in both directions, for one owner on any thread. Dropping it ends the connection properly.
pub struct Tunnel(Box<dyn Duplex>);

/// A transport in the app's use.
struct Wire<T> {
    transport: T,
    /// What was read before, and is read first.
    unread: [Bytes; 2],
    /// The tasks that wait to read and to write, to be woken when the transport is taken away.
    waits: [Option<Waker>; 2],
}

/// A wire that both sides hold, until the host takes it away.
type SharedWire<T> = Arc<Mutex<Option<Wire<T>>>>;

/// The app's end of a [`Wire`], which the host can take away.
struct AppEnd<T> {
    wire: SharedWire<T>,
    /// Tells the host when this is dropped.
    _held: oneshot::Sender<Infallible>,
}

const READER: usize = 0;
const WRITER: usize = 1;

impl<T: Duplex + 'static> AppEnd<T> {
    /// The tunnel, the wire for the host, and the channel that closes when the tunnel is dropped.
    fn open(transport: T, unread: [Bytes; 2]) -> (Tunnel, SharedWire<T>, oneshot::Receiver<Infallible>) {
        let wire = Arc::new(Mutex::new(Some(Wire { transport, unread, waits: [None, None] })));
        let (held, gone) = oneshot::channel();
        (Tunnel(Box::new(Self { wire: Arc::clone(&wire), _held: held })), wire, gone)
    }

    fn with<R>(
        &self,
        who: usize,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut Wire<T>, &mut Context<'_>) -> Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        let mut wire = lock(&self.wire);
        let Some(wire) = wire.as_mut() else {
            return Poll::Ready(Err(io::Error::from_raw_os_error(libc::ECONNABORTED)));
        };
        let polled = poll(wire, cx);
        if polled.is_pending() {
            match &mut wire.waits[who] {
                Some(waker) => waker.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
        }
        polled
    }
}

impl<T: Duplex + 'static> AsyncRead for AppEnd<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.with(READER, cx, |wire, cx| {
            if let Some(unread) = wire.unread.iter_mut().find(|unread| !unread.is_empty()) {
                buf.put_slice(&unread.split_to(unread.len().min(buf.remaining())));
                return Poll::Ready(Ok(()));
            }
            Pin::new(&mut wire.transport).poll_read(cx, buf)
        })
    }
}

impl<T: Duplex + 'static> AsyncWrite for AppEnd<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.with(WRITER, cx, |wire, cx| Pin::new(&mut wire.transport).poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(WRITER, cx, |wire, cx| Pin::new(&mut wire.transport).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(WRITER, cx, |wire, cx| Pin::new(&mut wire.transport).poll_shutdown(cx))
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Carries an HTTP/1 connection to its end that hyper has left open: as a tunnel, if the app has granted one, and by a
/// lingering close.
pub(super) async fn carry<T, F>(
    transport: T,
    unread: [Bytes; 2],
    granted: Option<GrantedUpgrade>,
    shared: &Arc<Shared>,
    wakeups: &mut Wakeups<'_, F>,
) -> Ended
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = ()>,
{
    shared.state.on_carried();
    let transport = match granted {
        None => transport,
        Some(GrantedUpgrade { tunnel, in_flight }) => {
            let (end, wire, mut gone) = AppEnd::open(transport, unread);
            // An app that answers 101 and doesn't want the tunnel has dropped the receiver already.
            drop(tunnel.send(end));
            let ended = poll_fn(|cx| {
                if wakeups.new_phase(cx) == Some(Phase::Cut) {
                    shared.state.on_cut();
                    shared.count_cut();
                    return Poll::Ready(Ended::Cut);
                }
                Pin::new(&mut gone).poll(cx).map(|_| Ended::Done)
            });
            let ended = ended.await;
            let taken = lock(&wire).take();
            // Here, and not on a thread of the app's.
            drop(in_flight);
            let Some(Wire { transport, waits, .. }) = taken else { return ended };
            if matches!(ended, Ended::Cut) {
                drop(transport);
                waits.into_iter().flatten().for_each(Waker::wake);
                return ended;
            }
            transport
        }
    };
    let mut transport = Transport::new(transport, Bytes::new(), Arc::clone(shared));
    poll_fn(|cx| {
        if wakeups.new_phase(cx) == Some(Phase::Cut) {
            return Poll::Ready(Ended::Cut);
        }
        // An error changes nothing: the transport is being closed.
        let _ = ready!(pin!(&mut transport).poll_shutdown(cx));
        Poll::Ready(Ended::Done)
    })
    .await
}

/// Carries an HTTP/2 stream that the app has upgraded to its end. The stream ends with its connection, which counts a cut.
pub(super) async fn carry_stream(on_upgrade: OnUpgrade, granted: GrantedUpgrade) {
    let Ok(upgraded) = on_upgrade.await else { return };
    let GrantedUpgrade { tunnel, in_flight } = granted;
    let (end, _wire, gone) = AppEnd::open(TokioIo::new(upgraded), [Bytes::new(), Bytes::new()]);
    drop(tunnel.send(end));
    let _ = gone.await;
    drop(in_flight);
}
