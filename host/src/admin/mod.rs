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
mod hosts;
mod live;
mod patience;
mod source;

use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::timeout;

use crate::causes::chain;
use crate::channel::Channel;
use crate::message::{AdminListens, AdminSetup};
use crate::{logging, sys};
use answer::Desk;
use patience::Patient;

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

/// What those beyond the bound are told. It fits into the buffer of a socket that nothing was written to.
const TOO_MANY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nretry-after: 1\r\nconnection: close\r\n\r\n";

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
        let desk = Rc::new(Desk::new(setup.listens, source, close.clone()));
        let watched = Rc::clone(&desk);
        tokio::task::spawn_local(async move { watched.live().run().await });
        let mut connections = JoinSet::new();
        tokio::select! {
            // The master has gone, or needs this process no more.
            () = questions.put_to(&channel) => {}
            never = accept(&listener, &desk, &close, &mut connections) => match never {},
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

impl Stream {
    /// Answers that there are too many, if it can be said at once: a client that doesn't read isn't waited for.
    fn turn_away(&self) {
        let _ = match self {
            Self::Tcp(stream) => stream.try_write(TOO_MANY),
            Self::Unix(stream) => stream.try_write(TOO_MANY),
        };
    }
}

async fn accept(
    listener: &Listener,
    desk: &Rc<Desk>,
    close: &watch::Receiver<bool>,
    connections: &mut JoinSet<()>,
) -> Infallible {
    let mut complained = false;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(stream) => {
                    complained = false;
                    if connections.len() >= CONNECTIONS {
                        stream.turn_away();
                        continue;
                    }
                    let (desk, close) = (Rc::clone(desk), close.clone());
                    match stream {
                        Stream::Tcp(stream) => {
                            // What is pushed to a page is to be seen at once.
                            let _ = stream.set_nodelay(true);
                            connections.spawn_local(serve(stream, desk, close));
                        }
                        Stream::Unix(stream) => drop(connections.spawn_local(serve(stream, desk, close))),
                    }
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

/// Serves one connection to its end, which comes soon once `close` says so.
async fn serve<T>(stream: T, desk: Rc<Desk>, mut close: watch::Receiver<bool>)
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let service = service_fn(move |request| {
        let desk = Rc::clone(&desk);
        async move { Ok::<_, Infallible>(desk.answer(&request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(MAX_FIELDS)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(Patient::new(stream)), service);
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
