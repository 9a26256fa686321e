// SPDX-License-Identifier: GPL-2.0-only
//! What the scheduler keeps of each cgroup: weight, limit, and what the limit has cost.

use serde::{Deserialize, Serialize};

/// A cgroup. Target `cgroups` of the stats socket: append-only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GroupRow {
    /// Of the cgroup: the inode number of its folder.
    pub id: u64,
    /// cpu.weight.
    pub weight: f64,
    /// What all of it weighs among the tasks of the root, in the unit of cpu.weight: a nice-0 task
    /// there weighs 100.
    pub effective_weight: f64,
    /// Tasks of its own and of cgroups below that competed lately, on average.
    pub competing: f64,
    /// cpu.max: CPU time in each period; 0: no limit.
    pub quota_ns: u64,
    /// ... and the period.
    pub period_ns: u64,
    /// Tasks that were parked because of that, since it was made or the scheduler loaded.
    pub throttled: u64,
    /// For how long, all of them together.
    pub throttled_ns: u64,
}

impl GroupRow {
    /// What only grows: tasks that were throttled, and for how long.
    #[must_use]
    pub fn counters(&self) -> (u64, u64) {
        (self.throttled, self.throttled_ns)
    }
}
