use super::*;

#[test]
fn what_one_side_writes_the_other_reads() {
    let (master, file) = StatsPage::create().unwrap();
    let given = file.try_clone().unwrap();
    let before = Duration::from_millis(monotonic_ms());
    let lanes = StatsPage::open(&given).unwrap().into_lanes();
    assert_eq!(lanes.len(), usize::from(MAX_THREADS));
    assert_eq!(master.snapshot(), StatsSnapshot::default());
    assert_eq!(master.signs(), (None, 0));

    for lane in &lanes[..2] {
        lane.beat();
    }
    lanes[1].accepted();
    lanes[1].opened();
    lanes[1].began();
    lanes[1].cut(3);
    lanes[1].enter(&Route::new("GET", "/slow"));

    let snapshot = master.snapshot();
    assert_eq!(snapshot.lanes.len(), 2);
    let lane = &snapshot.lanes[1];
    assert!(lane.heartbeat.is_some_and(|beat| beat >= before && beat <= Duration::from_millis(monotonic_ms())));
    assert_eq!((lane.accepted, lane.connections, lane.requests, lane.in_flight, lane.cut), (1, 1, 1, 1, 3));
    assert_eq!(lane.route.as_deref(), Some("GET /slow"));

    let (beat, requests) = master.signs();
    assert_eq!((beat, requests), (snapshot.lanes.iter().filter_map(|lane| lane.heartbeat).min(), 1));
    assert!(beat.is_some(), "the oldest of all that have begun, and no other lane's");

    lanes[1].leave();
    lanes[1].ended();
    lanes[1].closed();
    let lane = &master.snapshot().lanes[1];
    assert_eq!((lane.connections, lane.requests, lane.in_flight), (0, 1, 0));
    assert_eq!(lane.route, None);
}

#[test]
fn requests_are_timed_where_it_is_wanted_and_counted_in_their_classes() {
    let (master, file) = StatsPage::create().unwrap();
    let lanes = StatsPage::open(&file).unwrap().into_lanes();
    assert_eq!(lanes[0].clock(), None);
    master.time_requests(1);
    assert!(lanes[0].clock().is_some());
    assert_eq!(lanes[1].clock(), None);
    lanes[0].beat();
    for nanos in [0, 100_000, 100_001, 10_000_000_000, 10_000_000_001] {
        lanes[0].took(Duration::from_nanos(nanos));
    }
    for status in [99, 100, 200, 204, 404, 599, 600, 999] {
        lanes[0].responded(status);
    }
    let lane = &master.snapshot().lanes[0];
    let mut expected = [0; LATENCIES];
    (expected[0], expected[1], expected[15], expected[16]) = (2, 1, 1, 1);
    assert_eq!(lane.latency, Latency { classes: expected, nanos: 20_000_200_002 });
    assert_eq!(lane.responses, [1, 2, 0, 1, 1]);
    assert!(LATENCY_BOUNDS.is_sorted());
}

#[test]
fn a_long_route_is_cut() {
    let lane = Lane::default();
    lane.enter(&Route::new("DELETE", &format!("/{}", "é".repeat(200))));
    let route = lane.snapshot().route.unwrap();
    assert!(route.starts_with("DELETE /é"), "{route}");
    // The last character may have been cut in two, and is then replaced by one of three bytes.
    assert!(route.len() <= MAX_ROUTE + 2, "{route}");
}

#[test]
fn whatever_a_worker_writes_on_its_page_its_master_reads_it_and_adds() {
    let (master, file) = StatsPage::create().unwrap();
    let page = StatsPage::open(&file).unwrap();
    for word in [u64::MAX, u64::from_ne_bytes(*b"\n\x1b[2J\n\r\x80"), 1] {
        for lane in &page.page().lanes {
            for counter in [&lane.heartbeat, &lane.requests, &lane.in_flight, &lane.cut, &lane.connections] {
                counter.store(word, Relaxed);
            }
            lane.route_length.store(word, Relaxed);
            lane.route.iter().for_each(|part| part.store(word, Relaxed));
        }
        let snapshot = master.snapshot();
        assert_eq!(snapshot.lanes.len(), usize::from(MAX_THREADS));
        assert_eq!(snapshot.sum(|lane| lane.cut.saturating_add(lane.in_flight)), word.saturating_mul(128));
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
