//! The moments in which h2 has not done its part. No client can bring them about when it likes, so h2 is played here.

use std::time::Duration;

use app_host_core::config::Http2Restart;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::{Instant, timeout};

use super::super::super::state::{ConnState, Ending, History, Limits, Phase, Protocol, Timeouts};
use super::frames::{ACK, CONTINUATION, END_HEADERS, END_STREAM, HEADERS, SETTINGS, WINDOW_UPDATE};
use super::*;

const MOVES: &Limits = &Limits { http2: Http2Restart::Move, ..Limits::TEST };

/// PRIORITY, which means nothing any more (RFC 9113, section 5.3.2).
const PRIORITY: u8 = 2;

/// One connection, between a client and h2's part.
struct Played {
    client: DuplexStream,
    moving: Moving<DuplexStream>,
    shared: Arc<Shared>,
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Head::write(kind, flags, stream, payload, &mut out);
    out
}

impl Played {
    /// One whose client has had an answer.
    async fn answered() -> Self {
        let (client, transport) = duplex(1 << 16);
        let state = ConnState::new(Protocol::Http2, 0).with_moves(MOVES);
        let shared = Arc::new(Shared::new(state, Box::leak(Box::default()), None, MOVES, None));
        let transport = Transport::new(transport, Bytes::new(), Arc::clone(&shared));
        let moving = Moving::new(transport, None, Arc::clone(&shared));
        let mut this = Self { client, moving, shared };
        let request = frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0x82, 0x86, 0x84]);
        let settings = [frame(SETTINGS, 0, 0, &[]), frame(SETTINGS, ACK, 0, &[])].concat();
        this.client.write_all(&[PREFACE, &settings, &request].concat()).await.unwrap();
        this.write(&frame(SETTINGS, 0, 0, &[])).await;
        this.reads_all();
        this.write(&frame(SETTINGS, ACK, 0, &[])).await;
        this.write(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0x88])).await;
        this.flush().await;
        this
    }

    /// The worker drains.
    fn is_to_leave(&self) {
        let now = Instant::now().into_std();
        let mut timeouts = Timeouts::resume(&History::NEW, now, MOVES, now);
        let phase = Phase::Draining { since: now, linger: Duration::from_secs(5), ending: Ending::HandOver };
        timeouts.on_phase(&self.shared.state, phase, false);
    }

    /// One that is to leave, and whose client has acknowledged what it was told.
    async fn told() -> Self {
        let mut this = Self::answered().await;
        this.is_to_leave();
        this.reads_all();
        this.client.write_all(&frame(SETTINGS, ACK, 0, &[])).await.unwrap();
        this.reads_all();
        this
    }

    /// What the client has been told, from this connection's beginning.
    async fn received(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        let mut some = [0; 4096];
        while let Ok(Ok(read @ 1..)) = timeout(Duration::from_millis(20), self.client.read(&mut some)).await {
            all.extend_from_slice(&some[..read]);
        }
        all
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.moving.write_all(bytes).await.unwrap();
    }

    async fn flush(&mut self) {
        self.moving.flush().await.unwrap();
    }

    /// h2 reads. Returns whether there was something.
    fn reads(&mut self) -> bool {
        self.shared.state.on_poll();
        let mut space = [0; 4096];
        let mut buf = ReadBuf::new(&mut space);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        Pin::new(&mut self.moving).poll_read(&mut cx, &mut buf).is_ready()
    }

    fn reads_all(&mut self) {
        while self.reads() {}
    }

    fn leaves(&self) -> bool {
        self.shared.state.takes_leave()
    }
}

#[tokio::test]
async fn one_leaves_when_h2_has_read_all_that_it_was_given() {
    let mut played = Played::told().await;
    played.client.write_all(&frame(PRIORITY, 0, 3, &[0; 5])).await.unwrap();
    assert!(played.reads());
    // h2 has it, and writes something before it looks.
    played.flush().await;
    assert!(!played.leaves());
    assert!(!played.reads());
    assert!(played.leaves());
}

#[tokio::test]
async fn one_leaves_when_all_that_h2_has_written_has_gone_out() {
    let mut played = Played::told().await;
    played.write(&frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])).await;
    assert!(!played.reads());
    assert!(!played.leaves());
    played.flush().await;
    assert!(played.leaves());
    let slot = played.moving.slot();
    drop(played.moving);
    let Some(Dropped::Left { snapshot, unread, .. }) = lock(&slot).take() else { panic!("it is gone") };
    assert_eq!((snapshot.last, snapshot.credit, unread.len()), (1, 65_536, 0));
}

/// What the client is told goes between two frames, and between two blocks of fields.
#[tokio::test]
async fn nothing_is_said_in_the_midst_of_what_h2_says() {
    let update = frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]);
    let block = [frame(HEADERS, 0, 3, &[0x88]), frame(CONTINUATION, END_HEADERS, 3, &[])].concat();
    for (said, cuts) in [(&update, vec![1, 8, 9, 12]), (&block, vec![9, 10, 11])] {
        for cut in cuts {
            let mut played = Played::answered().await;
            played.received().await;
            played.write(&said[..cut]).await;
            played.is_to_leave();
            played.reads_all();
            played.flush().await;
            played.write(&said[cut..]).await;
            played.flush().await;
            played.reads_all();
            let received = played.received().await;
            let told = frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0]);
            assert_eq!(received, [&said[..], &told].concat(), "{cut}");
        }
    }
}
