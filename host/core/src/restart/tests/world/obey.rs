//! What the machine orders, done in the world, and held against what was allowed.

use super::*;

impl World {
    pub(super) fn obey_scale(&mut self, from: u16, to: u16) {
        assert!(self.has_served && self.end.is_none() && self.candidate.is_none() && !self.returning);
        let (base, difference) = self.wish.take().expect("somebody wants another number");
        let settings = self.settings.get_mut(&self.active).expect("the active generation is known");
        assert_eq!(settings.workers, from);
        let wanted = (base.unwrap_or(i32::from(from)) + difference).clamp(1, 512);
        assert_eq!(i32::from(to), wanted);
        settings.workers = to;
    }

    pub(super) fn obey(&mut self, action: Action) {
        match action {
            Action::Preflight { request } => {
                assert!(self.waiting.contains(&request));
                assert_eq!(self.preflight.replace(request), None);
            }
            Action::CancelPreflight { request } => {
                assert_eq!(self.preflight.take(), Some(request));
            }
            Action::Spawn { worker, slot, generation } => self.obey_spawn(worker, slot, generation),
            Action::HandOn { from, to } => self.obey_hand_on(from, to),
            Action::Drain { worker, successor, timeout } => self.obey_drain(worker, successor, timeout),
            Action::Abort { worker } => self.obey_abort(worker),
            Action::Kill { worker, why } => self.obey_kill(worker, why),
            Action::Adopt { generation, .. } => {
                let mut settings = self.to_adopt.take().expect("a preflight has passed");
                self.configured.insert(generation, settings.workers);
                if settings.workers == self.configured[&self.active] {
                    settings.workers = self.settings[&self.active].workers;
                }
                assert_eq!(self.candidate.replace(generation), None, "one candidate");
                assert!(generation > self.newest_generation);
                self.newest_generation = generation;
                self.candidates_spawned = 0;
                self.settings.insert(generation, settings);
            }
            Action::RolledOver { generation } => {
                assert!(!self.returning && self.end.is_none());
                assert_eq!(self.candidate, Some(generation));
                assert!(self.told_rolled_over.insert(generation), "once");
                let others = self.alive.values().filter(|it| it.generation != generation);
                assert!(others.into_iter().all(|it| !it.serves() && it.state != WorkerState::Starting));
            }
            Action::Activate { generation } if !self.has_served => assert_eq!(generation, self.active),
            Action::Activate { generation } => {
                assert!(!self.returning);
                assert_eq!(self.candidate.take(), Some(generation));
                self.active = generation;
            }
            Action::Quarantine { generation, failure } => {
                assert_eq!((self.candidate, self.end, self.returning), (Some(generation), None, false));
                assert_eq!(self.settings[&self.active].on_failure, OnFailure::Rollback);
                assert!(failure != Failure::Stopped && self.has_lost_a_candidate(), "failed without a cause");
                self.returning = true;
                self.unwritten = Some(generation);
            }
            Action::Discard { generation } => {
                assert_ne!(generation, self.active);
                assert!(self.alive.values().all(|it| it.generation != generation));
                assert!(self.settings.remove(&generation).is_some(), "discarded once");
                self.candidate.take_if(|it| *it == generation);
            }
            Action::AnnounceStop => {
                assert!(self.has_served && matches!(self.end, None | Some(End::Locked)));
                assert_eq!(self.stop_in_hand, StopInHand::First);
                self.stop_in_hand = StopInHand::None;
                self.end = Some(End::Delayed { until: self.now + self.settings[&self.active].shutdown_delay });
            }
            Action::CloseListeners => {
                match self.end {
                    Some(End::Delayed { until }) => {
                        let skipped = self.stop_in_hand == StopInHand::First;
                        assert!(until <= self.now || skipped || self.alive.is_empty(), "before its time");
                    }
                    end => {
                        assert!(matches!(end, None | Some(End::Locked)));
                        let delay = self.settings[&self.active].shutdown_delay;
                        assert!(!self.has_served || delay.is_zero(), "not announced");
                    }
                }
                self.end = Some(End::Stopping);
            }
            Action::Verdict { request, verdict } => self.obey_verdict(request, &verdict),
            Action::Report(Report::Serving { .. }) => self.has_served = true,
            Action::Report(Report::Scaled { from, to }) => self.obey_scale(from, to),
            Action::Report(Report::WorkerRecycled { worker, why }) => self.obey_recycling(&worker, why),
            Action::Report(Report::StoppingAtOnce) => self.end = Some(End::StoppingAtOnce),
            Action::Report(_) => {}
            Action::Exit(reason) => self.obey_exit(&reason),
        }
    }

