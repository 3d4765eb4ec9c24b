//! Who holds each lock of the service, and who waits for it: what the master grants.
//!
//! Of each lock at most one claim is held. When it is given back, or its worker has exited, the next is one of the newest
//! generation that waits, and among those the oldest claim: in a restart the job goes to who stays. Pure: knows no
//! socket and no clock.

use std::collections::{HashMap, VecDeque};

use crate::ids::WorkerId;

/// The most claims of one worker, held ones included.
pub const MAX_CLAIMS: usize = 256;

/// One claim to a lock. The number is its worker's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub worker: WorkerId,
    pub generation: u64,
    pub number: u64,
}

/// A worker has more claims than any of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {MAX_CLAIMS} locks are claimed")]
pub struct TooMany;

/// All locks that somebody holds. See the module.
#[derive(Debug, Default)]
pub struct Queues {
    /// The first of each queue holds the lock; no queue is empty.
    queues: HashMap<String, VecDeque<Claim>>,
    claims: HashMap<WorkerId, usize>,
}

impl Queues {
    /// Takes a claim; says whether it holds the lock now.
    pub fn claim(&mut self, name: &str, claim: Claim) -> Result<bool, TooMany> {
        let claims = self.claims.entry(claim.worker).or_default();
        if *claims >= MAX_CLAIMS {
            return Err(TooMany);
        }
        *claims += 1;
        let queue = self.queues.entry(name.to_owned()).or_default();
        queue.push_back(claim);
        Ok(queue.len() == 1)
    }

    /// Takes a claim back, whether it is held or waits; gives the one that holds the lock in its place. One that isn't
    /// there is nothing: its worker may give up while it is granted.
    pub fn release(&mut self, name: &str, worker: WorkerId, number: u64) -> Option<Claim> {
        let queue = self.queues.get_mut(name)?;
        let place = queue.iter().position(|it| (it.worker, it.number) == (worker, number))?;
        queue.remove(place);
        if let Some(claims) = self.claims.get_mut(&worker) {
            *claims -= 1;
        }
        let next = (place == 0).then(|| promote(queue)).flatten();
        if queue.is_empty() {
            self.queues.remove(name);
        }
        next
    }

    /// Every claim that holds its lock.
    pub fn held(&self) -> Vec<(String, Claim)> {
        self.queues.iter().filter_map(|(name, queue)| Some((name.clone(), *queue.front()?))).collect()
    }

    /// Takes back all claims of a worker that has exited; gives those that hold a lock in their place.
    pub fn leave(&mut self, worker: WorkerId) -> Vec<(String, Claim)> {
        if self.claims.remove(&worker).is_none_or(|claims| claims == 0) {
            return Vec::new();
        }
        let mut granted = Vec::new();
        self.queues.retain(|name, queue| {
            let was_held = queue.front().is_some_and(|held| held.worker == worker);
            queue.retain(|claim| claim.worker != worker);
            if was_held && let Some(next) = promote(queue) {
                granted.push((name.clone(), next));
            }
            !queue.is_empty()
        });
        granted
    }
}

