// SPDX-License-Identifier: GPL-2.0-only
//! The life of a donor: it blocks, its context goes from place to place, it wakes.

use super::Reference;
use super::state::Guess;
use crate::model::key;
use crate::model::policy::{Cpu, DonorPlace, Kernel, Pid};

/// Donors that can wait on one owner.
pub(super) const ATTACH_MAX: usize = 8;

/// Donors of one user that one queue can hold. The model has one user.
const QUEUE_MAX: usize = 1024;

impl Reference {
    /// The earliest key of the donors that compete for `cpu`.
    pub(super) fn donor_head_key(&self, cpu: Cpu) -> Option<u64> {
        let first = self.cpu(cpu).donors.first().map(|&(key, _)| key);
        // donors that are only observed do not compete
        first.filter(|_| self.cfg.donate)
    }

    /// A new wait of `t` begins, in the context that it has now. It has no place yet.
    pub(super) fn donor_block(&mut self, k: &dyn Kernel, t: Pid, cpu: Cpu, urgency: u32) {
        let owner = k.blocked_on(t).and_then(|lock| k.owner_of(lock));
        self.context_begin(t, cpu);
        let task = self.task_mut(t);
        task.donor.blocked_at = k.now_ns();
        task.donor.urgency = urgency;
        task.donor.place = Some(DonorPlace::Limbo);
        task.donor.named_owner = owner;
        task.donor.guess = Guess::default();
    }

    /// The context that `t` has now is to be lent.
    fn context_begin(&mut self, t: Pid, cpu: Cpu) {
        let task = self.task_mut(t);
        task.donor.wait += 1;
        task.donor.key = task.vtime;
        task.donor.cpu = cpu;
        task.donor.weight = task.weight;
    }

    /// `t` yields to a certain task: its context is queued as that of a donor, at its own key.
    pub(super) fn yield_begin(&mut self, t: Pid, cpu: Cpu) {
        self.context_begin(t, cpu);
        self.task_mut(t).donor.urgency = 0;
        let key = self.task(t).donor.key;
        if !self.donor_queue_at_key(t, cpu, key) {
            self.task_mut(t).donor.place = None;
            self.task_mut(t).yields_to = None;
        }
    }

    /// It has its context back, since it runs again or was changed. Whoever runs in it elsewhere is
    /// interrupted.
    pub(super) fn yield_end(&mut self, k: &mut dyn Kernel, t: Pid) {
        if self.task_mut(t).yields_to.take().is_none() {
            return;
        }
        let owner_cpu = self.context_end(k, t);
        self.end_donated_slice(k, t, owner_cpu);
    }

    /// What `d` lends as one that yields is for one look and one slice: then it is over.
    pub(super) fn yield_over(&mut self, d: Pid) -> bool {
        let yields = self.task(d).yields_to.is_some();
        if yields {
            self.task_mut(d).donor.place = None;
        }
        yields
    }

    /// Puts the context of `d` on the queue of `cpu`, at `key`. False: no room.
    pub(super) fn donor_queue_at_key(&mut self, d: Pid, cpu: Cpu, key: u64) -> bool {
        let queue = &mut self.cpu_mut(cpu).donors;
        let full = queue.len() >= QUEUE_MAX;
        if !full {
            let goes_behind = |&(k, pid): &(u64, Pid)| key::before(k, key) || (k == key && pid < d);
            let at = queue.iter().take_while(|e| goes_behind(e)).count();
            queue.insert(at, (key, d));
        }
        let place = if full {
            DonorPlace::Limbo
        } else {
            DonorPlace::Queued(cpu)
        };
        self.task_mut(d).donor.place = Some(place);
        !full
    }

    /// Puts the context of `d` on the queue of `cpu`, at the key that it has there.
    pub(super) fn donor_put(&mut self, d: Pid, cpu: Cpu) -> bool {
        self.put_at(d, cpu, false)
    }

    /// As `donor_put`, when nothing can be done for `d` now: an urgent donor, whose
    /// place is always the first, lets the others be looked at before it once.
    pub(super) fn donor_put_later(&mut self, d: Pid, cpu: Cpu) -> bool {
        self.put_at(d, cpu, true)
    }

    fn put_at(&mut self, d: Pid, cpu: Cpu, later: bool) -> bool {
        let clock = self.cpu(cpu).clock;
        let donor = &self.task(d).donor;
        let key = if donor.urgency > 0 && later {
            // about one slice of time, whatever the load
            let load = self.queued_load(cpu)
                + u64::from(self.cpu(cpu).running_weight)
                + u64::from(key::WEIGHT_NICE_0);
            clock.wrapping_add(key::cost(self.cfg.slice_ns, load))
        } else if donor.urgency > 0 {
            key::urgent(clock, donor.urgency)
        } else if donor.cpu == cpu {
            key::floor(donor.key, clock, self.cfg.lag_ns)
        } else {
            let rebased = key::rebase(donor.key, self.cpu(donor.cpu).clock, clock);
            key::floor(rebased, clock, self.cfg.lag_ns)
        };
        let donor = &mut self.task_mut(d).donor;
        donor.key = key;
        donor.cpu = cpu;
        self.donor_queue_at_key(d, cpu, key)
    }

