//! Counters that never go backwards, stages, and the text.

use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;

use app_host_core::ids::{Ended, WorkerId};
use app_host_core::not_moved::NotMoved;
use app_host_core::not_resumed::{LongLived, NotResumed};
use app_host_core::refused::Refused;
use app_host_core::restart::{Failure, KillReason, Refusal, WorkerState};
use app_host_core::status::{CertificateStatus, Measured, WorkerStatus};

use super::*;
use crate::sys::stats::{LATENCIES, NOT_MOVED, NOT_RESUMED, REFUSALS, ThreadSnapshot};

fn thread() -> ThreadSnapshot {
    ThreadSnapshot {
        heartbeat: Some(Duration::from_secs(1)),
        accepted: 0,
        connections: 0,
        requests: 0,
        in_flight: 0,
        cut: 0,
        responses: [0; STATUS_CLASSES],
        latency: Latency::default(),
        handed_over: 0,
        taken_over: 0,
        dismissed: 0,
        handshakes: 0,
        resumed_handshakes: 0,
        failed_handshakes: 0,
        refused: [0; REFUSALS],
        went_on: [0; LongLived::COUNT],
        not_resumed: [[0; NOT_RESUMED]; LongLived::COUNT],
        moved_http2: 0,
        not_moved: [0; NOT_MOVED],
        route: None,
    }
}

fn view(id: u64, slot: u16, generation: u64) -> WorkerView {
    WorkerView { id: WorkerId(id), slot: Slot(slot), generation: Generation(generation), state: WorkerState::Ready }
}

/// What may happen to the workers between two looks.
#[derive(Clone, Debug)]
enum Happens {
    /// A worker has been spawned that has two serving threads.
    Spawned,
    /// A worker, counted from the oldest, begins a request on one of its threads.
    Begins(usize, bool),
    /// It ends one, which took a class of latency.
    Ends(usize, bool, usize),
    /// It cuts what it has in flight.
    Cuts(usize),
    /// It has exited or was killed, in whatever state it was.
    Leaves(usize),
}

fn happenings() -> impl Strategy<Value = Vec<Happens>> {
    let worker = 0..4_usize;
    let one = prop_oneof![
        2 => Just(Happens::Spawned),
        6 => (worker.clone(), any::<bool>()).prop_map(|(worker, thread)| Happens::Begins(worker, thread)),
        4 => (worker.clone(), any::<bool>(), 0..LATENCIES)
            .prop_map(|(worker, thread, class)| Happens::Ends(worker, thread, class)),
        1 => worker.clone().prop_map(Happens::Cuts),
        2 => worker.prop_map(Happens::Leaves),
    ];
    proptest::collection::vec(one, 0..80)
}

/// Every figure that only grows.
fn growing(figures: &Figures) -> Vec<u64> {
    let Figures {
        counters, responses, refused, not_resumed, not_moved, latency, respawns, exits, kills, restarts, ..
    } = figures;
    let mut all = counters.clone();
    all.extend(responses);
    all.extend(refused);
    all.extend(not_resumed.iter().flatten().chain(not_moved));
    all.extend(latency.classes);
    all.extend([latency.nanos, *respawns, exits.expected, exits.unexpected]);
    all.extend(kills.values());
    all.extend(restarts.iter().map(|each| each.count));
    all
}

proptest! {
    #[test]
    fn counters_never_go_backwards_and_lose_nothing_when_workers_leave(happenings in happenings()) {
        let mut tally = Tally::default();
        let mut living: Vec<(WorkerView, StatsSnapshot)> = Vec::new();
        let (mut spawned, mut begun, mut ended, mut cut) = (0, 0, 0, 0);
        let mut before = growing(&tally.figures(std::iter::empty()));
        for happening in happenings {
            match happening {
                Happens::Spawned => {
                    spawned += 1;
                    living.push((view(spawned, 0, 1), StatsSnapshot { threads: vec![thread(), thread()] }));
                }
                Happens::Begins(worker, thread) => {
                    if let Some((_, stats)) = living.get_mut(worker) {
                        stats.threads[usize::from(thread)].requests += 1;
                        stats.threads[usize::from(thread)].in_flight += 1;
                        begun += 1;
                    }
                }
                Happens::Ends(worker, thread, class) => {
                    if let Some((_, stats)) = living.get_mut(worker) {
                        let thread = &mut stats.threads[usize::from(thread)];
                        if thread.in_flight > 0 {
                            thread.in_flight -= 1;
                            thread.responses[1] += 1;
                            thread.latency.classes[class] += 1;
                            thread.latency.nanos += 7;
                            ended += 1;
                        }
                    }
                }
                Happens::Cuts(worker) => {
                    if let Some((_, stats)) = living.get_mut(worker) {
                        for thread in &mut stats.threads {
                            cut += thread.in_flight;
                            thread.cut += std::mem::take(&mut thread.in_flight);
                        }
                    }
                }
                Happens::Leaves(worker) if worker < living.len() => {
                    let (view, stats) = living.remove(worker);
                    cut += stats.threads.iter().map(|thread| thread.in_flight).sum::<u64>();
                    tally.leaves(&view, &stats, Duration::from_millis(3));
                    let how = Ended::Signal(9);
                    tally.reported(&Report::WorkerExited { worker: view, how, expected: false }, Time::ZERO);
                }
                Happens::Leaves(_) => {}
            }
            let figures = tally.figures(living.iter().map(|(_, stats)| stats.clone()));
            let now = growing(&figures);
            prop_assert!(now.iter().zip(&before).all(|(now, before)| now >= before), "{before:?}\n{now:?}");
            before = now;
            prop_assert_eq!(figures.counter("requests"), begun);
            prop_assert_eq!(figures.counter("requests_cut"), cut);
            prop_assert_eq!(figures.responses[1], ended);
            prop_assert_eq!(figures.latency.classes.iter().sum::<u64>(), ended);
            prop_assert_eq!(figures.latency.nanos, 7 * ended);
        }
    }
}

