// SPDX-License-Identifier: GPL-2.0-only
//! What runs next on a CPU: the earliest key of its run queue, its donors, and the
//! previous task. For a donor that means: what to do about the end of its chain.

use super::Reference;
use super::donor::ATTACH_MAX;
use super::state::Place;
use super::walk::Chain;
use crate::model::key;
use crate::model::policy::{Cpu, DonorPlace, Kernel, Kick, Moved, Pid, Reach};

/// Donors that one pick looks at.
const DONOR_LOOKS: usize = 8;

/// What urgent donors may have of each second of a CPU.
const URGENT_PERIOD_NS: u64 = 1_000_000_000;
const URGENT_MAX_NS: u64 = 950_000_000;

/// While queued tasks wait for too long, urgent donors come first once in so many picks.
const URGENT_EACH: u32 = 8;

/// The first task on the run queues of a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub key: u64,
    pub reach: Reach,
    pub pid: Pid,
}

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
    /// Nothing can be done for it now.
    Later,
}

impl Reference {
    pub(super) fn pick(&mut self, k: &mut dyn Kernel, cpu: Cpu, prev: Option<Pid>) {
        if let Some(p) = prev {
            self.charge(k, p);
            self.donors_release(k, p, cpu);
        }
        // who may not go on for its cgroup's sake may do so for a donor's
        let goes_on = prev.filter(|&p| self.due(k.now_ns(), p).is_none());
        let prev_key = goes_on.map(|p| self.task(p).vtime);
        if let Some(p) = goes_on
            && self.task(p).yielded
            && self.task(p).yields_to.is_some()
        {
            self.yield_begin(p, cpu);
        }
        let mut head = self.head(k, cpu);
        if let Some((key, pid)) = self.parked_head(k, cpu)
            && head.is_none_or(|head| key::before(key, head.key))
        {
            let reach = Reach::Parked;
            head = Some(Head { key, reach, pid });
        }
        let least = key::earlier(head.map(|h| h.key), prev_key);
        let with_donors = key::earlier(least, self.donor_head_key(cpu));
        self.cpu_mut(cpu).advance_clock(with_donors);
        let mut least = least;
        if head.is_some() {
            self.guard(k.now_ns(), cpu);
            // it goes on without being queued: what the guard did holds for it, too
            let (clock, lag) = (self.cpu(cpu).clock, self.cfg.lag_ns);
            if let Some(p) = prev {
                let task = self.task_mut(p);
                task.vtime = key::floor(task.vtime, clock, lag);
            }
            let prev_key = goes_on.map(|p| self.task(p).vtime);
            least = key::earlier(head.map(|h| h.key), prev_key);
        }
        self.cpu_mut(cpu).least = least;
        // who yields lets the next one go first, and that may be a donor
        let tickless = self.cpu(cpu).tickless;
        let yields =
            prev.is_some_and(|p| std::mem::take(&mut self.task_mut(p).yielded) || tickless);
        let limit = if yields { head.map(|h| h.key) } else { least };
        match (self.pick_donor(k, cpu, limit, prev, head), prev) {
            (Resolved::Owner, _) => {}
            (Resolved::Prev, Some(p)) => self.keep(k, p, cpu),
            _ => self.pick_fair(k, cpu, goes_on, head, yields),
        }
    }

    pub(super) fn head(&self, k: &dyn Kernel, cpu: Cpu) -> Option<Head> {
        let mut first: Option<Head> = None;
        for reach in Reach::ALL {
            if let Some((key, pid)) = k.dsq_head(cpu, reach)
                && first.is_none_or(|first| key::before(key, first.key))
            {
                first = Some(Head { key, reach, pid });
            }
        }
        first
    }

