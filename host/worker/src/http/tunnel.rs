//! Connections, and HTTP/2 streams, that the app has upgraded to another protocol.
//!
//! Owns what the app gets of them, a [`Tunnel`], and their end. A tunnel is used on threads of the app's,
//! and reads and writes the transport right there; its end is seen to here, on the serving thread, which
//! alone writes to the lane and has timers.
//!
//! ```text
//! Upgrade ── the app answers 101 ──▶ Switch ── hyper is through with its head ──▶ Tunnel
//!                                      (the request is in flight all the while)     │
//!                            the app drops it: lingering close ◀────────────────────┤
//!                            Phase::Cut: counted, and the transport is closed ◀─────┘
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

use super::activity::{Activity, InFlight};
use super::driver::{Ended, Wakes};
use super::io::Io;
use super::state::Phase;

/// What a request has that asks for an upgrade. Dropping it changes nothing: the answer decides.
pub struct Upgrade {
    protocol: String,
    tunnel: oneshot::Receiver<Tunnel>,
}

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
#[error("the app's answer granted no upgrade, or the client has gone")]
pub struct NotUpgraded;

impl Upgrade {
    /// For a request that asks for a protocol, by name if HTTP/2 gives one (RFC 8441).
    pub(super) fn asked(protocol: &str) -> (Asked, Self) {
        let (sender, receiver) = oneshot::channel();
        (Asked(sender), Self { protocol: protocol.to_owned(), tunnel: receiver })
    }

    /// The pseudo header `:protocol`, empty if there was none.
    pub fn protocol(&self) -> &str {
        &self.protocol
    }

    /// The tunnel, when the answer that grants it has been sent. On any thread.
    pub async fn tunnel(self) -> Result<Tunnel, NotUpgraded> {
        self.tunnel.await.map_err(|_| NotUpgraded)
    }
}

/// This side of an [`Upgrade`], until the app answers.
pub(super) struct Asked(oneshot::Sender<Tunnel>);

impl Asked {
    /// The app has granted it.
    pub(super) fn granted(self, mut in_flight: InFlight) -> Switch {
        in_flight.stop_the_clock();
        Switch { tunnel: self.0, in_flight }
    }
}

/// An upgrade that the app has granted, while its answer goes out.
pub(super) struct Switch {
    tunnel: oneshot::Sender<Tunnel>,
    in_flight: InFlight,
}

/// Where the switch of an HTTP/1 connection waits for hyper to be through.
#[derive(Clone, Default)]
pub(super) struct Turn(Arc<Mutex<Option<Switch>>>);

impl Turn {
    pub(super) fn give(&self, switch: Switch) {
        *lock(&self.0) = Some(switch);
    }

    pub(super) fn take(&self) -> Option<Switch> {
        lock(&self.0).take()
    }
}

/// What is locked here is changed in single steps, which a panic elsewhere can't leave half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a tunnel reads and writes.
trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// Bytes in both directions, for one owner on any thread. Dropping it ends the connection properly.
pub struct Tunnel(Box<dyn Duplex>);

/// A transport in the app's use.
struct Wire<T> {
    transport: T,
    /// What was read before and comes first.
    unread: [Bytes; 2],
    /// Who is to be told when the transport is taken away: whoever waits to read, and to write.
    waits: [Option<Waker>; 2],
}

/// A wire, until the host takes it away.
type Shared<T> = Arc<Mutex<Option<Wire<T>>>>;

/// The app's end of a [`Wire`], which the host can take away.
struct End<T> {
    wire: Shared<T>,
    /// Tells of its drop.
    _held: oneshot::Sender<Infallible>,
}

const READER: usize = 0;
const WRITER: usize = 1;

impl<T: Duplex + 'static> End<T> {
    /// The second is the host's end, the third tells when the tunnel is dropped.
    fn open(transport: T, unread: [Bytes; 2]) -> (Tunnel, Shared<T>, oneshot::Receiver<Infallible>) {
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

impl<T: Duplex + 'static> AsyncRead for End<T> {
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

impl<T: Duplex + 'static> AsyncWrite for End<T> {
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

/// Sees an HTTP/1 connection to its end that hyper has left as it is: as the tunnel that the app has
/// granted, if it has, and then by a lingering close.
pub(super) async fn carry<T, F>(
    transport: T,
    unread: [Bytes; 2],
    switch: Option<Switch>,
    activity: &Arc<Activity>,
    wakes: &mut Wakes<'_, F>,
) -> Ended
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = ()>,
{
    activity.state.on_carried();
    let transport = match switch {
        None => transport,
        Some(Switch { tunnel, in_flight }) => {
            let (end, wire, mut gone) = End::open(transport, unread);
            // An app that answers 101 and doesn't want the connection has dropped it already.
            drop(tunnel.send(end));
            let ended = poll_fn(|cx| {
                if wakes.news(cx) == Some(Phase::Cut) {
                    activity.state.on_cut();
                    activity.count_cut();
                    return Poll::Ready(Ended::Cut);
                }
                Pin::new(&mut gone).poll(cx).map(|_| Ended::Done)
            });
            let ended = ended.await;
            let taken = lock(&wire).take();
            // Ends here, and not on a thread of the app's.
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
    let mut io = Io::new(transport, Bytes::new(), Arc::clone(activity));
    poll_fn(|cx| {
        if wakes.news(cx) == Some(Phase::Cut) {
            return Poll::Ready(Ended::Cut);
        }
        // Whatever is wrong with a transport that is being closed: it is being closed.
        let _ = ready!(pin!(&mut io).poll_shutdown(cx));
        Poll::Ready(Ended::Done)
    })
    .await
}

/// Sees an HTTP/2 stream to its end that the app has upgraded. The connection's end is its end, too, and
/// it is there that a cut is counted.
pub(super) async fn stream(on_upgrade: OnUpgrade, switch: Switch) {
    let Ok(upgraded) = on_upgrade.await else { return };
    let Switch { tunnel, in_flight } = switch;
    let (end, _wire, gone) = End::open(TokioIo::new(upgraded), [Bytes::new(), Bytes::new()]);
    drop(tunnel.send(end));
    let _ = gone.await;
    drop(in_flight);
}