#[test]
fn cpu_time_of_the_dead_is_kept_while_their_generation_lives() {
    let mut tally = Tally::default();
    let stats = StatsSnapshot { threads: vec![thread()] };
    tally.leaves(&view(1, 0, 1), &stats, Duration::from_millis(30));
    tally.leaves(&view(2, 0, 1), &stats, Duration::from_millis(12));
    tally.leaves(&view(3, 0, 2), &stats, Duration::from_millis(5));
    let spent = |tally: &Tally| -> Vec<_> {
        let spent = tally.figures(std::iter::empty()).spent;
        spent.into_iter().map(|spent| (spent.generation.0, spent.cpu.as_millis())).collect()
    };
    assert_eq!(spent(&tally), [(1, 42), (2, 5)]);
    tally.discarded(Generation(1));
    assert_eq!(spent(&tally), [(2, 5)]);
}

/// One of each. A reason that is missing here and in the table is counted all the same, from its first time on.
fn verdicts() -> Vec<Verdict> {
    let (slot, text) = (Slot(0), String::new);
    let refusals = [
        Refusal::Starting,
        Refusal::Stopping,
        Refusal::NoWorkers,
        Refusal::BadDriver(text()),
        Refusal::AbortedRestart,
        Refusal::RestartInFlight,
        Refusal::BadConfig(text()),
        Refusal::BadArtifact(text()),
        Refusal::Incompatibility(text()),
        Refusal::CannotBind(text()),
        Refusal::DatabankUnreachable(text()),
        Refusal::Unchanged,
    ];
    let failures = [
        Failure::WorkerDied { slot, how: Ended::Code(1) },
        Failure::WorkerTerminated { slot },
        Failure::NotReadyInTime { slot },
        Failure::CannotListen { slot, error: text() },
        Failure::AppFailedToStart { slot, error: text() },
        Failure::CannotSpawn { slot, error: text() },
        Failure::Stopped,
    ];
    let refusals = refusals.into_iter().map(Verdict::Refused);
    refusals
        .chain(failures.into_iter().map(Verdict::Failed))
        .chain([Verdict::Complete { unchanged: false, draining: 0 }])
        .collect()
}

#[test]
fn every_verdict_is_there_before_it_is_given_and_counted_when_it_is() {
    let mut tally = Tally::default();
    let known = tally.figures(std::iter::empty()).restarts;
    assert!(known.iter().all(|each| each.count == 0));
    for verdict in verdicts() {
        tally.judged(RequestId(1), &verdict, Time::ZERO);
    }
    let counted = tally.figures(std::iter::empty());
    assert_eq!(counted.restarts.len(), known.len(), "one is missing in the table, or there in vain: {counted:?}");
    assert!(counted.restarts.iter().all(|each| each.count > 0), "{counted:?}");
    assert_eq!((counted.restarts("complete"), counted.restarts("refused"), counted.restarts("failed")), (1, 12, 7));
    for why in [
        KillReason::NotReadyInTime,
        KillReason::StayedUnfit,
        KillReason::DrainTimedOut,
        KillReason::SurvivedAbort,
        KillReason::FastStop,
    ] {
        tally.reported(&Report::KillOrdered { worker: view(1, 0, 1), why }, Time::ZERO);
    }
    assert!(tally.figures(std::iter::empty()).kills.values().all(|count| *count == 1));
}

fn at(millis: u64) -> Time {
    Time::from_millis(millis)
}

