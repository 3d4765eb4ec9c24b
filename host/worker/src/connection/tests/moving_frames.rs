//! HTTP/2 connections that move, frame by frame: as clients that send what libraries do not.

use app_host_core::not_moved::NotMoved;

use super::frames_client::*;
use super::*;

/// The client never lets more be sent: what it gets in all is what its window was.
#[tokio::test(start_paused = true)]
async fn no_more_is_sent_than_the_client_s_window_lets_and_no_less() {
    let path = format!("/{}", "p".repeat(99));
    for (opens_by, often) in [(0, true), (1, true), (100_000, true), (100_000, false)] {
        let mut client = Client::begin(&[]).await;
        let window = FIRST_WINDOW + opens_by - "/first".len();
        if let Some(more) = u32::try_from(opens_by).ok().filter(|more| *more > 0) {
            client.send(&frame(WINDOW_UPDATE, 0, 0, &more.to_be_bytes())).await;
        }
        let (mut left, mut stream) = (window, 3);
        while left >= path.len() {
            if stream == 3 || often && stream % 50 == 3 {
                client.moves().await;
            }
            // A size of the table that was told before a move is due in the first block behind it, and harmless in others.
            client.send(&asks(stream, &path, EMPTY)).await;
            assert_eq!(client.body(stream).await.len(), path.len());
            (left, stream) = (left - path.len(), stream + 2);
        }
        if often {
            client.moves().await;
        }
        client.send(&asks(stream, &path, EMPTY)).await;
        assert_eq!(client.await_kind(HEADERS).await.flags & 1, 0);
        if left > 0 {
            assert_eq!(client.await_kind(DATA).await.payload.len(), left);
        }
        assert!(timeout(Duration::from_millis(10), client.next()).await.is_err(), "more than {window} came");
        client.send(&frame(WINDOW_UPDATE, 0, 0, &1000_u32.to_be_bytes())).await;
        assert_eq!(client.body(stream).await.len(), path.len() - left);
        assert_eq!(client.relay.moved().1, []);
    }
}

/// A stream of the client's takes nothing where its window is none, and more where the connection's is wider than usual.
#[tokio::test(start_paused = true)]
async fn the_window_of_streams_is_no_obstacle() {
    for first in [0_u32, 1, 1000, 1 << 20] {
        let window = [&[0, 4][..], &first.to_be_bytes()].concat();
        let mut client = Client::begin_with(&window).await;
        for stream in [3, 5] {
            client.moves().await;
            client.send(&asks(stream, "/next", EMPTY)).await;
            client.send(&frame(WINDOW_UPDATE, 0, stream, &5_u32.to_be_bytes())).await;
            assert_eq!(client.body(stream).await, b"/next");
        }
    }
}

