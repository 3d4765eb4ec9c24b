//! One connection: its lines in, its answers and events out, in turn.
//!
//! Commands are done one after the other, so what a client says ahead waits in its socket, where the
//! kernel bounds it. A connection that says nothing and waits for nothing ends after a while, and
//! one whose client has gone ends at once or, while it waits for something, soon.

use std::future::pending;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::info;

use app_host_core::command::{self, Answer, Command};
use app_host_platform::usage;

use super::{ControlRequest, Peer, Reply, Shared};

/// The longest line, in bytes.
const MAX_LINE: usize = 1024;

/// The answer to a longer one, and the last: where the next line begins, nobody knows.
const TOO_LONG: &str = "line too long";

/// How long a client may take to read what is written to it.
const WRITING: Duration = Duration::from_secs(10);

/// How long a client may say nothing while it waits for nothing.
const SILENCE: Duration = Duration::from_mins(1);

/// How often it is looked whether a client that waits is still there.
const LOOK: Duration = Duration::from_secs(1);

pub(super) struct Connection {
    stream: UnixStream,
    peer: Peer,
    shared: Shared,
    /// What was read and isn't a whole line yet, and lines that weren't looked at.
    read: Vec<u8>,
    input: ClientSide,
    /// The answer that the master owes.
    owed: Option<oneshot::Receiver<Reply>>,
    /// For a client that wants them.
    events: Option<broadcast::Receiver<Arc<str>>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ClientSide {
    Open,
    /// The client will say nothing more, but may still read.
    Ended,
}

/// Why a connection ends: there is nobody to tell it to.
struct Gone;

impl From<io::Error> for Gone {
    fn from(_: io::Error) -> Self {
        Self
    }
}

/// What a connection has waited for.
enum Happened {
    Read(io::Result<usize>),
    Replied(Option<Reply>),
    Event(Result<Arc<str>, RecvError>),
    Closing,
    Look,
}

impl Connection {
    pub(super) fn new(stream: UnixStream, peer: Peer, shared: Shared) -> Self {
        Self { stream, peer, shared, read: Vec::new(), input: ClientSide::Open, owed: None, events: None }
    }

    pub(super) async fn serve(mut self) {
        // Its end is all that anybody needs to know.
        let _ = self.converse().await;
    }

