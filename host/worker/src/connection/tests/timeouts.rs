//! Time-outs of connections whose worker serves.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_client_that_sends_nothing_is_dropped_after_a_while() {
    let mut rig = Rig::new();
    assert_eq!(rig.end().await, HEAD_TIMEOUT);

    let mut rig = Rig::new();
    rig.send("GET / HT").await;
    rig.settle().await;
    assert!(rig.end().await <= HEAD_TIMEOUT);

    let mut rig = Rig::new();
    rig.get("/first").await;
    rig.send("GET / HT").await;
    let late = rig.end().await;
    assert!(late >= HEAD_TIMEOUT && late <= 2 * HEAD_TIMEOUT, "{late:?}");
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_kept_for_longer_than_proxies_do() {
    let mut rig = Rig::new();
    rig.get("/first").await;
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(rig.get("/second").await, kept("/second"));
    let kept_for = rig.end().await;
    assert!(kept_for >= HEAD_TIMEOUT * 3 && kept_for <= HEAD_TIMEOUT * 4, "{kept_for:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_takes_long_is_not_late() {
    let mut rig = Rig::new();
    rig.send(&get("/hold")).await;
    tokio::time::sleep(HEAD_TIMEOUT * 10).await;
    rig.open_gate();
    assert_eq!(rig.answer().await, kept("held"));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_sends_half_a_body_and_no_more_is_dropped_after_a_while() {
    for head in ["content-length: 100\r\n\r\nsome", "transfer-encoding: chunked\r\n\r\n4\r\nsome"] {
        let mut rig = Rig::new();
        rig.send(&format!("POST /echo HTTP/1.1\r\nhost: a\r\n{head}")).await;
        let late = rig.end().await;
        assert!(late >= 2 * HEAD_TIMEOUT && late <= 3 * HEAD_TIMEOUT, "{late:?}");
        rig.served.await.unwrap();
        assert_eq!(rig.stats.snapshot().in_flight, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_goes_on_slowly_is_waited_for() {
    let mut rig = Rig::new();
    rig.send("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\n").await;
    for byte in ["s", "l", "o", "w"] {
        tokio::time::sleep(HEAD_TIMEOUT * 3 / 2).await;
        rig.send(byte).await;
    }
    assert_eq!(rig.answer().await, kept("slow"));
}

/// The client owes nothing that the app has asked for.
#[tokio::test(start_paused = true)]
async fn an_app_that_leaves_an_upload_unread_is_not_late() {
    for body in ["content-length: 100\r\n\r\nsome", "transfer-encoding: chunked\r\n\r\n4\r\nsome\r\n0\r\n\r\n"] {
        let mut rig = Rig::new();
        rig.send(&format!("POST /hold HTTP/1.1\r\nhost: a\r\n{body}")).await;
        tokio::time::sleep(HEAD_TIMEOUT * 10).await;
        rig.open_gate();
        assert_eq!(rig.answer().await.body, "held");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_silent_after_a_whole_upload_is_not_late() {
    for body in ["content-length: 4\r\n\r\nsome", "transfer-encoding: chunked\r\n\r\n4\r\nsome\r\n0\r\n\r\n"] {
        let mut rig = Rig::new();
        rig.send(&format!("POST /read HTTP/1.1\r\nhost: a\r\n{body}")).await;
        tokio::time::sleep(HEAD_TIMEOUT * 10).await;
        rig.open_gate();
        assert_eq!(rig.answer().await, kept("some"));
    }
}
