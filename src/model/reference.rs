// SPDX-License-Identifier: GPL-2.0-only
//! The donor engine, said in the most obvious way: sorted lists instead of heaps,
//! an enum instead of a token, sets instead of clever walks. It is slow on
//! purpose, and decides what the C in `bpf/core` must decide.
//!
//! `state` has the tasks and CPUs, `donor` the life of a donor, `walk` the chains,
//! `pick` the choice of what runs, `place` where tasks go, `hrtick` who is preempted later, `tickless`
//! who has a CPU without ticks; this file the callbacks.

mod donor;
mod group;
mod hrtick;
mod pick;
mod place;
mod state;
mod tickless;
mod walk;

use super::key;
use super::policy::{
    Config, Cpu, DeqFlags, DonorPlace, DonorView, EnqFlags, Group, Kernel, Kick, Pid, Policy,
    Reach, View, WakeKind,
};
use state::{CpuCtx, Place, TaskCtx};
use std::collections::BTreeMap;

/// After a wait of that length a donor's caches are cold at home.
const RETURN_COLD_NS: u64 = 5_000_000;

/// The lead that warm caches are worth.
const RETURN_MARGIN_NS: i64 = 1_000_000;

/// The reference policy.
#[derive(Clone, Debug)]
pub struct Reference {
    cfg: Config,
    tasks: BTreeMap<Pid, TaskCtx>,
    cpus: Vec<CpuCtx>,
    /// For each domain when its idle CPUs were last looked after, and how often for restricted tasks.
    chores: Vec<(Option<u64>, u32)>,
    /// The cgroups; the root's entry is not used.
    groups: Vec<group::GroupCtx>,
    /// When they were last looked at.
    groups_at: Option<u64>,
    /// Whether any of them ever had a limit.
    has_limits: bool,
    own_ns: u64,
    donated_ns: u64,
}

impl Reference {
    /// A policy for the machine of `cfg`.
    pub fn new(cfg: Config) -> Self {
        let cpu = CpuCtx {
            idle: true,
            free: true,
            ..CpuCtx::default()
        };
        let cpus = vec![cpu; cfg.nr_cpus as usize];
        let chores = vec![(None, 0); cfg.domains.len()];
        Self {
            cfg,
            tasks: BTreeMap::new(),
            cpus,
            chores,
            groups: vec![group::GroupCtx::default()],
            groups_at: None,
            has_limits: false,
            own_ns: 0,
            donated_ns: 0,
        }
    }

    /// A waking task of earlier key than what runs on `cpu` gets it at once, if it is
    /// earlier by the granularity or has brought donors that are. What has just woken
    /// itself goes on until the next tick, unless it is for donors. What has run for long is
    /// looked at again when it has been passed.
    fn preempt_by_key(&mut self, k: &mut dyn Kernel, t: Pid, cpu: Cpu, with_donors: bool) {
        let (task, state, now) = (self.task(t), self.cpu(cpu), k.now_ns());
        let lead = if state.turn_over {
            0
        } else {
            key::cost(self.cfg.wakeup_gran_ns, task.weight)
        };
        let key = task.vtime.wrapping_add(lead);
        let running = state.running_key_now(now);
        let first = self.donor_head_key(cpu).filter(|_| with_donors);
        if first.is_some_and(|first| key::before(first, running)) {
            k.kick(cpu, Kick::Preempt);
        } else if !key::before(key, running) {
            if state
                .awake_ns(now)
                .is_none_or(|awake| awake >= self.cfg.slice_ns)
            {
                let ns = self.passes_in(running, key, state.running_weight);
                self.hrtick_start(k, cpu, ns);
            }
        } else if state
            .awake_ns(now)
            .is_some_and(|awake| awake < self.cfg.protect_ns)
        {
            self.cpu_mut(cpu).preempt_at_tick = true;
        } else {
            k.kick(cpu, Kick::Preempt);
        }
    }

