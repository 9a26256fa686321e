// SPDX-License-Identifier: GPL-2.0-only
//! What the scheduler does, per second, from its counters. The history that the small curves show
//! is bounded; sums are those since `top` looks.

use std::collections::VecDeque;

use crate::stats::Metrics;

/// Readings that a curve goes back.
pub const HISTORY: usize = 60;

/// A counter that is shown.
pub struct Action {
    /// Group: what kind of thing it is.
    pub kind: &'static str,
    /// Name.
    pub name: &'static str,
    /// What it says.
    pub about: &'static str,
    get: fn(&Metrics) -> u64,
    /// Shown as ms of each second, the counter being in ns.
    is_time: bool,
}

macro_rules! actions {
    ($($kind:literal $name:literal $field:ident $about:literal)*) => {
        [$(Action {
            kind: $kind,
            name: $name,
            about: $about,
            get: |metrics| metrics.$field,
            is_time: false,
        }),*]
    };
}

/// All that are shown, in the order of the screen.
pub static ACTIONS: &[Action] = &{
    let mut all = actions! {
        "wait" "waits" edges "tasks that went to sleep on a lock that is followed"
        "lend" "donations" donations "an owner got a slice in a donor's context"
        "lend" "donated ms" donated_ns "CPU time that owners ran on donors, in ms"
        "lend" "migrations" donor_migrations "a donor's context went to where the owner may run"
        "lend" "moved along" chain_followed "waiters in the middle of a chain that came along"
        "lend" "kicks" donor_kicks "migrations that preempted the CPU"
        "park" "owner running" owner_running "the owner runs: the donor waits for it to stop"
        "park" "owner sleeping" owner_sleeping "the owner sleeps: the donor waits for it to wake"
        "return" "to an idle CPU" return_idle "donors that woke onto an idle CPU"
        "return" "home" return_home "donors that woke where they had blocked"
        "return" "to the owner" return_owner "donors that woke onto their owner's CPU"
        "refuse" "no owner" no_owner "the lock had no owner at that moment"
        "refuse" "stale" stale "the waiter no longer waited"
        "refuse" "truncated" truncated "the chain was longer than --hops-max"
        "refuse" "cycle" cycles "the chain came back to itself"
        "refuse" "other class" other_class "the owner is a real-time or deadline task"
        "refuse" "affinity" affinity_refusals "the owner may not run on the donor's CPU"
        "refuse" "lost race" lost_races "the owner was gone when it was to be moved"
        "refuse" "reader owned" reader_owned "readers hold the rwsem"
        "refuse" "unproven" unproven "a program named an owner that is not believed"
        "refuse" "queue full" queue_full "a donor queue had no room"
        "refuse" "owner full" attach_full "too many wait for the same owner"
        "agent" "deadlocks" deadlocks "deadlocks that lasted for a second"
        "agent" "hint: skip" hint_skips "walks that went on where the agent said"
        "agent" "hint: cycle" hint_cycles "looks at donors that are in a deadlock"
        "agent" "hint: stale" hints_stale "hints that were too old"
        "agent" "events lost" events_lost "events that found the ring full"
    };
    all[2].is_time = true;
    all
};

/// The actions so far.
#[derive(Clone, Debug, Default)]
pub struct Actions {
    counted: Vec<Counted>,
}

/// One action so far.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// Since `top` looks.
    pub sum: u64,
    /// Per second of each reading, the newest last.
    pub rates: VecDeque<f64>,
}

impl Actions {
    /// Takes in what was counted within `secs`.
    pub fn take(&mut self, metrics: &Metrics, secs: f64) {
        self.counted.resize_with(ACTIONS.len(), Counted::default);
        for (action, counted) in ACTIONS.iter().zip(&mut self.counted) {
            let (mut n, unit) = (
                (action.get)(metrics),
                if action.is_time { 1e6 } else { 1.0 },
            );
            // a counter of another scheduler's life: a delta that wrapped
            if n > u64::MAX / 2 {
                n = 0;
            }
            counted.sum = counted.sum.saturating_add((n as f64 / unit) as u64);
            if counted.rates.len() == HISTORY {
                counted.rates.pop_front();
            }
            counted.rates.push_back(n as f64 / unit / secs);
        }
    }

    /// Of each of [`ACTIONS`]; none before the first reading that has counters.
    pub fn counted(&self) -> impl Iterator<Item = (&'static Action, &Counted)> {
        ACTIONS.iter().zip(&self.counted)
    }
}

/// A curve, a character for each reading; the largest is as high as a line.
#[must_use]
pub fn curve(rates: &VecDeque<f64>) -> String {
    const STEPS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = rates.iter().copied().fold(0.0, f64::max);
    let step = |rate: &f64| {
        if *rate <= 0.0 {
            return STEPS[0];
        }
        let height = (rate / most * 8.0).ceil() as usize;
        STEPS[height.clamp(1, 8)]
    };
    rates.iter().map(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_counted_per_second_within_bounds() {
        let mut actions = Actions::default();
        assert_eq!(actions.counted().count(), 0);
        let metrics = Metrics {
            donations: 10,
            donated_ns: 4_000_000,
            stale: u64::MAX, // one less than 0
            ..Metrics::default()
        };
        for _ in 0..HISTORY + 5 {
            actions.take(&metrics, 2.0);
        }
        let of = |name: &str| {
            let mut all = actions.counted();
            all.find(|(action, _)| action.name == name)
                .expect("known")
                .1
        };
        let n = HISTORY as u64 + 5;
        assert_eq!(
            (of("donations").sum, of("donations").rates[0]),
            (10 * n, 5.0)
        );
        assert_eq!(
            (of("donated ms").sum, of("donated ms").rates[0]),
            (4 * n, 2.0)
        );
        assert_eq!(of("stale").sum, 0);
        assert_eq!(of("donations").rates.len(), HISTORY);
    }

    #[test]
    fn a_curve_reaches_from_floor_to_ceiling() {
        let rates = VecDeque::from([0.0, 0.1, 4.0, 8.0]);
        assert_eq!(curve(&rates), " ▁▄█");
        assert_eq!(curve(&VecDeque::from([0.0])), " ");
        assert_eq!(curve(&VecDeque::new()), "");
    }
}
