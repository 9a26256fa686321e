// SPDX-License-Identifier: GPL-2.0-only
//! The waits that go on, and the owners of the locks in them, as told by events: the one tracker that the
//! agent, the watcher's tables, metrics, recordings and traces have in common. Each has its own, is its only writer, and keeps
//! beside it what only it needs. Whatever events come, there are at most [`WAITS_MAX`] waits.
//! Pure: no I/O, no clock.

use std::collections::HashMap;

use crate::events::{About, Begun, Ended, Event, Site, What, edge};

/// Most waits that are known. Those beyond are not known while they last; their sums, which come with their
/// ends, are right nevertheless.
pub const WAITS_MAX: usize = 16_384;

/// Waits that are over and remembered, for what is told of them later.
const LENT_MAX: usize = 4096;

/// A wait that goes on; `D`: what is kept of it beside what chains are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait<D = Details> {
    /// Edge word.
    pub lock: u64,
    /// Number of the wait, as BPF counts them for this task.
    pub number: u64,
    /// When it began.
    pub since_ns: u64,
    /// The rest.
    pub details: D,
}

impl<D> Wait<D> {
    fn is(&self, begun: &Begun) -> bool {
        (self.number, self.lock) == (begun.number, begun.about.lock)
    }
}

/// What a user of the tracker keeps of each wait.
pub trait Detail: Copy + Default {
    /// Takes in the beginning of the wait, or what says later that it goes on.
    fn note(&mut self, event: &Event, begun: &Begun);
    /// Says of the waiter what it knows.
    fn tell(&self, about: &mut About);
    /// A donation begins for it.
    fn donated(&mut self);
    /// Whether donations began for it, as far as that is kept.
    fn was_lent(&self) -> bool;
}

/// Nothing more.
impl Detail for () {
    fn note(&mut self, _: &Event, _: &Begun) {}
    fn tell(&self, _: &mut About) {}
    fn donated(&mut self) {}
    fn was_lent(&self) -> bool {
        false
    }
}

/// All that events say of a wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// What asked for the lock.
    pub site: Site,
    /// Process of the waiter.
    pub tgid: u32,
    /// Its cgroup.
    pub cgroup: u64,
    /// Where it began.
    pub cpu: u32,
    /// Inversion time, as far as known.
    pub inverted_ns: u64,
    /// Donations begun for it.
    pub donations: u64,
}

/// `now` if it is known, else what was known before.
fn known<T: Default + PartialEq>(now: T, before: T) -> T {
    if now == T::default() { before } else { now }
}

impl Detail for Details {
    fn note(&mut self, event: &Event, begun: &Begun) {
        self.site = known(begun.about.site, self.site);
        self.tgid = known(begun.about.tgid, self.tgid);
        self.cgroup = known(begun.about.cgroup, self.cgroup);
        self.cpu = event.cpu;
        if event.is_snapshot() || self.inverted_ns == 0 {
            self.inverted_ns = begun.inverted_ns;
        }
    }

    fn tell(&self, about: &mut About) {
        about.site = self.site;
        about.tgid = self.tgid;
        about.cgroup = self.cgroup;
    }

    fn donated(&mut self) {
        self.donations = self.donations.saturating_add(1);
    }

