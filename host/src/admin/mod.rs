//! The process that serves metrics, health and the page for operators.
//!
//! The master parses no HTTP: this process does, with the workers' rights and one connection to its master,
//! over which it asks how things stand. Nothing that a client sends gets further than here, and nothing here
//! can change anything: there is only GET and HEAD. It ends with its master, or when it isn't needed any more.
//!
//! ```text
//! client ── TCP ──▶ answer ──▶ Source ── Ask ──▶ master's loop
//!                     ▲           │ ◀─ Snapshot ──┘
//!                     └── Live ◀──┘   one question at a time, for however many clients
//! ```

mod answer;
mod connection_limit;
mod live;
mod source;
mod write_timeout;

use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::{Pin, pin};
use std::process::ExitCode;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::timeout;

use app_host_core::error::chain;
use app_host_core::message::{AdminListens, AdminSetup};
use app_host_platform::channel::Channel;
use app_host_platform::logging;
use app_host_platform::sys;

use answer::Responder;
use connection_limit::{Busy, ConnectionLimit, ConnectionPermit};
use write_timeout::WriteTimeout;

/// How many clients are served at the same time.
const CONNECTIONS: usize = 64;

/// How long the head of a request may take, and how long a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// How many bytes the head of a request may have, and how many fields.
const MAX_HEAD: usize = 16 * 1024;
const MAX_FIELDS: usize = 64;

/// How long no connection is accepted after one couldn't be, for want of descriptors for instance.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long the last answers may take when it isn't needed any more.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// Plays the role; the control socket is standard input.
pub fn run() -> anyhow::Result<ExitCode> {
    let control = sys::take_stdin()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let channel = Channel::from_owned_fd(control)?;
        // The master has died: nobody is to be served.
        let Some((setup, descriptors)) = channel.receive::<AdminSetup>().await? else { return Ok(ExitCode::SUCCESS) };
        logging::init_child(setup.log, None)?;
        // Whoever ends all processes of this name means the master. That ends this one, which says meanwhile
        // that the service stops.
        let _ignored = signal(SignalKind::terminate())?;
        let socket = descriptors.into_iter().next().context("the setup came without a listener")?;
        let listener = Listener::take_over(socket, setup.listens)?;
        let (source, questions) = source::open();
        let (closing, close) = watch::channel(false);
        let responder = Rc::new(Responder::new(setup.listens, source, close.clone()));
        let watched = Rc::clone(&responder);
        tokio::task::spawn_local(async move { watched.live().run().await });
        let mut connections = JoinSet::new();
        tokio::select! {
            // The master has gone, or needs this process no more.
            () = questions.put_to(&channel) => {}
            never = accept(&listener, &responder, &close, &mut connections) => match never {},
        }
        drop(listener);
        closing.send_replace(true);
        let rest = async { while connections.join_next().await.is_some() {} };
        // Whoever is still there then has had its time.
        let _ = timeout(LAST_ANSWERS, rest).await;
        sys::exit_now(0)
    })
}

/// The listener as the master handed it over.
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Must be called inside a runtime.
    fn take_over(socket: OwnedFd, listens: AdminListens) -> io::Result<Self> {
        Ok(match listens {
            AdminListens::Loopback | AdminListens::Network => Self::Tcp(TcpListener::from_std(socket.into())?),
            AdminListens::Unix => Self::Unix(UnixListener::from_std(socket.into())?),
        })
    }

    async fn accept(&self) -> io::Result<Stream> {
        Ok(match self {
            Self::Tcp(listener) => Stream::Tcp(listener.accept().await?.0),
            Self::Unix(listener) => Stream::Unix(listener.accept().await?.0),
        })
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

async fn accept(
    listener: &Listener,
    responder: &Rc<Responder>,
    close: &watch::Receiver<bool>,
    connections: &mut JoinSet<()>,
) -> Infallible {
    let mut complained = false;
    let limit = ConnectionLimit::new(CONNECTIONS);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(stream) => {
                    complained = false;
                    limit.make_room().await;
                    let (responder, close, permit) = (Rc::clone(responder), close.clone(), ConnectionLimit::enter(&limit));
                    let number = permit.number();
                    let task = match stream {
                        Stream::Tcp(stream) => {
                            // What is pushed to a page is to be seen at once.
                            let _ = stream.set_nodelay(true);
                            connections.spawn_local(serve(stream, responder, close, permit))
                        }
                        Stream::Unix(stream) => connections.spawn_local(serve(stream, responder, close, permit)),
                    };
                    limit.is_served_by(number, task);
                    // So that a head which is there already is read before others come.
                    tokio::task::yield_now().await;
                }
                Err(error) => {
                    if !std::mem::replace(&mut complained, true) {
                        tracing::warn!(error = chain(&error), "an admin connection can't be accepted");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// An answer's body, which is dropped once it is sent.
struct WhileSent {
    body: answer::Body,
    _busy: Busy,
}

impl hyper::body::Body for WhileSent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Serves one connection to its end, which comes soon once `close` says so.
async fn serve<T>(stream: T, responder: Rc<Responder>, mut close: watch::Receiver<bool>, permit: ConnectionPermit)
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let service = service_fn(|request| {
        let (responder, busy) = (Rc::clone(&responder), permit.busy());
        async move {
            let answer = responder.answer(&request).await;
            Ok::<_, Infallible>(answer.map(|body| WhileSent { body, _busy: busy }))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(MAX_FIELDS)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(WriteTimeout::new(stream)), service);
    let mut connection = pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        // Also when whoever says so has gone.
        _ = close.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(error = chain(&error), "an admin connection has failed");
    }
}
