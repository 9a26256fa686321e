// SPDX-License-Identifier: GPL-2.0-only
//! What a context weighs among all, given the cgroup that it is in: its part of its group's
//! weight, which is a part of its parent's, and so on. Parts go by what competes
//! inside a group, on average over the last ms.

use super::Reference;
use crate::model::key;
use crate::model::policy::{Cpu, Group, Kernel, Kick, Limit, Pid, Reach};

/// Between two passes over the groups, and between two looks at one group.
const PASS_NS: u64 = 4_000_000;
const PERIOD_NS: u64 = 16_000_000;

/// Most that a group owes: as much quota as it gets in this time.
const DEBT_NS: u64 = 1_000_000_000;

/// What a CPU runs at the most before a tick charges it.
const UNCHARGED_NS: u64 = 4_000_000;

/// Parked tasks that one pick looks at.
const PARK_LOOKS: usize = 4;

/// One context, as averages count them.
const ONE: u64 = 1024;

#[derive(Clone, Debug, Default)]
pub(super) struct GroupCtx {
    parent: Group,
    shares: u32,
    /// Weights and number of the contexts that compete now, and the integrals of both over time.
    load: u64,
    nr: u64,
    load_acc: u64,
    nr_acc: u64,
    /// Something competes, or did just now.
    active: bool,
    /// When the averages were last made, and the integrals then.
    looked: Option<(u64, u64, u64)>,
    own_load: u64,
    own_nr: u64,
    /// What its parent counts it as.
    given: u64,
    given_nr: u64,
    limit: Option<Limit>,
    /// What is left of its quota, or owed, and when the period began.
    budget: i128,
    period_at: Option<u64>,
    /// What competes inside, child groups too, and what the whole of it weighs.
    inside: u64,
    weight: u64,
}

impl Reference {
    fn group(&self, g: Group) -> &GroupCtx {
        &self.groups[g as usize]
    }

    fn group_mut(&mut self, g: Group) -> &mut GroupCtx {
        &mut self.groups[g as usize]
    }

    pub(super) fn group_made(&mut self, g: Group, parent: Group, shares: u32) {
        assert_eq!(g as usize, self.groups.len(), "groups come in order");
        self.groups.push(GroupCtx {
            parent,
            shares,
            ..GroupCtx::default()
        });
        self.group_mut(g).weight = self.group_part(g);
    }

    /// The part of its parent's weight that `g` has.
    fn group_part(&self, g: Group) -> u64 {
        let shares = u64::from(self.group(g).shares);
        match self.group(g).parent {
            0 => shares,
            parent => {
                let parent = self.group(parent);
                shares * parent.weight / parent.inside.max(shares)
            }
        }
    }

    /// Whether the context of `t` competes from now on.
    pub(super) fn count(&mut self, now: u64, t: Pid, counts: bool) {
        let task = self.task_mut(t);
        if task.group == 0 || task.counted.is_some() == counts {
            return;
        }
        let own = task.own_weight;
        let before = std::mem::replace(&mut task.counted, counts.then_some(own));
        let g = task.group;
        let group = self.group_mut(g);
        let (weight, sign) = match before {
            None => (u64::from(own), 1),
            Some(weight) => (u64::from(weight).wrapping_neg(), u64::MAX),
        };
        group.load = group.load.wrapping_add(weight);
        group.load_acc = group.load_acc.wrapping_sub(weight.wrapping_mul(now));
        group.nr = group.nr.wrapping_add(sign);
        group.nr_acc = group.nr_acc.wrapping_sub(sign.wrapping_mul(now));
        group.active |= counts;
    }

    /// What the context of `t` weighs now.
    pub(super) fn weigh(&self, t: Pid) -> u32 {
        let task = self.task(t);
        if task.group == 0 {
            return task.own_weight;
        }
        let group = self.group(task.group);
        let own = u64::from(task.own_weight);
        let weight = own * group.weight / group.inside.max(own);
        weight.max(u64::from(key::WEIGHT_MIN)) as u32
    }

    /// `t` was used, or waits on: it weighs what its group is worth now.
    pub(super) fn refresh(&mut self, t: Pid) {
        let g = self.task(t).group;
        if g != 0 {
            self.group_mut(g).active = true;
            let weight = self.weigh(t);
            self.set_weight(t, weight);
        }
    }

