//! Tunnels: connections, and HTTP/2 streams, that the app has upgraded to another protocol.
//!
//! Owns what the app gets of them, a [`Tunnel`], and their end. A tunnel is used on threads of the app's, and reads and
//! writes the transport right there. It ends here, on the serving thread, which alone writes its statistics and has
//! timers.
//!
//! ```text
//! Upgrade ── the app answers 101 ──▶ GrantedUpgrade ── the head has been written ─▶ Tunnel
//!                                      (the request is in flight all the while)         │
//!                            the app drops it: lingering close ◀────────────────────────┤
//!                            Phase::Cut: counted, and the transport is closed ◀─────────┘
//! ```

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::timeout;

use app_host_core::not_resumed::{LongLived, NotResumed};

use super::again::Again;
use super::driver::{Driven, Ended, Wakeups};
use super::resumable::Resumable;
use super::shared::Shared;
use super::state::{Ending, History, Phase};
use super::suspended::{Leaving, Suspended};
use super::transport::Transport;
use super::upgrade::GrantedUpgrade;

/// Locks what is changed in single steps only, so that a panic of another owner can't leave it half done.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
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
    /// What lets another worker go on with it.
    resumable: Option<Box<Resumable>>,
}

/// How many bytes are read at a time of a connection that may leave: what lies behind a message travels.
const MAX_READ: usize = 16 * 1024;

