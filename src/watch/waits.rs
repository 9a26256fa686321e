// SPDX-License-Identifier: GPL-2.0-only
//! The waits that go on, and the owners of the locks in them, as told by events. Unlike the
//! agent's graph it knows what a wait is about, and it has a bound.

use std::collections::HashMap;

use super::ledger::About;
use super::{Site, view::Sums};
use crate::abi;
use crate::agent::edge;

/// Most waits that are kept. Those beyond it are not shown while they last; their sums, which come
/// with their ends, are right nevertheless.
pub const WAITS_MAX: usize = 16_384;

/// A wait that goes on.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    /// Edge word.
    pub lock: u64,
    /// What asked for it.
    pub site: Site,
    /// Process of the waiter.
    pub tgid: u32,
    /// Its cgroup.
    pub cgroup: u64,
    /// When it began.
    pub since_ns: u64,
    /// Number of the wait, as BPF counts them for this task.
    pub seq: u64,
    /// Inversion time, as far as known.
    pub inverted_ns: u64,
    /// Donations begun for it.
    pub donations: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Owner {
    pid: u32,
    cgroup: u64,
    nr_waiting: u32,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Waits {
    waits: HashMap<u32, Wait>,
    /// lock → owner, for locks that are waited for
    owners: HashMap<u64, Owner>,
}

/// `now` if it is known, else what was known before.
fn known<T: Default + PartialEq>(now: T, before: T) -> T {
    if now == T::default() { before } else { now }
}

impl Waits {
    /// All waits, by pid.
    pub fn all(&self) -> &HashMap<u32, Wait> {
        &self.waits
    }

    /// The wait of `pid`, if it waits.
    pub fn get(&self, pid: u32) -> Option<&Wait> {
        self.waits.get(&pid)
    }

    /// The owner of `lock`, if a task waits for it and its owner is known.
    pub fn owner(&self, lock: u64) -> Option<u32> {
        let owner = self.owners.get(&lock)?.pid;
        (owner != 0).then_some(owner)
    }

    /// The task that `pid` waits for.
    pub fn waits_for(&self, pid: u32) -> Option<u32> {
        let owner = self.owner(self.waits.get(&pid)?.lock)?;
        (owner != pid).then_some(owner)
    }

    /// What the wait of `pid` is about.
    pub fn about(&self, pid: u32) -> Option<About> {
        let wait = self.waits.get(&pid)?;
        let owner = self.owners.get(&wait.lock).copied().unwrap_or_default();
        let foreign = owner.pid != pid;
        Some(About {
            lock: wait.lock,
            site: wait.site,
            pid,
            tgid: wait.tgid,
            cgroup: wait.cgroup,
            owner: if foreign { owner.pid } else { 0 },
            owner_cgroup: if foreign { owner.cgroup } else { 0 },
        })
    }

    /// Takes in an `EVENT_BLOCK` or `EVENT_SNAPSHOT`. Whether it is news that this wait goes on.
    pub fn begin(&mut self, event: &abi::proxy_event) -> bool {
        let site = Site::of(event);
        if let Some(wait) = self.waits.get_mut(&event.pid) {
            if (wait.seq, wait.lock) == (event.value, event.lock) {
                wait.site = known(site, wait.site);
                wait.tgid = known(event.tgid, wait.tgid);
                wait.cgroup = known(event.cgroup, wait.cgroup);
                wait.since_ns = wait.since_ns.min(event.time_ns);
                if event.kind == abi::proxy_event_kind_EVENT_SNAPSHOT {
                    wait.inverted_ns = event.inverted_ns;
                }
                self.note_owner(event);
                return false;
            }
            // from before a snapshot, which said more
            if event.time_ns < wait.since_ns {
                return false;
            }
            self.forget(event.pid);
        }
        if self.waits.len() >= WAITS_MAX {
            return false;
        }
        let wait = Wait {
            lock: event.lock,
            site,
            tgid: event.tgid,
            cgroup: event.cgroup,
            since_ns: event.time_ns,
            seq: event.value,
            inverted_ns: event.inverted_ns,
            donations: 0,
        };
        self.waits.insert(event.pid, wait);
        self.owners.entry(event.lock).or_default().nr_waiting += 1;
        self.note_owner(event);
        true
    }

    fn note_owner(&mut self, event: &abi::proxy_event) {
        if event.other != 0
            && let Some(owner) = self.owners.get_mut(&event.lock)
        {
            owner.pid = event.other;
            owner.cgroup = event.other_cgroup;
        }
    }

    /// Takes in an `EVENT_WAKE`: what the wait that is over was about, and its sums. What the
    /// event does not say is taken from the wait, if that is known.
    pub fn end(&mut self, event: &abi::proxy_event) -> (About, Sums) {
        // an event from before a snapshot may be about an earlier wait than the one that is known
        let current = self.waits.get(&event.pid);
        let current = current.is_some_and(|wait| {
            event.time_ns >= wait.since_ns && (event.lock == 0 || event.lock == wait.lock)
        });
        let mut about = About {
            lock: event.lock,
            site: Site::of(event),
            pid: event.pid,
            tgid: event.tgid,
            cgroup: event.cgroup,
            owner: event.other,
            owner_cgroup: event.other_cgroup,
        };
        if current && let Some(before) = self.about(event.pid) {
            about.lock = known(about.lock, before.lock);
            about.site = known(about.site, before.site);
            about.tgid = known(about.tgid, before.tgid);
            about.cgroup = known(about.cgroup, before.cgroup);
            if about.owner == 0 {
                (about.owner, about.owner_cgroup) = (before.owner, before.owner_cgroup);
            }
        }
        // an earlier wait than the one that is known says nothing about now
        let is_over = |wait: &Wait| event.time_ns >= wait.since_ns;
        if self.waits.get(&event.pid).is_none_or(is_over) {
            self.forget(event.pid);
            self.hand_over(&about);
        }
        let sums = Sums {
            waits: 1,
            waited_ns: event.value,
            inverted_ns: event.inverted_ns.min(event.value),
            longest_ns: event.value,
            donations: 0,
        };
        (about, sums)
    }

    /// A waiter that wakes has the lock, unless a signal woke it; the next who blocks on that
    /// lock says so. Of a lock that may have been given to readers nobody is known to be the
    /// owner until then.
    fn hand_over(&mut self, about: &About) {
        if let Some(owner) = self.owners.get_mut(&about.lock) {
            let alone = edge::is_exclusive(about.lock);
            owner.pid = if alone { about.pid } else { 0 };
            owner.cgroup = if alone { about.cgroup } else { 0 };
        }
    }

    fn forget(&mut self, pid: u32) {
        if let Some(wait) = self.waits.remove(&pid)
            && let Some(owner) = self.owners.get_mut(&wait.lock)
        {
            owner.nr_waiting -= 1;
            if owner.nr_waiting == 0 {
                self.owners.remove(&wait.lock);
            }
        }
    }

    /// These waits go on, and no others; what was known of them before still is. Returns those
    /// that are news.
    pub fn restate<'a>(&mut self, snapshot: &'a [abi::proxy_event]) -> Vec<&'a abi::proxy_event> {
        let mut news = Vec::new();
        let mut before = std::mem::take(self);
        for event in snapshot {
            let same = |wait: &Wait| (wait.seq, wait.lock) == (event.value, event.lock);
            if let Some(wait) = before.waits.remove(&event.pid).filter(same)
                && self.waits.len() < WAITS_MAX
                && !self.waits.contains_key(&event.pid)
            {
                let owner = before.owners.get(&wait.lock).copied().unwrap_or_default();
                let kept = self.owners.entry(wait.lock).or_default();
                (kept.pid, kept.cgroup) = (owner.pid, owner.cgroup);
                kept.nr_waiting += 1;
                self.waits.insert(event.pid, wait);
            }
            if self.begin(event) {
                news.push(event);
            }
        }
        news
    }

    /// All waits as events, as in a snapshot of the scheduler's.
    pub fn snapshot(&self) -> Vec<abi::proxy_event> {
        let event = |(pid, wait): (&u32, &Wait)| {
            let owner = self.owners.get(&wait.lock).copied().unwrap_or_default();
            abi::proxy_event {
                kind: abi::proxy_event_kind_EVENT_SNAPSHOT,
                time_ns: wait.since_ns,
                lock: wait.lock,
                value: wait.seq,
                pid: *pid,
                other: owner.pid,
                site: wait.site.at,
                cgroup: wait.cgroup,
                other_cgroup: owner.cgroup,
                inverted_ns: wait.inverted_ns,
                site_kind: wait.site.kind,
                tgid: wait.tgid,
                ..Default::default()
            }
        };
        self.waits.iter().map(event).collect()
    }

    /// Takes in an `EVENT_DONATE`: what the donor's wait is about.
    pub fn donated(&mut self, event: &abi::proxy_event) -> About {
        if let Some(wait) = self.waits.get_mut(&event.pid) {
            wait.donations = wait.donations.saturating_add(1);
        }
        let unknown = About {
            pid: event.pid,
            ..About::default()
        };
        self.about(event.pid).unwrap_or(unknown)
    }
}
