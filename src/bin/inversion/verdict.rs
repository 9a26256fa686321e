// SPDX-License-Identifier: GPL-2.0-only
//! Owns the decision whether a trial staged an inversion. Only those that did have a factor.

use std::fmt;

/// A wait cannot be shorter than the CPU time that it waited for; the slack is for clocks that are
/// read as of the last tick.
const SHORTEST_FACTOR: f64 = 0.85;

/// What is known after a trial whose waiter came back.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// For each holder, end owner first: was it inside its syscall when the waiter's began?
    pub inside: Vec<bool>,
    /// For each holder but the first: was it seen blocked before the waiter went?
    pub blocked: Vec<bool>,
    pub owner: Owner,
    /// Did the waiter find that it had the policy that it was to have?
    pub waiter_policy: bool,
    /// How often the waiter went to sleep in its syscall.
    pub waiter_switches: u64,
    /// CPU time the holders still needed when the wait began.
    pub need_ns: u64,
    pub wait_ns: u64,
    /// Of the wait, the time that the waiter was awake: ran, or waited for a CPU itself.
    pub awake_ns: u64,
    /// Below this a trial says more about the clocks than about the scheduler.
    pub need_min_ns: u64,
}

/// What the end owner did as the wait began, and what shows that it had to compete for its CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// It wanted to run; did the hogs keep it off the CPU before the waiter went?
    Runnable { starved: bool },
    /// It slept until it was woken.
    Asleep(Sleep),
    /// It slept until the waiter woke it.
    Serving(Service),
}

/// What was seen of such an owner just before the waiter went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    pub asleep: bool,
    /// Had it its low priority?
    pub low: bool,
    /// Had each CPU on which it might wake a hog that wanted to run there?
    pub busy: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sleep {
    /// Was it seen asleep, and the waiter blocked, just before it was woken?
    pub overlaps: bool,
    /// Had it its low priority then?
    pub low: bool,
    /// Had each CPU on which it might have woken a hog that wanted to run there?
    pub busy: bool,
    /// From the beginning of the wait to the wakeup.
    pub slept_ns: u64,
}

impl Owner {
    fn judge(self) -> Result<(), NotStaged> {
        match self {
            Owner::Runnable { starved: true } => Ok(()),
            Owner::Runnable { starved: false } => Err(NotStaged::OwnerNotStarved),
            Owner::Asleep(sleep) if !sleep.overlaps || sleep.slept_ns == 0 => {
                Err(NotStaged::WaiterMissedSleep)
            }
            Owner::Asleep(sleep) if !sleep.low => Err(NotStaged::SleeperNotLow),
            Owner::Asleep(sleep) if !sleep.busy => Err(NotStaged::CpuFreeAtWakeup),
            Owner::Asleep(_) => Ok(()),
            Owner::Serving(service) if !service.asleep => Err(NotStaged::ServerNotAsleep),
            Owner::Serving(service) if !service.low => Err(NotStaged::SleeperNotLow),
            Owner::Serving(service) if !service.busy => Err(NotStaged::CpuFreeAtWakeup),
            Owner::Serving(_) => Ok(()),
        }
    }

