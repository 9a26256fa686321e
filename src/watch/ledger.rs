// SPDX-License-Identifier: GPL-2.0-only
//! Sums over waits by lock, class of locks, task, and pair of cgroups, in bounded tables. Whatever
//! is added is added to the total and to one row of each table, so that each table's rows make
//! up the total.

use super::table::{Entry, Table};
use super::view::Sums;
use crate::events::{About, Class, Site};

/// Rows of each table, besides the one of all others.
pub const LOCKS_MAX: usize = 1024;
/// Likewise.
pub const CLASSES_MAX: usize = 256;
/// Likewise.
pub const TASKS_MAX: usize = 4096;
/// Likewise.
pub const PAIRS_MAX: usize = 256;

/// Likewise.
pub const HELD_MAX: usize = 512;

/// A lock's row.
#[derive(Clone, Debug, Default)]
pub struct LockSums {
    /// Over the waits for it.
    pub sums: Sums,
    /// What last asked for it.
    pub site: Site,
}

impl Entry for LockSums {
    fn fold(&mut self, more: &Self) {
        self.sums.add(&more.sums);
    }

    fn rank(&self) -> [u64; 3] {
        self.sums.rank()
    }
}

/// A task's row.
#[derive(Clone, Debug, Default)]
pub struct TaskSums {
    /// Its own waits.
    pub waited: Sums,
    /// Waits of others for it.
    pub owned: Sums,
    /// Its process, 0 if not known.
    pub tgid: u32,
    /// Its cgroup when last seen, 0 if not known.
    pub cgroup: u64,
}

impl Entry for TaskSums {
    fn fold(&mut self, more: &Self) {
        self.waited.add(&more.waited);
        self.owned.add(&more.owned);
    }

    fn rank(&self) -> [u64; 3] {
        let (waited, owned) = (self.waited.rank(), self.owned.rank());
        std::array::from_fn(|i| waited[i].max(owned[i]))
    }
}

/// All sums.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// Over everything.
    pub total: Sums,
    /// By edge word.
    pub locks: Table<u64, LockSums>,
    /// By class.
    pub classes: Table<Class, Sums>,
    /// By pid.
    pub tasks: Table<u32, TaskSums>,
    /// By the waiter's cgroup and the owner's.
    pub pairs: Table<(u64, u64), Sums>,
    /// By class, owner and waiter.
    pub held: Table<(Class, u32, u32), Sums>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            total: Sums::default(),
            locks: Table::new(LOCKS_MAX),
            classes: Table::new(CLASSES_MAX),
            tasks: Table::new(TASKS_MAX),
            pairs: Table::new(PAIRS_MAX),
            held: Table::new(HELD_MAX),
        }
    }
}

impl Ledger {
    /// Adds `sums` to all that they are about.
    pub fn add(&mut self, about: &About, sums: &Sums) {
        self.add_to_waiter(about, sums);
        let owner = self.task(about.owner, 0, about.owner_cgroup);
        owner.owned.add(sums);
    }

    /// Counts a donation for the wait that is `about`. It went to `to`, who may be further along
    /// the chain than the owner of the lock.
    pub fn donated(&mut self, about: &About, to: u32) {
        let sums = Sums {
            donations: 1,
            ..Sums::default()
        };
        self.add_to_waiter(about, &sums);
        self.task(to, 0, 0).owned.add(&sums);
    }

    /// Counts CPU time that a donor gave and that the owner in `about` got: as much here as there.
    pub fn gave(&mut self, about: &About, ns: u64) {
        let sums = Sums {
            lent_ns: ns,
            ..Sums::default()
        };
        self.add(about, &sums);
    }

    fn add_to_waiter(&mut self, about: &About, sums: &Sums) {
        self.total.add(sums);
        let lock = self.locks.row((about.lock != 0).then_some(about.lock));
        lock.sums.add(sums);
        if about.site != Site::UNKNOWN {
            lock.site = about.site;
        }
        self.classes.row(about.class()).add(sums);
        let pair = (about.cgroup != 0).then_some((about.cgroup, about.owner_cgroup));
        self.pairs.row(pair).add(sums);
        let known = about.class().filter(|_| about.owner != 0);
        let held = known.map(|class| (class, about.owner, about.pid));
        self.held.row(held).add(sums);
        let waiter = self.task(about.pid, about.tgid, about.cgroup);
        waiter.waited.add(sums);
    }

    fn task(&mut self, pid: u32, tgid: u32, cgroup: u64) -> &mut TaskSums {
        let key = (pid != 0).then_some(pid);
        let known = self.tasks.row(key).tgid;
        // a thread stays in its process: this is another one, with the pid of one that has ended
        if tgid != 0 && known != 0 && known != tgid {
            self.tasks.retire(pid);
        }
        let row = self.tasks.row(key);
        if key.is_some() {
            row.tgid = if tgid == 0 { row.tgid } else { tgid };
            row.cgroup = if cgroup == 0 { row.cgroup } else { cgroup };
        }
        row
    }
}