    async fn converse(&mut self) -> Result<(), Gone> {
        let mut silent_since = Instant::now();
        let mut closing = false;
        let mut chunk = [0; MAX_LINE];
        loop {
            while self.owed.is_none() {
                let Some(line) = self.next_line() else { break };
                silent_since = Instant::now();
                if line.len() > MAX_LINE {
                    return self.answer(&Answer::nack(TOO_LONG)).await;
                }
                self.hear(&line).await?;
            }
            if self.owed.is_none() {
                if self.read.len() > MAX_LINE {
                    return self.answer(&Answer::nack(TOO_LONG)).await;
                }
                if self.input == ClientSide::Ended && !std::mem::take(&mut self.read).is_empty() {
                    // It may be the beginning of another command than it looks like.
                    self.answer(&Answer::nack("incomplete")).await?;
                }
                if closing {
                    return self.waiting_events().await;
                }
                if self.input == ClientSide::Ended && self.events.is_none() {
                    return Ok(());
                }
            }
            let waits = self.owed.is_some() || self.events.is_some();
            let look = if waits { Instant::now() + LOOK } else { silent_since + SILENCE };
            let (owed, events) = (&mut self.owed, &mut self.events);
            let reads = owed.is_none() && self.input == ClientSide::Open;
            let happened = tokio::select! {
                read = self.stream.read(&mut chunk), if reads => Happened::Read(read),
                reply = async { match owed { Some(reply) => reply.await.ok(), None => pending().await } } => {
                    Happened::Replied(reply)
                }
                event = async { match events { Some(events) => events.recv().await, None => pending().await } } => {
                    Happened::Event(event)
                }
                _ = self.shared.close.changed(), if !closing => Happened::Closing,
                () = sleep_until(look) => Happened::Look,
            };
            match happened {
                Happened::Read(read) => match read? {
                    0 => self.input = ClientSide::Ended,
                    length => self.read.extend_from_slice(&chunk[..length]),
                },
                Happened::Replied(reply) => {
                    self.owed = None;
                    // What happened before the answer was given is told before it.
                    self.waiting_events().await?;
                    let answer = match reply {
                        Some(Reply::Answer(answer)) => answer,
                        Some(Reply::Status(mut status)) => {
                            usage::measure(&mut status);
                            Answer::Data(status.to_json())
                        }
                        None => Answer::nack("stopping"),
                    };
                    self.answer(&answer).await?;
                    silent_since = Instant::now();
                }
                Happened::Event(event) => self.pass_on(event).await?,
                Happened::Closing => closing = true,
                Happened::Look => {
                    if !waits || self.client_has_gone() {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Takes the next whole line out of what was read.
    fn next_line(&mut self) -> Option<Vec<u8>> {
        let end = self.read.iter().position(|byte| *byte == b'\n')?;
        let rest = self.read.split_off(end + 1);
        let mut line = std::mem::replace(&mut self.read, rest);
        line.pop();
        Some(line)
    }

    /// Does what needs no master, and puts to it what does.
    async fn hear(&mut self, line: &[u8]) -> Result<(), Gone> {
        let command = match command::parse(line) {
            None => return Ok(()),
            Some(Err(misunderstood)) => return self.answer(&Answer::nack(misunderstood.reason())).await,
            Some(Ok(command)) => command,
        };
        match command {
            Command::Cmds => return self.answer(&Answer::Data(command::names())).await,
            Command::Version => return self.answer(&Answer::Data(env!("CARGO_PKG_VERSION").to_owned())).await,
            Command::Events => {
                // Before the answer, so that what happens from now on is told.
                self.events.get_or_insert_with(|| self.shared.events.0.subscribe());
                return self.answer(&Answer::Ack).await;
            }
            Command::Restart(_)
            | Command::Rollback(..)
            | Command::Workers(_)
            | Command::LogLevel(_)
            | Command::ReloadCertificates
            | Command::Drain(_)
            | Command::Stop => {
                let command = String::from_utf8_lossy(line.trim_ascii()).to_ascii_uppercase();
                info!(command, peer_uid = self.peer.uid, peer_pid = self.peer.pid, "control command");
            }
            Command::Wait(_) | Command::Status | Command::Versions => {}
        }
        let (answer, owed) = oneshot::channel();
        let ask = ControlRequest { command, answer };
        // Without a master the answer is dropped with the question.
        let _ = self.shared.questions.send(ask).await;
        self.owed = Some(owed);
        Ok(())
    }

    async fn answer(&mut self, answer: &Answer) -> Result<(), Gone> {
        self.write(&answer.to_string()).await
    }

    async fn write(&mut self, line: &str) -> Result<(), Gone> {
        let line = format!("{line}\n");
        timeout(WRITING, self.stream.write_all(line.as_bytes())).await.map_err(|_| Gone)?.map_err(Gone::from)
    }

    async fn pass_on(&mut self, event: Result<Arc<str>, RecvError>) -> Result<(), Gone> {
        match event {
            Ok(line) => self.write(&line).await,
            Err(RecvError::Lagged(lost)) => self.write(&format!("{{\"event\":\"lost\",\"events\":{lost}}}")).await,
            // Nothing happens any more.
            Err(RecvError::Closed) => Err(Gone),
        }
    }

    /// Writes the events that are there already.
    async fn waiting_events(&mut self) -> Result<(), Gone> {
        loop {
            let event = match self.events.as_mut().map(broadcast::Receiver::try_recv) {
                Some(Ok(line)) => Ok(line),
                Some(Err(broadcast::error::TryRecvError::Lagged(lost))) => Err(RecvError::Lagged(lost)),
                Some(Err(_)) | None => return Ok(()),
            };
            self.pass_on(event).await?;
        }
    }

    /// Whether nobody reads any more. The end of what a client says means nothing: it may have shut down
    /// that half alone.
    fn client_has_gone(&self) -> bool {
        let mut look = [PollFd::new(self.stream.as_fd(), PollFlags::empty())];
        let gone = PollFlags::POLLHUP | PollFlags::POLLERR;
        matches!(poll(&mut look, PollTimeout::ZERO), Ok(1..))
            && look[0].revents().is_some_and(|events| events.intersects(gone))
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::{mpsc, watch};
    use tokio::task::JoinHandle;
    use tokio::time::sleep;

    use super::super::{Admitted, EVENTS, Events};
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    /// A connection under paused time, and what keeps its shared open.
    struct Room {
        client: UnixStream,
        /// Ends with the connection, and says how long it lasted.
        served: JoinHandle<Duration>,
        events: Events,
        _asked: mpsc::Receiver<ControlRequest>,
        _closing: watch::Sender<bool>,
    }

    fn room() -> Room {
        let (client, ours) = UnixStream::pair().unwrap();
        let (questions, asked) = mpsc::channel(1);
        let (closing, close) = watch::channel(false);
        let events = Events(broadcast::Sender::new(EVENTS));
        let shared =
            Shared { admitted: Admitted { users: [0; 3], group: None }, questions, events: events.clone(), close };
        let began = Instant::now();
        let connection = Connection::new(ours, Peer { uid: 0, pid: 1 }, shared);
        let served = tokio::spawn(async move {
            connection.serve().await;
            began.elapsed()
        });
        Room { client, served, events, _asked: asked, _closing: closing }
    }

    /// As long as that, and the little by which timers are late.
    fn assert_lasts(served: Duration, expected: Duration) {
        assert!((expected..expected + Duration::from_millis(10)).contains(&served), "{served:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_nothing_or_half_a_command_is_left_after_a_minute() {
        for said in ["", "STAT"] {
            let mut room = room();
            room.client.write_all(said.as_bytes()).await.unwrap();
            assert_lasts(room.served.await.unwrap(), MINUTE);
            assert_eq!(room.client.read(&mut [0; 8]).await.unwrap(), 0, "and nothing is said to it");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_minute_begins_again_with_each_line_and_not_with_each_byte() {
        let mut room = room();
        for _ in 0..3 {
            sleep(MINUTE / 2).await;
            room.client.write_all(b"cmds\n").await.unwrap();
        }
        for byte in b"cmds" {
            sleep(MINUTE / 5).await;
            room.client.write_all(&[*byte]).await.unwrap();
        }
        assert_lasts(room.served.await.unwrap(), MINUTE / 2 * 3 + MINUTE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_listens_to_events_may_be_silent_and_is_let_go_soon_after_it_has_gone() {
        let mut room = room();
        room.client.write_all(b"EVENTS\n").await.unwrap();
        let mut answer = [0; 4];
        room.client.read_exact(&mut answer).await.unwrap();
        sleep(MINUTE * 60).await;
        room.events.tell(|| serde_json::json!({ "event": "stopping" }));
        let mut line = [0; 21];
        room.client.read_exact(&mut line).await.unwrap();
        assert_eq!(&line, b"{\"event\":\"stopping\"}\n");
        drop(room.client);
        let served = room.served.await.unwrap();
        assert!((MINUTE * 60..=MINUTE * 60 + LOOK * 2).contains(&served), "{served:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_its_answers_is_left_after_ten_seconds() {
        let mut room = room();
        // It asks until nobody listens any more.
        let flood = async { while room.client.write_all(b"CMDS\n").await.is_ok() {} };
        let (served, ()) = tokio::join!(room.served, flood);
        assert_lasts(served.unwrap(), WRITING);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_its_events_is_left_after_ten_seconds() {
        let mut room = room();
        room.client.write_all(b"EVENTS\n").await.unwrap();
        let tell = async {
            while !room.served.is_finished() {
                room.events.tell(|| serde_json::json!({ "event": "x".repeat(1000) }));
                sleep(Duration::from_millis(1)).await;
            }
        };
        tell.await;
        let served = room.served.await.unwrap();
        // A while until its socket is full.
        assert!((WRITING..WRITING * 2).contains(&served), "{served:?}");
    }
}