    /// Without a donation: a task from elsewhere that gets less than its share, or the earlier
    /// of the run queues' head and the previous task, and of equals the latter; an empty
    /// CPU looks at the others.
    fn pick_fair(
        &mut self,
        k: &mut dyn Kernel,
        cpu: Cpu,
        prev: Option<Pid>,
        head: Option<Head>,
        yields: bool,
    ) {
        if let Some(p) = prev {
            let tickless = self.cpu(cpu).tickless;
            let (now, every) = (k.now_ns(), self.cfg.balance_ns);
            let pulled_at = &mut self.cpu_mut(cpu).pulled_at;
            if (!yields || tickless) && pulled_at.is_none_or(|then| now - then >= every) {
                *pulled_at = Some(now);
                if self.pull(k, cpu, p) {
                    return;
                }
            }
            // it is queued, and goes there
            if head.is_none() && self.donor_head_key(cpu).is_none() && self.big_is_better(k, p, cpu)
            {
                return;
            }
            let earlier = |head: Head| yields || key::before(head.key, self.task(p).vtime);
            if !head.is_some_and(earlier) {
                return self.keep(k, p, cpu);
            }
        }
        if let Some(head) = head
            && k.dsq_move_to_local(cpu, head.reach, cpu)
        {
            return;
        }
        if let Some(p) = prev {
            return self.keep(k, p, cpu);
        }
        let stolen = self.steal(k, cpu);
        let waits = !stolen && self.donor_head_key(cpu).is_some();
        self.idle_with_donors(k.now_ns(), cpu, waits);
        if !stolen && self.cpu(cpu).idle {
            self.cpu_mut(cpu).free = true;
        }
    }

    /// Whether urgent donors of `cpu` have had enough, or somebody there waited for too long.
    fn urgent_stand_back(&mut self, k: &dyn Kernel, cpu: Cpu, head: Option<Head>) -> bool {
        let now = k.now_ns();
        let state = self.cpu_mut(cpu);
        let (since, used) = state.urgent.unwrap_or((0, 0));
        let (since, used) = if now - since >= URGENT_PERIOD_NS || state.urgent.is_none() {
            (now, 0)
        } else {
            (since, used)
        };
        state.urgent = Some((since, used));
        if used >= URGENT_MAX_NS {
            return true;
        }
        let Some(head) = head.filter(|h| k.alive(h.pid)) else {
            return false;
        };
        if now < self.task(head.pid).queued_at + self.cfg.starve_ns {
            return false;
        }
        let picks = &mut self.cpu_mut(cpu).overdue_picks;
        *picks += 1;
        !(*picks - 1).is_multiple_of(URGENT_EACH)
    }

    fn keep(&mut self, k: &mut dyn Kernel, prev: Pid, cpu: Cpu) {
        self.yield_end(k, prev);
        let slice_ns = match self.cpu(cpu).tickless {
            true => u64::MAX,
            false => self.cfg.slice_ns,
        };
        k.set_slice(prev, slice_ns);
        self.note_running(k, prev, cpu);
    }

    /// Looks at the donors of `cpu` that are not later than `limit`.
    fn pick_donor(
        &mut self,
        k: &mut dyn Kernel,
        cpu: Cpu,
        limit: Option<u64>,
        prev: Option<Pid>,
        head: Option<Head>,
    ) -> Resolved {
        if !self.cfg.donate {
            return Resolved::Next;
        }
        let alone = self.cpu(cpu).least.is_none();
        let mut later = Vec::new();
        let mut resolved = Resolved::Next;
        for _ in 0..DONOR_LOOKS {
            let Some(&(key, donor)) = self.cpu(cpu).donors.first() else {
                break;
            };
            if limit.is_some_and(|limit| key::before(limit, key)) {
                break;
            }
            self.donor_unqueue(donor, cpu);
            match self.resolve(k, donor, cpu, prev, alone, head) {
                Resolved::Next => {}
                Resolved::Later => later.push(donor),
                decided => {
                    resolved = decided;
                    break;
                }
            }
        }
        // each is looked at once
        for donor in later {
            self.retry(k, donor, cpu);
        }
        resolved
    }

