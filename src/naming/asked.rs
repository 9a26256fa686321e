// SPDX-License-Identifier: GPL-2.0-only
//! What was asked for: so that nothing is asked for twice in a short time. Pure.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use crate::abi;
use crate::events::{Begun, Ended, Event, Site, What, edge};

/// Pids are given again, and a task may change its name.
const TASK_LIFETIME: Duration = Duration::from_secs(30);
/// Keys of a kind that are remembered: so many, and again as many older ones.
const REMEMBERED: usize = 4096;
/// x86-64: the kernel's image and its modules are above this, all memory that it allocates is
/// below. So a lock above it may be a static one, and one below is none.
pub const KERNEL_IMAGE: u64 = 0xffff_ffff_8000_0000;

/// What has no name yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// A task.
    Task {
        /// Which.
        pid: u32,
        /// Its process, 0 if not known.
        tgid: u32,
    },
    /// What asked for a lock.
    Site(Site),
    /// Edge word of a lock in the kernel's image or in a module.
    Lock(u64),
    /// Id of a cgroup.
    Cgroup(u64),
}

/// A map of bounded size that forgets in large pieces what was not put there lately.
struct Recent<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
        }
    }
}

impl<K: Eq + Hash, V: Copy> Recent<K, V> {
    fn get(&self, key: &K) -> Option<V> {
        self.young.get(key).or_else(|| self.old.get(key)).copied()
    }

    fn put(&mut self, key: K, value: V) {
        if self.young.len() >= REMEMBERED && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }
}

/// What was asked for of late.
#[derive(Default)]
pub struct Asked {
    /// pid → process, and when
    tasks: Recent<u32, (u32, Instant)>,
    sites: Recent<Site, Instant>,
    locks: Recent<u64, ()>,
    cgroups: Recent<u64, ()>,
}

impl Asked {
    /// Puts the questions that an event raises to `ask`, which says whether it could take them.
    pub fn learn(&mut self, event: &Event, now: Instant, mut ask: impl FnMut(Question) -> bool) {
        let (What::Block(Begun { about, .. })
        | What::Snapshot(Begun { about, .. })
        | What::Wake(Ended { about, .. })) = event.what
        else {
            return;
        };
        self.task(about.pid, about.tgid, now, &mut ask);
        self.task(about.owner, 0, now, &mut ask);
        self.site(about.site, now, &mut ask);
        let (lock, is_static) = (about.lock, edge::address(about.lock) >= KERNEL_IMAGE);
        if is_static && self.locks.get(&lock).is_none() && ask(Question::Lock(lock)) {
            self.locks.put(lock, ());
        }
        for id in [about.cgroup, about.owner_cgroup] {
            if id != 0 && self.cgroups.get(&id).is_none() && ask(Question::Cgroup(id)) {
                self.cgroups.put(id, ());
            }
        }
    }

    fn task(&mut self, pid: u32, tgid: u32, now: Instant, ask: &mut impl FnMut(Question) -> bool) {
        if pid == 0 {
            return;
        }
        if let Some((before, when)) = self.tasks.get(&pid)
            && now.saturating_duration_since(when) < TASK_LIFETIME
            && (tgid == 0 || before == 0 || tgid == before)
        {
            if before == 0 && tgid != 0 {
                self.tasks.put(pid, (tgid, when));
            }
            return;
        }
        if ask(Question::Task { pid, tgid }) {
            self.tasks.put(pid, (tgid, now));
        }
    }

    /// The names of kernel addresses stay; a process may be another one later.
    fn site(&mut self, site: Site, now: Instant, ask: &mut impl FnMut(Question) -> bool) {
        let names_anything = match site.kind {
            abi::proxy_site_kind_SITE_KERNEL | abi::proxy_site_kind_SITE_MMAP => site.at != 0,
            abi::proxy_site_kind_SITE_USER => site.tgid != 0,
            _ => false,
        };
        let stays = site.kind == abi::proxy_site_kind_SITE_KERNEL;
        let is_asked = |when: Instant| stays || now.saturating_duration_since(when) < TASK_LIFETIME;
        if names_anything
            && !self.sites.get(&site).is_some_and(is_asked)
            && ask(Question::Site(site))
        {
            self.sites.put(site, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(pid: u32, tgid: u32) -> abi::proxy_event {
        abi::proxy_event {
            kind: abi::proxy_event_kind_EVENT_BLOCK,
            pid,
            tgid,
            ..Default::default()
        }
    }

    fn questions(asked: &mut Asked, event: &abi::proxy_event, now: Instant) -> Vec<Question> {
        let mut all = Vec::new();
        asked.learn(&Event::from(*event), now, |question| {
            all.push(question);
            true
        });
        all
    }

    #[test]
    fn everything_is_asked_for_once() {
        let (mut asked, now) = (Asked::default(), Instant::now());
        let event = abi::proxy_event {
            lock: KERNEL_IMAGE + 0x101,
            other: 2,
            site: 0x55,
            site_kind: abi::proxy_site_kind_SITE_USER,
            cgroup: 7,
            other_cgroup: 7,
            ..event(1, 1)
        };
        let expected = [
            Question::Task { pid: 1, tgid: 1 },
            Question::Task { pid: 2, tgid: 0 },
            Question::Site(Event::from(event).about().site),
            Question::Lock(KERNEL_IMAGE + 0x101),
            Question::Cgroup(7),
        ];
        assert_eq!(questions(&mut asked, &event, now), expected);
        assert!(questions(&mut asked, &event, now).is_empty());
        let later = now + TASK_LIFETIME;
        assert_eq!(questions(&mut asked, &event, later), expected[..3]);
    }

    #[test]
    fn what_could_not_be_asked_is_asked_again() {
        let (mut asked, now) = (Asked::default(), Instant::now());
        asked.learn(&event(1, 1).into(), now, |_| false);
        assert_eq!(questions(&mut asked, &event(1, 1), now).len(), 1);
    }

    #[test]
    fn a_pid_in_another_process_is_another_task() {
        let (mut asked, now) = (Asked::default(), Instant::now());
        assert_eq!(questions(&mut asked, &event(1, 0), now).len(), 1);
        assert!(questions(&mut asked, &event(1, 8), now).is_empty());
        assert_eq!(questions(&mut asked, &event(1, 9), now).len(), 1);
    }

    #[test]
    fn what_names_nothing_is_not_asked_for() {
        let (mut asked, now) = (Asked::default(), Instant::now());
        let slab = abi::proxy_event {
            lock: 0xffff_8880_0000_1230,
            ..event(0, 0)
        };
        assert!(questions(&mut asked, &slab, now).is_empty());
        let donated = abi::proxy_event {
            kind: abi::proxy_event_kind_EVENT_DONATE,
            ..event(1, 1)
        };
        assert!(questions(&mut asked, &donated, now).is_empty());
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let (mut asked, now) = (Asked::default(), Instant::now());
        for pid in 1..100_000 {
            questions(&mut asked, &event(pid, pid), now);
        }
        assert!(asked.tasks.young.len() + asked.tasks.old.len() <= 2 * REMEMBERED);
        assert!(questions(&mut asked, &event(99_000, 99_000), now).is_empty());
    }
}