    /// Where a donor goes when no CPU is idle: home, or where the owner runs in its
    /// context, if what runs there is easier to preempt.
    fn return_cpu(&self, k: &dyn Kernel, t: Pid, home: Cpu) -> Cpu {
        let donor = &self.task(t).donor;
        let away = donor.cpu;
        let Some(DonorPlace::Active(owner)) = donor.place else {
            return home;
        };
        let busy = self.cpu(home).running_since.is_some();
        if away == home || k.pinned(t) || !k.may_run(t, away) || !busy {
            return home;
        }
        let running_home = self.cpu(home).running_key_now(k.now_ns());
        let home_lead = running_home.wrapping_sub(self.cpu(home).clock) as i64;
        let owner_lead = self.task(owner).vtime.wrapping_sub(self.cpu(away).clock) as i64;
        // after a short wait caches are warm at home, and elsewhere only if they are the same
        let cold = k.now_ns() - self.task(t).donor.blocked_at >= RETURN_COLD_NS;
        let shared = self.domain_of(home) == self.domain_of(away);
        let need = if cold || shared { 0 } else { RETURN_MARGIN_NS };
        if owner_lead.wrapping_sub(home_lead) > need {
            away
        } else {
            home
        }
    }

    /// The wait of `t` is over; an owner that runs in its context loses that.
    fn donor_returns(&mut self, k: &mut dyn Kernel, t: Pid) {
        let owner_cpu = self.donor_wake(k, t);
        self.end_donated_slice(k, t, owner_cpu);
    }

    /// An owner on that CPU, if there is one, has run in the context of `t`: the CPU picks again
    /// unless `t` goes there anyway.
    fn end_donated_slice(&self, k: &mut dyn Kernel, t: Pid, owner_cpu: Option<Cpu>) {
        if let Some(cpu) = owner_cpu
            && self.nr_queued(cpu) > 0
            && cpu != k.task_cpu(t)
        {
            k.kick(cpu, Kick::Preempt);
        }
    }

    /// `t` was woken by a task that runs in the context of somebody else further up
    /// the chain: that donor waits for `t` now, so this CPU picks again.
    fn chain_moved_on(&self, k: &mut dyn Kernel, t: Pid) {
        let this_cpu = k.this_cpu();
        let waker = k.current(this_cpu).and_then(|w| self.tasks.get(&w));
        if waker
            .and_then(|w| w.runs_for)
            .is_some_and(|(donor, _)| donor != t)
        {
            k.kick(this_cpu, Kick::Preempt);
        }
    }
}

impl Policy for Reference {
    fn enable(&mut self, k: &mut dyn Kernel, t: Pid) {
        let task = self.tasks.entry(t).or_default();
        task.vtime_cpu = None;
        task.own_weight = key::weight_of_nice(k.nice(t));
        task.pace = 0;
        task.place = Place::Asleep;
        task.charged_exec_ns = k.exec_ns(t);
        let weight = self.weigh(t);
        self.task_mut(t).weight = weight;
    }

    fn group_begin(&mut self, g: Group, parent: Group, shares: u32) {
        self.group_made(g, parent, shares);
    }

    fn group_move(&mut self, k: &mut dyn Kernel, t: Pid, g: Group) {
        let task = self.tasks.entry(t).or_default();
        let counts = task.counted.is_some();
        self.count(k.now_ns(), t, false);
        self.task_mut(t).group = g;
        self.count(k.now_ns(), t, counts);
    }

    fn disable(&mut self, k: &mut dyn Kernel, t: Pid) {
        self.yield_end(k, t);
        self.donor_wake(k, t);
        self.unpark(k.now_ns(), t);
        self.task_mut(t).place = Place::Other;
        self.donors_release(k, t, k.task_cpu(t));
        self.count(k.now_ns(), t, false);
    }

    fn select_cpu(&mut self, k: &mut dyn Kernel, t: Pid, prev_cpu: Cpu, kind: WakeKind) -> Cpu {
        let waits = self.task(t).donor.place.is_some();
        let kind = match kind {
            // a donor returns by rule, whoever wakes it
            WakeKind::Sync if waits => WakeKind::Plain,
            kind => kind,
        };
        let (cpu, idle) = self.place_wakeup(k, t, prev_cpu, kind);
        if idle || !waits || !self.cfg.donate {
            cpu
        } else {
            self.return_cpu(k, t, prev_cpu)
        }
    }

