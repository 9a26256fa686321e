// SPDX-License-Identifier: GPL-2.0-only
//! Where a task goes: idle CPUs, what other CPUs take from a queue, and who is told to look.
//! What `bpf/place` decides, said with sets.

use super::Reference;
use super::state::Place;
use crate::model::key;
use crate::model::policy::{Cpu, Kernel, Kick, Pid, Reach, WakeKind};

/// Sync wakeups in a row after which a waker slept at once, to be believed again.
const HANDOFFS_MIN: u32 = 4;
const HANDOFFS_MAX: u32 = 8;
const HANDOFF_NS: u64 = 100_000;

/// CPUs whose load is compared for a new task.
const FORK_LOOKS: usize = 4;

/// CPUs whose restricted tasks an idle CPU looks at.
const STEAL_LOOKS: usize = 4;

/// CPUs that a busy one compares with itself.
const PULL_LOOKS: usize = 8;

/// CPUs looked at for an urgent donor that finds no owner.
const URGENT_LOOKS: usize = 8;

const CHORES_NS: u64 = 4_000_000;
const SOME_CHORES: u32 = 16;
const DONOR_LOOK_NS: u64 = 4_000_000;
const DONOR_LOOK_MAX_NS: u64 = 64_000_000;

/// Memory of a task's pace: what was used longer ago does not count.
const PACE_NS: u64 = 1 << 30;
const PACE_MARGIN_NS: u64 = PACE_NS / 24;
const PACE_MARGIN_FAR_NS: u64 = PACE_NS / 4;

/// What is left of `pace` after `ns`. The rounding is part of it.
pub(super) fn pace_after(pace: u64, ns: u64) -> u64 {
    if ns >= PACE_NS {
        return 0;
    }
    pace - (pace >> 15) * (ns >> 15)
}

/// `items` from the first that is not less than `from` on, then those before it.
fn cyclic<T: PartialOrd + Copy>(items: &[T], from: T) -> Vec<T> {
    let (before, after): (Vec<T>, Vec<T>) = items.iter().partition(|&&i| i < from);
    after.into_iter().chain(before).collect()
}

impl Reference {
    pub(super) fn domain_of(&self, cpu: Cpu) -> usize {
        let holds = |d: &super::super::policy::Domain| d.cpus.contains(&cpu);
        self.cfg.domains.iter().position(holds).unwrap_or(0)
    }

    /// CPUs of domain `nr`, its bit order being that of their numbers, beginning at `from`.
    fn cpus_from(&self, nr: usize, from: usize) -> Vec<Cpu> {
        let cpus = &self.cfg.domains[nr].cpus;
        let bits: Vec<usize> = (0..cpus.len()).collect();
        cyclic(&bits, from)
            .into_iter()
            .map(|bit| cpus[bit])
            .collect()
    }

    fn bit_of(&self, cpu: Cpu) -> usize {
        let cpus = &self.cfg.domains[self.domain_of(cpu)].cpus;
        cpus.iter().position(|&c| c == cpu).unwrap_or(0)
    }

    /// Other domains, those of the same node first, each cyclically from the own number on.
    fn other_domains(&self, own: usize) -> Vec<usize> {
        let all: Vec<usize> = (0..self.cfg.domains.len()).filter(|&d| d != own).collect();
        let (near, far): (Vec<usize>, Vec<usize>) = all
            .iter()
            .partition(|d| self.cfg.domains[own].near.contains(d));
        [cyclic(&near, own), cyclic(&far, own)].concat()
    }

    fn is_free(&self, cpu: Cpu) -> bool {
        self.cpu(cpu).free
    }

    /// Whether no thread of the core of `cpu` is busy.
    fn core_is_free(&self, nr: usize, cpu: Cpu) -> bool {
        let domain = &self.cfg.domains[nr];
        let bit = domain.cpus.iter().position(|&c| c == cpu).unwrap_or(0);
        let sibling = domain.paired.then(|| domain.cpus[bit ^ 1]);
        self.is_free(cpu) && sibling.is_none_or(|s| self.is_free(s))
    }

