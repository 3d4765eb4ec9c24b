//! HTTP/2 connections that move, and what their clients say of their tables of header fields.

use app_host_core::not_moved::NotMoved;

use super::frames_client::*;
use super::*;

/// `x: y`, which is put into the client's table, and what was put there last.
const MAKES: &[u8] = b"\x40\x01x\x01y";
const LAST: &[u8] = b"\xbe";

#[tokio::test(start_paused = true)]
async fn one_that_does_not_give_up_its_table_is_told_to_go_and_answered() {
    let mut client = Client::begin(&[]).await;
    client.is_told().await;
    client.send(&[frame(SETTINGS, 1, 0, &[]), asks_with(3, &[], MAKES)].concat()).await;
    // Behind its answer, or before it.
    client.goes().await;
    assert_eq!(client.relay.moved(), (0, vec![NotMoved::Table]));
}

#[tokio::test(start_paused = true)]
async fn one_that_has_not_given_up_its_table_and_has_moved_is_told_to_come_again() {
    let mut client = Client::begin(&[]).await;
    client.moves().await;
    client.send(&asks_with(3, &[], MAKES)).await;
    let told = client.await_kind(GOAWAY).await;
    // Stream 1 is the last that was looked at, and nothing is wrong: so the client may ask again.
    assert_eq!(told.payload, [0, 0, 0, 1, 0, 0, 0, 0]);
    assert_eq!(client.next().await, None);
    assert_eq!(client.relay.moved(), (1, vec![NotMoved::Table]));
}

/// As long as it asks for nothing, nothing is proven; another worker looks then.
#[tokio::test(start_paused = true)]
async fn what_is_not_proven_is_looked_at_wherever_it_has_moved() {
    let both = [MAKES, LAST].concat();
    let emptied = (&[0x20, 0x3f, 0xe1, 0x1f][..], &both[..]);
    let goes = (&[0x3f, 0xe1, 0x1f][..], LAST);
    for (obeys, (before, fields)) in [(true, emptied), (true, (&[0x3f, 0xe1, 0x1f, 0x20], MAKES)), (false, goes)] {
        let mut client = Client::begin(&[]).await;
        for _ in 0..3 {
            client.moves().await;
        }
        // It leaves once more, and its block comes before it acknowledges that.
        client.is_told().await;
        client.send(&asks_with(3, before, fields)).await;
        if obeys {
            assert_eq!(client.body(3).await, b"/next");
        } else {
            client.goes().await;
        }
        assert_eq!(client.relay.moved().0, 3);
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_acknowledges_nothing_is_told_to_go_when_the_linger_is_over() {
    let mut client = Client::begin(&[]).await;
    let began = Instant::now();
    client.is_told().await;
    client.send(&asks(3, "/next", &[])).await;
    assert_eq!(client.body(3).await, b"/next");
    client.goes().await;
    assert!(began.elapsed() >= LINGER, "{:?}", began.elapsed());
    assert_eq!(client.relay.moved(), (0, vec![NotMoved::Settings]));
}

/// What it acknowledges first are the settings with which HTTP has begun.
#[tokio::test(start_paused = true)]
async fn one_that_has_not_acknowledged_our_first_settings_is_told_behind_that() {
    let mut client = Client::new();
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    client.send(&[frame(SETTINGS, 0, 0, &[]), asks(1, "/first", &[])].concat()).await;
    assert_eq!(client.body(1).await, b"/first");
    client.relay.transfer();
    assert!(timeout(Duration::from_millis(10), client.next()).await.is_err(), "it was told");
    client.acknowledges().await;
    assert_eq!(client.await_kind(SETTINGS).await.payload, NO_TABLE);
}

/// The client has cut HTTP's table, which HTTP says in its next block of fields: until then another one knows nothing of it.
#[tokio::test(start_paused = true)]
async fn a_change_of_our_table_that_we_owe_the_client_is_waited_for() {
    let mut client = Client::begin(&[]).await;
    client.send(&frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 100])).await;
    client.await_kind(SETTINGS).await;
    client.is_told().await;
    client.acknowledges().await;
    // Longer than new streams would have to wait: it is one of them that is waited for.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(client.relay.transfers(), 0);
    client.send(&asks(3, "/next", EMPTY)).await;
    assert_eq!(client.body(3).await, b"/next");
    client.relay.settle().await;
    assert_eq!(client.relay.moved(), (1, vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_client_goes_on_without_its_table_in_whatever_way_it_gives_it_up() {
    let both = [MAKES, LAST].concat();
    let changed = &[0x3f, 0xe1, 0x1f][..];
    // It says so, or only what it may have in the end, or has none; and three that go on with theirs.
    let follow = [(&[0x20, 0x3f, 0xe1, 0x1f][..], &both[..], true), (changed, &both, true), (b"", b"", true)];
    let others = [(&b""[..], &both[..], false), (b"", LAST, false), (changed, LAST, false)];
    for (changes, fields, goes_on) in follow.into_iter().chain(others) {
        let mut client = Client::begin(&[]).await;
        client.send(&asks_with(3, &[], MAKES)).await;
        assert_eq!(client.body(3).await, b"/next");
        client.moves().await;
        client.send(&asks_with(5, changes, fields)).await;
        if !goes_on {
            client.await_kind(GOAWAY).await;
            assert_eq!(client.relay.moved(), (1, vec![NotMoved::Table]), "{changes:x?} {fields:x?}");
            continue;
        }
        assert_eq!(client.body(5).await, b"/next");
        // What it makes now is known where it is.
        for (stream, fields) in [(7, MAKES), (9, LAST)] {
            client.send(&asks_with(stream, if stream == 7 { &[0x20, 0x3f, 0xe1, 0x1f] } else { b"" }, fields)).await;
            assert_eq!(client.body(stream).await, b"/next");
        }
        assert_eq!(client.relay.moved(), (1, vec![]), "{changes:x?} {fields:x?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_without_a_table_moves_in_the_midst_of_its_requests() {
    let mut client = Client::begin(&[]).await;
    for number in 1..100 {
        if number % 10 == 5 {
            client.moves().await;
        }
        client.send(&asks(2 * number + 1, "/next", &[])).await;
        assert_eq!(client.body(2 * number + 1).await, b"/next");
    }
    assert_eq!(client.relay.moved(), (10, vec![]));
}

/// What it shows is not known then, and what is in flight must not end for it.
#[tokio::test(start_paused = true)]
async fn a_long_block_of_fields_beside_another_request_ends_nothing() {
    let mut client = Client::begin(&[]).await;
    client.moves().await;
    client.send(&asks(3, "/hold", &[])).await;
    let mut long = asks(5, "/next", &[]);
    let (block, end_headers) = (long.split_off(9), 4);
    long[2] = 3;
    long[4] &= !end_headers;
    let rest = frame(9, end_headers, 5, &block[3..]);
    client.send(&[&long[..], &block[..3], &rest].concat()).await;
    assert_eq!(client.body(5).await, b"/next");
    client.relay.app.gate.add_permits(1);
    assert_eq!(client.body(3).await, b"held");
    // Nor does it move any more.
    client.relay.transfer();
    client.await_kind(GOAWAY).await;
    assert_eq!(client.relay.moved(), (1, vec![NotMoved::Table]));
}