    fn update_idle(&mut self, _k: &mut dyn Kernel, cpu: Cpu, idle: bool) {
        self.idle_changed(cpu, idle);
    }

    fn runnable(&mut self, k: &mut dyn Kernel, t: Pid, _flags: EnqFlags) {
        let weight = key::weight_of_nice(k.nice(t));
        self.unpark(k.now_ns(), t);
        self.task_mut(t).place = Place::Local;
        self.new_weight(k.now_ns(), t, weight);
        if self.task(t).donor.place.is_some() && self.task(t).yields_to.is_some() {
            self.yield_end(k, t);
        } else if self.task(t).donor.place.is_some() {
            self.chain_moved_on(k, t);
            self.donor_returns(k, t);
        }
    }

    fn enqueue(&mut self, k: &mut dyn Kernel, t: Pid, cpu: Cpu, flags: EnqFlags) {
        self.unpark(k.now_ns(), t);
        self.task_mut(t).place = Place::Local;
        self.clock_tickless(k.now_ns(), cpu);
        if let Some(due) = self.due(k.now_ns(), t) {
            self.park(k, t, cpu, due);
            return;
        }
        let reach = match flags.came_back && k.core_runs(t) {
            true => Reach::One,
            false => Self::reach_of(k, t),
        };
        let idle = if flags.cpu_selected || reach == Reach::One {
            None
        } else if flags.wakeup {
            self.claim_near(k, t, cpu)
        } else {
            self.claim_preempted(k, t, cpu)
        };
        let sent = idle.is_some_and(|idle| idle != cpu);
        let swap_to = self.task_mut(t).swap_to.take();
        let swap_to =
            swap_to.filter(|&to| !sent && !flags.wakeup && reach != Reach::One && k.may_run(t, to));
        let cpu = swap_to.or(idle).unwrap_or(cpu);
        self.join(t, cpu);
        let task = self.task_mut(t);
        task.place = Place::Queued(cpu);
        task.reach = reach;
        task.queued_weight = task.weight;
        task.queued_at = k.now_ns();
        let (key, pace) = (task.vtime, task.pace);
        let state = self.cpu_mut(cpu);
        state.key_max = key::later(state.key_max, key);
        if reach != Reach::One && !flags.wakeup {
            state.waiting_pace = pace;
        }
        k.dsq_insert_vtime(t, cpu, reach, key, self.cfg.slice_ns);
        let with_donors = self.donors_release(k, t, cpu);
        if self.interrupt_tickless(k, cpu) {
            return;
        }
        if sent || !flags.wakeup && self.cpu(cpu).idle {
            k.kick(cpu, Kick::Idle);
        } else if flags.last {
            k.kick(cpu, Kick::Resched);
        } else if flags.wakeup && self.cpu(cpu).running_since.is_some() {
            self.preempt_by_key(k, t, cpu, with_donors);
        }
    }

    fn dispatch(&mut self, k: &mut dyn Kernel, cpu: Cpu, prev: Option<Pid>) {
        self.pick(k, cpu, prev);
    }

    fn running(&mut self, k: &mut dyn Kernel, t: Pid) {
        let cpu = k.task_cpu(t);
        self.unpark(k.now_ns(), t);
        self.task_mut(t).place = Place::Running;
        self.join(t, cpu);
        self.pulled(t, cpu);
        let task = self.task_mut(t);
        task.charged_exec_ns = k.exec_ns(t);
        task.charged_at = k.now_ns();
        self.yield_end(k, t);
        let task = self.task(t);
        if task.donor.lent_cost > 0 {
            let lent = self.take_lent(t);
            self.use_vtime(t, lent, k.now_ns());
        }
        self.note_running(k, t, cpu);
        self.begin_tickless(k, t, cpu);
        self.begin_turn(k.now_ns(), t, cpu);
        self.idle_with_donors(k.now_ns(), cpu, false);
        if self.cpu(cpu).idle {
            self.idle_changed(cpu, false);
        }
    }