/// The sums of the stages in milliseconds, and how often each was counted.
fn stages(tally: &Tally) -> BTreeMap<String, (u128, u64)> {
    let stages = tally.figures(std::iter::empty()).stages;
    stages.into_iter().map(|(name, it)| (name, (it.sum.as_millis(), it.classes.iter().sum()))).collect()
}

#[test]
fn stages_of_a_restart_are_timed_and_add_up() {
    let (request, first) = (RequestId(7), view(1, 0, 1));
    let (from, to) = (Generation(1), Generation(2));
    let mut tally = Tally::default();
    tally.preflight(request, at(100));
    // Another one's verdict is not this one's.
    tally.judged(RequestId(8), &Verdict::Refused(Refusal::RestartInFlight), at(110));
    tally.reported(&Report::RollStarted { request, from, to, workers: 2 }, at(130));
    tally.reported(&Report::ProbationStarted { request, probation: Duration::ZERO }, at(150));
    tally.judged(RequestId(8), &Verdict::Refused(Refusal::RestartInFlight), at(160));
    tally.reported(&Report::ProbationPassed { request }, at(400));
    for millis in [401, 430] {
        let timeout = Duration::ZERO;
        tally.reported(&Report::DrainOrdered { worker: first, successor: true, timeout }, at(millis));
    }
    tally.judged(request, &Verdict::Complete { unchanged: false, draining: 0 }, at(500));
    let expected = [("preflight", 30), ("start", 20), ("probation", 250), ("roll", 30), ("drain", 70), ("return", 0)];
    let expected = expected.map(|(name, sum)| (name.to_owned(), (sum, u64::from(sum > 0))));
    assert_eq!(stages(&tally), BTreeMap::from(expected));

    // A refusal ends the preflight, a failure no stage.
    tally.preflight(RequestId(9), at(600));
    tally.judged(RequestId(9), &Verdict::Refused(Refusal::BadConfig(String::new())), at(605));
    let request = RequestId(10);
    tally.preflight(request, at(700));
    tally.reported(&Report::RollStarted { request, from, to, workers: 2 }, at(710));
    tally.reported(&Report::ReturnStarted { request, from: to, to: from }, at(720));
    tally.reported(&Report::ReturnEnded { request, generation: from }, at(760));
    tally.judged(request, &Verdict::Failed(Failure::Stopped), at(765));
    let now = stages(&tally);
    assert_eq!((now["preflight"], now["start"], now["return"]), ((45, 3), (20, 1), (40, 1)));
}

fn worker(slot: u16, generation: u64, state: &str, cpu_ms: Option<u64>) -> WorkerStatus {
    WorkerStatus {
        slot: Slot(slot),
        generation: Generation(generation),
        version: "fedcba9876543210".to_owned(),
        pid: 10,
        state: state.to_owned(),
        uptime_ms: 5,
        connections: 2,
        in_flight: 1,
        requests: 9,
        handed_over: 0,
        received: 0,
        closed: 0,
        cut: 0,
        websockets_resumed: 0,
        websockets_ended: 0,
        event_streams_resumed: 0,
        event_streams_ended: 0,
        http2_moved: 0,
        http2_not_moved: 0,
        measured: Measured { cpu_ms, memory_bytes: cpu_ms.map(|_| 4096) },
    }
}

fn snapshot(workers: Vec<WorkerStatus>, figures: Figures) -> Snapshot {
    let status = Status {
        app_host: "0.1.0".to_owned(),
        pid: 1,
        uptime_ms: 1500,
        phase: "rolling".to_owned(),
        app: "sh\"op\\".to_owned(),
        app_version: "1\n2".to_owned(),
        magic: "00000001_00000001".to_owned(),
        generation: Generation(1),
        version: "0123456789abcdef".to_owned(),
        workers_configured: 2,
        workers_wanted: None,
        log_level: "info".to_owned(),
        databank: None,
        out_of_rotation: false,
        listeners_down: vec!["web".to_owned()],
        certificates: vec![CertificateStatus {
            listener: "web".to_owned(),
            names: vec!["a.example".to_owned(), "b.example".to_owned()],
            not_after: "2033-05-18T03:33:20Z".to_owned(),
            not_after_seconds: 2_000_000_000,
            ends_soon: false,
        }],
        workers,
        verdicts: Vec::new(),
    };
    Snapshot { status, figures, versions: serde_json::json!([]) }
}

