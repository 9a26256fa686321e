// SPDX-License-Identifier: GPL-2.0-only
//! What came of return migrations, per class of locks, and what follows from that.
//! Pure: no I/O, no clock of its own.

use crate::abi;
use crate::events::{Event, What};

use super::hints::LIFETIME;

const CLASSES: usize = abi::lock_type_NR_LOCK_TYPES as usize;
const CHOICES: usize = abi::return_choice_NR_RETURN_CHOICES as usize;
/// Outcomes of a choice before it is judged.
const SAMPLES_MIN: u64 = 16;
/// Weight of a new outcome in the mean.
const WEIGHT: f64 = 1.0 / 16.0;
/// The bias stays within this: the rule itself must not be overruled.
const BIAS_MAX_NS: f64 = 8e6;
/// A donor that ran elsewhere in the end has cold caches after all; what that is taken to cost.
const MOVED_COST_NS: f64 = 500_000.0;

/// Moving mean of the time from wake to run after one choice.
#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    cost_ns: f64,
    samples: u64,
}

impl Mean {
    fn add(&mut self, cost_ns: f64) {
        let weight = if self.samples == 0 { 1.0 } else { WEIGHT };
        self.cost_ns += (cost_ns - self.cost_ns) * weight;
        self.samples += 1;
    }

    fn known(&self) -> Option<f64> {
        (self.samples >= SAMPLES_MIN).then_some(self.cost_ns)
    }
}

/// Outcomes so far.
#[derive(Debug, Default)]
pub struct Outcomes {
    means: [[Mean; CHOICES]; CLASSES],
    rounds: u64,
}

impl Outcomes {
    /// Takes in an event; those of other kinds than [`What::Return`] change nothing.
    pub fn learn(&mut self, event: &Event) {
        let What::Return(back) = event.what else {
            return;
        };
        let (class, choice) = (back.lock_type as usize, back.choice as usize);
        if let Some(mean) = self.means.get_mut(class).and_then(|c| c.get_mut(choice)) {
            let penalty = if back.moved { MOVED_COST_NS } else { 0.0 };
            mean.add(back.after_ns as f64 + penalty);
        }
    }

    /// A hint for each class of which enough is known: how much dearer the owner's CPU
    /// turned out than home.
    pub fn hints(&mut self, now_ns: u64) -> Vec<(u32, abi::return_hint)> {
        self.rounds += 1;
        let expires_ns = now_ns + LIFETIME.as_nanos() as u64;
        let mut hints = Vec::new();
        for (class, means) in self.means.iter().enumerate() {
            let home = means[abi::return_choice_RETURN_HOME as usize].known();
            let owner = means[abi::return_choice_RETURN_OWNER as usize].known();
            if let (Some(home), Some(owner)) = (home, owner) {
                let bias = (owner - home).clamp(-BIAS_MAX_NS, BIAS_MAX_NS);
                let hint = abi::return_hint {
                    expires_ns,
                    hint_seq: self.rounds,
                    owner_bias_ns: bias as i64,
                };
                hints.push((class as u32, hint));
            }
        }
        hints
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Return;

    fn outcome_of(lock_type: u32, choice: u32, moved: bool, after_ns: u64) -> Event {
        let what = What::Return(Return {
            pid: 1,
            choice,
            moved,
            after_ns,
            lock_type,
        });
        Event {
            time_ns: 0,
            cpu: 0,
            what,
        }
    }

    fn outcome(choice: u32, ns: u64) -> Event {
        outcome_of(0, choice, false, ns)
    }

    const HOME: u32 = abi::return_choice_RETURN_HOME;
    const OWNER: u32 = abi::return_choice_RETURN_OWNER;

    #[test]
    fn the_dearer_choice_gets_a_handicap() {
        let mut outcomes = Outcomes::default();
        for _ in 0..SAMPLES_MIN {
            outcomes.learn(&outcome(HOME, 1_000_000));
            assert!(outcomes.hints(0).is_empty(), "one side only, or too few");
            outcomes.learn(&outcome(OWNER, 3_000_000));
        }
        let hints = outcomes.hints(7);
        assert_eq!(hints[0].1.owner_bias_ns, 2_000_000);
        for _ in 0..200 {
            outcomes.learn(&outcome(HOME, 90_000_000));
        }
        assert_eq!(outcomes.hints(8)[0].1.owner_bias_ns, -8_000_000, "bounded");
    }

    #[test]
    fn moving_again_counts_against_a_choice() {
        let mut outcomes = Outcomes::default();
        for _ in 0..SAMPLES_MIN {
            outcomes.learn(&outcome(HOME, 1_000));
            outcomes.learn(&outcome_of(0, OWNER, true, 1_000));
        }
        assert_eq!(outcomes.hints(0)[0].1.owner_bias_ns, MOVED_COST_NS as i64);
    }

    #[test]
    fn unknown_classes_and_choices_are_ignored() {
        let mut outcomes = Outcomes::default();
        for (lock, other) in [(99, HOME), (0, 77)] {
            outcomes.learn(&outcome_of(lock, other, false, 1));
        }
        assert!(outcomes.hints(0).is_empty());
    }
}
