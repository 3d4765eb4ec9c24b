//! What the app sends before its response.

use super::*;

const HINT: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";

/// Reads as much, which must be this.
async fn expect(rig: &mut Rig, text: &str) {
    let mut read = vec![0; text.len()];
    timeout(Duration::from_secs(1), rig.client.read_exact(&mut read)).await.expect("it has come").unwrap();
    assert_eq!(String::from_utf8(read).unwrap(), text);
}

#[tokio::test(start_paused = true)]
async fn they_are_there_before_the_response_is_made() {
    let mut rig = Rig::new();
    for _ in 0..2 {
        rig.send(&get("/hint/hold")).await;
        expect(&mut rig, HINT).await;
        rig.open_gate();
        assert_eq!(rig.answer().await, kept("held"));
    }
    // From a task of the app's, when nothing else wakes the connection.
    rig.send(&get("/hint/later")).await;
    expect(&mut rig, HINT).await;
    rig.open_gate();
    assert_eq!(rig.answer().await, kept("held"));
}

#[tokio::test(start_paused = true)]
async fn they_come_before_a_response_that_is_ready_at_once_and_not_after_it() {
    let mut rig = Rig::new();
    rig.send(&get("/hint/now")).await;
    expect(&mut rig, HINT).await;
    expect(&mut rig, HINT).await;
    assert_eq!(rig.answer().await, kept("hinted"));
    // In the middle of a response it is too late, and of the next request it is not the app's any more.
    rig.send(&get("/hint/late")).await;
    assert_eq!(rig.answer().await, kept("late"));
    rig.send(&get("/hold")).await;
    rig.settle().await;
    rig.open_gate();
    assert_eq!(rig.answer().await, kept("held"));
    assert_eq!(rig.app.made.load(Relaxed), 0, "none of them was taken");
}

#[tokio::test(start_paused = true)]
async fn a_client_of_http_1_0_gets_none() {
    let mut rig = Rig::new();
    rig.send("GET /hint/now HTTP/1.0\r\nhost: a\r\n\r\n").await;
    let mut all = String::new();
    rig.client.read_to_string(&mut all).await.unwrap();
    assert!(all.starts_with("HTTP/1.0 200 OK\r\n") && all.ends_with("\r\n\r\nno hints"), "{all}");
}

/// However little the client takes at a time, and whatever it has asked for before.
#[tokio::test(start_paused = true)]
async fn each_byte_stands_where_it_belongs() {
    for step in [1, 7, 100, 5000] {
        let (mut client, transport) = tokio::io::duplex(step);
        let (_control, signal) = drain_signal();
        let app = TestApp { gate: Arc::new(Semaphore::new(0)), made: Arc::default() };
        let stats: &'static ThreadStats = Box::leak(Box::default());
        tokio::spawn(serve_connection(Suspended::accepted(transport), app, stats, signal, None, &Limits::TEST));
        let (mut reader, mut writer) = tokio::io::split(client);
        let paths = ["/big", "/hint/now", "/first", "/hint/now", "/big", "/hint/now"];
        let asks = tokio::spawn(async move {
            for path in paths {
                writer.write_all(get(path).as_bytes()).await.unwrap();
            }
            writer
        });
        for path in paths {
            let body = match path {
                "/big" => "x".repeat(BIG),
                "/hint/now" => "hinted".to_owned(),
                path => path.to_owned(),
            };
            let (hints, answered) = read_hinted(&mut reader).await;
            assert!(answered == kept(&body), "{path} by {step}");
            // None where the rest of another response went out together with this one.
            assert!(hints == 0 || (hints == 2 && path == "/hint/now"), "{hints} before {path} by {step}");
        }
        client = reader.unsplit(asks.await.unwrap());
        drop(client);
    }
}

/// Reads one response, and how many hints were before it.
async fn read_hinted(reader: &mut (impl AsyncRead + Unpin)) -> (usize, Answered) {
    let mut hints = 0;
    let mut begin = vec![0; "HTTP/1.1 103".len()];
    loop {
        reader.read_exact(&mut begin).await.unwrap();
        if begin != b"HTTP/1.1 103" {
            return (hints, read_answer(&mut begin.chain(reader)).await);
        }
        let mut rest = vec![0; HINT.len() - begin.len()];
        reader.read_exact(&mut rest).await.unwrap();
        assert!(HINT.as_bytes().ends_with(&rest));
        hints += 1;
    }
}

#[test]
fn a_queue_has_a_bound_and_knows_when_it_is_too_late() {
    let interim = Interim::default();
    let mut fields = http::HeaderMap::new();
    fields.insert("link", "</a>".parse().unwrap());
    let first = interim.open();
    assert!(interim.hint(first, &fields) && interim.is_queued());
    assert_eq!(super::super::interim::written(&interim.take()), HINT.as_bytes());
    assert!(interim.take().is_empty());
    let taken = (0..10_000).take_while(|_| interim.hint(first, &fields)).count();
    assert!(taken > 100 && taken < 1000, "{taken}");
    interim.close(first);
    assert!(!interim.hint(first, &fields));
    let second = interim.open();
    assert!(!interim.take().is_empty());
    assert!(!interim.hint(first, &fields) && interim.hint(second, &fields));
}
