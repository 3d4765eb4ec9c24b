//! What a test has the world do.

use super::*;

/// The apps of most workers keep something in memory.
pub(in super::super) fn ready_with_or_without_state(worker: WorkerId) -> Event {
    Event::Ready { worker, keeps_state: !worker.0.is_multiple_of(4) }
}

impl World {
    /// Somebody asks for a restart.
    pub(in super::super) fn ask(&mut self, by: By) {
        self.last_request += 1;
        let request = RequestId(self.last_request);
        if !self.is_over() {
            self.waiting.insert(request);
        }
        self.asked_by.insert(request, by);
        if self.may_overtake(by) && self.machine.phase_for(by) != Phase::Serving {
            // A probation is over and nobody has looked at the clock since.
            self.tick();
        }
        let overtakes = self.may_overtake(by);
        self.overtaking = overtakes.then_some(request);
        assert_eq!(self.machine.phase_for(by) == Phase::Serving, overtakes || self.machine.phase() == Phase::Serving);
        let starts = self.preflight.is_none();
        self.deliver(Event::Request { request, by });
        self.overtaking = None;
        let settings = self.settings[&self.active];
        let possible = self.configured[&self.active] > u16::from(!settings.single) && settings.databank_shared;
        assert!(!(overtakes && possible && starts) || self.preflight == Some(request), "only drains are in its way");
    }

    /// Somebody wants another number of workers.
    pub(in super::super) fn scale(&mut self, wish: Scale) {
        assert_eq!(self.machine.may_scale().is_ok(), self.end.is_none());
        if self.end.is_none() {
            let (base, difference) = self.wish.unwrap_or_default();
            self.wish = Some(match wish {
                Scale::To(number) => (Some(i32::from(number).clamp(1, 512)), 0),
                Scale::By(more) => match base {
                    Some(number) => (Some((number + more).clamp(1, 512)), 0),
                    None => (None, difference + more),
                },
            });
        }
        self.deliver(Event::Scale(wish));
    }

    /// A preflight under way finds nothing wrong; only an operator gets more of what is active.
    pub(in super::super) fn pass_preflight(&mut self, settings: Settings, unchanged: bool) {
        if let Some(request) = self.preflight.take() {
            let refused = unchanged && self.asked_by[&request] == By::Watcher;
            self.to_adopt = (!refused).then_some(settings);
            self.passed_unchanged = unchanged;
            self.deliver(Event::PreflightPassed { request, settings, unchanged });
            self.to_adopt = None;
            assert!(!refused || !self.waiting.contains(&request));
        }
    }

    pub(in super::super) fn refuse_preflight(&mut self) {
        if let Some(request) = self.preflight.take() {
            let refusal = Refusal::BadArtifact("no manifest".to_owned());
            self.deliver(Event::PreflightRefused { request, refusal });
        }
    }

    /// An answer that belongs to no preflight under way.
    pub(in super::super) fn stale_preflight(&mut self, settings: Settings) {
        let request = RequestId(self.last_request + 1);
        self.tick();
        self.deliver_stale(&Event::PreflightPassed { request, settings, unchanged: false });
        let refusal = Refusal::Stopping;
        self.deliver_stale(&Event::PreflightRefused { request, refusal });
    }

    pub(in super::super) fn stop(&mut self) {
        let again = matches!(self.end, Some(End::Stopping | End::StoppingAtOnce));
        self.stop_in_hand = if again { StopInHand::Again } else { StopInHand::First };
        self.deliver(Event::Stop);
        self.stop_in_hand = StopInHand::None;
    }

    /// A worker moves no more.
    pub(in super::super) fn hang(&mut self, worker: WorkerId) {
        if let Some(process) = self.alive.get_mut(&worker) {
            process.hangs = true;
        }
    }

    /// Every worker handles so many requests more.
    pub(in super::super) fn serve(&mut self, requests: u64) {
        for process in self.alive.values_mut().filter(|it| it.serves()) {
            process.requests += requests;
        }
    }

    /// The driver looks at all workers.
    pub(in super::super) fn look(&mut self) {
        let now = self.now;
        let found = self.alive.iter_mut().map(|(&worker, process)| {
            process.beats += u64::from(!process.hangs);
            process.unmoved = match process.unmoved {
                Some((since, looks)) if process.hangs && process.serves() => Some((since, looks + 1)),
                // This look may be the first that sees it as it stays.
                _ => process.serves().then_some((now, 0)),
            };
            let beat = Some(Duration::from_millis(process.beats));
            (worker, Signs { beat, requests: process.requests, memory: None })
        });
        let found = found.collect();
        self.deliver(Event::Looked { found });
    }