    /// An idle CPU of domain `nr` where `t` may run, claimed.
    fn claim_in(&mut self, k: &dyn Kernel, t: Pid, nr: usize, from: usize) -> Option<Cpu> {
        let cpus = self.cpus_from(nr, from);
        let may = |cpu: &Cpu| k.may_run(t, *cpu);
        let core = cpus
            .iter()
            .copied()
            .filter(may)
            .find(|&c| self.core_is_free(nr, c));
        let any = || cpus.iter().copied().filter(may).find(|&c| self.is_free(c));
        let cpu = core.or_else(any)?;
        self.cpu_mut(cpu).free = false;
        Some(cpu)
    }

    /// A task that used more than half of a CPU of late.
    fn is_heavy(&self, now: u64, t: Pid) -> bool {
        let task = self.task(t);
        let pace = pace_after(task.pace, now.saturating_sub(task.pace_at));
        pace >= key::cost(PACE_NS / 2, task.weight)
    }

    /// Where a heavy task has a big core to itself.
    fn big_near(&self, k: &dyn Kernel, t: Pid, home: Cpu) -> Option<Cpu> {
        let own = self.domain_of(home);
        let domains = [vec![own], self.other_domains(own)].concat();
        let bit = |nr: usize| if nr == own { self.bit_of(home) } else { 0 };
        let mut big = domains.into_iter().flat_map(|nr| {
            let cpus = self.cpus_from(nr, bit(nr)).into_iter();
            cpus.filter(move |c| self.cfg.domains[nr].big.contains(c) && self.core_is_free(nr, *c))
        });
        big.find(|&c| k.may_run(t, c))
            .filter(|_| self.is_heavy(k.now_ns(), t))
    }

    /// Whether `t`, which runs on `cpu` and nothing else waits there, is better off on a big core.
    pub(super) fn big_is_better(&self, k: &dyn Kernel, t: Pid, cpu: Cpu) -> bool {
        let big = &self.cfg.domains[self.domain_of(cpu)].big;
        !k.pinned(t) && !big.contains(&cpu) && self.big_near(k, t, cpu).is_some()
    }

    pub(super) fn claim_near(&mut self, k: &dyn Kernel, t: Pid, home: Cpu) -> Option<Cpu> {
        if let Some(big) = self.big_near(k, t, home) {
            self.cpu_mut(big).free = false;
            return Some(big);
        }
        let own = self.domain_of(home);
        let near = self.claim_in(k, t, own, self.bit_of(home));
        near.or_else(|| {
            let others = self.other_domains(own);
            others.into_iter().find_map(|nr| self.claim_in(k, t, nr, 0))
        })
    }

    /// Where `t` continues that was preempted on `cpu`: a heavy task does not leave a big CPU for a small one.
    pub(super) fn claim_preempted(&mut self, k: &dyn Kernel, t: Pid, cpu: Cpu) -> Option<Cpu> {
        let big = &self.cfg.domains[self.domain_of(cpu)].big;
        if !big.contains(&cpu) || !self.is_heavy(k.now_ns(), t) {
            return self.claim_near(k, t, cpu);
        }
        let big = self.big_near(k, t, cpu)?;
        self.cpu_mut(big).free = false;
        Some(big)
    }

    pub(super) fn idle_changed(&mut self, cpu: Cpu, idle: bool) {
        let state = self.cpu_mut(cpu);
        state.idle = idle;
        state.free = idle;
    }

    pub(super) fn reach_of(k: &dyn Kernel, t: Pid) -> Reach {
        if k.pinned(t) {
            Reach::One
        } else if k.unrestricted(t) {
            Reach::Any
        } else {
            Reach::Some
        }
    }