#[test]
fn text_has_every_figure_by_its_name() {
    let mut tally = Tally::default();
    let mut busy = thread();
    (busy.requests, busy.responses[1], busy.accepted) = (3, 3, 2);
    busy.refused[Refused::Flood as usize] = 2;
    busy.not_resumed[LongLived::WebSocket as usize][NotResumed::LongHead as usize] = 3;
    busy.not_resumed[LongLived::EventStream as usize][NotResumed::Http2 as usize] = 4;
    (busy.went_on, busy.moved_http2) = ([5, 6], 7);
    busy.not_moved[NotMoved::NoSuccessor as usize] = 8;
    busy.latency.classes[0] = 2;
    busy.latency.classes[LATENCIES - 1] = 1;
    busy.latency.nanos = 12_500_000_000;
    tally.leaves(&view(1, 0, 1), &StatsSnapshot { threads: vec![busy] }, Duration::from_millis(250));
    tally.judged(RequestId(1), &Verdict::Refused(Refusal::BadConfig(String::new())), Time::ZERO);
    let workers = vec![worker(0, 1, "draining", Some(500)), worker(0, 2, "ready", Some(20)), worker(1, 1, "odd", None)];
    let (text, kind) = text(&snapshot(workers, tally.figures(std::iter::empty())), Measured::default());
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
    for line in [
        "app_host_requests_total 3",
        "app_host_connections_accepted_total 2",
        "app_host_requests_cut_total 0",
        "app_host_responses_total{class=\"2xx\"} 3",
        "app_host_requests_refused_total{reason=\"flood\"} 2",
        "app_host_requests_refused_total{reason=\"URI too long\"} 0",
        "app_host_websockets_not_resumed_total{reason=\"head too long\"} 3",
        "app_host_websockets_not_resumed_total{reason=\"cut\"} 0",
        "app_host_event_streams_not_resumed_total{reason=\"HTTP/2\"} 4",
        "app_host_websockets_resumed_total 5",
        "app_host_event_streams_resumed_total 6",
        "app_host_http2_connections_moved_total 7",
        "app_host_http2_connections_not_moved_total{reason=\"no successor\"} 8",
        "app_host_requests_in_flight 3",
        "app_host_connections 6",
        "# TYPE app_host_request_duration_seconds histogram",
        "app_host_request_duration_seconds_bucket{le=\"0.0001\"} 2",
        "app_host_request_duration_seconds_bucket{le=\"10\"} 2",
        "app_host_request_duration_seconds_bucket{le=\"+Inf\"} 3",
        "app_host_request_duration_seconds_sum 12.5",
        "app_host_request_duration_seconds_count 3",
        "app_host_workers{state=\"ready\"} 1",
        "app_host_workers{state=\"aborting\"} 0",
        "app_host_workers{state=\"killed\"} 0",
        "app_host_workers{state=\"odd\"} 1",
        "app_host_workers_configured 2",
        "app_host_respawns_total 0",
        "app_host_worker_exits_total{expected=\"false\"} 0",
        "app_host_worker_kills_total{why=\"drain timed out\"} 0",
        "app_host_worker_cpu_seconds_total{slot=\"0\",generation=\"1\"} 0.75",
        "app_host_worker_cpu_seconds_total{slot=\"0\",generation=\"2\"} 0.02",
        "app_host_worker_resident_memory_bytes{slot=\"0\",generation=\"2\"} 4096",
        "app_host_restarts_total{verdict=\"refused\",reason=\"bad config\"} 1",
        "app_host_restarts_total{verdict=\"complete\",reason=\"\"} 0",
        "app_host_restart_stage_seconds_bucket{stage=\"preflight\",le=\"0.005\"} 0",
        "app_host_restart_stage_seconds_count{stage=\"drain\"} 0",
        "app_host_phase{phase=\"rolling\"} 1",
        "app_host_phase{phase=\"locked\"} 0",
        "app_host_certificate_not_after_seconds{listener=\"web\",names=\"a.example,b.example\"} 2000000000",
        "app_host_tls_handshakes_total 0",
        "app_host_listener_shutdowns_total 0",
        "app_host_listeners_down 1",
        "app_host_active_generation 1",
        "app_host_uptime_seconds 1.5",
        "app_host_app_info{app=\"sh\\\"op\\\\\",app_version=\"1\\n2\",version=\"0123456789ab\"} 1",
        "app_host_build_info{version=\"0.1.0\"} 1",
    ] {
        assert!(text.lines().any(|each| each == line), "{line} is missing in\n{text}");
    }
    // What the kernel doesn't say is left out, so that nothing goes backwards.
    assert!(!text.contains("slot=\"1\"") && !text.contains("process_cpu"), "{text}");
    let types: Vec<&str> = text.lines().filter(|line| line.starts_with("# TYPE ")).collect();
    assert_eq!(types.iter().collect::<HashSet<_>>().len(), types.len(), "{types:?}");
    let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let names: HashSet<&str> = samples.iter().filter_map(|line| line.rsplit_once(' ')).map(|(name, _)| name).collect();
    assert_eq!(names.len(), samples.len(), "a series is there twice:\n{text}");
}
