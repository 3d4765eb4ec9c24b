//! Time-outs of connections whose worker serves.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_client_that_sends_nothing_is_dropped_after_a_while() {
    let mut rig = Rig::new();
    assert_eq!(rig.end().await, HEAD_TIMEOUT);

    let mut rig = Rig::new();
    rig.send("GET / HT").await;
    rig.settle().await;
    assert!(rig.refused_with(408, Refused::HeadTimedOut).await <= HEAD_TIMEOUT);

    let mut rig = Rig::new();
    rig.get("/first").await;
    rig.send("GET / HT").await;
    let late = rig.refused_with(408, Refused::HeadTimedOut).await;
    assert!(late >= HEAD_TIMEOUT && late <= 2 * HEAD_TIMEOUT, "{late:?}");
    assert_eq!(rig.figures().refused.iter().sum::<u64>(), 1);
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
        let late = rig.refused_with(408, Refused::BodyTimedOut).await;
        assert_eq!(late, HEAD_TIMEOUT + Limits::TEST.http.min_rate_grace);
        rig.served.await.unwrap();
        assert_eq!(rig.stats.snapshot().in_flight, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_goes_on_slowly_is_waited_for() {
    let mut rig = Rig::new();
    let rate = Limits::TEST.http.min_rate.unwrap();
    let text = "x".repeat(usize::try_from(rate * 600).unwrap());
    let length = format!("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", text.len());
    rig.send(&length).await;
    for piece in text.as_bytes().chunks(usize::try_from(rate).unwrap()) {
        tokio::time::sleep(Duration::from_millis(990)).await;
        rig.client.write_all(piece).await.unwrap();
    }
    assert_eq!(rig.answer().await, kept(&text));
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

/// Its client would take an answer for a part of the response that has begun.
#[tokio::test(start_paused = true)]
async fn a_client_that_is_late_in_the_middle_of_a_response_is_cut_off() {
    let mut rig = Rig::new();
    rig.send("POST /stream HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nsome").await;
    let mut rest = String::new();
    rig.client.read_to_string(&mut rest).await.unwrap();
    assert!(rest.starts_with("HTTP/1.1 200 OK\r\n") && rest.ends_with("\r\n\r\nsome"), "{rest}");
    assert_eq!(rig.figures().refused[Refused::BodyTimedOut as usize], 1);
}

/// A byte now and then is no progress.
#[tokio::test(start_paused = true)]
async fn a_body_of_a_byte_every_few_seconds_is_refused() {
    let mut rig = Rig::new();
    rig.send("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n").await;
    let began = Instant::now();
    while rig.figures().refused[Refused::BodyTimedOut as usize] == 0 {
        assert!(began.elapsed() < HEAD_TIMEOUT * 2, "it lives for ever");
        rig.send("x").await;
        tokio::time::sleep(Duration::from_millis(2900)).await;
    }
    assert_eq!(rig.answer().await.status, 408);
}

#[tokio::test(start_paused = true)]
async fn a_response_that_is_taken_too_slowly_is_cut_off() {
    let mut rig = Rig::new();
    rig.send(&get("/endless")).await;
    let began = Instant::now();
    while rig.figures().refused[Refused::ResponseTimedOut as usize] == 0 {
        assert!(began.elapsed() < HEAD_TIMEOUT * 2, "it lives for ever");
        let mut few = [0; 100];
        rig.client.read_exact(&mut few).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    // Fast enough.
    let mut rig = Rig::new();
    rig.send(&get("/endless")).await;
    for _ in 0..600 {
        let mut some = [0; 1000];
        rig.client.read_exact(&mut some).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(rig.figures().refused.iter().sum::<u64>(), 0);
}
