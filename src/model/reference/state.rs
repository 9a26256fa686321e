// SPDX-License-Identifier: GPL-2.0-only
//! What the policy knows of tasks and CPUs, clocks and keys, and who pays.

use super::Reference;
use crate::model::key;
use crate::model::policy::{Cpu, DonorPlace, Group, Kernel, Pid, Reach};

/// What a turn takes at the least: a tick.
const TURN_NS: u64 = 4_000_000;

/// Where a task is, as the callbacks told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Place {
    Asleep,
    /// On the run queue of that CPU.
    Queued(Cpu),
    /// Runnable, and on its way to a queue or a CPU.
    Local,
    Running,
    /// Of another class, or gone.
    #[default]
    Other,
}

/// A task as a donor. What does not concern its place outlives the wait.
#[derive(Clone, Debug, Default)]
pub(super) struct Donor {
    /// None: it does not wait.
    pub place: Option<DonorPlace>,
    /// Number of its last wait.
    pub wait: u64,
    pub key: u64,
    /// The CPU in whose terms the key is.
    pub cpu: Cpu,
    pub weight: u32,
    /// 0: fair.
    pub urgency: u32,
    /// What has been run in its context since it began to wait.
    pub lent_cost: u64,
    pub woke_at: u64,
    pub blocked_at: u64,
    /// Whom the lock named last in this wait.
    pub named_owner: Option<Pid>,
    pub guess: Guess,
}

/// Of a wait for a lock that names no owner.
#[derive(Clone, Debug, Default)]
pub(super) struct Guess {
    /// Who is taken for the owner at present, and what it had run when it was chosen.
    pub candidate: Option<(Pid, u64)>,
    /// Who of its users is looked at next.
    pub next: usize,
    /// When it was last looked, and what was found.
    pub found: Option<(u64, Option<Pid>)>,
    /// Slices that candidates have used up in this wait.
    pub slices: u32,
}

#[derive(Clone, Debug)]
pub(super) struct TaskCtx {
    /// It has not run since it slept.
    pub slept: bool,
    /// Lets the next one go first, once.
    pub yielded: bool,
    /// Whom it lends its context to until it runs again.
    pub yields_to: Option<Pid>,
    pub vtime: u64,
    pub vtime_cpu: Option<Cpu>,
    /// Among all contexts of the machine.
    pub weight: u32,
    /// By its nice value.
    pub own_weight: u32,
    pub group: Group,
    /// The weight by which it counts in its group, if it does.
    pub counted: Option<u32>,
    pub charged_exec_ns: u64,
    pub charged_at: u64,
    pub place: Place,
    pub queued_weight: u32,
    pub queued_at: u64,
    /// Where it goes in exchange for what was pulled from there.
    pub swap_to: Option<Cpu>,
    pub reach: Reach,
    /// Virtual time used of late, as of `pace_at`.
    pub pace: u64,
    pub pace_at: u64,
    /// When it last woke somebody and said that it was about to sleep.
    pub sync_at: Option<u64>,
    /// How often in a row that was true.
    pub handoffs: u32,
    pub donor: Donor,
    /// The donor in whose context it runs, and the wait of it.
    pub runs_for: Option<(Pid, u64)>,
    /// Donors that wait for it to stop or wake, in the order in which they came. One
    /// that woke meanwhile keeps its entry until then.
    pub attached: Vec<Pid>,
}

