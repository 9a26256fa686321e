// SPDX-License-Identifier: GPL-2.0-only
//! Chains: from a donor over locks and their owners to the first that can run.

use super::Reference;
use super::state::{Guess, Place};
use crate::model::policy::{Kernel, Lock, Pid};
use std::collections::HashSet;

/// Users of a lock that one look at it takes for its owner.
const CANDIDATE_LOOKS: usize = 4;

/// Slices that one wait lends to them.
const CANDIDATE_SLICES: u32 = 256;

/// Of each `CANDIDATE_ROUND` of them so many go to those that point at the lock.
const CANDIDATE_ROUND: u32 = 16;
const CANDIDATE_POINTING: u32 = 12;

/// Slices of CPU time that one wait lends to an owner after its release.
const RELEASED_SLICES: u32 = 2;

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

    /// The task that `t` waits for: the owner; or, of a lock without an owner, the
    /// first waiter, if it has only to run to take it; or whoever might own it.
    fn holder(&mut self, k: &dyn Kernel, t: Pid, lock: Lock) -> Option<Pid> {
        // handed over to `t`, which has only to wake
        if let Some(owner) = k.owner_of(lock) {
            let donor = &mut self.task_mut(t).donor;
            if donor.named_owner != Some(owner) {
                donor.named_owner = Some(owner);
                donor.guess = Guess::default();
            }
            return Some(owner).filter(|&o| o != t && k.alive(o));
        }
        match k.first_waiter_of(lock).filter(|&f| f != t && k.alive(f)) {
            Some(first) => {
                let awake = matches!(
                    self.place_of(first),
                    Place::Queued(_) | Place::Local | Place::Running
                );
                awake.then_some(first)
            }
            None if k.wakes_after_release(lock) => self.releaser(k, t),
            None => self.candidate_now(k, t, lock),
        }
    }

    /// The last owner of a lock that names nobody since its release: it has still to wake `t`, and
    /// is lent to for some slices of its CPU time, unless it sleeps.
    fn releaser(&mut self, k: &dyn Kernel, t: Pid) -> Option<Pid> {
        let owner = self.task(t).donor.named_owner;
        let owner = owner.filter(|&o| o != t && k.alive(o))?;
        if self.task(t).donor.guess.slices >= RELEASED_SLICES {
            return None;
        }
        if !self.is_able(k, owner) {
            let runs = matches!(self.place_of(owner), Place::Running | Place::Local);
            return runs.then_some(owner);
        }
        let (exec_ns, slice_ns) = (k.exec_ns(owner), self.cfg.slice_ns);
        let guess = &mut self.task_mut(t).donor.guess;
        let (_, began_ns) = guess.candidate.get_or_insert((owner, exec_ns));
        if exec_ns - *began_ns >= slice_ns {
            *began_ns = exec_ns;
            guess.slices += 1;
        }
        (guess.slices < RELEASED_SLICES).then_some(owner)
    }

    /// Whether `c` could use a donor's context now: it is kept from running, or was
    /// running here until now.
    fn is_able(&self, k: &dyn Kernel, c: Pid) -> bool {
        match self.place_of(c) {
            Place::Queued(_) => true,
            Place::Running => k.current(k.this_cpu()) == Some(c),
            _ => false,
        }
    }

    /// As below; all looks of one moment find the same, so that a walk that comes here twice
    /// is in a cycle.
    fn candidate_now(&mut self, k: &dyn Kernel, t: Pid, lock: Lock) -> Option<Pid> {
        let now = k.now_ns();
        if k.candidates_of(lock).is_empty() || self.task(t).donor.guess.slices >= CANDIDATE_SLICES {
            return None;
        }
        if let Some((_, found)) = self.task(t).donor.guess.found.filter(|f| f.0 == now) {
            let waits_too = |c: &Pid| {
                let asleep = matches!(self.place_of(*c), Place::Asleep | Place::Other);
                asleep && k.blocked_on(*c) == Some(lock)
            };
            return found.filter(|c| k.alive(*c) && !waits_too(c));
        }
        self.candidate(k, t, lock)
    }

    /// Whom `t` takes for the owner of a lock that names no owner. One user of the lock after
    /// the other, each until it has run for a slice; most slices go to those that point at
    /// the lock, if there are such. If none of them is kept from running,
    /// one that runs, else one that sleeps on another lock itself.
    fn candidate(&mut self, k: &dyn Kernel, t: Pid, lock: Lock) -> Option<Pid> {
        let present = self.task(t).donor.guess.candidate;
        let present = present.filter(|&(c, _)| k.alive(c));
        let able = present.is_some_and(|(c, _)| self.is_able(k, c));
        if let Some((c, exec_ns)) = present.filter(|_| able) {
            if k.exec_ns(c) - exec_ns < self.cfg.slice_ns {
                return Some(c);
            }
            self.task_mut(t).donor.guess.slices += 1;
        }
        let users = k.candidates_of(lock);
        let next = self.task(t).donor.guess.next;
        let in_turn =
            (0..users.len().min(CANDIDATE_LOOKS)).map(|i| users[(next + i) % users.len()]);
        let in_turn: Vec<Pid> = in_turn.collect();
        let is_other = |&c: &Pid| c != t && Some(c) != present.map(|(c, _)| c) && k.alive(c);
        let mut able_ones = in_turn
            .iter()
            .copied()
            .enumerate()
            .filter(|(_, c)| is_other(c) && self.is_able(k, *c));
        let first = able_ones.clone().next();
        let seeks = self.task(t).donor.guess.slices % CANDIDATE_ROUND < CANDIDATE_POINTING;
        let points = |c: Pid| seeks && k.points_at(c, lock);
        let pointing = able_ones.find(|&(_, c)| points(c));
        let again = present.filter(|_| able).map(|(c, _)| c);
        let found = match pointing {
            None if again.is_some_and(points) => None,
            None => first,
            pointing => pointing,
        };
        let looked_at = found.map_or(in_turn.len(), |(at, _)| at + 1);
        if !users.is_empty() {
            self.task_mut(t).donor.guess.next = (next + looked_at) % users.len();
        }
        if let Some(c) = found.map(|(_, c)| c).or(again) {
            self.task_mut(t).donor.guess.candidate = Some((c, k.exec_ns(c)));
            self.task_mut(t).donor.guess.found = Some((k.now_ns(), Some(c)));
            return Some(c);
        }
        let others = in_turn.iter().copied().filter(is_other);
        let all: Vec<Pid> = present.map(|(c, _)| c).into_iter().chain(others).collect();
        let runs = |c: &&Pid| matches!(self.place_of(**c), Place::Running | Place::Local);
        let sleeps = |c: &&Pid| {
            let asleep = matches!(self.place_of(**c), Place::Asleep | Place::Other);
            asleep && k.blocked_on(**c).is_some_and(|l| l != lock)
        };
        let best = all.iter().find(runs).or_else(|| all.iter().find(sleeps));
        let best = best.copied();
        self.task_mut(t).donor.guess.found = Some((k.now_ns(), best));
        best
    }

    /// The chain of `donor`, as it stands now. `None`: the edge is stale, no task owns
    /// a lock on the way, it is a cycle, too long, or leads to another class.
    pub(super) fn walk(&mut self, k: &dyn Kernel, donor: Pid) -> Option<Chain> {
        let mut seen = HashSet::from([donor]);
        let mut chain = Chain::default();
        let mut at = donor;
        let most = HOPS_LIMIT.min(self.cfg.hops_max as usize);
        loop {
            if let Some(to) = self.tasks.get(&at).and_then(|task| task.yields_to) {
                chain.end = to;
                // what it sleeps on now was not meant
                return matches!(self.place_of(to), Place::Queued(_)).then_some(chain);
            }
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