    fn was_lent(&self) -> bool {
        self.donations > 0
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Owner {
    pid: u32,
    nr_waiting: u32,
    cgroup: u64,
}

/// What an event changed.
#[allow(missing_docs)] // of fields: see each change
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<D = Details> {
    /// No wait: it is of another kind, only says again what is known, is from before a snapshot that said more,
    /// or there is no room.
    None,
    /// A wait begins; `before`: one of the same task whose end was lost.
    Began { before: Option<Wait<D>> },
    /// A wait is over: with what was known of what it was about; and it itself, if it was known.
    Ended { ended: Ended, wait: Option<Wait<D>> },
    /// A donation begins: what the donor's wait is about, to whom, over how many locks.
    Donated { about: About, to: u32, locks: u64 },
    /// A donor paid for CPU time that another task got, who stands for the owner in what it is about: what the donor
    /// waits for, or has just waited for.
    Gave { about: About, ns: u64 },
}

/// What a snapshot changed.
#[derive(Debug, Default)]
pub struct Restated<'a, D = Details> {
    /// Waits that were not known.
    pub news: Vec<&'a Event>,
    /// Waits that are over, by pid: nobody knows since when.
    pub over: Vec<(u32, Wait<D>)>,
}

/// All of them.
#[derive(Clone, Debug)]
pub struct Waits<D = Details> {
    waits: HashMap<u32, Wait<D>>,
    /// lock → owner, for locks that are waited for
    owners: HashMap<u64, Owner>,
    /// what donors have waited for that do not wait any more: the last of what they gave is told after that
    lent: HashMap<u32, About>,
}

impl<D> Default for Waits<D> {
    fn default() -> Self {
        Self {
            waits: HashMap::new(),
            owners: HashMap::new(),
            lent: HashMap::new(),
        }
    }
}

impl<D: Detail> Waits<D> {
    /// All waits, by pid.
    pub fn all(&self) -> &HashMap<u32, Wait<D>> {
        &self.waits
    }

    /// The wait of `pid`, if it waits.
    pub fn get(&self, pid: u32) -> Option<&Wait<D>> {
        self.waits.get(&pid)
    }

    /// Locks that are waited for.
    #[cfg(test)]
    pub fn nr_locks(&self) -> usize {
        self.owners.len()
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
        let mut about = About {
            lock: wait.lock,
            pid,
            owner: if foreign { owner.pid } else { 0 },
            owner_cgroup: if foreign { owner.cgroup } else { 0 },
            ..About::default()
        };
        wait.details.tell(&mut about);
        Some(about)
    }

    /// Takes in an event.
    pub fn take(&mut self, event: &Event) -> Change<D> {
        match &event.what {
            What::Block(begun) | What::Snapshot(begun) => self.begin(event, begun),
            What::Wake(ended) => self.end(event, *ended),
            What::Donate {
                donor,
                owner,
                locks,
            } => {
                if let Some(wait) = self.waits.get_mut(donor) {
                    wait.details.donated();
                }
                let unknown = || About {
                    pid: *donor,
                    ..About::default()
                };
                Change::Donated {
                    about: self.about(*donor).unwrap_or_else(unknown),
                    to: *owner,
                    locks: *locks,
                }
            }
            What::Gave(gave) => {
                let about = self.about(gave.donor);
                let about = about.or_else(|| self.lent.get(&gave.donor).copied());
                let about = about.unwrap_or_default();
                Change::Gave {
                    about: About {
                        pid: gave.donor,
                        cgroup: known(gave.donor_cgroup, about.cgroup),
                        owner: gave.owner,
                        owner_cgroup: gave.owner_cgroup,
                        ..about
                    },
                    ns: gave.ns,
                }
            }
            _ => Change::None,
        }
    }

    fn begin(&mut self, event: &Event, begun: &Begun) -> Change<D> {
        let about = &begun.about;
        let mut before = None;
        if let Some(wait) = self.waits.get_mut(&about.pid) {
            if wait.is(begun) {
                wait.since_ns = wait.since_ns.min(event.time_ns);
                wait.details.note(event, begun);
                self.note_owner(about);
                return Change::None;
            }
            // from before a snapshot, which said more
            if event.time_ns < wait.since_ns {
                return Change::None;
            }
            before = self.forget(about.pid);
        }
        if self.waits.len() >= WAITS_MAX {
            return Change::None;
        }
        let mut wait = Wait {
            lock: about.lock,
            number: begun.number,
            since_ns: event.time_ns,
            details: D::default(),
        };
        wait.details.note(event, begun);
        self.lent.remove(&about.pid);
        self.waits.insert(about.pid, wait);
        self.owners.entry(about.lock).or_default().nr_waiting += 1;
        self.note_owner(about);
        Change::Began { before }
    }