    pub(super) fn obey_spawn(&mut self, worker: WorkerId, slot: Slot, generation: Generation) {
        assert_eq!(self.end, None, "nothing is spawned any more");
        assert!(worker > self.newest_worker);
        let is_active = (self.candidate.is_none() || self.returning) && generation == self.active;
        assert!(is_active || (Some(generation) == self.candidate && !self.returning));
        let settings = self.settings[&generation];
        assert!(slot.0 < settings.workers);
        let starting =
            self.alive.values().filter(|it| it.generation == generation && it.state == WorkerState::Starting);
        assert!(is_active || starting.count() < usize::from(settings.parallel), "as many at a time as configured");
        assert!(is_active || slot == Slot(0) || self.probation_has_passed(generation));
        assert!(
            self.has_served || self.may_start_first(slot),
            "the first worker starts alone, and so does a second try"
        );
        let mut others = self.alive.values().filter(|it| it.stays());
        assert!(others.all(|it| (it.slot, it.generation) != (slot, generation)), "one that stays is enough");
        self.candidates_spawned += usize::from(!is_active);
        self.newest_worker = worker;
        *self.first_spawns.entry(slot).or_default() += 1;
        self.alive.insert(
            worker,
            Process {
                slot,
                generation,
                state: WorkerState::Starting,
                ready_since: None,
                told_to_end: false,
                keeps_state: false,
                is_heir: false,
                bequest: None,
                deadline: self.now + settings.start_timeout,
                beats: 0,
                hangs: false,
                unmoved: None,
                requests: 0,
            },
        );
    }

    /// Who could be left what a worker has: the newest that serves in its slot, if it has come after it.
    fn heir_of(&self, worker: WorkerId) -> Option<WorkerId> {
        let process = &self.alive[&worker];
        let comes_after = |(id, it): &(&WorkerId, &Process)| {
            **id > worker && it.slot == process.slot && it.state == WorkerState::Ready
        };
        self.alive.iter().filter(comes_after).map(|(id, _)| *id).max()
    }

    /// Only who is about to drain, and only where an app can do something with it; each inherits once.
    fn obey_hand_on(&mut self, from: WorkerId, to: WorkerId) {
        let (giver, heir) = (&self.alive[&from], &self.alive[&to]);
        assert_eq!(self.heir_of(from), Some(to));
        assert!(giver.serves() && giver.keeps_state && heir.keeps_state && !heir.is_heir);
        assert!(giver.bequest.is_none_or(|(before, _)| before != to), "told twice");
        let timeout = self.settings[&heir.generation].state_timeout.expect("it inherits");
        self.allow_drain(from, giver);
        self.alive.get_mut(&to).expect("it was there").is_heir = true;
        let until = self.now + timeout + Duration::from_millis(250);
        self.alive.get_mut(&from).expect("it was there").bequest = Some((to, until));
    }

    pub(super) fn obey_drain(&mut self, worker: WorkerId, successor: bool, timeout: Duration) {
        let process = &self.alive[&worker];
        if successor && process.serves() && self.end.is_none() {
            let retiring = |it: &&Process| it.slot == process.slot && it.state == WorkerState::Retiring;
            let several_retire = self.alive.values().filter(retiring).count() > 1;
            if let Some(heir) = self.heir_of(worker).filter(|_| process.keeps_state && !several_retire) {
                let waits = self.leaves_to(worker).is_some_and(|(to, _)| to == heir);
                assert!(!waits, "what the app keeps in memory comes first");
                let next = &self.alive[&heir];
                let takes = next.keeps_state && self.settings[&next.generation].state_timeout.is_some();
                let was_told = process.bequest.is_some_and(|(to, _)| to == heir);
                assert!(!takes || next.is_heir || was_told, "nobody has asked for what the app keeps in memory");
            }
        }
        let own_timeout = self.settings[&process.generation].shutdown_timeout;
        match process.state {
            WorkerState::Starting | WorkerState::Ready | WorkerState::Retiring => {
                assert_eq!(timeout, own_timeout);
            }
            WorkerState::Draining => {
                assert!(!successor, "drained twice");
                let left = process.deadline.saturating_sub(self.now);
                assert_eq!(timeout, left, "the deadline was moved");
            }
            state => panic!("a {state} worker was told to drain"),
        }
        if successor {
            self.allow_drain(worker, process);
        } else {
            assert_eq!(self.end, Some(End::Stopping));
        }
        let process = self.alive.get_mut(&worker).expect("it was there");
        if process.state != WorkerState::Draining {
            process.state = WorkerState::Draining;
            process.deadline = self.now + timeout;
        }
    }

