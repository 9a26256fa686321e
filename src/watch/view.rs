// SPDX-License-Identifier: GPL-2.0-only
//! What `top` shows: the tables of a [`super::Watch`] at one moment, the largest inversion time
//! first. This is also the JSON of the stats socket's target `watch`: append-only.

use serde::{Deserialize, Serialize};

pub use crate::events::Task;

/// Sums over waits. Times are in ns of the kernel's monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    /// Waits that ended, and those that go on.
    pub waits: u64,
    /// How long they lasted.
    pub waited_ns: u64,
    /// Of that, inversion time: an owner could have run, did not, and had a later key.
    pub inverted_ns: u64,
    /// The longest wait.
    pub longest_ns: u64,
    /// CPU time that owners got from donors for these waits: the waiters gave it. Charged up to now.
    #[serde(default)]
    pub lent_ns: u64,
    /// Donations begun for these waits.
    pub donations: u64,
}

/// A lock; or, as `id` 0, all locks that there was no room for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockRow {
    /// Edge word.
    pub id: u64,
    /// Type, as `--locks` calls it.
    pub lock_type: String,
    /// Its class: type and what asked for it, `mutex fdget_pos`.
    pub class: String,
    /// What it is called: a static lock's symbol, else its class and address.
    pub name: String,
    /// Over its waits.
    pub sums: Sums,
    /// Tasks that wait for it now.
    pub waiting_now: u32,
    /// Its owner now, as far as is known.
    pub owner: Option<Task>,
}

/// A class of locks; or, named `other`, all that there was no room for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassRow {
    /// `mutex fdget_pos`.
    pub class: String,
    /// Over the waits for its locks.
    pub sums: Sums,
    /// Tasks that wait for one of them now.
    pub waiting_now: u32,
}

/// A task as a waiter, and as an owner.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRow {
    /// Which.
    pub task: Task,
    /// Path of its cgroup, when last seen; empty if not known.
    pub cgroup: String,
    /// Its own waits; donations, time lent: those that it gave.
    pub waited: Sums,
    /// Waits of others for it; donations, time lent: those that it got.
    pub owned: Sums,
    /// What it waits for now: the name of a lock.
    pub waits_for: Option<String>,
}

/// Waits of tasks in one cgroup for owners in another (or the same).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairRow {
    /// Path of the waiters' cgroup.
    pub waiter: String,
    /// Path of the owners' cgroup.
    pub owner: String,
    /// Over those waits.
    pub sums: Sums,
}

/// Waits of tasks of one name for owners of another, for locks of one class; named `other`, all that there was
/// no room for, or of which no owner is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldRow {
    /// `mutex fdget_pos`.
    pub class: String,
    /// Who kept others waiting: one of them.
    pub owner: Task,
    /// Who waited: likewise.
    pub waiter: Task,
    /// Over those waits.
    pub sums: Sums,
}

/// One step of a chain: a task, and what it sleeps on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The waiter.
    pub task: Task,
    /// Edge word of its lock.
    pub lock: u64,
    /// Name of that lock.
    pub lock_name: String,
    /// How long it has been waiting.
    pub waited_ns: u64,
}

/// donor -> lock -> owner -> ... -> the first task that waits for no lock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// From the donor on; at least one.
    pub links: Vec<Link>,
    /// The task at the end; `None`: it is not known, or the chain is a cycle.
    pub end: Option<Task>,
    /// It leads back to a task in it: a deadlock, if it lasts.
    pub cycle: bool,
    /// Donations begun for the donor in this wait.
    pub donations: u64,
}

/// Everything at one moment. Sums are since the watcher was started (by the first who watched), or the
/// recording began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// The kernel's monotonic clock, in ns.
    pub time_ns: u64,
    /// Since when sums are kept, likewise.
    pub since_ns: u64,
    /// Whether the scheduler donates; else it observes.
    pub donating: bool,
    /// Events that are missing in the sums.
    pub lost_events: u64,
    /// Over all waits.
    pub total: Sums,
    /// Tasks that wait for a lock now.
    pub waiting_now: u32,
    /// The locks of the largest inversion time, then waiting time.
    pub locks: Vec<LockRow>,
    /// Classes of locks, likewise.
    pub classes: Vec<ClassRow>,
    /// Tasks by inversion time as waiter or owner.
    pub tasks: Vec<TaskRow>,
    /// Pairs of cgroups, likewise.
    pub pairs: Vec<PairRow>,
    /// Who kept whom waiting, by what, likewise.
    #[serde(default)]
    pub held: Vec<HeldRow>,
    /// Chains as they stand, the longest wait first; those that are the rest of another are left out.
    pub chains: Vec<Chain>,
}

/// An event of a task's or a lock's history, in words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryLine {
    /// The kernel's monotonic clock, in ns.
    pub time_ns: u64,
    /// `firefox 812 waits for mutex fdget_pos of tar 907`.
    pub text: String,
}
