//! The control socket: where the operator commands the master, line by line.
//!
//! Owns the socket, its file, a thread of its own with all connections, and what those who listen to
//! events haven't read yet. What a line means is `command`'s to say, and what is done about it the
//! master's: what concerns it is put to its loop, one question a connection at a time.
//!
//! ```text
//! client ── socket ──▶ connection ── ControlRequest ──▶ master's loop
//!        ◀── lines ───    │   ▲──────── Reply ────────┘   │
//!                         └◀──── events, bounded ──────────┘
//! ```
//! So a client that hangs, floods, sends garbage or vanishes costs this thread something and the master
//! nothing: it never waits for a client, and whoever reads too slowly loses events and is told how many.

mod connection;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc as blocking};
use std::time::Duration;

use nix::unistd::Uid;
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use app_host_core::command::{Answer, Command, NOT_ALLOWED};
use app_host_core::config::ControlSocket;
use app_host_core::error::chain;
use app_host_core::status::Status;
use app_host_platform::identity::{self, IdentityError};
use app_host_platform::socket_file::{SocketFile, SocketFileError};
use app_host_platform::sys::socket;

use connection::Connection;

/// How many clients are heard at the same time.
const CONNECTIONS: usize = 32;

/// How many wait for that.
const BACKLOG: i32 = 32;

/// How many questions wait for the master's loop.
pub const QUESTIONS: usize = 16;

/// How many events wait for the slowest of those who listen.
const EVENTS: usize = 1024;

/// How long the last answers of a master that exits may take.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// How long no connection is accepted after one couldn't be, for want of descriptors for instance.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A control socket that can't be had.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("control_socket {}: it is in use by another process, which accepts connections on it", path.display())]
    Live { path: PathBuf },
    #[error("control_socket {}: something that is no socket lies there", path.display())]
    NoSocket { path: PathBuf },
    #[error("control_socket {} can't be bound", path.display())]
    Bind { path: PathBuf, source: io::Error },
    #[error("control_socket")]
    Owner(#[source] IdentityError),
    #[error("the thread of the control socket can't be made")]
    Thread(#[source] io::Error),
}

/// Who is at the other end of a connection, as the kernel says it.
#[derive(Clone, Copy, Debug)]
struct Peer {
    uid: u32,
    pid: i32,
}

/// What a client wants of the master's loop.
#[derive(Debug)]
pub struct ControlRequest {
    pub command: Command,
    /// The answer may come later. Who drops it has none to give.
    pub answer: oneshot::Sender<Reply>,
}

/// What the loop answers.
#[derive(Debug)]
pub enum Reply {
    Answer(Answer),
    /// What can be looked up in `/proc` is added by the thread of the control socket.
    Status(Box<Status>),
}

/// Everything that happens, for those who want to know.
#[derive(Clone, Debug)]
pub struct Events(broadcast::Sender<Arc<str>>);

impl Events {
    /// Tells everybody who listens. Never waits; `event` isn't called when nobody does.
    pub fn tell(&self, event: impl FnOnce() -> Value) {
        if self.0.receiver_count() > 0 {
            // The last one may have gone meanwhile.
            let _ = self.0.send(event().to_string().into());
        }
    }
}

/// The open control socket. Its file is removed with it, after the last answers.
#[derive(Debug)]
pub struct Control {
    events: Events,
    closing: watch::Sender<bool>,
    closed: blocking::Receiver<()>,
    /// Sockets that take the place of the one that is accepted on.
    sockets: mpsc::UnboundedSender<Socket>,
    place: ControlSocket,
    file: SocketFile,
}

impl Control {
    /// Makes the socket at `path` and the thread, which puts to `questions` what clients want of the loop.
    ///
    /// # Errors
    /// When a process accepts connections at `path`, or something lies there that is no socket: neither is
    /// touched.
    pub fn open(place: &ControlSocket, questions: mpsc::Sender<ControlRequest>) -> Result<Self, ControlError> {
        let (socket, file) = listen(place)?;
        let admitted = Admitted::to(&file).map_err(|source| ControlError::Bind { path: place.path.clone(), source })?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ControlError::Thread)?;
        let events = Events(broadcast::Sender::new(EVENTS));
        let (closing, close) = watch::channel(false);
        let (sockets, others) = mpsc::unbounded_channel();
        let (done, closed) = blocking::channel();
        let shared = Shared { admitted, questions, events: events.clone(), close };
        let serve = move || {
            runtime.block_on(async {
                match UnixListener::from_std(socket.into()) {
                    Ok(listener) => shared.serve(listener, others).await,
                    Err(error) => warn!(error = chain(&error), "the control socket can't be waited for"),
                }
            });
            // The master doesn't wait any more, when it isn't heard.
            let _ = done.send(());
        };
        std::thread::Builder::new().name("control".to_owned()).spawn(serve).map_err(ControlError::Thread)?;
        Ok(Self { events, closing, closed, sockets, place: place.clone(), file })
    }

    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Whether its path leads to it.
    pub fn is_in_place(&self) -> bool {
        self.file.is_in_place()
    }

    /// Makes it anew at its path, from where it was removed. Connections go on.
    ///
    /// # Errors
    /// As those of [`open`](Self::open); then the one that there was is accepted on.
    pub fn make_anew(&mut self) -> Result<(), ControlError> {
        let (socket, file) = listen(&self.place)?;
        // The thread ends with this value, or has said that it can't be.
        let _ = self.sockets.send(socket);
        self.file = file;
        Ok(())
    }

    pub fn events(&self) -> Events {
        self.events.clone()
    }
}

