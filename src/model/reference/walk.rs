//! Chains: from a donor over locks and their owners to the first that can run.

use super::Reference;
use super::state::Place;
use crate::model::policy::{Kernel, Lock, Pid};
use std::collections::HashSet;

/// The bound that no configuration exceeds.
const HOPS_LIMIT: usize = 16;

/// A chain that leads to somebody who can use a donor's context.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chain {
    /// The first owner that sleeps on no lock.
    pub end: Pid,
    /// The waiters between the donor and the end.
    pub between: Vec<Pid>,
}

impl Reference {
    fn place_of(&self, t: Pid) -> Place {
        self.tasks.get(&t).map_or(Place::Other, |task| task.place)
    }

    /// Who keeps `t` from the lock: the owner; or, of a lock that nobody owns, the
    /// first waiter, if it has only to run to take it.
    fn holder(&self, k: &dyn Kernel, t: Pid, lock: Lock) -> Option<Pid> {
        match k.owner_of(lock) {
            // handed over to `t`, which has only to wake
            Some(owner) => Some(owner).filter(|&o| o != t && k.alive(o)),
            None => {
                let first = k.first_waiter_of(lock).filter(|&f| f != t && k.alive(f))?;
                let awake = matches!(
                    self.place_of(first),
                    Place::Queued(_) | Place::Local | Place::Running
                );
                awake.then_some(first)
            }
        }
    }

    /// The chain of `donor`, as it stands now. `None`: the edge is stale, nobody owns
    /// a lock on the way, it is a cycle, too long, or leads to another class.
    pub(super) fn walk(&self, k: &dyn Kernel, donor: Pid) -> Option<Chain> {
        let mut seen = HashSet::from([donor]);
        let mut chain = Chain::default();
        let mut at = donor;
        let most = HOPS_LIMIT.min(self.cfg.hops_max as usize);
        loop {
            let holder = self.holder(k, at, k.blocked_on(at)?)?;
            if !seen.insert(holder) || seen.len() - 1 > most {
                return None;
            }
            match self.place_of(holder) {
                // waiters of other classes are links of a chain as any others
                Place::Asleep | Place::Other if k.blocked_on(holder).is_some() => {
                    chain.between.push(holder);
                }
                Place::Other => return None,
                _ => {
                    chain.end = holder;
                    return Some(chain);
                }
            }
            at = holder;
        }
    }
}