impl Default for TaskCtx {
    fn default() -> Self {
        Self {
            vtime: 0,
            yielded: false,
            yields_to: None,
            vtime_cpu: None,
            weight: key::WEIGHT_NICE_0,
            own_weight: key::WEIGHT_NICE_0,
            group: 0,
            counted: None,
            charged_exec_ns: 0,
            charged_at: 0,
            place: Place::Other,
            queued_weight: 0,
            queued_at: 0,
            slept: false,
            swap_to: None,
            reach: Reach::One,
            pace: 0,
            pace_at: 0,
            sync_at: None,
            handoffs: 0,
            donor: Donor::default(),
            runs_for: None,
            attached: Vec::new(),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct CpuCtx {
    /// Follows the least key that competes here; never goes back.
    pub clock: u64,
    /// Key and weight of what runs, as of `running_since`.
    pub running_key: u64,
    pub running_weight: u32,
    pub running_since: Option<u64>,
    pub running_pid: Pid,
    /// What runs has begun alone, and without ticks.
    pub tickless: bool,
    /// Whether it is idle.
    pub idle: bool,
    /// Whether it is, and nobody has claimed it.
    pub free: bool,
    /// It went idle with donors: how long until it looks at them again, and when that is.
    pub donor_look: Option<(u64, u64)>,
    /// When it last looked for tasks that get less than their share.
    pub pulled_at: Option<u64>,
    pub pull_cursor: usize,
    /// Pace of the task queued last that other CPUs may pull.
    pub waiting_pace: u64,
    /// The task that the last pick pulled, until it runs.
    pub pulled: Option<Pid>,
    /// The least key of its last pick, donors left aside.
    pub least: Option<u64>,
    /// The latest key ever queued here.
    pub key_max: u64,
    /// The period of the starvation guard: its beginning, and the latest key then.
    pub guard: Option<(u64, u64)>,
    /// The second of urgent donors: its beginning, and what was run for them in it.
    pub urgent: Option<(u64, u64)>,
    /// Picks in which a queued task had waited for too long.
    pub overdue_picks: u32,
    /// When what runs began to run after a sleep; `None`: it had been running before.
    pub awake_at: Option<u64>,
    /// In whose context the last task ran that was not idle: whose turn it is.
    pub turn: Option<Pid>,
    /// A task of earlier key woke when that was a moment ago.
    pub preempt_at_tick: bool,
    /// When what runs is looked at again.
    pub hrtick_at: Option<u64>,
    /// It went on when its donor woke: it is not its turn, unless its own key says so.
    pub turn_over: bool,
    /// Waiting donors, by key and then by pid.
    pub donors: Vec<(u64, Pid)>,
}

impl CpuCtx {
    /// An urgent key is before any clock, and so moves none.
    pub fn advance_clock(&mut self, least: Option<u64>) {
        if let Some(least) = least.filter(|&least| key::before(self.clock, least)) {
            self.clock = least;
        }
    }

    /// Key of what runs here, as of `now`.
    pub fn running_key_now(&self, now: u64) -> u64 {
        let ran = self
            .running_since
            .map_or(0, |since| now.saturating_sub(since));
        self.running_key
            .wrapping_add(key::cost(ran, self.running_weight))
    }
}

impl Reference {
    pub(super) fn task(&self, t: Pid) -> &TaskCtx {
        &self.tasks[&t]
    }

    pub(super) fn task_mut(&mut self, t: Pid) -> &mut TaskCtx {
        self.tasks
            .get_mut(&t)
            .expect("the policy was told of this task")
    }

    pub(super) fn cpu(&self, cpu: Cpu) -> &CpuCtx {
        &self.cpus[cpu as usize]
    }

    pub(super) fn cpu_mut(&mut self, cpu: Cpu) -> &mut CpuCtx {
        &mut self.cpus[cpu as usize]
    }

    pub(super) fn queued(&self, cpu: Cpu) -> impl Iterator<Item = &TaskCtx> {
        self.tasks
            .values()
            .filter(move |task| task.place == Place::Queued(cpu) && task.reach != Reach::Parked)
    }

    pub(super) fn nr_queued(&self, cpu: Cpu) -> usize {
        self.queued(cpu).count()
    }

    /// Sum of the weights on the run queue of `cpu`.
    pub(super) fn queued_load(&self, cpu: Cpu) -> u64 {
        self.queued(cpu)
            .map(|task| u64::from(task.queued_weight))
            .sum()
    }

    /// Brings the key of `t` into terms of `cpu`, and within what its clock allows.
    pub(super) fn join(&mut self, t: Pid, cpu: Cpu) {
        let clock = self.cpu(cpu).clock;
        let queued = self.queued_load(cpu);
        let task = self.task(t);
        let vtime = match task.vtime_cpu {
            Some(from) if from == cpu => task.vtime,
            Some(from) => key::rebase(task.vtime, self.cpu(from).clock, clock),
            // a new task begins a slice behind: forking buys no time
            None => clock.wrapping_add(key::cost(self.cfg.slice_ns, task.weight)),
        };
        let load = queued + u64::from(self.cpu(cpu).running_weight) + u64::from(task.weight);
        let vtime = key::floor(vtime, clock, self.cfg.lag_ns);
        let vtime = key::ceiling(vtime, clock, self.cfg.starve_ns, load);
        let task = self.task_mut(t);
        task.vtime = vtime;
        task.vtime_cpu = Some(cpu);
    }

    /// Charges what `t` ran since the last time: to the donor in whose context it
    /// did, else to itself.
    pub(super) fn charge(&mut self, k: &dyn Kernel, t: Pid) {
        let exec = k.exec_ns(t);
        let delta = exec - self.task(t).charged_exec_ns;
        // a donor that woke and is gone by now pays nothing
        let gone = |(donor, _): &(Pid, u64)| !k.alive(*donor);
        if self
            .task_mut(t)
            .runs_for
            .take_if(|donor| gone(donor))
            .is_some()
        {
            self.count(k.now_ns(), t, true);
        }
        let donated = match self.task(t).runs_for {
            Some((donor, wait)) => {
                if self.task(donor).donor.urgency > 0 {
                    self.use_urgent(k.this_cpu(), delta);
                }
                self.charge_donor(k.now_ns(), t, donor, wait, delta)
            }
            None => 0,
        };
        let own = delta - donated;
        self.own_ns += own;
        self.donated_ns += donated;
        let task = self.task_mut(t);
        task.charged_exec_ns = exec;
        task.charged_at = k.now_ns();
        let cost = key::cost(own, task.weight);
        self.use_vtime(t, cost, k.now_ns());
        self.refresh(t);
        self.burn(t, delta);
    }

    /// The context of `t` was used for virtual time `cost`.
    pub(super) fn use_vtime(&mut self, t: Pid, cost: u64, now: u64) {
        let task = self.task_mut(t);
        task.vtime = task.vtime.wrapping_add(cost);
        task.pace = super::place::pace_after(task.pace, now - task.pace_at) + cost;
        task.pace_at = now;
    }

    /// The starvation guard: once in a period the turn has come of all that were queued when it began.
    pub(super) fn guard(&mut self, now: u64, cpu: Cpu) {
        let (starve, lag) = (self.cfg.starve_ns, self.cfg.lag_ns);
        // where one turn of all takes that long, periods are short
        let crowded = self.nr_queued(cpu) as u64 * TURN_NS > starve;
        let period = if crowded { starve / 8 } else { starve };
        let state = self.cpu_mut(cpu);
        if state.guard.is_some_and(|(since, _)| now - since < period) {
            return;
        }
        let due = state.guard.map(|(_, key)| key.wrapping_add(lag));
        state.advance_clock(due);
        let latest = key::later(state.clock.wrapping_sub(lag), state.key_max);
        state.guard = Some((now, latest));
    }

    fn use_urgent(&mut self, cpu: Cpu, ns: u64) {
        let urgent = &mut self.cpu_mut(cpu).urgent;
        let (since, used) = urgent.unwrap_or((0, 0));
        *urgent = Some((since, used + ns));
    }

    /// What of `delta` the donor pays: all while it waits; what lies before its
    /// wakeup, if it woke since; nothing if it waits for something else already.
    fn charge_donor(&mut self, now: u64, owner: Pid, donor: Pid, wait: u64, delta: u64) -> u64 {
        let charged_at = self.task(owner).charged_at;
        let d = &mut self.task_mut(donor).donor;
        if d.wait != wait {
            self.task_mut(owner).runs_for = None;
            self.count(now, owner, true);
            return 0;
        }
        let waits = d.place == Some(DonorPlace::Active(owner));
        let donated = if waits {
            delta
        } else {
            delta.min(d.woke_at.saturating_sub(charged_at))
        };
        let cost = if d.urgency > 0 {
            0
        } else {
            key::cost(donated, d.weight)
        };
        d.lent_cost = d.lent_cost.wrapping_add(cost);
        if waits {
            d.key = d.key.wrapping_add(cost);
            self.refresh_donor(donor);
        } else {
            self.task_mut(owner).runs_for = None;
            self.count(now, owner, true);
        }
        donated
    }

    /// `t` runs on `cpu`: by this others judge whether they come before it.
    pub(super) fn note_running(&mut self, k: &dyn Kernel, t: Pid, cpu: Cpu) {
        let task = self.task(t);
        let (key, weight) = match task.runs_for {
            Some((donor, _)) => (self.task(donor).donor.key, self.task(donor).donor.weight),
            None => (task.vtime, task.weight),
        };
        let state = self.cpu_mut(cpu);
        state.running_key = key;
        state.turn_over = false;
        state.preempt_at_tick = false;
        state.running_weight = weight;
        state.running_pid = t;
        state.running_since = Some(k.now_ns());
    }
}