/// A socket that listens, and its file.
fn listen(ControlSocket { path, rights }: &ControlSocket) -> Result<(Socket, SocketFile), ControlError> {
    let owner = identity::owner(rights).map_err(ControlError::Owner)?;
    let bind = |source| ControlError::Bind { path: path.to_owned(), source };
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(bind)?;
    // Nobody can connect before `listen`, and the file never allows more than is configured.
    let file = SocketFile::bind(&socket, path, rights.mode, owner).map_err(|error| match error {
        SocketFileError::Live => ControlError::Live { path: path.to_owned() },
        SocketFileError::NoSocket => ControlError::NoSocket { path: path.to_owned() },
        SocketFileError::Exchanged | SocketFileError::Give { .. } => bind(io::Error::other(error)),
        SocketFileError::System(source) => bind(source),
    })?;
    socket.set_nonblocking(true).and_then(|()| socket.listen(BACKLOG)).map_err(bind)?;
    Ok((socket, file))
}

impl Drop for Control {
    /// Gives clients that still wait for an answer the time to read it: every [`ControlRequest`] should have been
    /// answered or dropped before.
    fn drop(&mut self) {
        self.closing.send_replace(true);
        let _ = self.closed.recv_timeout(LAST_ANSWERS);
    }
}

/// What every connection needs.
#[derive(Clone)]
struct Shared {
    admitted: Admitted,
    questions: mpsc::Sender<ControlRequest>,
    events: Events,
    close: watch::Receiver<bool>,
}

impl Shared {
    /// Accepts until the master closes, and then lets every connection finish.
    async fn serve(mut self, mut listener: UnixListener, mut others: mpsc::UnboundedReceiver<Socket>) {
        let mut connections = JoinSet::new();
        let mut complained = false;
        loop {
            tokio::select! {
                // Also when the master has gone without a word.
                _ = self.close.changed() => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        complained = false;
                        if connections.len() < CONNECTIONS {
                            if let Some(peer) = self.admit(&stream) {
                                connections.spawn(Connection::new(stream, peer, self.clone()).serve());
                            }
                        } else {
                            // Whether the line arrives or not: a client that doesn't read isn't waited for.
                            let _ = stream.try_write(b"NACK too many connections\n");
                        }
                    }
                    Err(error) => {
                        if !std::mem::replace(&mut complained, true) {
                            warn!(error = chain(&error), "a control connection can't be accepted");
                        }
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(socket) = others.recv() => match UnixListener::from_std(socket.into()) {
                    Ok(another) => listener = another,
                    Err(error) => warn!(error = chain(&error), "the control socket can't be waited for"),
                },
                Some(_) = connections.join_next() => {}
            }
        }
        while connections.join_next().await.is_some() {}
    }

    /// Whether whoever connects may say something. The file's mode says the same, but not about a
    /// descriptor that somebody was given.
    fn admit(&self, stream: &UnixStream) -> Option<Peer> {
        let credentials = match stream.peer_cred() {
            Ok(credentials) => credentials,
            Err(error) => {
                warn!(error = chain(&error), "nobody knows who is at a control connection, which is closed");
                return None;
            }
        };
        let peer = Peer { uid: credentials.uid(), pid: credentials.pid().unwrap_or_default() };
        if !self.admitted.admits(peer.uid, credentials.gid(), || socket::peer_groups(stream).unwrap_or_default()) {
            warn!(peer_uid = peer.uid, peer_pid = peer.pid, "control connection of somebody else closed");
            // Whether the line arrives or not.
            let _ = stream.try_write(format!("{}\n", Answer::nack(NOT_ALLOWED)).as_bytes());
            return None;
        }
        debug!(peer_uid = peer.uid, peer_pid = peer.pid, "control connection accepted");
        Some(peer)
    }
}

/// Who may say something: root, we, the file's user, and its group where the mode lets that one connect.
#[derive(Clone, Debug)]
struct Admitted {
    users: [u32; 3],
    group: Option<u32>,
}

impl Admitted {
    fn to(file: &SocketFile) -> io::Result<Self> {
        let (owner, group, mode) = file.rights()?;
        Ok(Self { users: [0, Uid::effective().as_raw(), owner], group: (mode & 0o020 != 0).then_some(group) })
    }

    fn admits(&self, uid: u32, gid: u32, supplementary: impl FnOnce() -> Vec<u32>) -> bool {
        let is_member = |group| gid == group || supplementary().contains(&group);
        self.users.contains(&uid) || self.group.is_some_and(is_member)
    }
}

#[cfg(test)]
mod tests;
