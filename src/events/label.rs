// SPDX-License-Identifier: GPL-2.0-only
//! What tasks, locks and cgroups are called, with the names that are known now.

use serde::{Deserialize, Serialize};

use super::{NameTable, Site, edge};

/// A class of locks before it has a name. Several may get the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Class {
    /// `enum lock_type` of `include/locks.h`.
    pub lock_type: u32,
    /// What asked for the lock.
    pub site: Site,
}

/// A task in a view.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Thread id.
    pub pid: u32,
    /// Process.
    pub tgid: u32,
    /// Name; empty if it is not known.
    pub comm: String,
}

/// What a row is called that stands for all that there was no room for.
pub const OTHER: &str = "other";
/// What a cgroup is called whose path is not known.
const UNKNOWN: &str = "?";

/// Names, in words.
#[derive(Clone, Copy)]
pub struct Labels<'a>(pub &'a NameTable);

impl Labels<'_> {
    /// A task, of process `tgid` if its name does not say so (0: not known either).
    pub fn task(self, pid: u32, tgid: u32) -> Task {
        let name = self.0.task(pid);
        Task {
            pid,
            tgid: if tgid == 0 {
                name.map_or(0, |name| name.tgid)
            } else {
                tgid
            },
            comm: name.map(|name| name.comm.clone()).unwrap_or_default(),
        }
    }

    /// `firefox 812`, or `812`.
    pub fn task_text(self, pid: u32) -> String {
        match self.0.task(pid) {
            Some(name) => format!("{} {pid}", name.comm),
            None => pid.to_string(),
        }
    }

    /// `mutex fdget_pos`, or `mutex` if what asked for it has no name.
    pub fn class(self, class: Class) -> String {
        let type_name = edge::type_name(u64::from(class.lock_type));
        match self.0.site(class.site) {
            Some(site) => format!("{type_name} {site}"),
            None => type_name.to_owned(),
        }
    }

    /// The class of `lock`, asked for by `site`.
    pub fn class_of(self, lock: u64, site: Site) -> String {
        let lock_type = edge::lock_type(lock);
        self.class(Class { lock_type, site })
    }

    /// A static lock's symbol, else `mutex fdget_pos 0xffff888004a51c40`.
    pub fn lock(self, lock: u64, site: Site) -> String {
        match self.0.lock(lock) {
            Some(symbol) => symbol.to_owned(),
            None => format!("{} {:#x}", self.class_of(lock, site), edge::address(lock)),
        }
    }

    /// The path of a cgroup.
    pub fn cgroup(self, id: u64) -> String {
        self.0.cgroup(id).unwrap_or(UNKNOWN).to_owned()
    }
}