    /// Only who hangs is aborted, after enough looks, and nobody who is to follow one that doesn't die.
    pub(super) fn obey_abort(&mut self, worker: WorkerId) {
        assert_eq!(self.end, None, "nobody is replaced any more");
        let process = &self.alive[&worker];
        assert!(process.hangs && process.serves(), "it moved, or had another deadline");
        let timeout = self.settings[&process.generation].hang_timeout.expect("hanging matters");
        let (since, looks) = process.unmoved.expect("it was seen");
        assert!(since + timeout <= self.now && looks >= LOOKS, "{looks} looks in {:?}", self.now.saturating_sub(since));
        let dying = |it: &Process| matches!(it.state, WorkerState::Aborting | WorkerState::Killed);
        assert!(!self.alive.values().any(|it| it.slot == process.slot && dying(it)), "to no avail before");
        let process = self.alive.get_mut(&worker).expect("it was there");
        process.state = WorkerState::Aborting;
        process.deadline = self.now + ABORT_GRACE;
    }

    /// One at a time, when nothing else goes on, and for a reason.
    pub(super) fn obey_recycling(&mut self, worker: &WorkerView, why: RecycleReason) {
        assert!(self.has_served && self.end.is_none() && self.candidate.is_none() && self.preflight.is_none());
        let settings = self.settings[&self.active];
        assert_eq!(self.alive.len(), usize::from(settings.workers));
        assert!(self.alive.values().all(|it| it.state == WorkerState::Ready), "not while somebody comes or goes");
        let process = self.alive.get_mut(&worker.id).expect("it was there");
        assert!(process.ready_since.is_some_and(|since| since + settings.recycle.min_uptime <= self.now));
        let limit = settings.recycle.requests.expect("requests matter");
        assert!(process.requests >= limit);
        assert_eq!(why, RecycleReason::Requests { served: process.requests, limit });
        process.state = WorkerState::Retiring;
    }

    pub(super) fn obey_kill(&mut self, worker: WorkerId, why: KillReason) {
        let process = self.alive.get_mut(&worker).expect("the living are killed");
        assert_ne!(process.state, WorkerState::Killed, "killed twice");
        if why == KillReason::FastStop {
            assert_eq!(self.stop_in_hand, StopInHand::Again);
        } else {
            assert!(process.deadline <= self.now, "killed before its time");
            let expected = match process.state {
                WorkerState::Starting => KillReason::NotReadyInTime,
                WorkerState::Leaving => KillReason::StayedUnfit,
                WorkerState::Draining => KillReason::DrainTimedOut,
                WorkerState::Aborting => KillReason::SurvivedAbort,
                state => panic!("a {state} worker was killed"),
            };
            assert_eq!(why, expected);
        }
        process.state = WorkerState::Killed;
    }

    pub(super) fn obey_verdict(&mut self, request: RequestId, verdict: &Verdict) {
        assert!(self.waiting.remove(&request), "one verdict a request");
        match verdict {
            Verdict::Complete { unchanged, draining } => {
                assert_eq!(*unchanged, self.passed_unchanged, "what the preflight said is what the verdict says");
                assert_eq!(self.candidate, None, "the candidate is active");
                let settings = self.settings[&self.active];
                assert_eq!(self.serving(), usize::from(settings.workers));
                let others: Vec<_> = self.alive.values().filter(|it| it.generation != self.active).collect();
                assert!(others.iter().all(|it| !it.serves() && it.state != WorkerState::Starting));
                assert_eq!(others.len(), *draining);
                assert!(others.is_empty() || self.overtaking.is_some(), "somebody is left");
                assert!(others.is_empty() || self.told_rolled_over.contains(&self.active), "not written down");
            }
            Verdict::Refused(Refusal::RestartInFlight) => {
                assert_eq!(self.overtaking, None, "only drains are in its way");
            }
            Verdict::Refused(_) => {}
            Verdict::Failed(Failure::Stopped) => assert_eq!((self.end, self.returning), (None, false)),
            Verdict::Failed(_) if self.returning => {
                let is_written = self.unwritten.take().is_none();
                assert!(is_written || self.stop_in_hand == StopInHand::First, "not written down");
                assert_eq!(self.end, None);
                assert!(
                    self.overtaking.is_some()
                        || self.stop_in_hand == StopInHand::First
                        || (self.candidate.is_none() && self.is_back()),
                    "not back yet"
                );
                self.returning = false;
                if self.overtaking.is_some() {
                    // It drains on.
                    self.candidate = None;
                }
            }
            Verdict::Failed(_) => {
                assert_eq!(self.end, None);
                assert!(self.has_lost_a_candidate(), "failed without a cause");
                assert_eq!(self.settings[&self.active].on_failure, OnFailure::Lock);
                self.end = Some(End::Locked);
            }
        }
    }

    pub(super) fn obey_exit(&mut self, reason: &ExitReason) {
        assert!(self.alive.is_empty(), "somebody is left");
        assert!(self.waiting.is_empty(), "somebody waits for a verdict");
        assert_eq!(self.preflight, None);
        assert_eq!(self.candidate, None, "each candidate is discarded");
        let locked = *reason == ExitReason::LockedAndEmpty;
        assert_eq!(locked, self.end == Some(End::Locked));
        assert!(self.end.is_some());
        self.end = Some(End::Exited);
    }
}
