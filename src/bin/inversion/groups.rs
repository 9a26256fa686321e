// SPDX-License-Identifier: GPL-2.0-only
//! Owns the cgroups of a run, below the root of the unified hierarchy. Dropped, they are removed.
//!
//! Of staged inversions: one for the owners, one for the waiter, one for the hogs, below one of ours.
//! They are threaded cgroups, since workers may be threads of one process.

use crate::task::Task;
use anyhow::{Context, Result};
use scx_proxy::naming::cgroups::mount_point;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The cpu.weight of a cgroup that nobody gave another one.
pub const WEIGHT_DEFAULT: u32 = 100;
/// Over which `owner_max_percent` is enforced: the kernel's default.
const PERIOD_US: u32 = 100_000;
/// How long a cgroup may keep us waiting for the tasks that were in it to be gone.
const REMOVE_LIMIT: Duration = Duration::from_secs(2);

/// What the cgroups of owners, waiter and hogs are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupTerms {
    /// cpu.weight of the owners' during the wait.
    pub owner_weight: u32,
    pub waiter_weight: u32,
    pub hog_weight: u32,
    /// cpu.max of the owners' during the wait, in percent of one CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner_max_percent: Option<u32>,
}

impl fmt::Display for GroupTerms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (owner, waiter, hogs) = (self.owner_weight, self.waiter_weight, self.hog_weight);
        write!(f, "weights {owner}:{waiter}:{hogs}")?;
        match self.owner_max_percent {
            Some(percent) => write!(f, " max {percent}%"),
            None => Ok(()),
        }
    }
}

impl GroupTerms {
    /// The factor a waiter would see had it run the critical section itself: the hogs' weight is
    /// spread over `cpus` CPUs, and the waiter is on one of them.
    pub fn fair_ideal(&self, cpus: usize) -> f64 {
        let competing = f64::from(self.hog_weight) / cpus.max(1) as f64;
        1.0 + competing / f64::from(self.waiter_weight)
    }
}

/// Whose cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Owner,
    Waiter,
    Hog,
}

impl Role {
    const ALL: [Role; 3] = [Role::Owner, Role::Waiter, Role::Hog];

    fn name(self) -> &'static str {
        match self {
            Role::Owner => "owner",
            Role::Waiter => "waiter",
            Role::Hog => "hogs",
        }
    }
}

/// The unified hierarchy, with the cpu controller on below its root.
#[derive(Debug)]
struct Hierarchy {
    root: PathBuf,
    /// It was not: dropped, it is turned off again.
    turned_on: bool,
}

impl Hierarchy {
    fn find() -> Result<Hierarchy> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")
            .context("cannot read /proc/self/mountinfo")?;
        let root = mount_point(&mounts).context(
            "no cgroup2 file system is mounted; mount one: mount -t cgroup2 none /sys/fs/cgroup",
        )?;
        let controllers = root.join("cgroup.subtree_control");
        let on = std::fs::read_to_string(&controllers)
            .with_context(|| format!("cannot read {}", controllers.display()))?;
        let turned_on = !on.split_ascii_whitespace().any(|name| name == "cpu");
        if turned_on {
            write(&controllers, "+cpu")?;
        }
        Ok(Hierarchy { root, turned_on })
    }
}

impl Drop for Hierarchy {
    fn drop(&mut self) {
        if self.turned_on {
            let _ = write(&self.root.join("cgroup.subtree_control"), "-cpu");
        }
    }
}

/// A cgroup, removed when dropped.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    fn make(path: PathBuf) -> Result<Folder> {
        std::fs::create_dir(&path).with_context(|| {
            let path = path.display();
            format!("cannot make the cgroup {path}; run as root, where cgroups may be made")
        })?;
        Ok(Folder(path))
    }

    pub fn set(&self, file: &str, value: impl ToString) -> Result<()> {
        write(&self.0.join(file), &value.to_string())
    }
}