    fn stopping(&mut self, k: &mut dyn Kernel, t: Pid, runnable: bool) {
        let cpu = k.task_cpu(t);
        self.charge(k, t);
        self.cpu_mut(cpu).tickless = false;
        self.handoff_note(k.now_ns(), t, !runnable);
        self.task_mut(t).place = Place::Local;
        let state = self.cpu_mut(cpu);
        state.running_since = None;
        state.running_weight = 0;
        if runnable {
            k.set_slice(t, 0);
        }
        if !runnable {
            self.donors_release(k, t, cpu);
        }
        if self.nr_queued(cpu) == 0 {
            let least = key::earlier(Some(self.task(t).vtime), self.donor_head_key(cpu));
            self.cpu_mut(cpu).advance_clock(least);
        }
    }

    fn quiescent(&mut self, k: &mut dyn Kernel, t: Pid, flags: DeqFlags) {
        let cpu = k.task_cpu(t);
        self.unpark(k.now_ns(), t);
        self.task_mut(t).place = Place::Asleep;
        self.task_mut(t).slept = flags.sleep;
        if flags.sleep && k.blocked_on(t).is_some() {
            self.donor_block(k, t, cpu, 0);
            let key = self.task(t).donor.key;
            self.donor_queue_at_key(t, cpu, key);
            self.attached_release(t, cpu);
            if self.cfg.donate {
                // it competes on, as a donor
                return;
            }
        }
        self.count(k.now_ns(), t, false);
    }

    fn tick(&mut self, k: &mut dyn Kernel, t: Pid) {
        let cpu = k.task_cpu(t);
        self.tick_tickless(k, t, cpu);
        self.tick_limit(k, t);
        if cpu == k.this_cpu() {
            if std::mem::take(&mut self.cpu_mut(cpu).preempt_at_tick) {
                k.kick(cpu, Kick::Preempt);
            }
            self.look_again(k, cpu);
        }
        self.group_pass(k);
        self.chores(k);
    }

    fn hrtick(&mut self, k: &mut dyn Kernel, cpu: Cpu) {
        self.look_again(k, cpu);
    }

    fn yields(&mut self, k: &mut dyn Kernel, t: Pid) {
        self.task_mut(t).yielded = true;
        k.set_slice(t, 0);
    }

    fn yields_to(&mut self, k: &mut dyn Kernel, t: Pid, to: Pid) -> bool {
        let queued = matches!(self.task(to).place, Place::Queued(_));
        if !self.cfg.donate || !queued || self.task(t).donor.place.is_some() {
            return false;
        }
        self.task_mut(t).yields_to = Some(to);
        self.yields(k, t);
        true
    }

    fn timer(&mut self, k: &mut dyn Kernel) {
        self.kick_parked(k);
    }

    fn contention_begin(&mut self, k: &mut dyn Kernel, t: Pid, cpu: Cpu) {
        self.tasks.entry(t).or_default();
        if self.task(t).donor.place.is_some() {
            return;
        }
        self.donor_block(k, t, cpu, k.urgency(t));
        if self.cfg.donate {
            self.resolve_urgent(k, t, cpu);
        } else {
            self.donor_put(t, cpu);
        }
    }

    fn contention_end(&mut self, k: &mut dyn Kernel, t: Pid) {
        let waits = self
            .tasks
            .get(&t)
            .is_some_and(|task| task.donor.place.is_some());
        if waits && self.task(t).donor.urgency > 0 {
            self.donor_returns(k, t);
        }
    }

    fn view(&self) -> View {
        let donors = self.tasks.iter().filter_map(|(&pid, task)| {
            let (wait, key) = (task.donor.wait, task.donor.key);
            task.donor.place.map(|place| DonorView {
                pid,
                wait,
                place,
                key,
                yields_to: task.yields_to,
            })
        });
        View {
            own_ns: self.own_ns,
            donated_ns: self.donated_ns,
            donors: donors.collect(),
            clocks: self.cpus.iter().map(|c| c.clock).collect(),
            keys: self
                .tasks
                .iter()
                .map(|(&pid, task)| (pid, task.vtime))
                .collect(),
            waits: self
                .tasks
                .iter()
                .map(|(&pid, task)| (pid, task.donor.wait))
                .collect(),
        }
    }
}