impl<T: Duplex> Wire<T> {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let waiting = self.unread.iter().map(Bytes::len).sum();
        let Self { transport, unread, resumable, .. } = self;
        if let Some(resumable) = resumable.as_mut().filter(|resumable| resumable.is_ended(waiting)) {
            resumable.on_told();
            return Poll::Ready(Ok(()));
        }
        if let Some(unread) = unread.iter_mut().find(|unread| !unread.is_empty()) {
            let mut length = unread.len().min(buf.remaining());
            if let Some(resumable) = resumable {
                length = resumable.on_received(&unread[..length]);
            }
            buf.put_slice(&unread.split_to(length));
            return Poll::Ready(Ok(()));
        }
        let Some(resumable) = resumable else { return Pin::new(transport).poll_read(cx, buf) };
        let mut space = [MaybeUninit::uninit(); MAX_READ];
        let mut part = ReadBuf::uninit(&mut space[..MAX_READ.min(buf.remaining())]);
        let polled = ready!(Pin::new(transport).poll_read(cx, &mut part));
        let read = part.filled();
        if polled.is_err() || (read.is_empty() && part.capacity() > 0) {
            resumable.on_over();
        }
        polled?;
        let (now, later) = read.split_at(resumable.on_received(read));
        buf.put_slice(now);
        unread[0] = Bytes::copy_from_slice(later);
        Poll::Ready(Ok(()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = ready!(Pin::new(&mut self.transport).poll_write(cx, bytes));
        match (&mut self.resumable, &polled) {
            (Some(resumable), Ok(length)) => resumable.on_sent(&bytes[..*length]),
            (Some(resumable), Err(_)) => resumable.on_over(),
            (None, _) => {}
        }
        Poll::Ready(polled)
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(resumable) = &mut self.resumable {
            // It was told that the client has ended its side, and ends its own.
            if resumable.may_leave() {
                return Poll::Ready(Ok(()));
            }
            resumable.on_over();
        }
        Pin::new(&mut self.transport).poll_shutdown(cx)
    }
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
    fn open(
        transport: T,
        unread: [Bytes; 2],
        again: Option<Again>,
    ) -> (Tunnel, SharedWire<T>, oneshot::Receiver<Infallible>) {
        let resumable = again.map(|again| Box::new(Resumable::new(again)));
        let wire = Arc::new(Mutex::new(Some(Wire { transport, unread, waits: [None, None], resumable })));
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
        self.with(READER, cx, |wire, cx| wire.poll_read(cx, buf))
    }
}

impl<T: Duplex + 'static> AsyncWrite for AppEnd<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.with(WRITER, cx, |wire, cx| wire.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(WRITER, cx, |wire, cx| Pin::new(&mut wire.transport).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(WRITER, cx, Wire::poll_shutdown)
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

/// Has the app let go of a WebSocket that may be gone on with, or no longer.
fn want_to_leave<T>(wire: &SharedWire<T>, leaves: bool) {
    let reader = match &mut *lock(wire) {
        Some(Wire { resumable: Some(resumable), waits, .. }) => {
            resumable.want(leaves);
            waits[READER].take()
        }
        _ => None,
    };
    reader.into_iter().for_each(Waker::wake);
}

/// What a client gets whose worker ends without another one that would go on: a closing frame that says 1001, going away
/// (RFC 6455, section 7.4.1).
const GOES_AWAY: [u8; 4] = [0x88, 2, 3, 0xe9];

/// Sends what there is to be sent, and these words behind it. Returns whether that has gone out before the cut.
async fn finish<T, F>(transport: &mut T, mut words: &[u8], wakeups: &mut Wakeups<'_, F>) -> bool
where
    T: AsyncWrite + Unpin,
    F: Future<Output = ()>,
{
    poll_fn(|cx| {
        if wakeups.new_phase(cx) == Some(Phase::Cut) {
            return Poll::Ready(false);
        }
        while !words.is_empty() {
            match ready!(Pin::new(&mut *transport).poll_write(cx, words)) {
                Ok(written @ 1..) => words = &words[written..],
                _ => return Poll::Ready(false),
            }
        }
        Pin::new(&mut *transport).poll_flush(cx).map(|flushed| flushed.is_ok())
    })
    .await
}

/// Carries an HTTP/1 connection that hyper has left open, accepted when it was `opened`: as a tunnel, if the app has granted
/// one, until another worker goes on with it or it ends, by a lingering close.
pub(super) async fn carry<T, F>(
    transport: T,
    unread: [Bytes; 2],
    granted: Option<GrantedUpgrade>,
    (shared, opened): (&Arc<Shared>, Instant),
    wakeups: &mut Wakeups<'_, F>,
) -> Driven<T>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = ()>,
{
    shared.state.on_carried();
    let transport = match granted {
        None => transport,
        Some(GrantedUpgrade { tunnel, in_flight, again }) => {
            let (end, wire, mut gone) = AppEnd::open(transport, unread, again);
            // An app that answers 101 and doesn't want the tunnel has dropped the receiver already.
            drop(tunnel.send(end));
            // A drain may have begun before.
            wakeups.repeat_phase();
            let mut goes_on = false;
            let ended = poll_fn(|cx| {
                match wakeups.new_phase(cx) {
                    None => {}
                    Some(Phase::Cut) => {
                        shared.state.on_cut();
                        shared.count_cut();
                        return Poll::Ready(Ended::Cut);
                    }
                    Some(Phase::Draining { ending, .. }) => {
                        goes_on = ending == Ending::HandOver;
                        want_to_leave(&wire, true);
                    }
                    Some(Phase::Serving) => want_to_leave(&wire, false),
                }
                Pin::new(&mut gone).poll(cx).map(|_| Ended::Done)
            });
            let ended = ended.await;
            let taken = lock(&wire).take();
            let Some(Wire { mut transport, waits, unread, resumable }) = taken else { return Driven::Ended(ended) };
            if matches!(ended, Ended::Cut) {
                if resumable.is_some_and(|resumable| !resumable.is_over()) {
                    shared.count_not_resumed(LongLived::WebSocket, NotResumed::Cut);
                }
                // Here, and not on a thread of the app's.
                drop((in_flight, transport));
                waits.into_iter().flatten().for_each(Waker::wake);
                return Driven::Ended(ended);
            }
            if let Some(resumable) = resumable.filter(|resumable| resumable.may_leave()) {
                let again = if goes_on { resumable.into_again() } else { Err(NotResumed::NoSuccessor) };
                let words: &[u8] = if again.is_ok() { &[] } else { &GOES_AWAY };
                let said = finish(&mut transport, words, wakeups);
                if !timeout(shared.limits.stall, said).await.unwrap_or(false) {
                    // What the app has sent is lost.
                    shared.state.on_cut();
                    shared.count_cut();
                    shared.count_not_resumed(LongLived::WebSocket, NotResumed::Cut);
                    return Driven::Ended(Ended::Cut);
                }
                match again {
                    Err(why) => shared.count_not_resumed(LongLived::WebSocket, why),
                    Ok(head) => {
                        let unread = [&head[..], &unread[0], &unread[1]].concat().into();
                        let history = History::resumed(LongLived::WebSocket, shared.state.requests());
                        return Driven::Leaves(Leaving::Transfer(Suspended {
                            transport,
                            opened,
                            unread,
                            history,
                            left: shared.left(),
                            snapshot: None,
                        }));
                    }
                }
            }
            drop(in_flight);
            transport
        }
    };
    let mut transport = Transport::new(transport, Bytes::new(), Arc::clone(shared));
    let closed = poll_fn(|cx| {
        if wakeups.new_phase(cx) == Some(Phase::Cut) {
            return Poll::Ready(Ended::Cut);
        }
        // An error changes nothing: the transport is being closed.
        let _ = ready!(pin!(&mut transport).poll_shutdown(cx));
        Poll::Ready(Ended::Done)
    });
    Driven::Ended(closed.await)
}

/// Carries an HTTP/2 stream that the app has upgraded to its end. The stream ends with its connection, which counts a cut.
pub(super) async fn carry_stream<T>(stream: T, granted: GrantedUpgrade)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let GrantedUpgrade { tunnel, in_flight, .. } = granted;
    let (end, wire, gone) = AppEnd::open(stream, [Bytes::new(), Bytes::new()], None);
    drop(tunnel.send(end));
    let _ = gone.await;
    let taken = lock(&wire).take();
    if let Some(mut wire) = taken {
        // An error changes nothing: the stream is being ended.
        let _ = poll_fn(|cx| Pin::new(&mut wire.transport).poll_shutdown(cx)).await;
    }
    drop(in_flight);
}