    fn note_owner(&mut self, about: &About) {
        if about.owner != 0
            && let Some(owner) = self.owners.get_mut(&about.lock)
        {
            owner.pid = about.owner;
            owner.cgroup = about.owner_cgroup;
        }
    }

    /// What the event does not say is taken from the wait, if that is known.
    fn end(&mut self, event: &Event, mut ended: Ended) -> Change<D> {
        ended.inverted_ns = ended.inverted_ns.min(ended.waited_ns);
        let about = &mut ended.about;
        // an event from before a snapshot may be about an earlier wait than the one that is known: it says nothing
        // about now
        let is_current = |wait: &Wait<D>| event.time_ns >= wait.since_ns;
        let current = self.waits.get(&about.pid).map(is_current);
        if current == Some(true)
            && let Some(before) = self.about(about.pid)
            && (about.lock == 0 || about.lock == before.lock)
        {
            about.lock = before.lock;
            about.site = known(about.site, before.site);
            about.tgid = known(about.tgid, before.tgid);
            about.cgroup = known(about.cgroup, before.cgroup);
            if about.owner == 0 {
                (about.owner, about.owner_cgroup) = (before.owner, before.owner_cgroup);
            }
        }
        let mut wait = None;
        if current != Some(false) {
            wait = self.forget(about.pid);
            self.hand_over(about);
            if wait.is_some_and(|wait| wait.details.was_lent()) {
                if self.lent.len() >= LENT_MAX {
                    self.lent.clear();
                }
                self.lent.insert(about.pid, *about);
            }
        }
        Change::Ended { ended, wait }
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

    fn forget(&mut self, pid: u32) -> Option<Wait<D>> {
        let wait = self.waits.remove(&pid)?;
        if let Some(owner) = self.owners.get_mut(&wait.lock) {
            owner.nr_waiting -= 1;
            if owner.nr_waiting == 0 {
                self.owners.remove(&wait.lock);
            }
        }
        Some(wait)
    }

    /// These waits go on, and no others; what was known of them before still is.
    pub fn restate<'a>(&mut self, snapshot: &'a [Event]) -> Restated<'a, D> {
        let mut news = Vec::new();
        let mut before = std::mem::take(self);
        for event in snapshot {
            let What::Snapshot(begun) = &event.what else {
                continue;
            };
            let pid = begun.about.pid;
            // a task waits once; a recording may say anything
            if self.waits.contains_key(&pid) {
                continue;
            }
            if before.waits.get(&pid).is_some_and(|wait| wait.is(begun))
                && self.waits.len() < WAITS_MAX
                && let Some(wait) = before.waits.remove(&pid)
            {
                let owner = before.owners.get(&wait.lock).copied().unwrap_or_default();
                let kept = self.owners.entry(wait.lock).or_default();
                (kept.pid, kept.cgroup) = (owner.pid, owner.cgroup);
                kept.nr_waiting += 1;
                self.waits.insert(pid, wait);
            }
            if let Change::Began { .. } = self.begin(event, begun) {
                news.push(event);
            }
        }
        let mut over: Vec<_> = before.waits.into_iter().collect();
        over.sort_unstable_by_key(|(pid, _)| *pid);
        Restated { news, over }
    }
}

impl Waits {
    /// All waits as events by pid, as in a snapshot of the scheduler's.
    pub fn snapshot(&self) -> Vec<Event> {
        let mut pids: Vec<u32> = self.waits.keys().copied().collect();
        pids.sort_unstable();
        let event = |pid: u32| {
            let (wait, mut about) = (self.waits.get(&pid)?, self.about(pid)?);
            // also if that is the waiter itself
            let owner = self.owners.get(&wait.lock).copied().unwrap_or_default();
            (about.owner, about.owner_cgroup) = (owner.pid, owner.cgroup);
            let begun = Begun {
                about,
                number: wait.number,
                inverted_ns: wait.details.inverted_ns,
            };
            Some(Event {
                time_ns: wait.since_ns,
                cpu: wait.details.cpu,
                what: What::Snapshot(begun),
            })
        };
        pids.into_iter().filter_map(event).collect()
    }
}

#[cfg(test)]
mod tests;