    fn slept_ns(self) -> u64 {
        match self {
            Owner::Runnable { .. } | Owner::Serving(_) => 0,
            Owner::Asleep(sleep) => sleep.slept_ns,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NotStaged {
    OwnerNotInside,
    MiddleNotBlocked,
    OwnerNotStarved,
    WaiterMissedSleep,
    SleeperNotLow,
    ServerNotAsleep,
    CpuFreeAtWakeup,
    WrongPolicy,
    WaiterDidNotSleep,
    TooLittleNeeded,
    WaitTooShort,
}

impl fmt::Display for NotStaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NotStaged::OwnerNotInside => "the owner was not in its critical section",
            NotStaged::MiddleNotBlocked => "the middle of the chain was not blocked",
            NotStaged::OwnerNotStarved => "the hogs did not keep the owner off the CPU",
            NotStaged::WaiterMissedSleep => "the waiter did not block while the owner slept",
            NotStaged::SleeperNotLow => "the owner woke without its low priority",
            NotStaged::ServerNotAsleep => "the owner did not sleep before the waiter went",
            NotStaged::CpuFreeAtWakeup => "the hogs left a CPU free for the owner to wake on",
            NotStaged::WrongPolicy => "the waiter did not have its scheduling policy",
            NotStaged::WaiterDidNotSleep => "the waiter did not sleep",
            NotStaged::TooLittleNeeded => "the owner needed too little CPU",
            NotStaged::WaitTooShort => "the wait ended before the owner can have been done",
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    pub need_ns: u64,
    pub wait_ns: u64,
    /// Of the wait, the time that the owner slept and no scheduler could have helped.
    pub slept_ns: u64,
    /// Of the wait, the time that the waiter did not sleep.
    pub awake_ns: u64,
}

impl Measured {
    /// Time that the owners could have run, did not, and the waiter waited because of it.
    pub fn inverted_ns(&self) -> u64 {
        self.wait_ns
            .saturating_sub(self.slept_ns + self.need_ns + self.awake_ns)
    }

    pub fn factor(&self) -> f64 {
        self.wait_ns.saturating_sub(self.slept_ns) as f64 / self.need_ns as f64
    }
}

impl Evidence {
    pub fn judge(&self) -> Result<Measured, NotStaged> {
        if self.inside.is_empty() || self.inside.contains(&false) {
            return Err(NotStaged::OwnerNotInside);
        }
        if self.blocked.contains(&false) {
            return Err(NotStaged::MiddleNotBlocked);
        }
        self.owner.judge()?;
        if !self.waiter_policy {
            return Err(NotStaged::WrongPolicy);
        }
        if self.waiter_switches == 0 {
            return Err(NotStaged::WaiterDidNotSleep);
        }
        if self.need_ns < self.need_min_ns.max(1) {
            return Err(NotStaged::TooLittleNeeded);
        }
        let measured = Measured {
            need_ns: self.need_ns,
            wait_ns: self.wait_ns,
            slept_ns: self.owner.slept_ns(),
            awake_ns: self.awake_ns,
        };
        if measured.factor() < SHORTEST_FACTOR {
            return Err(NotStaged::WaitTooShort);
        }
        Ok(measured)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Evidence {
        Evidence {
            inside: vec![true, true],
            blocked: vec![true],
            owner: Owner::Runnable { starved: true },
            waiter_policy: true,
            waiter_switches: 1,
            need_ns: 60_000_000,
            wait_ns: 90_000_000,
            awake_ns: 1_000_000,
            need_min_ns: 12_000_000,
        }
    }

    #[test]
    fn a_shown_inversion_has_a_factor() {
        let measured = good().judge();
        assert_eq!(
            measured,
            Ok(Measured {
                need_ns: 60_000_000,
                wait_ns: 90_000_000,
                slept_ns: 0,
                awake_ns: 1_000_000,
            })
        );
        assert_eq!(measured.map(|measured| measured.factor()), Ok(1.5));
        assert_eq!(
            measured.map(|measured| measured.inverted_ns()),
            Ok(29_000_000)
        );
    }

    #[test]
    fn each_piece_of_evidence_is_required() {
        let cases = [
            (
                Evidence {
                    inside: vec![],
                    ..good()
                },
                NotStaged::OwnerNotInside,
            ),
            (
                Evidence {
                    inside: vec![false, true],
                    ..good()
                },
                NotStaged::OwnerNotInside,
            ),
            (
                Evidence {
                    inside: vec![true, false],
                    ..good()
                },
                NotStaged::OwnerNotInside,
            ),
            (
                Evidence {
                    blocked: vec![false],
                    ..good()
                },
                NotStaged::MiddleNotBlocked,
            ),
            (
                Evidence {
                    owner: Owner::Runnable { starved: false },
                    ..good()
                },
                NotStaged::OwnerNotStarved,
            ),
            (
                Evidence {
                    waiter_policy: false,
                    ..good()
                },
                NotStaged::WrongPolicy,
            ),
            (
                Evidence {
                    waiter_switches: 0,
                    ..good()
                },
                NotStaged::WaiterDidNotSleep,
            ),
            (
                Evidence {
                    need_ns: 11_000_000,
                    ..good()
                },
                NotStaged::TooLittleNeeded,
            ),
            (
                Evidence {
                    need_ns: 0,
                    need_min_ns: 0,
                    ..good()
                },
                NotStaged::TooLittleNeeded,
            ),
            (
                Evidence {
                    wait_ns: 50_000_000,
                    ..good()
                },
                NotStaged::WaitTooShort,
            ),
        ];
        for (evidence, reason) in cases {
            assert_eq!(evidence.judge(), Err(reason), "{evidence:?}");
        }
    }

    #[test]
    fn sleep_is_no_part_of_the_factor() {
        let measured = asleep(|_| ()).judge();
        assert_eq!(measured.map(|measured| measured.factor()), Ok(1.0));
    }

    #[test]
    fn a_sleep_has_evidence_of_its_own() {
        let reason = |change| asleep(change).judge().err();
        let missed = Some(NotStaged::WaiterMissedSleep);
        assert_eq!(reason(|sleep| sleep.overlaps = false), missed);
        assert_eq!(reason(|sleep| sleep.slept_ns = 0), missed);
        let not_low = Some(NotStaged::SleeperNotLow);
        assert_eq!(reason(|sleep| sleep.low = false), not_low);
        let free = Some(NotStaged::CpuFreeAtWakeup);
        assert_eq!(reason(|sleep| sleep.busy = false), free);
        let short = Some(NotStaged::WaitTooShort);
        assert_eq!(reason(|sleep| sleep.slept_ns = 45_000_000), short);
    }

    fn asleep(change: fn(&mut Sleep)) -> Evidence {
        let mut sleep = Sleep {
            overlaps: true,
            low: true,
            busy: true,
            slept_ns: 30_000_000,
        };
        change(&mut sleep);
        Evidence {
            owner: Owner::Asleep(sleep),
            ..good()
        }
    }

    #[test]
    fn a_server_has_evidence_of_its_own() {
        let serving = |asleep, low, busy| Evidence {
            owner: Owner::Serving(Service { asleep, low, busy }),
            ..good()
        };
        let reason = |evidence: Evidence| evidence.judge().err();
        let not_asleep = Some(NotStaged::ServerNotAsleep);
        assert_eq!(reason(serving(false, true, true)), not_asleep);
        let not_low = Some(NotStaged::SleeperNotLow);
        assert_eq!(reason(serving(true, false, true)), not_low);
        let free = Some(NotStaged::CpuFreeAtWakeup);
        assert_eq!(reason(serving(true, true, false)), free);
        let measured = serving(true, true, true).judge();
        assert_eq!(measured.map(|measured| measured.factor()), Ok(1.5));
    }

    #[test]
    fn clocks_may_lag_by_a_little() {
        assert!(
            Evidence {
                wait_ns: 57_000_000,
                ..good()
            }
            .judge()
            .is_ok()
        );
    }
}