    /// Tasks of that reach on the run queues of `cpu`.
    fn waits(&self, cpu: Cpu, reach: Reach) -> bool {
        self.queued(cpu).any(|task| task.reach == reach)
    }

    /// The queue of `cpu` from which another CPU would take a task.
    fn work_of(&self, cpu: Cpu) -> Option<Reach> {
        let waits = |reach: &Reach| self.waits(cpu, *reach);
        [Reach::Any, Reach::Some].into_iter().find(waits)
    }

    /// A waker that said that it would sleep: was that true?
    pub(super) fn handoff_note(&mut self, now: u64, t: Pid, sleeps: bool) {
        let task = self.task_mut(t);
        let Some(since) = task.sync_at.take() else {
            return;
        };
        task.handoffs = if sleeps && now - since <= HANDOFF_NS {
            HANDOFFS_MAX.min(task.handoffs + 1)
        } else {
            0
        };
    }

    fn handoff_expected(&mut self, k: &dyn Kernel, t: Pid) -> bool {
        let cpu = k.this_cpu();
        let waker = k.current(cpu).filter(|w| self.tasks.contains_key(w));
        let Some(waker) = waker else { return false };
        let free = self.nr_queued(cpu) == 0 && self.donor_head_key(cpu).is_none();
        let task = self.task_mut(waker);
        task.sync_at = Some(k.now_ns());
        let believed = task.handoffs >= HANDOFFS_MIN && task.place == Place::Running;
        believed && free && k.may_run(t, cpu)
    }

    fn load(&self, cpu: Cpu) -> u64 {
        self.queued_load(cpu) + u64::from(self.cpu(cpu).running_weight)
    }

    fn least_loaded(&self, k: &dyn Kernel, t: Pid, home: Cpu) -> Cpu {
        let nr = self.domain_of(home);
        let len = self.cfg.domains[nr].cpus.len();
        let bit = self.bit_of(home);
        let mut best = home;
        for step in 1..=FORK_LOOKS {
            let cpu = self.cfg.domains[nr].cpus[(bit + step) % len];
            if cpu != home && k.may_run(t, cpu) && self.load(cpu) < self.load(best) {
                best = cpu;
            }
        }
        best
    }

    /// Where a task goes that wakes, and whether that CPU was idle.
    pub(super) fn place_wakeup(
        &mut self,
        k: &dyn Kernel,
        t: Pid,
        home: Cpu,
        kind: WakeKind,
    ) -> (Cpu, bool) {
        if kind == WakeKind::Sync && self.handoff_expected(k, t) {
            return (k.this_cpu(), false);
        }
        match self.claim_near(k, t, home) {
            Some(cpu) => (cpu, true),
            None if kind == WakeKind::Fork => (self.least_loaded(k, t, home), false),
            None => (home, false),
        }
    }

    /// Takes a task to `cpu` from a CPU of domain `nr`.
    fn steal_in(&self, k: &mut dyn Kernel, cpu: Cpu, nr: usize, from: usize) -> bool {
        let with = |reach| {
            let cpus = self.cpus_from(nr, from).into_iter();
            cpus.filter(move |&o| o != cpu && self.waits(o, reach))
        };
        with(Reach::Any).any(|o| k.dsq_move_to_local(o, Reach::Any, cpu))
            || with(Reach::Some)
                .take(STEAL_LOOKS)
                .any(|o| k.dsq_move_to_local(o, Reach::Some, cpu))
    }

    pub(super) fn steal(&self, k: &mut dyn Kernel, cpu: Cpu) -> bool {
        let own = self.domain_of(cpu);
        self.steal_in(k, cpu, own, self.bit_of(cpu))
            || self
                .other_domains(own)
                .into_iter()
                .any(|nr| self.steal_in(k, cpu, nr, 0))
    }

