// SPDX-License-Identifier: GPL-2.0-only
//! Names of what events speak of in numbers: tasks, call sites, locks, cgroups. `crate::naming` or
//! a recording resolves them, and passes them on as [`Names`], each only once.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use serde::{Deserialize, Serialize};

use crate::abi;
use crate::output::printable;

/// What asked for a lock, `enum proxy_site_kind` of `include/events.h` and its value.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct Site {
    /// `enum proxy_site_kind`.
    pub kind: u32,
    /// Process that a `SITE_USER` lies in, else 0.
    pub tgid: u32,
    /// Address, or for `SITE_MMAP` a process.
    pub at: u64,
}

impl Site {
    /// Nobody knows what asked.
    pub const UNKNOWN: Self = Self {
        kind: abi::proxy_site_kind_SITE_NONE,
        tgid: 0,
        at: 0,
    };

    /// Whether its name is, or holds, that of a program.
    #[must_use]
    pub fn is_of_a_program(&self) -> bool {
        [
            abi::proxy_site_kind_SITE_USER,
            abi::proxy_site_kind_SITE_MMAP,
        ]
        .contains(&self.kind)
    }

    /// As the fields of an event say it.
    #[must_use]
    pub fn new(kind: u32, tgid: u32, at: u64) -> Self {
        match kind {
            abi::proxy_site_kind_SITE_NONE => Self::UNKNOWN,
            abi::proxy_site_kind_SITE_USER => Self { kind, tgid, at },
            _ => Self { kind, tgid: 0, at },
        }
    }
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
// recordings of older versions lack what was added since
#[serde(default)]
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

    /// Without names of tasks, programs and cgroups: what is left are the kernel's own.
    #[must_use]
    pub fn of_the_kernel(&self) -> Self {
        let sites = self
            .sites
            .iter()
            .filter(|(site, _)| !site.is_of_a_program());
        Self {
            sites: sites.cloned().collect(),
            locks: self.locks.clone(),
            ..Self::default()
        }
    }

    /// Takes in later names.
    pub fn append(&mut self, later: &Self) {
        self.tasks.extend_from_slice(&later.tasks);
        self.sites.extend_from_slice(&later.sites);
        self.locks.extend_from_slice(&later.locks);
        self.cgroups.extend_from_slice(&later.cgroups);
    }
}

/// Most names of each kind that a [`NameTable`] keeps.
pub const NAMES_MAX: usize = 8192;
/// Longest name, in bytes; the rest is cut off. Paths of containers' cgroups have some 200.
const NAME_LEN_MAX: usize = 512;

/// All names that are known. Each kind has at most `NAMES_MAX`; the oldest go first.
#[derive(Clone, Debug, Default)]
pub struct NameTable {
    tasks: Latest<u32, TaskName>,
    sites: Latest<Site, String>,
    locks: Latest<u64, String>,
    cgroups: Latest<u64, String>,
}

impl NameTable {
    /// Takes in new names.
    pub fn learn(&mut self, names: &Names) {
        for (pid, name) in &names.tasks {
            let comm = cut(&name.comm);
            let tgid = name.tgid;
            self.tasks.insert(*pid, TaskName { tgid, comm });
        }
        for (site, name) in &names.sites {
            self.sites.insert(*site, cut(name));
        }
        for (lock, name) in &names.locks {
            self.locks.insert(*lock, cut(name));
        }
        for (id, path) in &names.cgroups {
            self.cgroups.insert(*id, cut(path));
        }
    }

    /// Name of the task `pid`.
    #[must_use]
    pub fn task(&self, pid: u32) -> Option<&TaskName> {
        self.tasks.get(&pid)
    }

    /// Name of what asked for a lock.
    #[must_use]
    pub fn site(&self, site: Site) -> Option<&str> {
        self.sites.get(&site).map(String::as_str)
    }

    /// Symbol of a static lock, by edge word.
    #[must_use]
    pub fn lock(&self, word: u64) -> Option<&str> {
        self.locks.get(&word).map(String::as_str)
    }

