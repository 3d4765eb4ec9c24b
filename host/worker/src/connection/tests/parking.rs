//! Connections that are parked because there is nothing to do for them, and what never is.

use super::*;

/// After this time a connection that has sent nothing is parked.
const LONG: Duration = Duration::from_secs(2 * HEAD_TIMEOUT.as_secs() + 1);

/// Lets time go by. Returns how often the connection was parked in it.
async fn parks(rig: &Rig, time: Duration) -> usize {
    let before = rig.parks.load(Relaxed);
    tokio::time::sleep(time).await;
    rig.parks.load(Relaxed) - before
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_has_been_idle_for_long_is_parked_with_its_history() {
    let (mut client, transport) = tokio::io::duplex(4096);
    let (_control, signal) = drain_signal();
    let app = TestApp { gate: Arc::new(Semaphore::new(0)), made: Arc::default() };
    let stats: &'static ThreadStats = Box::leak(Box::default());
    let served =
        tokio::spawn(serve_connection(Suspended::accepted(transport), app, stats, signal, None, &Limits::TEST));
    for path in ["/first", "/second"] {
        client.write_all(get(path).as_bytes()).await.unwrap();
        assert_eq!(read_answer(&mut client).await, kept(path));
    }
    let began = Instant::now();
    let Some(Leaving::Park(suspended)) = served.await.unwrap() else { panic!("it is to be parked") };
    let idle_for = began.elapsed();
    assert!(idle_for >= HEAD_TIMEOUT && idle_for <= HEAD_TIMEOUT * 2, "{idle_for:?}");
    assert!(suspended.unread.is_empty());
    let History { detected, requests, in_head, waited, next_look } = suspended.history;
    assert_eq!((detected, requests, in_head), (Detected::Http1, 2, false));
    assert_eq!((waited, next_look), (HEAD_TIMEOUT, HEAD_TIMEOUT));
    let figures = stats.snapshot();
    assert_eq!((figures.connections, figures.dismissed, figures.requests), (0, 0, 2));
}

#[tokio::test(start_paused = true)]
async fn no_connection_is_parked_that_is_busy_or_sends_something_now_and_then() {
    // A response that takes long.
    let mut rig = Rig::new();
    rig.send(&get("/hold")).await;
    assert_eq!(parks(&rig, HEAD_TIMEOUT * 10).await, 0);
    rig.open_gate();
    assert_eq!(rig.answer().await, kept("held"));
    assert_ne!(parks(&rig, LONG).await, 0, "it is afterwards");
    // A request every 20 s.
    for _ in 0..20 {
        assert_eq!(rig.get("/now").await, kept("/now"));
        assert_eq!(parks(&rig, HEAD_TIMEOUT * 2 / 3).await, 0);
    }
    // Half a head, and an upload that stands still.
    for half in ["GET /half HTTP/1.1\r\n", "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nsome"] {
        let mut rig = Rig::new();
        assert_eq!(rig.get("/first").await, kept("/first"));
        rig.send(half).await;
        assert_eq!(parks(&rig, HEAD_TIMEOUT * 10).await, 0, "{half}");
        assert!(rig.served.is_finished());
    }
    // Nothing at all.
    let rig = Rig::new();
    assert_eq!(parks(&rig, HEAD_TIMEOUT * 10).await, 0);
    assert!(rig.served.is_finished());
}

#[tokio::test(start_paused = true)]
async fn empty_lines_before_a_request_are_neither_lost_nor_a_request() {
    let mut rig = Rig::new();
    assert_eq!(rig.get("/first").await, kept("/first"));
    rig.send("\r\n\r\n").await;
    assert_eq!(parks(&rig, LONG).await, 1);
    assert_eq!(rig.get("/second").await, kept("/second"));
}

#[tokio::test(start_paused = true)]
async fn parking_makes_no_connection_younger_and_none_stays_behind_a_drain() {
    let mut rig = Rig::new();
    rig.get("/first").await;
    let kept_for = rig.end().await;
    assert!(kept_for >= HEAD_TIMEOUT * 3 && kept_for <= HEAD_TIMEOUT * 4, "{kept_for:?}");
    assert!(rig.parks.load(Relaxed) > 0);

    let mut rig = Rig::new();
    rig.get("/first").await;
    assert_eq!(parks(&rig, LONG).await, 1);
    rig.control.begin(Phase::Draining { since: Instant::now().into_std(), linger: LINGER, ending: Ending::HandOver });
    rig.settle().await;
    let moved = rig.served.await.unwrap().expect("it moves");
    assert_eq!(moved.history.requests, 1);
    assert!(moved.history.waited >= HEAD_TIMEOUT, "{:?}", moved.history);
}
