// SPDX-License-Identifier: GPL-2.0-only
//! Owns the waiter's scheduling policy: how it is written, how a waiter gets it, and what the fair
//! ideal is then.
//!
//! A SCHED_FIFO waiter that computed would starve everything below it, this program included. It
//! does not: it gets the policy while it sleeps at its gate, makes one system call that sleeps, and
//! ends. Should that go wrong, RLIMIT_RTTIME makes the kernel end it.

use crate::sys;
use crate::task::Task;
use crate::weight;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use std::str::FromStr;

const FIFO_DEFAULT: u8 = 50;
const FIFO_RANGE: std::ops::RangeInclusive<u8> = 1..=99;

/// CPU time without a sleep after which the kernel kills a real-time waiter. More than any critical
/// section, since the kernel lets a waiter spin while the owner of a mutex runs.
const FIFO_CPU_LIMIT_US: u64 = 10_000_000;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum WaiterPolicy {
    /// Not real-time, by its nice value: SCHED_OTHER, or what this program was started with (a
    /// scheduler loaded for some tasks only wants SCHED_EXT).
    #[default]
    Other,
    /// SCHED_FIFO of this priority.
    Fifo(u8),
}

impl fmt::Display for WaiterPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WaiterPolicy::Other => f.pad("other"),
            WaiterPolicy::Fifo(priority) => f.pad(&format!("fifo:{priority}")),
        }
    }
}

impl From<WaiterPolicy> for String {
    fn from(policy: WaiterPolicy) -> String {
        policy.to_string()
    }
}

impl TryFrom<String> for WaiterPolicy {
    type Error = String;

    fn try_from(text: String) -> Result<WaiterPolicy, String> {
        text.parse()
    }
}

impl FromStr for WaiterPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<WaiterPolicy, String> {
        let (name, priority) = match text.split_once(':') {
            Some((name, priority)) => (name, Some(priority)),
            None => (text, None),
        };
        match (name, priority) {
            ("other", None) => Ok(WaiterPolicy::Other),
            ("fifo", None) => Ok(WaiterPolicy::Fifo(FIFO_DEFAULT)),
            ("fifo", Some(priority)) => match priority.parse() {
                Ok(priority) if FIFO_RANGE.contains(&priority) => Ok(WaiterPolicy::Fifo(priority)),
                _ => Err(format!(
                    "a SCHED_FIFO priority is a number from {} to {}",
                    FIFO_RANGE.start(),
                    FIFO_RANGE.end()
                )),
            },
            _ => Err("a policy is other, fifo or fifo:PRIO".to_string()),
        }
    }
}

impl WaiterPolicy {
    pub fn is_fair(self) -> bool {
        self == WaiterPolicy::Other
    }

    /// Nothing in the fair class competes with a real-time waiter.
    pub fn fair_ideal(self, hogs: u32, hog_nice: i32, waiter_nice: i32) -> f64 {
        match self {
            WaiterPolicy::Other => weight::fair_ideal(hogs, hog_nice, waiter_nice),
            WaiterPolicy::Fifo(_) => 1.0,
        }
    }

    /// Whether this user may have it, found out with this process before anything is staged.
    pub fn check_allowed(self) -> Result<()> {
        let WaiterPolicy::Fifo(priority) = self else {
            return Ok(());
        };
        let try_it = || {
            let (before, before_priority) = sys::own_policy()?;
            sys::set_policy(0, libc::SCHED_FIFO, priority)?;
            sys::set_policy(0, before, before_priority)
        };
        try_it().with_context(|| {
            format!(
                "cannot take SCHED_FIFO priority {priority}; run as root (or with \
                 CAP_SYS_NICE, or an rtprio limit that allows it), or choose --waiter-policy \
                 other"
            )
        })
    }

    /// Called by the waiter itself, before it is ready.
    pub fn prepare(self) -> io::Result<()> {
        match self {
            WaiterPolicy::Other => Ok(()),
            WaiterPolicy::Fifo(_) => sys::limit_realtime_us(FIFO_CPU_LIMIT_US),
        }
    }

    /// Asked by the waiter itself, when it waits next.
    pub fn is_own(self) -> bool {
        sys::own_policy().is_ok_and(|(policy, priority)| match self {
            WaiterPolicy::Other => priority == 0,
            WaiterPolicy::Fifo(wanted) => policy == libc::SCHED_FIFO && priority == wanted,
        })
    }

    /// Called by the parent, when the waiter has only its system call left to make.
    pub fn give_to(self, waiter: Task) -> Result<()> {
        match self {
            WaiterPolicy::Other => Ok(()),
            WaiterPolicy::Fifo(priority) => {
                sys::set_policy(waiter.id(), libc::SCHED_FIFO, priority)
                    .context("cannot give the waiter its SCHED_FIFO priority")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_read_as_they_are_written() {
        for policy in [
            WaiterPolicy::Other,
            WaiterPolicy::Fifo(1),
            WaiterPolicy::Fifo(99),
        ] {
            assert_eq!(policy.to_string().parse(), Ok(policy));
        }
        assert_eq!("fifo".parse(), Ok(WaiterPolicy::Fifo(50)));
        assert_eq!(WaiterPolicy::Fifo(7).to_string(), "fifo:7");
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "", "rr", "other:1", "fifo:", "fifo:0", "fifo:100", "fifo:x", "FIFO",
        ] {
            assert!(text.parse::<WaiterPolicy>().is_err(), "{text}");
        }
    }

    #[test]
    fn json_has_the_same_text() -> Result<(), serde_json::Error> {
        let json = serde_json::to_string(&WaiterPolicy::Fifo(50))?;
        assert_eq!(json, "\"fifo:50\"");
        let read: WaiterPolicy = serde_json::from_str(&json)?;
        assert_eq!(read, WaiterPolicy::Fifo(50));
        Ok(())
    }

    #[test]
    fn a_real_time_waiter_has_no_competitor() {
        assert_eq!(WaiterPolicy::Fifo(50).fair_ideal(64, -20, 19), 1.0);
        assert_eq!(WaiterPolicy::Other.fair_ideal(1, 0, 0), 2.0);
    }
}
