//! Connections of a worker that drains, up to the cut.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_busy_connection_announces_its_close() {
    let mut rig = Rig::new();
    rig.send(&get("/hold")).await;
    rig.settle().await;
    assert_eq!(rig.figures().in_flight, 1);
    rig.drain();
    rig.settle().await;
    rig.open_gate();
    assert_eq!(rig.answer().await, closing("held"));
    assert_eq!(rig.end().await, Duration::ZERO);
}

/// FAULTS 15.
#[tokio::test(start_paused = true)]
async fn a_pipelined_request_is_answered_at_drain_and_then_the_close_is_announced() {
    for gap in [false, true] {
        let mut rig = Rig::new();
        rig.send(&get("/hold")).await;
        if gap {
            rig.settle().await;
        }
        rig.send(&(post("/echo", "second") + &get("/third"))).await;
        rig.settle().await;
        rig.drain();
        rig.settle().await;
        rig.open_gate();
        assert_eq!(rig.answer().await, kept("held"), "gap {gap}");
        assert_eq!(rig.answer().await, kept("second"), "gap {gap}");
        assert_eq!(rig.answer().await, closing("/third"), "gap {gap}");
        assert_eq!(rig.end().await, Duration::ZERO);
    }
}

/// Reads nothing of a response that fills every buffer, for as long as its worker lets it.
#[tokio::test(start_paused = true)]
async fn a_client_that_reads_nothing_is_cut_off_before_the_cut() {
    let mut rig = Rig::new();
    rig.send(&get("/endless")).await;
    rig.settle().await;
    rig.drain();
    let began = Instant::now();
    (&mut rig.served).await.unwrap();
    assert_eq!(began.elapsed(), Limits::TEST.stall);
    let figures = rig.figures();
    assert_eq!((figures.cut, figures.in_flight, figures.refused[Refused::Stalled as usize]), (1, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_slowly_is_not_cut_off() {
    let mut rig = Rig::new();
    rig.send(&get("/big")).await;
    rig.settle().await;
    rig.drain();
    let mut read = 0;
    while read < BIG {
        tokio::time::sleep(Limits::TEST.stall / 10 * 9).await;
        let mut space = vec![0; BIG / 20];
        read += rig.client.read(&mut space).await.unwrap();
    }
    assert_eq!(rig.figures().refused.iter().sum::<u64>(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_whose_body_stops_coming_in_a_drain_is_told_so() {
    let mut rig = Rig::new();
    rig.send("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nsome").await;
    rig.settle().await;
    rig.drain();
    let late = rig.refused_with(408, Refused::Stalled).await;
    assert_eq!(late, Limits::TEST.stall);
    assert_eq!(rig.figures().cut, 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_ended_its_side_may_be_gone_and_holds_up_no_drain() {
    let mut rig = Rig::new();
    rig.send(&get("/hold")).await;
    rig.client.shutdown().await.unwrap();
    rig.settle().await;
    rig.drain();
    let late = rig.refused_with(408, Refused::Stalled).await;
    assert_eq!(late, Limits::TEST.stall);
    // One that is answered in time is told so.
    let mut rig = Rig::new();
    rig.send(&get("/hold")).await;
    rig.client.shutdown().await.unwrap();
    rig.settle().await;
    rig.drain();
    tokio::time::sleep(Limits::TEST.stall / 2).await;
    rig.open_gate();
    assert_eq!(rig.answer().await, closing("held"));
}

#[tokio::test(start_paused = true)]
async fn an_app_that_computes_for_long_is_not_stalled() {
    let mut rig = Rig::new();
    rig.send(&get("/hold")).await;
    rig.settle().await;
    rig.drain();
    tokio::time::sleep(Limits::TEST.stall * 20).await;
    rig.open_gate();
    assert_eq!(rig.answer().await, closing("held"));
    // Between two chunks as well.
    let mut rig = Rig::new();
    rig.send(&get("/late")).await;
    rig.settle().await;
    rig.drain();
    tokio::time::sleep(Limits::TEST.stall * 20).await;
    rig.open_gate();
    assert_eq!(rig.answer().await.body, "late");
}

#[tokio::test(start_paused = true)]
async fn half_a_pipelined_request_is_waited_for() {
    let mut rig = Rig::new();
    rig.send(&get("/hold")).await;
    rig.settle().await;
    let second = post("/echo", "second");
    rig.send(&second[..20]).await;
    rig.settle().await;
    rig.drain();
    rig.open_gate();
    assert_eq!(rig.answer().await, kept("held"));
    rig.settle().await;
    rig.send(&second[20..]).await;
    assert_eq!(rig.answer().await, closing("second"));
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn behind_a_chunked_body_the_close_is_announced_as_anywhere() {
    for (behind, answers) in [("", vec![closing("body")]), (&get("/next"), vec![kept("body"), closing("/next")])] {
        let mut rig = Rig::new();
        rig.send(&get("/hold")).await;
        rig.settle().await;
        rig.send("POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n").await;
        rig.send(behind).await;
        rig.drain();
        rig.settle().await;
        rig.open_gate();
        assert_eq!(rig.answer().await, kept("held"));
        for answer in answers {
            assert_eq!(rig.answer().await, answer);
        }
        rig.end().await;
    }
}

/// FAULTS 14.
#[tokio::test(start_paused = true)]
async fn a_request_on_an_idle_connection_that_races_the_drain_is_served() {
    for pause in [Duration::ZERO, LINGER / 2, LINGER / 100 * 99] {
        let mut rig = Rig::new();
        assert_eq!(rig.get("/first").await, kept("/first"));
        rig.drain();
        tokio::time::sleep(pause).await;
        rig.send(&post("/echo", "raced")).await;
        assert_eq!(rig.answer().await, closing("raced"), "after {pause:?}");
        assert_eq!(rig.end().await, Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_ends_when_its_linger_is_over() {
    for first in [false, true] {
        let mut rig = Rig::new();
        if first {
            rig.get("/first").await;
            rig.settle().await;
        }
        let began = Instant::now();
        rig.drain();
        rig.end().await;
        let lingered = began.elapsed();
        assert!(lingered >= LINGER && lingered < LINGER + Duration::from_millis(20), "{lingered:?}");
        drop(rig.client);
        rig.served.await.unwrap();
    }
}

/// FAULTS 13.
#[tokio::test(start_paused = true)]
async fn a_head_that_never_ends_does_not_outlive_the_linger() {
    for first in [false, true] {
        let mut rig = Rig::new();
        if first {
            rig.get("/first").await;
        }
        rig.send("GET / HTTP/1.1\r\n").await;
        rig.settle().await;
        rig.drain();
        let began = Instant::now();
        while rig.client.write_all(b"x: y\r\n").await.is_ok() && began.elapsed() < LINGER * 3 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // A lingering close may take another half second.
        assert!(began.elapsed() < LINGER + Duration::from_secs(1), "{:?}", began.elapsed());
        rig.served.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn half_a_preface_does_not_outlive_the_linger() {
    let mut rig = Rig::new();
    rig.send("PRI * HTTP/2.0\r\n").await;
    rig.settle().await;
    rig.drain();
    assert!(rig.end().await <= LINGER);
}

#[tokio::test(start_paused = true)]
async fn a_response_whose_head_is_out_goes_on_and_the_connection_lingers() {
    let mut rig = Rig::new();
    rig.send(&get("/late")).await;
    rig.settle().await;
    rig.drain();
    tokio::time::sleep(LINGER * 3).await;
    rig.open_gate();
    assert_eq!(rig.answer().await, kept("late"));
    tokio::time::sleep(LINGER / 2).await;
    assert_eq!(rig.get("/next").await, closing("/next"));
    assert_eq!(rig.end().await, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn after_the_linger_a_close_is_announced_whatever_lies_behind() {
    let mut rig = Rig::new();
    rig.send(&(get("/hold") + &get("/behind"))).await;
    rig.settle().await;
    rig.drain();
    tokio::time::sleep(LINGER + Duration::from_millis(10)).await;
    rig.open_gate();
    assert_eq!(rig.answer().await, closing("held"));
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_accepted_during_the_drain_knows_it() {
    let (mut client, transport) = tokio::io::duplex(4096);
    let (control, signal) = drain_signal();
    control.begin(Phase::Draining { since: Instant::now().into_std(), linger: LINGER, ending: Ending::Close });
    let app = TestApp { gate: Arc::new(Semaphore::new(0)), made: Arc::default() };
    let served = tokio::spawn(serve_connection(
        Suspended::accepted(transport),
        app,
        Box::leak(Box::default()),
        signal,
        None,
        &Limits::TEST,
    ));
    client.write_all(get("/queued").as_bytes()).await.unwrap();
    assert_eq!(read_answer(&mut client).await, closing("/queued"));
    drop(client);
    served.await.unwrap();
}

/// FAULTS 12.
#[tokio::test(start_paused = true)]
async fn what_is_in_flight_at_the_cut_is_cut_and_counted() {
    let mut rig = Rig::new();
    rig.send(&(get("/hold") + &get("/behind"))).await;
    rig.settle().await;
    rig.drain();
    rig.settle().await;
    rig.control.begin(Phase::Cut);
    rig.served.await.unwrap();
    let figures = rig.stats.snapshot();
    assert_eq!((figures.cut, figures.in_flight, figures.connections), (1, 0, 0));
}

/// FAULTS 14, over a real socket, where a close with unread bytes is a reset.
#[tokio::test]
async fn an_announced_close_resets_no_client_that_goes_on_sending() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (transport, _) = listener.accept().await.unwrap();
    let (control, signal) = drain_signal();
    let app = TestApp { gate: Arc::new(Semaphore::new(0)), made: Arc::default() };
    let stats: &'static ThreadStats = Box::leak(Box::default());
    let served =
        tokio::spawn(serve_connection(Suspended::accepted(transport), app.clone(), stats, signal, None, &Limits::TEST));
    // An upload that the app refuses without reading it.
    let body = "x".repeat(300_000);
    client.write_all(&post("/ignore", &body).as_bytes()[..1000]).await.unwrap();
    while stats.snapshot().in_flight == 0 {
        tokio::task::yield_now().await;
    }
    control.begin(Phase::Draining { since: Instant::now().into_std(), linger: Duration::ZERO, ending: Ending::Close });
    app.gate.add_permits(1);
    client.readable().await.unwrap();
    client.write_all(&body.as_bytes()[..250_000]).await.unwrap();
    let answered = timeout(Duration::from_secs(5), read_answer(&mut client)).await.unwrap();
    assert_eq!(answered, closing("ignored"));
    assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0, "a clean end, not a reset");
    drop(client);
    timeout(Duration::from_secs(5), served).await.unwrap().unwrap();
}

/// How often a phase is begun at another moment of a connection's life. Without their fixes the races showed after some
/// hundred times (a panic) and some thousand times (a lost wake-up).
const MOMENTS: u32 = 1_500;

/// Real threads and a real socket: phases are begun by the control thread, at any moment.
#[test]
fn a_phase_that_begins_at_any_moment_reaches_the_connection() {
    let (_page, file) = app_host_platform::sys::stats::StatsPage::create().unwrap();
    let stats = &app_host_platform::sys::stats::StatsPage::open(&file).unwrap().into_threads()[0];
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for moment in 0..MOMENTS {
        let (control, signal) = drain_signal();
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        server.set_nonblocking(true).unwrap();
        let (done, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                // As a serving thread does it: a phase that is announced in the middle of a poll would be missed.
                let (signal, relay) = signal.relayed();
                tokio::spawn(relay);
                let app = TestApp { gate: Arc::new(Semaphore::new(0)), made: Arc::default() };
                let stream = tokio::net::TcpStream::from_std(server).unwrap();
                let outcome = tokio::spawn(serve_connection(
                    Suspended::accepted(stream),
                    app,
                    stats,
                    signal,
                    None,
                    &Limits::TEST,
                ))
                .await;
                done.send(outcome.is_ok()).unwrap();
            });
        });
        io::Write::write_all(&mut client, b"GET /hold HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
        let spin = |time| {
            let begin = std::time::Instant::now();
            while begin.elapsed() < time {
                std::hint::spin_loop();
            }
        };
        // From before the first poll of the connection until its request is held.
        spin(Duration::from_micros(u64::from(moment % 300)));
        if moment % 2 == 0 {
            // For a connection that can't leave now, and that must see the phase after it.
            control.invite(1);
            spin(Duration::from_micros(u64::from(moment % 50)));
        }
        control.begin(Phase::Draining {
            since: Instant::now().into_std(),
            linger: Duration::from_millis(1),
            ending: Ending::Close,
        });
        spin(Duration::from_millis(2));
        control.begin(Phase::Cut);
        let ok = ended.recv_timeout(Duration::from_secs(20));
        assert_eq!(ok, Ok(true), "moment {moment}");
    }
}

#[tokio::test]
async fn connections_of_a_thread_see_what_another_thread_announces() {
    let (control, signal) = drain_signal();
    let (relayed, relay) = signal.relayed();
    let relay = tokio::spawn(relay);
    let late = relayed.clone();
    let changed = tokio::spawn(relayed.changed());
    let phase = Phase::Draining { since: Instant::now().into_std(), linger: LINGER, ending: Ending::HandOver };
    std::thread::spawn(move || control.begin(phase)).join().unwrap();
    changed.await.unwrap();
    assert_eq!(late.phase(), phase);
    // The control is gone, and the last phase stays.
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert!(!relay.is_finished());
    assert_eq!(late.phase(), phase);
}