    /// Takes the entry of `d` off the queue of `cpu`.
    pub(super) fn donor_unqueue(&mut self, d: Pid, cpu: Cpu) {
        self.cpu_mut(cpu).donors.retain(|&(_, pid)| pid != d);
    }

    /// The wait of `t` is over: its context is its own again, wherever it was, and
    /// it pays for what ran in it. The CPU where an owner runs in it at this moment.
    pub(super) fn donor_wake(&mut self, k: &dyn Kernel, t: Pid) -> Option<Cpu> {
        self.tasks.get(&t)?.donor.place?;
        let owner_cpu = self.context_end(k, t);
        self.settle(t, k.now_ns());
        owner_cpu
    }

    /// The context of `t` is its own again, wherever it was. The CPU where an owner runs in it at this moment.
    fn context_end(&mut self, k: &dyn Kernel, t: Pid) -> Option<Cpu> {
        let place = self.task_mut(t).donor.place.take()?;
        let donor = &mut self.task_mut(t).donor;
        donor.woke_at = k.now_ns();
        let away = donor.cpu;
        let mut owner_cpu = None;
        match place {
            DonorPlace::Queued(cpu) => self.donor_unqueue(t, cpu),
            DonorPlace::Active(owner) => {
                owner_cpu = Some(away);
                self.note_running_own(k, owner, away);
            }
            DonorPlace::Attached(_) | DonorPlace::Limbo => {}
        }
        owner_cpu
    }

    /// `owner` runs on `cpu`, and no longer for a donor.
    fn note_running_own(&mut self, k: &dyn Kernel, owner: Pid, cpu: Cpu) {
        let (vtime, weight) = (self.task(owner).vtime, self.task(owner).weight);
        let state = self.cpu_mut(cpu);
        if state.running_pid == owner && state.running_since.is_some() {
            state.running_key = vtime;
            state.running_weight = weight;
            state.running_since = Some(k.now_ns());
            state.awake_at = None;
            state.turn_over = true;
        }
    }

    /// What `t` has lent since the last time, in terms of the weight that it has now.
    pub(super) fn take_lent(&mut self, t: Pid) -> u64 {
        let weight = self.task(t).weight;
        let donor = &mut self.task_mut(t).donor;
        let lent = std::mem::take(&mut donor.lent_cost);
        if donor.urgency > 0 {
            lent
        } else {
            key::reweight(lent, donor.weight, weight)
        }
    }

    /// What `t` has lent it has used; but if it lent on a CPU whose clock went
    /// faster, it owes no more than what it was behind there.
    fn settle(&mut self, t: Pid, now: u64) {
        let lent = self.take_lent(t);
        self.use_vtime(t, lent, now);
        let task = self.task(t);
        let away = task.donor.cpu;
        let Some(home) = task.vtime_cpu.filter(|&home| home != away) else {
            return;
        };
        if task.donor.urgency > 0 {
            return;
        }
        let most = key::rebase(task.donor.key, self.cpu(away).clock, self.cpu(home).clock);
        if key::before(most, task.vtime) {
            self.task_mut(t).vtime = most;
        }
    }

    /// Takes `d` from `place` onto the queue of `cpu`, if it is there.
    fn take_back(&mut self, d: Pid, place: DonorPlace, cpu: Cpu) {
        if self.task(d).donor.place == Some(place) && !self.yield_over(d) {
            self.donor_put(d, cpu);
        }
    }

    /// All that waited for `owner` to stop or wake go onto the queue of `cpu`;
    /// whether anything was noted.
    pub(super) fn attached_release(&mut self, owner: Pid, cpu: Cpu) -> bool {
        let attached = std::mem::take(&mut self.task_mut(owner).attached);
        for &d in &attached {
            self.take_back(d, DonorPlace::Attached(owner), cpu);
        }
        !attached.is_empty()
    }

    /// The donors of `t`, that it runs for or that wait for it, can be picked again;
    /// whether there were any.
    pub(super) fn donors_release(&mut self, k: &dyn Kernel, t: Pid, cpu: Cpu) -> bool {
        let donor = self.task_mut(t).runs_for.take();
        if let Some((d, _)) = donor {
            self.count(k.now_ns(), t, true);
            self.take_back(d, DonorPlace::Active(t), cpu);
        }
        self.attached_release(t, cpu) || donor.is_some()
    }
}