impl Drop for Folder {
    /// Those who were in it have been reaped; the kernel may take a moment to forget them.
    fn drop(&mut self) {
        let end = Instant::now() + REMOVE_LIMIT;
        while self.0.exists() && std::fs::remove_dir(&self.0).is_err() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text)
        .with_context(|| format!("cannot write {text:?} to {}", path.display()))
}

/// Cgroups for processes, in the root: each has a name and a cpu.weight.
#[derive(Debug)]
pub struct Beside<const N: usize> {
    pub folders: [Folder; N],
    _hierarchy: Hierarchy,
}

pub fn make_beside<const N: usize>(wanted: [(&str, u32); N]) -> Result<Beside<N>> {
    let hierarchy = Hierarchy::find()?;
    let mut folders = Vec::new();
    for (name, weight) in wanted {
        let path = hierarchy
            .root
            .join(format!("inversion.{}.{name}", std::process::id()));
        folders.push(Folder::make(path)?);
        folders[folders.len() - 1].set("cpu.weight", weight)?;
    }
    let folders = folders.try_into();
    Ok(Beside {
        folders: folders.map_err(|_| anyhow::anyhow!("a cgroup is missing"))?,
        _hierarchy: hierarchy,
    })
}

/// Owners', waiter's and hogs', below one that holds them. Dropped in the order of the fields.
#[derive(Debug)]
pub struct Groups {
    terms: GroupTerms,
    roles: Vec<Folder>,
    ours: Folder,
    _hierarchy: Hierarchy,
}

impl Groups {
    pub fn make(terms: GroupTerms) -> Result<Groups> {
        let hierarchy = Hierarchy::find()?;
        let path = hierarchy
            .root
            .join(format!("inversion.{}", std::process::id()));
        let mut groups = Groups {
            terms,
            roles: Vec::new(),
            ours: Folder::make(path)?,
            _hierarchy: hierarchy,
        };
        for role in Role::ALL {
            let folder = Folder::make(groups.ours.0.join(role.name()))?;
            folder.set("cgroup.type", "threaded")?;
            groups.roles.push(folder);
        }
        groups.ours.set("cgroup.subtree_control", "+cpu")?;
        groups.weigh(Role::Waiter, terms.waiter_weight)?;
        groups.weigh(Role::Hog, terms.hog_weight)?;
        Ok(groups)
    }

    fn folder(&self, role: Role) -> &Folder {
        &self.roles[role as usize]
    }

    fn weigh(&self, role: Role, weight: u32) -> Result<()> {
        self.folder(role).set("cpu.weight", weight)
    }

    /// Before its threads can enter a cgroup, a process must be here.
    pub fn host(&self, process: libc::pid_t) -> Result<()> {
        self.ours.set("cgroup.procs", process)
    }

    /// One task of a process that was let in.
    pub fn enter(&self, role: Role, task: Task) -> Result<()> {
        self.folder(role).set("cgroup.threads", task.id())
    }

    /// Owners have an ordinary weight and no limit until they are in their critical sections.
    pub fn release_owners(&self) -> Result<()> {
        self.folder(Role::Owner).set("cpu.max", "max")?;
        self.weigh(Role::Owner, WEIGHT_DEFAULT)
    }

    /// Owners get what the terms say.
    pub fn restrain_owners(&self) -> Result<()> {
        self.weigh(Role::Owner, self.terms.owner_weight)?;
        let Some(percent) = self.terms.owner_max_percent else {
            return Ok(());
        };
        let max = format!("{} {PERIOD_US}", percent * (PERIOD_US / 100));
        self.folder(Role::Owner).set("cpu.max", max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_have_a_name_and_an_ideal() {
        let mut terms = GroupTerms {
            owner_weight: 1,
            waiter_weight: 1000,
            hog_weight: 100,
            owner_max_percent: None,
        };
        assert_eq!(terms.to_string(), "weights 1:1000:100");
        assert!((terms.fair_ideal(1) - 1.1).abs() < 1e-9);
        assert!((terms.fair_ideal(4) - 1.025).abs() < 1e-9);
        terms.owner_max_percent = Some(5);
        assert_eq!(terms.to_string(), "weights 1:1000:100 max 5%");
    }
}