    /// Likewise as a donor that waits.
    pub(super) fn refresh_donor(&mut self, d: Pid) {
        let g = self.task(d).group;
        if g == 0 || self.task(d).donor.urgency > 0 {
            return;
        }
        self.group_mut(g).active = true;
        let weight = self.weigh(d);
        let clock = self.cpu(self.task(d).donor.cpu).clock;
        let donor = &mut self.task_mut(d).donor;
        if weight != donor.weight {
            donor.key = key::rescale(donor.key, clock, donor.weight, weight);
            donor.weight = weight;
        }
    }

    /// `t` is runnable, at `weight` by its nice value.
    pub(super) fn new_weight(&mut self, now: u64, t: Pid, weight: u32) {
        let task = self.task_mut(t);
        if task.group == 0 {
            task.own_weight = weight;
            self.set_weight(t, weight);
            return;
        }
        if task.counted != Some(weight) {
            self.count(now, t, false);
            self.task_mut(t).own_weight = weight;
            self.count(now, t, true);
        }
        self.refresh(t);
    }

    /// From a tick: all groups in which something competes, if it is time for it.
    pub(super) fn group_pass(&mut self, k: &dyn Kernel) {
        let now = k.now_ns();
        if self.groups.len() == 1 || self.groups_at.is_some_and(|then| now - then < PASS_NS) {
            return;
        }
        self.groups_at = Some(now);
        // those that are found active when the pass begins
        let active: Vec<_> = (1..self.groups.len() as Group)
            .filter(|&g| self.group(g).active)
            .collect();
        for g in active {
            self.group_look(now, g, k.group_shares(g), k.group_limit(g));
        }
    }

    fn group_look(&mut self, now: u64, g: Group, shares: u32, limit: Option<Limit>) {
        self.has_limits |= limit.is_some();
        let group = self.group_mut(g);
        if group
            .looked
            .is_some_and(|(then, ..)| now - then < PERIOD_NS)
        {
            return;
        }
        group.shares = shares;
        if group.limit != limit {
            group.limit = limit;
            group.period_at = None;
        }
        let integral = |acc: u64, value: u64| acc.wrapping_add(value.wrapping_mul(now));
        let (loads, nrs) = (
            integral(group.load_acc, group.load),
            integral(group.nr_acc, group.nr),
        );
        match group.looked {
            None => (group.own_load, group.own_nr) = (group.load, group.nr * ONE),
            Some((then, load_sum, nr_sum)) => {
                let mean = |sum: u64| sum / (now - then);
                group.own_load = (group.own_load + mean(loads.wrapping_sub(load_sum))) / 2;
                group.own_nr = (group.own_nr + mean(nrs.wrapping_sub(nr_sum) * ONE)) / 2;
            }
        }
        group.looked = Some((now, loads, nrs));
        let below = |pick: fn(&GroupCtx) -> u64| -> u64 {
            self.groups
                .iter()
                .skip(1)
                .filter(|c| c.parent == g)
                .map(pick)
                .sum()
        };
        let (child_load, child_nr) = (below(|c| c.given), below(|c| c.given_nr));
        let group = self.group_mut(g);
        let mut number = group.own_nr + child_nr;
        group.active = group.nr > 0 || number >= ONE / 256;
        if !group.active {
            (group.looked, group.own_load, group.own_nr, number) = (None, 0, 0, 0);
        }
        group.inside = group.own_load + child_load;
        group.given = u64::from(shares) * number.min(ONE) / ONE;
        group.given_nr = number;
        let parent = group.parent;
        if parent != 0 && number > 0 {
            self.group_mut(parent).active = true;
        }
        self.group_mut(g).weight = self.group_part(g);
    }

    fn refill(&mut self, now: u64, g: Group) {
        let others = self.cpus.len() as u64 - 1;
        let group = self.group_mut(g);
        let Some(limit) = group.limit else { return };
        // what other CPUs ran since their last tick is not in the budget yet
        let uncharged = limit.quota_ns.min(others * UNCHARGED_NS);
        let Some(at) = group.period_at else {
            group.period_at = Some(now);
            group.budget = i128::from(limit.quota_ns);
            return;
        };
        let periods = (now - at) / limit.period_ns;
        if periods == 0 {
            return;
        }
        group.period_at = Some(at + periods * limit.period_ns);
        let most = i128::from(limit.quota_ns + limit.burst_ns + uncharged);
        group.budget += i128::from(periods.min(1000) * limit.quota_ns);
        if group.budget >= most {
            // it owes nothing: its period begins when it is used
            group.budget = most;
            group.period_at = Some(now);
        }
    }