    /// The CPU of domain `nr` whose waiting task is furthest behind `pace`, going by who was queued last.
    fn pull_from(
        &self,
        cpu: Cpu,
        nr: usize,
        mut pace: u64,
        weight: u32,
        margin_ns: u64,
    ) -> Option<Cpu> {
        let cpus = &self.cfg.domains[nr].cpus;
        let mut work: Vec<usize> = (0..cpus.len())
            .filter(|&bit| self.work_of(cpus[bit]).is_some())
            .collect();
        // the least that will do, see pull_head()
        let margin = key::cost(margin_ns / 2, weight);
        let mut from = None;
        for looks in 0..PULL_LOOKS {
            let Some(&bit) = cyclic(&work, (cpu as usize + looks) % 64).first() else {
                break;
            };
            work.retain(|&b| b != bit);
            let behind = self.cpu(cpus[bit]).waiting_pace + margin;
            if cpus[bit] != cpu && behind < pace {
                pace = behind;
                from = Some(cpus[bit]);
            }
        }
        from
    }

    /// A task that waits elsewhere and gets less than `prev`, which could go on, comes instead.
    pub(super) fn pull(&mut self, k: &mut dyn Kernel, cpu: Cpu, prev: Pid) -> bool {
        let (pace, weight) = (self.task(prev).pace, self.task(prev).weight);
        let own = self.domain_of(cpu);
        let mut margin_ns = PACE_MARGIN_NS;
        let mut from = self.pull_from(cpu, own, pace, weight, margin_ns);
        if from.is_none() {
            let works = |nr: usize| {
                self.cfg.domains[nr]
                    .cpus
                    .iter()
                    .any(|&c| self.work_of(c).is_some())
            };
            let others: Vec<usize> = (0..self.cfg.domains.len())
                .filter(|&nr| nr != own && works(nr))
                .collect();
            let Some(&nr) = cyclic(&others, self.cpu(cpu).pull_cursor).first() else {
                return false;
            };
            self.cpu_mut(cpu).pull_cursor = (nr + 1) % 64;
            margin_ns = PACE_MARGIN_FAR_NS;
            from = self.pull_from(cpu, nr, pace, weight, margin_ns);
        }
        from.is_some_and(|from| self.pull_head(k, cpu, prev, from, margin_ns))
    }

    /// Pulls the first task of `from`, if that is still behind, as it is now.
    fn pull_head(
        &mut self,
        k: &mut dyn Kernel,
        cpu: Cpu,
        prev: Pid,
        from: Cpu,
        mut margin_ns: u64,
    ) -> bool {
        let Some(reach) = self.work_of(from) else {
            return false;
        };
        let Some((_, head)) = k.dsq_head(from, reach) else {
            return false;
        };
        let (pace, weight) = (self.task(prev).pace, self.task(prev).weight);
        let load = self.queued_load(cpu) + u64::from(weight);
        let apart = load.wrapping_sub(self.load(from)) as i64;
        let (ours, theirs) = (i64::from(weight), i64::from(self.task(head).weight));
        // it comes alone, or `prev` goes there in exchange: whatever leaves the two more even
        let alone = apart + 2 * theirs;
        let swapped = alone - 2 * ours;
        let swaps = swapped.abs() <= alone.abs();
        let then = swapped.abs().min(alone.abs());
        let some = ours.min(theirs) / 4;
        if then > apart.abs() + some {
            margin_ns *= 2;
        } else if then + some < apart.abs() {
            margin_ns /= 2;
        }
        let task = self.task(head);
        let head_pace = pace_after(task.pace, k.now_ns() - task.pace_at);
        if task.slept
            || head_pace + key::cost(margin_ns, weight) >= pace
            || !k.dsq_move_to_local(from, reach, cpu)
        {
            return false;
        }
        self.cpu_mut(cpu).pulled = Some(head);
        self.task_mut(prev).swap_to = swaps.then_some(from);
        true
    }

