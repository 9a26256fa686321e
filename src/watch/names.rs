//! Names of what events speak of in numbers: tasks, call sites, locks, cgroups. Whoever finds them
//! out (`crate::naming`, or a recording) hands them on as [`Names`], each only once.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

/// What asked for a lock, `enum proxy_site_kind` of `include/events.h` and its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Site {
    /// `enum proxy_site_kind`.
    pub kind: u32,
    /// Process that a `SITE_USER` lies in, else 0.
    pub tgid: u32,
    /// Address, or for `SITE_MMAP` a process.
    pub at: u64,
}

/// Name of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskName {
    /// Its process.
    pub tgid: u32,
    /// `/proc/PID/comm`.
    pub comm: String,
}

/// What got a name since somebody was last told; later names replace earlier ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// By pid.
    pub tasks: Vec<(u32, TaskName)>,
    /// A class of locks is the type of the lock and this: `fdget_pos`, `mmap_lock of firefox`,
    /// `mysqld+0x1a2b`.
    pub sites: Vec<(Site, String)>,
    /// Static locks, by edge word: `cgroup_mutex`.
    pub locks: Vec<(u64, String)>,
    /// By id: paths below the root of the hierarchy, `/` itself included.
    pub cgroups: Vec<(u64, String)>,
}

impl Names {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
            && self.sites.is_empty()
            && self.locks.is_empty()
            && self.cgroups.is_empty()
    }
}

/// All names that are known. Each kind has at most `NAMES_MAX`; the oldest go first.
#[derive(Clone, Debug, Default)]
pub struct NameTable {
    tasks: HashMap<u32, TaskName>,
    sites: HashMap<Site, String>,
    locks: HashMap<u64, String>,
    cgroups: HashMap<u64, String>,
}

impl NameTable {
    /// Takes in new names.
    pub fn learn(&mut self, names: &Names) {
        self.tasks.extend(names.tasks.iter().cloned());
        self.sites.extend(names.sites.iter().cloned());
        self.locks.extend(names.locks.iter().cloned());
        self.cgroups.extend(names.cgroups.iter().cloned());
    }
}