    fn path(&self, mut g: Group) -> Vec<Group> {
        let mut path = Vec::new();
        while g != 0 {
            path.push(g);
            g = self.group(g).parent;
        }
        path
    }

    /// When `t` may run again, if not now. That the kernel's watchdog would see it is left out here:
    /// no run lasts that long.
    pub(super) fn due(&mut self, now: u64, t: Pid) -> Option<u64> {
        let mut due = None;
        for g in self.path(self.task(t).group) {
            self.refill(now, g);
            let group = self.group(g);
            if let (Some(limit), Some(at)) = (group.limit, group.period_at)
                && group.budget <= 0
            {
                let periods = (-group.budget) as u64 / limit.quota_ns + 1;
                due = due.max(Some(at + periods * limit.period_ns));
            }
        }
        due
    }

    /// `t` ran for `ns`: its group pays, and those above.
    pub(super) fn burn(&mut self, t: Pid, ns: u64) {
        for g in self.path(self.task(t).group) {
            let group = self.group_mut(g);
            if let Some(limit) = group.limit {
                let owed = DEBT_NS / limit.period_ns * limit.quota_ns + limit.quota_ns;
                group.budget = (group.budget - i128::from(ns)).max(-i128::from(owed));
            }
        }
    }

    /// The tick: `t` pays what it has burned; it stops if that was all that its cgroup had.
    pub(super) fn tick_limit(&mut self, k: &mut dyn Kernel, t: Pid) {
        if self.task(t).group == 0 || !self.has_limits {
            return;
        }
        self.charge(k, t);
        if self.due(k.now_ns(), t).is_some() {
            k.set_slice(t, 0);
        }
    }

    /// `t` is put aside on `cpu` until `due`.
    pub(super) fn park(&mut self, k: &mut dyn Kernel, t: Pid, cpu: Cpu, due: u64) {
        self.task_mut(t).swap_to = None;
        self.join(t, cpu);
        self.count(k.now_ns(), t, false);
        let task = self.task_mut(t);
        task.place = super::state::Place::Queued(cpu);
        task.reach = Reach::Parked;
        task.queued_weight = 0;
        task.queued_at = k.now_ns();
        k.dsq_insert_vtime(t, cpu, Reach::Parked, due, self.cfg.slice_ns);
        if self.donors_release(k, t, cpu) {
            k.kick(cpu, Kick::Resched);
        }
        self.interrupt_tickless(k, cpu);
    }

    /// `t` is parked no more, if it was: its context competes again.
    pub(super) fn unpark(&mut self, now: u64, t: Pid) {
        let task = self.task(t);
        if matches!(task.place, super::state::Place::Queued(_)) && task.reach == Reach::Parked {
            self.count(now, t, true);
        }
    }

    /// The first parked task of `cpu` that may run, and its key.
    pub(super) fn parked_head(&mut self, k: &mut dyn Kernel, cpu: Cpu) -> Option<(u64, Pid)> {
        let now = k.now_ns();
        for _ in 0..PARK_LOOKS {
            let (at, t) = k.dsq_head(cpu, Reach::Parked)?;
            if now < at || !k.alive(t) {
                return None;
            }
            let Some(due) = self.due(now, t) else {
                let (vtime, clock) = (self.task(t).vtime, self.cpu(cpu).clock);
                return Some((key::floor(vtime, clock, self.cfg.lag_ns), t));
            };
            k.dsq_rekey(cpu, Reach::Parked, due);
        }
        None
    }

    /// Idle CPUs where a parked task may be looked at are woken.
    pub(super) fn kick_parked(&mut self, k: &mut dyn Kernel) {
        for cpu in 0..self.cfg.nr_cpus {
            let head = k.dsq_head(cpu, Reach::Parked);
            if head.is_some_and(|(at, _)| at <= k.now_ns()) {
                k.kick(cpu, Kick::Idle);
            }
        }
    }
}