/// Puts the one that is to hold the lock first.
fn promote(queue: &mut VecDeque<Claim>) -> Option<Claim> {
    let newest = queue.iter().map(|claim| claim.generation).max()?;
    let place = queue.iter().position(|claim| claim.generation == newest)?;
    let next = queue.remove(place)?;
    queue.push_front(next);
    Some(next)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const fn claim(worker: u64, generation: u64, number: u64) -> Claim {
        Claim { worker: WorkerId(worker), generation, number }
    }

    #[test]
    fn one_holds_a_lock_and_the_newest_generation_is_next() {
        let mut queues = Queues::default();
        assert_eq!(queues.claim("a", claim(1, 1, 1)), Ok(true));
        assert_eq!(queues.claim("a", claim(2, 1, 1)), Ok(false));
        assert_eq!(queues.claim("a", claim(3, 2, 1)), Ok(false));
        assert_eq!(queues.claim("a", claim(4, 2, 1)), Ok(false));
        assert_eq!(queues.claim("b", claim(2, 1, 2)), Ok(true), "another lock");
        assert_eq!(queues.release("a", WorkerId(1), 1), Some(claim(3, 2, 1)));
        assert_eq!(queues.release("a", WorkerId(4), 1), None, "who gives up changes nothing");
        assert_eq!(queues.leave(WorkerId(3)), [("a".to_owned(), claim(2, 1, 1))]);
        assert_eq!(queues.leave(WorkerId(3)), []);
        assert_eq!(queues.release("a", WorkerId(2), 1), None);
        assert_eq!(queues.release("a", WorkerId(2), 1), None, "once more");
        assert_eq!(queues.queues.len(), 1);
    }

    #[test]
    fn a_worker_has_no_more_claims_than_are_allowed() {
        let mut queues = Queues::default();
        for number in 0..MAX_CLAIMS {
            assert_eq!(queues.claim(&number.to_string(), claim(1, 1, number as u64)), Ok(true));
        }
        assert_eq!(queues.claim("another", claim(1, 1, 999)), Err(TooMany));
        assert_eq!(queues.claim("another", claim(2, 1, 1)), Ok(true));
        assert_eq!(queues.release("7", WorkerId(1), 7), None);
        assert_eq!(queues.claim("another", claim(1, 1, 999)), Ok(false));
        assert_eq!(queues.leave(WorkerId(1)), []);
        assert_eq!((queues.queues.len(), queues.claims.len()), (1, 1));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Claim { name: u8, worker: u64 },
        Release { place: usize },
        Leave { worker: u64 },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..3_u8, 0..5_u64).prop_map(|(name, worker)| Step::Claim { name, worker }),
            3 => (0..64_usize).prop_map(|place| Step::Release { place }),
            1 => (0..5_u64).prop_map(|worker| Step::Leave { worker }),
        ]
    }

    proptest! {
        #[test]
        fn no_lock_is_held_twice_and_none_is_free_while_somebody_waits(steps in prop::collection::vec(step(), 0..200)) {
            let mut queues = Queues::default();
            let mut all: Vec<(String, Claim)> = Vec::new();
            let mut held: HashSet<(String, u64, u64)> = HashSet::new();
            let mut number = 0;
            let key = |name: &str, claim: Claim| (name.to_owned(), claim.worker.0, claim.number);
            for step in steps {
                let granted = match step {
                    Step::Claim { name, worker } => {
                        number += 1;
                        let (name, claim) = (name.to_string(), claim(worker, worker / 2, number));
                        all.push((name.clone(), claim));
                        queues.claim(&name, claim).unwrap().then_some((name, claim)).into_iter().collect()
                    }
                    Step::Release { .. } if all.is_empty() => Vec::new(),
                    Step::Release { place } => {
                        let (name, claim) = all.swap_remove(place % all.len());
                        held.remove(&key(&name, claim));
                        queues.release(&name, claim.worker, claim.number).map(|next| (name, next)).into_iter().collect()
                    }
                    Step::Leave { worker } => {
                        all.retain(|(_, claim)| claim.worker.0 != worker);
                        held.retain(|(_, holder, _)| *holder != worker);
                        queues.leave(WorkerId(worker))
                    }
                };
                for (name, claim) in granted {
                    prop_assert!(all.contains(&(name.clone(), claim)), "who has a claim is granted it");
                    prop_assert!(held.insert(key(&name, claim)), "once");
                }
                for name in ["0", "1", "2"] {
                    let holders = held.iter().filter(|(lock, ..)| lock == name).count();
                    let wanted = usize::from(all.iter().any(|(lock, _)| lock == name));
                    prop_assert_eq!(holders, wanted, "{}", name);
                }
            }
        }
    }
}