    /// Everybody moves again.
    pub(in super::super) fn recover(&mut self) {
        for process in self.alive.values_mut() {
            process.hangs = false;
        }
    }

    /// Sleeps for so long, and wakes at each deadline on the way.
    pub(in super::super) fn sleep_watchfully(&mut self, pause: Duration) {
        let until = self.now + pause;
        while let Some(deadline) = self.machine.deadline().filter(|deadline| *deadline <= until) {
            self.now = self.now.max(deadline);
            self.tick();
        }
        self.now = until;
        self.tick();
    }

    pub(in super::super) fn sleep(&mut self, pause: Duration) {
        self.now += pause;
    }

    pub(in super::super) fn tick(&mut self) {
        self.deliver(Event::Tick);
    }

    /// Sleeps until the machine wants to be called; says whether it does.
    pub(in super::super) fn sleep_until_deadline(&mut self) -> bool {
        let deadline = self.machine.deadline();
        if let Some(deadline) = deadline {
            self.now = self.now.max(deadline);
            self.tick();
        }
        deadline.is_some()
    }

    /// A worker says something, or something is said about it, whether it makes sense or not.
    pub(in super::super) fn say(&mut self, worker: WorkerId, event: Event) {
        if !self.fits(worker, &event) {
            // Let everything happen that the passing of time causes, so that nothing is left but
            // what this message itself would change.
            self.tick();
        }
        if !self.fits(worker, &event) {
            return self.deliver_stale(&event);
        }
        match event {
            Event::Ready { keeps_state, .. } => {
                self.set(worker, WorkerState::Ready);
                self.alive.get_mut(&worker).expect("it starts").keeps_state = keeps_state;
            }
            Event::HandedOn { .. } => {
                let now = self.now;
                let bequest = self.alive.get_mut(&worker).and_then(|it| it.bequest.as_mut());
                bequest.expect("it was told").1 = now;
            }
            Event::CannotListen { .. } => self.set(worker, WorkerState::Leaving),
            Event::StartFailed { .. } => {
                self.failed_starts.insert(self.alive[&worker].slot);
                self.set(worker, WorkerState::Leaving);
            }
            Event::Terminated { .. } => self.tell_to_end(worker),
            _ => {
                let now = self.now;
                let pending = |it: &&mut Process| it.bequest.is_some_and(|(to, until)| to == worker && until > now);
                for giver in self.alive.values_mut().filter(pending) {
                    // It may have died of what it was left.
                    giver.keeps_state &= giver.state != WorkerState::Retiring;
                }
                self.alive.remove(&worker);
            }
        }
        self.deliver(event);
    }

    /// One living worker that is due does what a good worker does; says whether one was.
    pub(in super::super) fn cooperate(&mut self) -> bool {
        if let Some(generation) = self.unwritten.take() {
            self.deliver(Event::WrittenDown { generation });
            return true;
        }
        let leaves = self.alive.keys().find_map(|&worker| Some((worker, self.leaves_to(worker)?.0)));
        if let Some((worker, heir)) = leaves {
            self.say(worker, Event::HandedOn { worker, heir });
            return true;
        }
        let due = self.alive.iter().find(|(_, it)| !it.serves());
        let Some((&worker, process)) = due else {
            return false;
        };
        let event = match process.state {
            WorkerState::Starting => ready_with_or_without_state(worker),
            _ => Event::Exited { worker, how: Ended::Code(0) },
        };
        self.say(worker, event);
        true
    }

    /// One killed worker goes, as even the worst must; says whether there was one.
    pub(in super::super) fn bury(&mut self) -> bool {
        let killed = self.alive.iter().find(|(_, it)| it.state == WorkerState::Killed);
        let Some((&worker, _)) = killed else {
            return false;
        };
        let how = Ended::Signal(9);
        self.say(worker, Event::Exited { worker, how });
        true
    }

    /// A preflight under way is answered well; says whether there was one.
    pub(in super::super) fn answer(&mut self, settings: Settings) -> bool {
        let under_way = self.preflight.is_some();
        self.pass_preflight(settings, false);
        under_way
    }
}
