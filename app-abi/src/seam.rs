//! A genuine `OnUpgrade` for a connection that is the host's.
//!
//! Services take upgrades as hyper's [`OnUpgrade`], which only hyper's own server can make. So for each
//! request that asks for one, such a server is made to believe that it got a small request on a
//! connection of its own, which is this [`Seam`]; the `OnUpgrade` that it gives goes with the real
//! request. When the service has allowed the upgrade and the host hands over the client's connection,
//! the seam becomes that connection, and hyper's server is let to its end, which passes the seam on to
//! whoever awaits the upgrade. No byte is copied on the way, and nothing stands between the service and
//! the client.
//!
//! ```text
//! Asking ── the server's 101 is written, to nobody ──▶ Joined: reads and writes are the client's
//! ```
#![expect(unsafe_code, reason = "reading into memory that hyper has not initialized")]

use crate::upgrade::{Upgrade, Upgraded};
use crate::{Body, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};
use tokio::sync::oneshot;

/// The request that hyper's server gets.
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: seam\r\nconnection: upgrade\r\nupgrade: seam\r\n\r\n";

/// The end of the answer's head, behind which the connection is another.
const HEAD_END: &[u8] = b"\r\n\r\n";

/// Has `serve` answer a request that asks for an upgrade.
pub(crate) async fn serve<F, E>(
    mut request: Request<Body>,
    upgrade: Upgrade,
    serve: impl FnOnce(Request<Body>) -> F,
) -> Result<Response<Body>, E>
where
    F: Future<Output = Result<Response<Body>, E>>,
{
    let connects = request.method() == http::Method::CONNECT;
    let switches =
        move |status: StatusCode| status == StatusCode::SWITCHING_PROTOCOLS || (connects && status.is_success());
    #[cfg(feature = "http2")]
    if let Some(protocol) = upgrade.protocol() {
        request.extensions_mut().insert(hyper::ext::Protocol::from(protocol));
    }

    let joined = Slot::<Upgraded>::default();
    let asked = Slot::<OnUpgrade>::default();
    let (allow, allowed) = oneshot::channel::<()>();
    let waits = Slot::default();
    waits.put(allowed);
    let service = service_fn({
        let asked = asked.clone();
        move |mut request: Request<Incoming>| {
            asked.put(hyper::upgrade::on(&mut request));
            let allowed = waits.take();
            async move {
                if let Some(allowed) = allowed {
                    // Dropped with the connection if it isn't allowed.
                    let _ = allowed.await;
                }
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                Ok::<_, Infallible>(response)
            }
        }
    });
    let seam = Seam { request: REQUEST, matched: 0, coming: joined.clone(), io: None };
    let server = http1::Builder::new().header_read_timeout(None).serve_connection(seam, service).with_upgrades();
    let mut server = Box::pin(server);
    // All of the request is there, so one poll brings it to the service.
    poll_fn(|context| {
        let _ = server.as_mut().poll(context);
        Poll::Ready(())
    })
    .await;
    if let Some(asked) = asked.take() {
        request.extensions_mut().insert(asked);
    }
    let response = serve(request).await?;
    if switches(response.status()) {
        // The client has to get this answer first.
        tokio::spawn(async move {
            if let Ok(upgraded) = upgrade.await {
                joined.put(upgraded);
                let _ = allow.send(());
                // An error would say that the seam failed, which tells so itself to whoever has it.
                let _ = server.await;
            }
        });
    }
    Ok(response)
}

/// What one hands to the other.
struct Slot<T>(Arc<Mutex<Option<T>>>);

impl<T> Slot<T> {
    fn put(&self, value: T) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
    }

    fn take(&self) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T> Clone for Slot<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// A connection that hyper's server upgrades, and that is the client's from then on.
struct Seam {
    /// What hyper has not read of its request.
    request: &'static [u8],
    /// How many bytes of [`HEAD_END`] were written last.
    matched: usize,
    coming: Slot<Upgraded>,
    /// The client's connection, once hyper's answer is through.
    io: Option<Upgraded>,
}

impl Seam {
    /// Takes a piece of hyper's answer, which nobody reads.
    fn swallow(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.matched = match self.matched {
                matched if *byte == HEAD_END[matched] => matched + 1,
                _ => usize::from(*byte == HEAD_END[0]),
            };
            if self.matched == HEAD_END.len() {
                self.matched = 0;
                self.io = self.coming.take();
            }
        }
    }
}

impl Read for Seam {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let Some(io) = &mut this.io else {
            if this.request.is_empty() {
                // Nothing more comes on this connection, and nobody waits for it.
                return Poll::Pending;
            }
            let (now, later) = this.request.split_at(this.request.len().min(buffer.remaining()));
            buffer.put_slice(now);
            this.request = later;
            return Poll::Ready(Ok(()));
        };
        // SAFETY: the room is the buffer's own, and only what the call has filled is made part of it. The call
        // fills the room from its beginning and says never more than the room has: `advance` checks nothing (hyper 1.12.0,
        // src/rt/io.rs).
        unsafe {
            let room = buffer.as_mut();
            let (pointer, len) = (room.as_mut_ptr().cast(), room.len());
            io.poll_read_raw(context, pointer, len).map_ok(|read| buffer.advance(read))
        }
    }
}

impl Write for Seam {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(io) = &mut self.io {
            return io.poll_write(context, bytes);
        }
        self.swallow(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.as_mut().map_or(Poll::Ready(Ok(())), |io| io.poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.as_mut().map_or(Poll::Ready(Ok(())), |io| io.poll_shutdown(context))
    }
}
