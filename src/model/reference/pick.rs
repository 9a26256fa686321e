//! What runs next on a CPU: the earliest key of its run queue, its donors, and the
//! previous task. For a donor that means: what to do about the end of its chain.

use super::Reference;
use super::donor::ATTACH_MAX;
use super::state::Place;
use super::walk::Chain;
use crate::model::key;
use crate::model::policy::{Cpu, DonorPlace, Kernel, Kick, Moved, Pid};

/// Donors that one pick looks at.
const DONOR_LOOKS: usize = 8;

/// What came of one donor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resolved {
    /// It is elsewhere now: the next one.
    Next,
    /// Its owner is on the local DSQ.
    Owner,
    /// Its owner is the previous task, and goes on.
    Prev,
    /// No more donors in this pick.
    Enough,
}

impl Reference {
    pub(super) fn pick(&mut self, k: &mut dyn Kernel, cpu: Cpu, prev: Option<Pid>) {
        if let Some(p) = prev {
            self.charge(k, p);
            self.donors_release(k, p, cpu);
        }
        let prev_key = prev.map(|p| self.task(p).vtime);
        let head_key = k.dsq_head_key(cpu);
        let least = key::earlier(head_key, prev_key);
        let with_donors = key::earlier(least, self.donor_head_key(cpu));
        self.cpu_mut(cpu).advance_clock(with_donors);
        match (self.pick_donor(k, cpu, least, prev), prev) {
            (Resolved::Owner, _) => {}
            (Resolved::Prev, Some(p)) => self.keep(k, p, cpu),
            _ => self.pick_fair(k, cpu, prev, head_key),
        }
    }

    /// Without a donation: the earlier of the run queue's head and the previous task,
    /// and of equals the latter; an empty CPU looks at the others.
    fn pick_fair(&mut self, k: &mut dyn Kernel, cpu: Cpu, prev: Option<Pid>, head: Option<u64>) {
        if let Some(p) = prev {
            let earlier = |head| key::before(head, self.task(p).vtime);
            if !head.is_some_and(earlier) {
                return self.keep(k, p, cpu);
            }
        }
        if k.dsq_move_to_local(cpu, cpu) {
            return;
        }
        if let Some(p) = prev {
            return self.keep(k, p, cpu);
        }
        let stolen = self.steal(k, cpu);
        let waits = !stolen && !self.cpu(cpu).donors.is_empty();
        self.cpu_mut(cpu).idle_with_donors = waits;
    }

    fn keep(&mut self, k: &mut dyn Kernel, prev: Pid, cpu: Cpu) {
        k.set_slice(prev, self.cfg.slice_ns);
        self.note_running(k, prev, cpu);
    }

    fn steal(&self, k: &mut dyn Kernel, cpu: Cpu) -> bool {
        let nr = self.cfg.nr_cpus;
        (1..nr)
            .map(|i| (cpu + i) % nr)
            .any(|other| self.nr_queued(other) > 0 && k.dsq_move_to_local(other, cpu))
    }

    /// Looks at the donors of `cpu` that are not later than `least`.
    fn pick_donor(
        &mut self,
        k: &mut dyn Kernel,
        cpu: Cpu,
        least: Option<u64>,
        prev: Option<Pid>,
    ) -> Resolved {
        if !self.cfg.donate {
            return Resolved::Next;
        }
        for _ in 0..DONOR_LOOKS {
            let Some(&(key, donor)) = self.cpu(cpu).donors.first() else {
                break;
            };
            if least.is_some_and(|least| key::before(least, key)) {
                break;
            }
            self.donor_unqueue(donor, cpu);
            match self.resolve(k, donor, cpu, prev) {
                Resolved::Next => {}
                decided => return decided,
            }
        }
        Resolved::Next
    }

    /// Decides about a donor that was just taken off the queue of `cpu`.
    fn resolve(&mut self, k: &mut dyn Kernel, d: Pid, cpu: Cpu, prev: Option<Pid>) -> Resolved {
        let Some(chain) = self.walk(k, d) else {
            self.retry(d, cpu);
            return Resolved::Next;
        };
        let owner = chain.end;
        if Some(owner) == prev {
            self.donate(d, owner);
            return Resolved::Prev;
        }
        let Place::Queued(from) = self.task(owner).place else {
            return self.attach(d, owner, cpu);
        };
        if k.dsq_move_task(owner, from, cpu, self.cfg.slice_ns) == Moved::Moved {
            self.task_mut(owner).place = Place::Local;
            self.donate(d, owner);
            return Resolved::Owner;
        }
        if from == cpu {
            self.retry(d, cpu);
        } else {
            self.migrate(k, d, from, &chain);
        }
        Resolved::Next
    }

    /// A donor of a higher class has just blocked on `cpu`. Nothing may be moved here.
    pub(super) fn resolve_urgent(&mut self, k: &mut dyn Kernel, d: Pid, cpu: Cpu) {
        let Some(chain) = self.walk(k, d) else {
            self.donor_put(d, cpu);
            return;
        };
        match self.task(chain.end).place {
            Place::Queued(from) => self.migrate(k, d, from, &chain),
            _ => {
                self.attach(d, chain.end, cpu);
            }
        }
    }

    /// `owner` runs in the context of `d` from now on.
    fn donate(&mut self, d: Pid, owner: Pid) {
        let donor = &mut self.task_mut(d).donor;
        donor.place = Some(DonorPlace::Active(owner));
        let wait = donor.wait;
        self.task_mut(owner).runs_for = Some((d, wait));
    }

    /// `d` has its next turn a slice later; it has paid nothing.
    fn retry(&mut self, d: Pid, cpu: Cpu) {
        let slice = self.cfg.slice_ns;
        let donor = &mut self.task_mut(d).donor;
        if donor.urgency == 0 {
            donor.key = donor.key.wrapping_add(key::cost(slice, donor.weight));
        }
        self.donor_put_later(d, cpu);
    }

    /// `d` waits until `owner` stops or wakes, if that has room for it.
    fn attach(&mut self, d: Pid, owner: Pid, cpu: Cpu) -> Resolved {
        if self.task(owner).attached.len() < ATTACH_MAX {
            self.task_mut(owner).attached.push(d);
            self.task_mut(d).donor.place = Some(DonorPlace::Attached(owner));
            return Resolved::Next;
        }
        self.retry(d, cpu);
        Resolved::Enough
    }

    /// The context of `d` goes to `to`, where the end of its chain is queued, and
    /// with it the contexts of those between that are on other queues.
    fn migrate(&mut self, k: &mut dyn Kernel, d: Pid, to: Cpu, chain: &Chain) {
        if !self.donor_put(d, to) {
            return;
        }
        if self.cfg.chain_follows {
            for &between in &chain.between {
                self.follow(between, to);
            }
        }
        let state = self.cpu(to);
        if state.running_since.is_none() {
            k.kick(to, Kick::Idle);
        } else if key::before(self.task(d).donor.key, state.running_key_now(k.now_ns())) {
            k.kick(to, Kick::Preempt);
        }
    }

    fn follow(&mut self, d: Pid, to: Cpu) {
        if let Some(DonorPlace::Queued(from)) = self.task(d).donor.place
            && from != to
        {
            self.donor_unqueue(d, from);
            self.donor_put(d, to);
        }
    }
}
