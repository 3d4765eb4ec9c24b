//! The claims of a worker to locks: which wait, and which are held.
//!
//! Owns their numbers, their wakers, and the messages about them to the master. Pure: knows no socket, no thread and no
//! clock, and returns wakers instead of waking them.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::sync::Arc;
use std::task::{Poll, Waker};

use bytes::Bytes;

use app_host_core::dispatch::queues::MAX_CLAIMS;
use app_host_core::dispatch::wire;

use super::DispatchFault;

#[derive(Default)]
pub(super) struct Claims {
    made: HashMap<u64, Claim>,
    last: u64,
    /// The messages for the master, up to two for each claim.
    outgoing: VecDeque<ClaimMessage>,
    /// Why no claim is granted any more.
    over: Option<DispatchFault>,
}

struct Claim {
    held: bool,
    waker: Option<Waker>,
}

enum ClaimMessage {
    Claim(Arc<str>, u64),
    Release(Arc<str>, u64),
}

impl Claims {
    /// Makes a claim. Returns its number.
    pub(super) fn claim(&mut self, lock: &Arc<str>) -> Result<u64, DispatchFault> {
        if let Some(fault) = &self.over {
            return Err(fault.clone());
        }
        if self.made.len() + self.releases() >= MAX_CLAIMS {
            return Err(DispatchFault::TooManyLocks);
        }
        self.last += 1;
        self.made.insert(self.last, Claim { held: false, waker: None });
        self.outgoing.push_back(ClaimMessage::Claim(Arc::clone(lock), self.last));
        Ok(self.last)
    }

    /// How many claims were released that the master still counts.
    fn releases(&self) -> usize {
        self.outgoing.iter().filter(|message| matches!(message, ClaimMessage::Release(..))).count()
    }

    /// Releases a claim. Its waker is for the caller to drop.
    pub(super) fn release(&mut self, lock: &Arc<str>, number: u64) -> Option<Waker> {
        let claim = self.made.remove(&number)?;
        let before = self.outgoing.len();
        self.outgoing.retain(|message| !matches!(message, ClaimMessage::Claim(_, unsent) if *unsent == number));
        // A claim that the master was not sent needs no release.
        if self.outgoing.len() == before && self.over != Some(DispatchFault::Gone) {
            self.outgoing.push_back(ClaimMessage::Release(Arc::clone(lock), number));
        }
        claim.waker
    }

    /// The master has granted a claim. Returns the waker of the task that waits for it. If the claim was released, the
    /// message about that is on its way.
    pub(super) fn granted(&mut self, number: u64) -> Option<Waker> {
        let claim = self.made.get_mut(&number)?;
        claim.held = true;
        claim.waker.take()
    }

    /// Whether a claim is held, or why it never will be. The second value is for the caller to drop.
    pub(super) fn poll(&mut self, number: u64, waker: &Waker) -> (Poll<Result<(), DispatchFault>>, Option<Waker>) {
        let Some(claim) = self.made.get_mut(&number) else {
            return (Poll::Ready(Err(DispatchFault::Gone)), None);
        };
        if claim.held {
            return (Poll::Ready(Ok(())), None);
        }
        if let Some(fault) = &self.over {
            return (Poll::Ready(Err(fault.clone())), None);
        }
        match &claim.waker {
            Some(kept) if kept.will_wake(waker) => (Poll::Pending, None),
            _ => (Poll::Pending, claim.waker.replace(waker.clone())),
        }
    }

    /// Lets no claim be granted any more, for this reason. Returns the wakers of all tasks that wait. A lock that is held
    /// stays so.
    pub(super) fn end(&mut self, fault: DispatchFault) -> Vec<Waker> {
        if fault == DispatchFault::Gone {
            self.outgoing.clear();
        }
        // Gone is for good.
        if self.over != Some(DispatchFault::Gone) {
            self.over = Some(fault);
        }
        self.made.values_mut().filter_map(|claim| claim.waker.take()).collect()
    }

    /// The next packet for the master.
    pub(super) fn next(&mut self) -> Option<Bytes> {
        self.outgoing.pop_front().map(|message| match message {
            ClaimMessage::Claim(lock, number) => wire::claim(&lock, number),
            ClaimMessage::Release(lock, number) => wire::release(&lock, number),
        })
    }

    /// Whether there is no packet for the master.
    pub(super) fn is_quiet(&self) -> bool {
        self.outgoing.is_empty()
    }

    /// Drops all messages, for a process that ends.
    pub(super) fn close(&mut self) -> Vec<Waker> {
        mem::take(&mut self.outgoing);
        self.end(DispatchFault::Gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock() -> Arc<str> {
        Arc::from("l")
    }

    fn poll(claims: &mut Claims, number: u64) -> Poll<Result<(), DispatchFault>> {
        claims.poll(number, Waker::noop()).0
    }

    #[test]
    fn a_claim_waits_is_held_and_is_given_back() {
        let mut claims = Claims::default();
        let number = claims.claim(&lock()).unwrap();
        assert_eq!(claims.next(), Some(wire::claim("l", number)));
        assert_eq!(poll(&mut claims, number), Poll::Pending);
        assert!(claims.granted(number).is_some(), "the task that waits is woken");
        assert_eq!(poll(&mut claims, number), Poll::Ready(Ok(())));
        claims.release(&lock(), number);
        assert_eq!(claims.next(), Some(wire::release("l", number)));
        assert!(claims.granted(number).is_none());
        assert!(claims.next().is_none() && claims.is_quiet());
    }

    #[test]
    fn a_claim_that_was_not_sent_yet_needs_no_release() {
        let mut claims = Claims::default();
        for _ in 0..10_000 {
            let number = claims.claim(&lock()).unwrap();
            claims.release(&lock(), number);
        }
        assert!(claims.is_quiet());
    }

    #[test]
    fn there_are_never_more_claims_than_the_master_allows_including_unsent_releases() {
        let mut claims = Claims::default();
        let numbers: Vec<_> = (0..MAX_CLAIMS).map(|_| claims.claim(&lock()).unwrap()).collect();
        assert_eq!(claims.claim(&lock()), Err(DispatchFault::TooManyLocks));
        while claims.next().is_some() {}
        claims.release(&lock(), numbers[0]);
        assert_eq!(claims.claim(&lock()), Err(DispatchFault::TooManyLocks));
        assert_eq!(claims.next(), Some(wire::release("l", numbers[0])));
        assert!(claims.claim(&lock()).is_ok());
    }

    #[test]
    fn a_drain_ends_what_waits_and_leaves_what_is_held() {
        let mut claims = Claims::default();
        let (held, waiting) = (claims.claim(&lock()).unwrap(), claims.claim(&lock()).unwrap());
        claims.granted(held);
        assert_eq!(poll(&mut claims, waiting), Poll::Pending);
        assert_eq!(claims.end(DispatchFault::Draining).len(), 1);
        assert_eq!(poll(&mut claims, waiting), Poll::Ready(Err(DispatchFault::Draining)));
        assert_eq!(poll(&mut claims, held), Poll::Ready(Ok(())));
        assert_eq!(claims.claim(&lock()), Err(DispatchFault::Draining));
        claims.end(DispatchFault::Gone);
        claims.end(DispatchFault::Draining);
        assert_eq!(claims.claim(&lock()), Err(DispatchFault::Gone));
        claims.release(&lock(), held);
        assert!(claims.is_quiet(), "there is no master to send it to");
    }
}
