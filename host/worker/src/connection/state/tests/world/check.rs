//! What must be true of a connection: when it leaves or ends, and whenever the driver waits.

use super::*;

impl World {
    /// HTTP is done with the connection, or the driver is.
    pub(super) fn exit(&mut self, finish: Finish) {
        let Location::Served(mut worker) = std::mem::replace(&mut self.location, Location::Gone) else {
            panic!("it has gone before")
        };
        let late = worker.is_late(self.now);
        match worker.state.on_end(finish) {
            Exit::Close => {
                assert!(!worker.told_end, "a connection that was to leave is closed");
                assert_ne!(worker.shutdown, Some(Shutdown::Leave), "a connection that was to leave is closed");
                if finish == Finish::GivenUp && worker.phase != Phase::Cut {
                    let stalled = worker.state.is_cut();
                    assert!(
                        worker.in_flight.is_none() || late || self.is_body_late() || stalled || worker.out > 0,
                        "a busy connection is dropped"
                    );
                    let blocked = self.blocked_since.zip(worker.drains_since);
                    let blocked = blocked.map(|(since, drain)| self.now - since.max(drain));
                    assert!(!stalled || blocked >= Some(Limits::TEST.stall), "{blocked:?} is no stall");
                }
            }
            Exit::Leave { to, head } => {
                assert!(
                    worker.told_end && !self.closes,
                    "it leaves because it was told to, and no close was announced"
                );
                assert!(matches!(worker.shutdown, None | Some(Shutdown::Leave)), "it is closed and leaves");
                assert!(worker.in_flight.is_none() && worker.out == 0, "it leaves with a response on its way");
                assert_eq!(self.answered, self.begun, "it leaves with a request that is not answered");
                let blank = worker.buffer.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
                assert_eq!(worker.buffer.len() - blank, head, "what was counted is what HTTP gives back");
                let mut history = worker.timeouts.http1_history(&worker.state, self.now);
                assert_eq!(history.requests, self.begun as u64);
                worker.buffer.append(&mut self.unread);
                self.unread = worker.buffer;
                // All that was taken and is no answered request goes along; blank lines may have been skipped.
                let consumed = self.begun.checked_sub(1).map_or(0, |last| self.spans[last].all.end);
                let rest = &self.stream[consumed..self.taken];
                let skipped = rest.len() - self.unread.len();
                assert!(rest[..skipped].iter().all(|byte| matches!(byte, b'\r' | b'\n')), "bytes are lost");
                assert_eq!(self.unread, rest[skipped..], "bytes are lost");
                if to == Goal::Park {
                    assert!(history.may_park(&self.unread) || !self.unread.is_empty());
                    let idle = self.now - self.idle_since.expect("it is idle");
                    assert!(idle >= HEAD_TIMEOUT, "it is parked after {idle:?}");
                    self.parks += 1;
                } else {
                    assert_eq!(to, Goal::Move);
                    self.moves += 1;
                }
                if to == Goal::Park && history.may_park(&self.unread) {
                    history.park(Limits::TEST.look());
                    self.location = Location::Parked { history, due: self.now + history.next_look };
                    self.wake();
                } else {
                    self.serve(&history);
                }
            }
            Exit::Carry => panic!("no request has asked for an upgrade"),
        }
    }

    /// Whether the client owes more of a request's body.
    fn is_body_late(&self) -> bool {
        self.begun > 0 && self.sent < self.spans[self.begun - 1].all.end
    }

    /// What holds whenever the driver waits.
    pub(super) fn check(&self) {
        if let (Location::Served(worker), Some(blocked)) = (&self.location, self.blocked_since)
            && worker.phase == Phase::Serving
        {
            // Until it is looked at, a span in which it took something, and one in which it didn't.
            let most = Limits::TEST.look() + Limits::TEST.http.min_rate_grace * 2;
            assert!(self.now <= blocked.max(worker.told) + most, "a client that reads nothing is kept");
        }
        if let Location::Served(worker) = &self.location
            && let (Some(drain), Some(blocked)) = (worker.drains_since, self.blocked_since)
        {
            assert!(
                self.now < drain.max(blocked) + Limits::TEST.stall,
                "a client that reads nothing holds the drain up"
            );
        }
        let Some(idle_since) = self.idle_since else {
            if let Location::Served(worker) = &self.location {
                assert_eq!(worker.state.in_flight(), u64::from(worker.in_flight.is_some()));
                assert_ne!(worker.phase, Phase::Cut, "a connection outlives the cut");
            }
            return;
        };
        let phase = match &self.location {
            Location::Served(worker) => worker.phase,
            Location::Parked { .. } => Phase::Serving,
            Location::Gone => return,
        };
        match (phase, &self.location) {
            (Phase::Draining { ending, linger, .. }, Location::Served(worker)) => {
                assert!(self.now < idle_since.max(worker.told) + linger, "an idle connection outlives the linger");
                assert_eq!(ending, Ending::Close, "an idle connection stays where it could move");
            }
            (Phase::Cut, _) => panic!("a connection outlives the cut"),
            _ => {
                let idle = self.now - idle_since;
                // The last head may begin when the idle time-out, and a look, are over.
                assert!(idle <= HEAD_TIMEOUT * 5, "an idle connection is still there after {idle:?}");
                assert!(self.begun > 0 || self.now <= self.opened + HEAD_TIMEOUT, "no request has come in time");
                let in_head = self.head_since.map_or(Duration::ZERO, |since| self.now - since);
                assert!(in_head <= HEAD_TIMEOUT * 2, "half a head has been waited for: {in_head:?}");
            }
        }
    }
}
