//! Clients that hang, flood, ask nonsense, or listen to what happens.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use app_host_tests::admin::get;
use app_host_tests::{Connection, Metrics};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::host;

#[test]
fn clients_that_hang_or_flood_delay_nothing() {
    let host = host().start();
    // Pages that are open, and more than are heard at once with nothing or half a request.
    let mut pages: Vec<_> = (0..20).map(|_| host.admin()).collect();
    for page in &mut pages {
        page.send(b"GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
        assert_eq!(page.opened().unwrap(), 200);
    }
    let mut hanging: Vec<_> = (0..70).map(|_| host.admin()).collect();
    for (number, connection) in hanging.iter_mut().enumerate() {
        // The first may be gone already.
        let _ = connection.send(if number % 2 == 0 { b"GET /metr" } else { b"" });
    }
    // Each asks the master anew, which it is asked five times a second.
    for _ in 0..10 {
        let mut beyond = host.admin();
        assert_eq!(get(&mut beyond, "/healthz").unwrap(), 200, "a crowd is no sickness");
        hanging.push(beyond);
    }
    host.wait("the oldest to make room", || hanging[0].is_closed().unwrap_or(true).then_some(()));
    for page in &mut pages {
        assert!(page.chunk().unwrap().is_some(), "whoever is answered stays");
    }
    host.restart_completes();
    host.assert_all_serve(&host.serving());
    drop((hanging, pages));

    // Many who ask at once cost the master one question now and then.
    let begin = Instant::now();
    let seen = std::thread::scope(|scope| {
        let flood = || {
            let mut connection = host.admin();
            let mut seen = Vec::new();
            while begin.elapsed() < Duration::from_secs(2) {
                assert_eq!(get(&mut connection, "/metrics").unwrap(), 200);
                seen.push(Metrics::parse(&connection.text()).get("uptime_seconds").to_bits());
            }
            seen
        };
        let floods: Vec<_> = (0..8).map(|_| scope.spawn(flood)).collect();
        host.restart_completes();
        floods.into_iter().flat_map(|flood| flood.join().unwrap()).collect::<Vec<_>>()
    });
    let distinct = seen.iter().collect::<BTreeSet<_>>().len();
    assert!(seen.len() > distinct * 4, "{} answers of {distinct} snapshots", seen.len());
    assert!(distinct <= 2 + usize::try_from(begin.elapsed().as_millis() / 200).unwrap(), "{distinct} snapshots");
}

#[test]
fn what_is_no_question_gets_its_answer_and_nothing_else() {
    let host = host().start();
    for (request, status) in [
        ("GET /metrics HTTP/1.1\r\nhost: rebound.example\r\n\r\n", Some(403)),
        ("POST /metrics HTTP/1.1\r\nhost: localhost\r\ncontent-length: 3\r\n\r\nabc", Some(405)),
        ("GET /../state/control.sock HTTP/1.1\r\nhost: localhost\r\n\r\n", Some(404)),
        ("nonsense\r\n\r\n", Some(400)),
        ("\0\0\0\0", None),
    ] {
        let mut connection = host.admin();
        connection.send(request.as_bytes()).unwrap();
        let answered = connection.receive().ok();
        assert!(answered == status || (status.is_none() && answered == Some(400)), "{request}: {answered:?}");
    }
    let mut large = host.admin();
    let sent =
        large.send(format!("GET / HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "x".repeat(64 * 1024)).as_bytes());
    // It may have been refused before it was sent.
    let answered = sent.and_then(|()| large.receive());
    assert!(matches!(answered, Ok(431) | Err(_)), "{answered:?}");
    // A HEAD has no body: the next answer follows at once.
    let mut connection = host.admin();
    connection.send(b"HEAD /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        assert_eq!(connection.read(&mut byte).unwrap(), 1);
        head.push(byte[0]);
    }
    assert_eq!(get(&mut connection, "/healthz").unwrap(), 200);
    assert_eq!(host.ask_admin("/").0, 200);
}

/// The next state that is pushed.
fn pushed(stream: &mut Connection) -> Option<Value> {
    let mut text = String::new();
    loop {
        text.push_str(&String::from_utf8(stream.chunk().ok()??).unwrap());
        while let Some((event, rest)) = text.split_once("\n\n") {
            if let Some(data) = event.strip_prefix("data: ") {
                return Some(serde_json::from_str(data).unwrap());
            }
            assert!(event == "retry: 1000", "{event}");
            text = rest.to_owned();
        }
    }
}

#[test]
fn what_happens_is_pushed_to_a_page_as_it_happens_until_the_master_ends() {
    let host = host().with("/restart/probation", "700ms").start();
    let mut stream = host.admin();
    stream.send(b"GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    assert_eq!(stream.opened().unwrap(), 200);
    let first = pushed(&mut stream).unwrap();
    assert_eq!((&first["phase"], &first["ready"]), (&"serving".into(), &true.into()));
    assert_eq!(first["workers"].as_array().unwrap().len(), 2);
    host.signal(Signal::SIGUSR2);
    let mut seen = Vec::new();
    let last = loop {
        let state = pushed(&mut stream).expect("the stream goes on");
        seen.push(format!("{} {}", state["phase"].as_str().unwrap(), state["workers"].as_array().unwrap().len()));
        if state["generation"] == 2 && state["workers"].as_array().unwrap().len() == 2 {
            break state;
        }
    };
    assert!(seen.contains(&"rolling 3".to_owned()), "{seen:?}");
    assert_eq!(last["verdicts"][0]["verdict"], "complete");
    assert_eq!(last["versions"][0]["state"], "active");
    // Figures come by themselves, about once a second.
    host.get("/whoami");
    let counted = loop {
        let state = pushed(&mut stream).expect("the stream goes on");
        if state["totals"]["requests"] != 0 {
            break state;
        }
    };
    assert_eq!(counted["totals"]["requests"], 1);
    host.stop();
    while pushed(&mut stream).is_some() {}
}