    /// `t` was pulled to `cpu`, and runs: it is behind on the machine, whatever its key says of
    /// the CPU that it was on.
    pub(super) fn pulled(&mut self, t: Pid, cpu: Cpu) {
        let clock = self.cpu(cpu).clock;
        if self.cpu_mut(cpu).pulled.take() == Some(t) {
            let task = self.task_mut(t);
            if key::before(clock, task.vtime) {
                task.vtime = clock;
            }
        }
    }

    /// `cpu` went idle with donors, or did not.
    pub(super) fn idle_with_donors(&mut self, now: u64, cpu: Cpu, waits: bool) {
        let state = self.cpu_mut(cpu);
        state.donor_look = waits.then(|| {
            let ns = state
                .donor_look
                .map_or(DONOR_LOOK_NS, |(ns, _)| DONOR_LOOK_MAX_NS.min(2 * ns));
            (ns, now + ns)
        });
    }

    fn idle_any(&self, nr: usize) -> Option<Cpu> {
        let all: Vec<usize> = (0..self.cfg.domains.len()).collect();
        let cpus = cyclic(&all, nr)
            .into_iter()
            .flat_map(|nr| self.cfg.domains[nr].cpus.clone());
        cpus.into_iter().find(|&c| self.is_free(c))
    }

    /// A tick of a busy CPU: what idle ones have to be told.
    pub(super) fn chores(&mut self, k: &mut dyn Kernel) {
        let now = k.now_ns();
        for nr in 0..self.cfg.domains.len() {
            let cpus = self.cfg.domains[nr].cpus.clone();
            let due = self.chores[nr].0.is_none_or(|then| now - then >= CHORES_NS);
            let donors: Vec<(Cpu, u64)> = cpus
                .iter()
                .filter_map(|&c| self.cpu(c).donor_look.map(|(_, at)| (c, at)))
                .filter(|_| self.cfg.donate)
                .collect();
            let free_work = cpus.iter().any(|&c| self.waits(c, Reach::Any));
            let work = free_work || cpus.iter().any(|&c| self.waits(c, Reach::Some));
            let idle = self.idle_any(nr).filter(|_| work);
            if !due || donors.is_empty() && idle.is_none() {
                continue;
            }
            self.chores[nr].0 = Some(now);
            for (cpu, _) in donors.into_iter().filter(|&(_, at)| now >= at) {
                k.kick(cpu, Kick::Idle);
            }
            if let Some(idle) = idle {
                let times = &mut self.chores[nr].1;
                let told = free_work || times.is_multiple_of(SOME_CHORES);
                *times += u32::from(!free_work);
                if told {
                    k.kick(idle, Kick::Idle);
                }
            }
        }
    }

    /// Where an urgent donor waits that finds no owner: not where its class keeps the CPU.
    pub(super) fn urgent_place(&self, k: &mut dyn Kernel, cpu: Cpu) -> Cpu {
        if self.cpu(cpu).running_since.is_some() {
            return cpu;
        }
        let nr = self.domain_of(cpu);
        let bit = self.bit_of(cpu);
        if let Some(&idle) = self.cpus_from(nr, bit).iter().find(|&&c| self.is_free(c)) {
            k.kick(idle, Kick::Idle);
            return idle;
        }
        let cpus = &self.cfg.domains[nr].cpus;
        let next = (1..=URGENT_LOOKS).map(|step| cpus[(bit + step) % cpus.len()]);
        let mut busy = next.filter(|&c| self.cpu(c).running_since.is_some());
        busy.next().unwrap_or(cpu)
    }

    /// `t` has another weight: what it is ahead or behind is as much CPU time as before.
    pub(super) fn set_weight(&mut self, t: Pid, weight: u32) {
        let task = self.task(t);
        let (old, vtime) = (task.weight, task.vtime);
        if let Some(cpu) = task.vtime_cpu.filter(|_| weight != old) {
            let clock = self.cpu(cpu).clock;
            self.task_mut(t).vtime = key::rescale(vtime, clock, old, weight);
        }
        self.task_mut(t).weight = weight;
    }
}