/// What the client may send is what HTTP takes, to the byte.
#[tokio::test(start_paused = true)]
async fn the_client_may_send_what_it_is_told_and_no_byte_more() {
    for more in [0, 1] {
        let mut client = Client::begin(&[]).await;
        // Some of it is used up.
        client.send(&posts(3, "/echo", &[])).await;
        client.send(&frame(DATA, 1, 3, &[1; 1000])).await;
        assert_eq!(client.body(3).await.len(), 1000);
        let told = client.moves().await;
        // What it could send before: all but what it has sent, as long as nobody has said otherwise.
        assert_eq!(told, 1000);
        client.send(&posts(5, "/hold", EMPTY)).await;
        client.send(&posts(7, "/hold", &[])).await;
        let mut left = WINDOW + more;
        while left > 0 {
            let length = left.min(16_384);
            let stream = if left > WINDOW / 2 { 5 } else { 7 };
            client.send(&frame(DATA, 0, stream, &vec![2; length])).await;
            left -= length;
        }
        client.send(&frame(PING, 0, 0, &[7; 8])).await;
        loop {
            let next = client.next().await.expect("it ended");
            match next.kind {
                PING => break assert_eq!(more, 0),
                // FLOW_CONTROL_ERROR (RFC 9113, section 7).
                GOAWAY => break assert_eq!((more, next.payload[7]), (1, 3)),
                _ => {}
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn half_of_a_frame_goes_along() {
    let next = asks(3, "/next", EMPTY);
    for sent in 1..next.len() {
        let mut client = Client::begin(&[]).await;
        client.is_told().await;
        client.send(&[&frame(SETTINGS, 1, 0, &[]), &next[..sent]].concat()).await;
        client.relay.settle().await;
        assert_eq!(client.relay.transfers(), 1, "{sent}");
        client.send(&next[sent..]).await;
        assert_eq!(client.body(3).await, b"/next", "{sent}");
        assert_eq!(client.relay.moved(), (1, vec![]));
    }
}

/// A client of which new streams are held back: stream 5 is open, and no older one.
async fn held_back() -> Client {
    let mut client = Client::begin(&[]).await;
    client.send(&asks(3, "/hold", &[])).await;
    client.relay.settle().await;
    client.is_told().await;
    client.acknowledges().await;
    client.relay.settle().await;
    client.send(&posts(5, "/hold", EMPTY)).await;
    client.relay.app.gate.add_permits(1);
    assert_eq!(client.body(3).await, b"held");
    // Longer than a gap is waited for.
    tokio::time::sleep(Duration::from_millis(60)).await;
    client
}

/// What HTTP has begun to read it reads to the end.
#[tokio::test(start_paused = true)]
async fn a_frame_that_has_begun_when_its_connection_is_to_leave_is_read_here() {
    let next = asks(3, "/next", &[]);
    for sent in 1..next.len() {
        let mut client = Client::begin(&[]).await;
        client.send(&next[..sent]).await;
        client.relay.settle().await;
        client.is_told().await;
        client.send(&[&next[sent..], &frame(SETTINGS, 1, 0, &[])].concat()).await;
        assert_eq!(client.body(3).await, b"/next", "{sent}");
        client.relay.settle().await;
        assert_eq!((client.relay.moved(), client.relay.requests()), ((1, vec![]), vec![2, 0]), "{sent}");
    }
}

/// More frames that carry nothing than HTTP gets in one turn.
#[tokio::test(start_paused = true)]
async fn what_waits_for_its_turn_goes_along() {
    let mut client = Client::begin(&[]).await;
    client.is_told().await;
    let updates = frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).repeat(20);
    client.send(&[frame(SETTINGS, 1, 0, &[]), updates, asks(3, "/next", EMPTY)].concat()).await;
    assert_eq!(client.body(3).await, b"/next");
    assert_eq!((client.relay.moved(), client.relay.requests()), ((1, vec![]), vec![1, 1]));
}

#[tokio::test(start_paused = true)]
async fn a_ping_that_the_client_has_not_answered_is_waited_for() {
    let mut client = Client::begin(&[]).await;
    let ping = client.await_kind(PING).await;
    client.is_told().await;
    client.acknowledges().await;
    client.relay.settle().await;
    assert_eq!(client.relay.transfers(), 0);
    client.send(&frame(PING, 1, 0, &ping.payload)).await;
    client.relay.settle().await;
    assert_eq!(client.relay.moved(), (1, vec![]));
}

/// It would keep them waiting for as long as it takes.
#[tokio::test(start_paused = true)]
async fn nothing_is_held_back_for_a_stream_that_is_older() {
    let mut client = Client::begin(&[]).await;
    client.send(&asks(3, "/hold", &[])).await;
    client.relay.settle().await;
    client.is_told().await;
    client.acknowledges().await;
    for stream in (5..21).step_by(2) {
        tokio::time::sleep(Duration::from_millis(40)).await;
        let began = Instant::now();
        client.send(&asks(stream, "/next", EMPTY)).await;
        assert_eq!(client.body(stream).await, b"/next");
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
    client.relay.app.gate.add_permits(1);
    assert_eq!(client.body(3).await, b"held");
    client.relay.settle().await;
    assert_eq!(client.relay.moved(), (1, vec![]));
}

/// New streams wait for a while, and are another worker's.
#[tokio::test(start_paused = true)]
async fn streams_that_are_held_back_go_along() {
    let mut client = held_back().await;
    let next = asks(9, "/next", &[]);
    client.send(&[&posts(7, "/echo", &[])[..], &frame(DATA, 0, 7, b"some "), &next[..5]].concat()).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(client.relay.requests(), [3]);
    // What belongs to one that is open goes on.
    client.send(&[&next[5..], &frame(DATA, 1, 5, b"end"), &frame(DATA, 1, 7, b"more")].concat()).await;
    client.relay.app.gate.add_permits(1);
    assert_eq!(client.body(5).await, b"held");
    assert_eq!(client.body(9).await, b"/next");
    assert_eq!(client.relay.moved(), (1, vec![]));
    assert_eq!(client.relay.requests(), [3, 2]);
}

/// What can't wait longer, or must not, is answered here.
#[tokio::test(start_paused = true)]
async fn what_was_held_back_is_answered_here_if_its_connection_stays() {
    let (next, echo) = (asks(7, "/next", &[]), posts(7, "/echo", &[]));
    let end = || frame(DATA, 1, 7, &[1; 10]);
    let large = [echo.clone(), frame(DATA, 0, 7, &[1; 8000]).repeat(4), end()].concat();
    // It has sent nearly all that it may.
    let starves = [frame(DATA, 0, 5, &[1; 10_000]).repeat(99), echo, end()].concat();
    let sets = [next.clone(), frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0])].concat();
    let goes = [next.clone(), frame(GOAWAY, 0, 0, &[0; 8])].concat();
    for (sent, wait, why) in [
        (next, 150, NotMoved::Streams),
        (large, 1, NotMoved::Unread),
        (starves, 1, NotMoved::Unread),
        (sets, 1, NotMoved::Settings),
        (goes, 1, NotMoved::Closing),
    ] {
        let mut client = held_back().await;
        client.send(&sent).await;
        tokio::time::sleep(Duration::from_millis(wait)).await;
        assert_eq!(client.relay.requests(), [4], "{why}");
        client.relay.app.gate.add_permits(1);
        client.send(&frame(DATA, 1, 5, &[])).await;
        client.relay.settle().await;
        assert_eq!(client.relay.moved(), (0, vec![why]));
    }
}

/// A client sends on for a while when its stream was reset, which HTTP would take for an error elsewhere.
#[tokio::test(start_paused = true)]
async fn what_comes_late_for_a_stream_that_was_reset_comes_before_the_move() {
    let mut client = Client::begin(&[]).await;
    client.send(&[posts(3, "/late-body", &[]), frame(DATA, 0, 3, &[1; 100])].concat()).await;
    client.await_kind(RST_STREAM).await;
    client.relay.transfer();
    client.await_kind(SETTINGS).await;
    client.relay.settle().await;
    assert_eq!(client.relay.transfers(), 0);
    client.send(&[frame(DATA, 0, 3, &[1; 100]), frame(SETTINGS, 1, 0, &[])].concat()).await;
    client.relay.settle().await;
    assert_eq!(client.relay.transfers(), 1);
    let raised = client.await_kind(SETTINGS).await;
    assert!(raised.payload.starts_with(&[0, 1, 0, 0, 16, 0]), "{raised:?}");
    // Both count for what it may send.
    assert_eq!(client.await_kind(WINDOW_UPDATE).await.payload, 200_u32.to_be_bytes());
    client.acknowledges().await;
    client.send(&asks(5, "/next", EMPTY)).await;
    assert_eq!(client.body(5).await, b"/next");
}

/// The client is told once more, and has moved when it knows.
#[tokio::test(start_paused = true)]
async fn a_stream_that_is_reset_while_its_connection_leaves_is_waited_for() {
    let mut client = Client::begin(&[]).await;
    client.is_told().await;
    client.send(&[posts(3, "/late-body", &[]), frame(DATA, 0, 3, &[1; 100])].concat()).await;
    client.await_kind(RST_STREAM).await;
    client.acknowledges().await;
    assert_eq!(client.await_kind(SETTINGS).await.payload, NO_TABLE);
    client.relay.settle().await;
    assert_eq!(client.relay.transfers(), 0);
    client.send(&[frame(DATA, 0, 3, &[1; 100]), frame(SETTINGS, 1, 0, &[])].concat()).await;
    client.relay.settle().await;
    assert_eq!(client.relay.moved(), (1, vec![]));
    client.acknowledges().await;
    client.send(&asks(5, "/next", EMPTY)).await;
    assert_eq!(client.body(5).await, b"/next");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_ends_its_side_while_its_connection_leaves_is_answered() {
    let mut client = held_back().await;
    client.send(&[asks(7, "/next", &[]), frame(DATA, 1, 5, &[])].concat()).await;
    client.relay.app.gate.add_permits(1);
    client.relay.settle().await;
    client.relay.app.gate.add_permits(1);
    client.client_ends().await;
    assert_eq!(client.body(5).await, b"held");
    assert_eq!(client.body(7).await, b"/next");
}

/// It is told to give up its table again when it has acknowledged what it was told last.
#[tokio::test(start_paused = true)]
async fn one_that_is_to_leave_before_it_has_acknowledged_that_it_moved_waits() {
    let mut client = Client::begin(&[]).await;
    client.is_told().await;
    client.acknowledges().await;
    client.relay.settle().await;
    let raised = client.await_kind(SETTINGS).await;
    assert!(raised.payload.starts_with(&[0, 1, 0, 0, 16, 0]), "{raised:?}");
    client.relay.transfer();
    // The clock goes on only where nobody has anything to do.
    client.relay.settle().await;
    client.acknowledges().await;
    assert_eq!(client.await_kind(SETTINGS).await.payload, NO_TABLE);
    client.acknowledges().await;
    client.relay.settle().await;
    assert_eq!(client.relay.moved(), (2, vec![]));
}
