use super::*;

#[test]
fn what_one_side_writes_the_other_reads() {
    let (master, file) = StatsPage::create().unwrap();
    let given = file.try_clone().unwrap();
    let before = Duration::from_millis(monotonic_ms());
    let threads = StatsPage::open(&given).unwrap().into_threads();
    assert_eq!(threads.len(), usize::from(MAX_THREADS));
    assert_eq!(master.snapshot(), StatsSnapshot::default());
    assert_eq!(master.signs(), (None, 0));

    for thread in &threads[..2] {
        thread.beat();
    }
    threads[1].accepted();
    threads[1].opened();
    threads[1].began();
    threads[1].cut(3);
    threads[1].enter(&Route::new("GET", "/slow"));

    let snapshot = master.snapshot();
    assert_eq!(snapshot.threads.len(), 2);
    let thread = &snapshot.threads[1];
    assert!(thread.heartbeat.is_some_and(|beat| beat >= before && beat <= Duration::from_millis(monotonic_ms())));
    assert_eq!((thread.accepted, thread.connections, thread.requests, thread.in_flight, thread.cut), (1, 1, 1, 1, 3));
    assert_eq!(thread.route.as_deref(), Some("GET /slow"));

    let (beat, requests) = master.signs();
    assert_eq!((beat, requests), (snapshot.threads.iter().filter_map(|thread| thread.heartbeat).min(), 1));
    assert!(beat.is_some(), "the oldest of all that have begun, and no other thread's");

    threads[1].leave();
    threads[1].ended();
    threads[1].closed();
    let thread = &master.snapshot().threads[1];
    assert_eq!((thread.connections, thread.requests, thread.in_flight), (0, 1, 0));
    assert_eq!(thread.route, None);
}

#[test]
fn requests_are_timed_where_it_is_wanted_and_counted_in_their_classes() {
    let (master, file) = StatsPage::create().unwrap();
    let threads = StatsPage::open(&file).unwrap().into_threads();
    assert_eq!(threads[0].clock(), None);
    master.time_requests(1);
    assert!(threads[0].clock().is_some());
    assert_eq!(threads[1].clock(), None);
    threads[0].beat();
    for nanos in [0, 100_000, 100_001, 10_000_000_000, 10_000_000_001] {
        threads[0].took(Duration::from_nanos(nanos));
    }
    for status in [99, 100, 200, 204, 404, 599, 600, 999] {
        threads[0].responded(status);
    }
    let thread = &master.snapshot().threads[0];
    let mut expected = [0; LATENCIES];
    (expected[0], expected[1], expected[15], expected[16]) = (2, 1, 1, 1);
    assert_eq!(thread.latency, Latency { classes: expected, nanos: 20_000_200_002 });
    assert_eq!(thread.responses, [1, 2, 0, 1, 1]);
    assert!(LATENCY_BOUNDS.is_sorted());
}

#[test]
fn what_goes_on_in_another_worker_is_counted_there_and_what_does_not_by_its_reason() {
    let thread = ThreadStats::default();
    thread.went_on(LongLived::EventStream);
    thread.not_resumed(LongLived::WebSocket, NotResumed::Cut);
    thread.moved_http2();
    for why in [NotMoved::Table, NotMoved::NoSuccessor, NotMoved::NoSuccessor] {
        thread.not_moved(why);
    }
    let said = thread.snapshot();
    assert_eq!((said.resumed(LongLived::EventStream), said.ended(LongLived::EventStream)), (1, 0));
    assert_eq!((said.resumed(LongLived::WebSocket), said.ended(LongLived::WebSocket)), (0, 1));
    assert_eq!((said.moved_http2, said.http2_not_moved()), (1, 3));
    let reasons = [NotMoved::Table, NotMoved::Settings, NotMoved::NoSuccessor];
    assert_eq!(reasons.map(|why| said.not_moved[why as usize]), [1, 0, 2]);
}

#[test]
fn a_long_route_is_cut() {
    let thread = ThreadStats::default();
    thread.enter(&Route::new("DELETE", &format!("/{}", "é".repeat(200))));
    let route = thread.snapshot().route.unwrap();
    assert!(route.starts_with("DELETE /é"), "{route}");
    // The last character may have been cut in two, and is then replaced by one of three bytes.
    assert!(route.len() <= MAX_ROUTE + 2, "{route}");
}

#[test]
fn whatever_a_worker_writes_on_its_page_its_master_reads_it_and_adds() {
    let (master, file) = StatsPage::create().unwrap();
    let page = StatsPage::open(&file).unwrap();
    for word in [u64::MAX, u64::from_ne_bytes(*b"\n\x1b[2J\n\r\x80"), 1] {
        for thread in &page.page().threads {
            for counter in [&thread.heartbeat, &thread.requests, &thread.in_flight, &thread.cut, &thread.connections] {
                counter.store(word, Relaxed);
            }
            thread.route_length.store(word, Relaxed);
            thread.route.iter().for_each(|part| part.store(word, Relaxed));
        }
        let snapshot = master.snapshot();
        assert_eq!(snapshot.threads.len(), usize::from(MAX_THREADS));
        assert_eq!(snapshot.sum(|thread| thread.cut.saturating_add(thread.in_flight)), word.saturating_mul(128));
        for routes in [snapshot.routes(), snapshot.routes_silent_for(Duration::ZERO)] {
            assert!(routes.len() <= foreign::MAX_TEXT && !routes.contains(foreign::is_unsafe), "{routes}");
        }
        let _ = (master.signs(), master.connections());
    }
}

#[test]
fn another_descriptor_is_refused() {
    let file = OwnedFd::from(tempfile::tempfile().unwrap());
    assert_eq!(StatsPage::open(&file).unwrap_err().kind(), io::ErrorKind::InvalidData);
    nix::unistd::ftruncate(&file, i64::try_from(size_of::<Page>()).unwrap()).unwrap();
    assert_eq!(StatsPage::open(&file).unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[test]
fn a_worker_cannot_shrink_the_page_under_its_master() {
    let (_master, file) = StatsPage::create().unwrap();
    assert!(nix::unistd::ftruncate(&file, 0).is_err());
}