    /// Decides about a donor that was just taken off the queue of `cpu`.
    fn resolve(
        &mut self,
        k: &mut dyn Kernel,
        d: Pid,
        cpu: Cpu,
        prev: Option<Pid>,
        alone: bool,
        head: Option<Head>,
    ) -> Resolved {
        let (clock, lag) = (self.cpu(cpu).clock, self.cfg.lag_ns);
        self.refresh_donor(d);
        let donor = &mut self.task_mut(d).donor;
        if donor.urgency == 0 {
            donor.key = key::floor(donor.key, clock, lag);
        } else if !alone && self.urgent_stand_back(k, cpu, head) {
            return Resolved::Later;
        }
        let Some(chain) = self.walk(k, d) else {
            return Resolved::Later;
        };
        let owner = chain.end;
        if Some(owner) == prev {
            self.donate(k, d, owner);
            return Resolved::Prev;
        }
        let Place::Queued(from) = self.task(owner).place else {
            if self.yield_over(d) {
                return Resolved::Next;
            }
            return self.attach(k, d, owner, cpu);
        };
        if k.core_runs(owner) {
            return Resolved::Later;
        }
        let reach = self.task(owner).reach;
        if k.dsq_move_task(owner, from, reach, cpu, self.cfg.slice_ns) == Moved::Moved {
            self.unpark(k.now_ns(), owner);
            self.task_mut(owner).place = Place::Local;
            self.donate(k, d, owner);
            return Resolved::Owner;
        }
        if from == cpu {
            return Resolved::Later;
        }
        self.migrate(k, d, from, &chain);
        Resolved::Next
    }

    /// A donor of a higher class has just blocked on `cpu`. Nothing may be moved here.
    pub(super) fn resolve_urgent(&mut self, k: &mut dyn Kernel, d: Pid, cpu: Cpu) {
        let Some(chain) = self.walk(k, d) else {
            let at = self.urgent_place(k, cpu);
            self.donor_put(d, at);
            return;
        };
        match self.task(chain.end).place {
            Place::Queued(from) => self.migrate(k, d, from, &chain),
            _ => {
                self.attach(k, d, chain.end, cpu);
            }
        }
    }

    /// `owner` runs in the context of `d` from now on.
    fn donate(&mut self, k: &dyn Kernel, d: Pid, owner: Pid) {
        let donor = &mut self.task_mut(d).donor;
        donor.place = Some(DonorPlace::Active(owner));
        let wait = donor.wait;
        self.task_mut(owner).runs_for = Some((d, wait));
        self.count(k.now_ns(), owner, false);
    }

    /// `d` has its next turn a slice later; it has paid nothing. So it is no further ahead of
    /// the clock than that, and of several the one that was looked at longest ago is first.
    fn retry(&mut self, k: &dyn Kernel, d: Pid, cpu: Cpu) {
        if self.yield_over(d) {
            return;
        }
        let (slice, clock) = (self.cfg.slice_ns, self.cpu(cpu).clock);
        let least = self.cpu(cpu).least;
        let donor = &mut self.task_mut(d).donor;
        // donors for which nothing can be done must not hold the clock back
        let base = match least {
            Some(least) if donor.urgency == 0 => key::later(clock, least),
            _ => clock,
        };
        let cost = if donor.urgency > 0 {
            0
        } else {
            key::cost(slice, donor.weight)
        };
        let next = key::later(donor.key, base).wrapping_add(cost);
        let most = base
            .wrapping_add(cost)
            .wrapping_add(k.now_ns() >> 20 & 0xf_ffff);
        if !key::before(most, next) {
            donor.key = next;
        } else if key::before(donor.key, most) {
            donor.key = most;
        }
        self.donor_put_later(d, cpu);
    }

    /// `d` waits until `owner` stops or wakes, if that has room for it.
    fn attach(&mut self, k: &dyn Kernel, d: Pid, owner: Pid, cpu: Cpu) -> Resolved {
        if self.task(owner).attached.len() < ATTACH_MAX {
            self.task_mut(owner).attached.push(d);
            self.task_mut(d).donor.place = Some(DonorPlace::Attached(owner));
            return Resolved::Next;
        }
        self.retry(k, d, cpu);
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