    /// Path of the cgroup `id`.
    #[must_use]
    pub fn cgroup(&self, id: u64) -> Option<&str> {
        self.cgroups.get(&id).map(String::as_str)
    }

    /// All that is known, for a first batch.
    #[must_use]
    pub fn to_names(&self) -> Names {
        Names {
            tasks: self.tasks.to_vec(),
            sites: self.sites.to_vec(),
            locks: self.locks.to_vec(),
            cgroups: self.cgroups.to_vec(),
        }
    }
}

/// The beginning of `name`, of at most `NAME_LEN_MAX` bytes, as it may be shown: a recording may be
/// anybody's.
fn cut(name: &str) -> String {
    let name = printable(&name[..name.floor_char_boundary(NAME_LEN_MAX)]);
    name[..name.floor_char_boundary(NAME_LEN_MAX)].to_owned()
}

/// A map that keeps the `NAMES_MAX` keys that were inserted last.
#[derive(Clone, Debug)]
struct Latest<K, V> {
    map: HashMap<K, (V, u64)>,
    /// Keys with the number of their insertion, the oldest first; numbers that `map` does not
    /// have any more are of no account.
    order: VecDeque<(K, u64)>,
    inserted: u64,
}

impl<K, V> Default for Latest<K, V> {
    fn default() -> Self {
        Self {
            map: HashMap::new(),
            order: VecDeque::new(),
            inserted: 0,
        }
    }
}

impl<K: Copy + Eq + Hash, V: Clone> Latest<K, V> {
    fn insert(&mut self, key: K, value: V) {
        self.inserted += 1;
        self.map.insert(key, (value, self.inserted));
        self.order.push_back((key, self.inserted));
        while self.map.len() > NAMES_MAX {
            let Some((oldest, number)) = self.order.pop_front() else {
                break;
            };
            if self.map.get(&oldest).is_some_and(|(_, n)| *n == number) {
                self.map.remove(&oldest);
            }
        }
        // what is named again and again must not make the queue long
        if self.order.len() > 2 * NAMES_MAX {
            let map = &self.map;
            self.order
                .retain(|(key, number)| map.get(key).is_some_and(|(_, n)| n == number));
        }
    }

    fn get(&self, key: &K) -> Option<&V> {
        self.map.get(key).map(|(value, _)| value)
    }

    fn to_vec(&self) -> Vec<(K, V)> {
        let entries = self.map.iter();
        entries
            .map(|(key, (value, _))| (*key, value.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(pid: u32, comm: &str) -> Names {
        let comm = comm.to_owned();
        Names {
            tasks: vec![(pid, TaskName { tgid: pid, comm })],
            ..Names::default()
        }
    }

    #[test]
    fn the_oldest_names_go_first() {
        let mut table = NameTable::default();
        let max = NAMES_MAX as u32;
        (1..=max).for_each(|pid| table.learn(&task(pid, "old")));
        table.learn(&task(1, "new"));
        table.learn(&task(max + 1, "last"));
        assert_eq!(table.to_names().tasks.len(), NAMES_MAX);
        assert_eq!(table.task(1).map(|name| name.comm.as_str()), Some("new"));
        assert_eq!(table.task(2), None);
        for _ in 0..3 * NAMES_MAX {
            table.learn(&task(7, "again"));
        }
        assert!(table.tasks.order.len() <= 2 * NAMES_MAX);
        assert!(table.task(max + 1).is_some() && table.task(3).is_some());
    }

    #[test]
    fn names_are_not_longer_than_they_may_be() {
        let mut table = NameTable::default();
        table.learn(&Names {
            locks: vec![(8, "ä".repeat(NAME_LEN_MAX))],
            ..Names::default()
        });
        assert_eq!(table.lock(8).map(str::len), Some(NAME_LEN_MAX));
        assert_eq!(table.lock(9), None);
        table.learn(&Names {
            cgroups: vec![(1, "/a\nb\x1b".into())],
            ..Names::default()
        });
        assert_eq!(table.cgroup(1), Some(r"/a\nb\u{1b}"));
    }
}
