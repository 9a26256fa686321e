// SPDX-License-Identifier: GPL-2.0-only
//! What is observed of each class of locks: waits that ended, and how deep donations reached.
//! A class is named by the type of the lock and by what asked for it, never by an address. Names
//! come late: an observation waits for its own for a moment. No clock: the caller says what time
//! it is.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use crate::abi::{self, proxy_event};
use crate::agent::edge;
use crate::watch::{Batch, Labels, NameTable, Names, Site};

/// How long an observation waits for a name. The first names take seconds where hogs are on every CPU.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most observations that wait, and most waits that are remembered.
const PENDING_MAX: usize = 4096;
const WAITS_MAX: usize = 16_384;
/// Most classes; each has a hundred lines in a scrape.
pub const CLASSES_MAX: usize = 64;
/// Most pairs of cgroups; each has three lines in a scrape.
pub const PAIRS_MAX: usize = 64;
/// What all further classes are called.
pub const OTHER: &str = "other";

/// Something about a class of locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observed {
    /// A wait ended.
    Wait {
        /// Its length.
        waited_ns: u64,
        /// Of that, inversion time.
        inverted_ns: u64,
    },
    /// A donation began, over that many locks.
    Donation(u64),
}

/// Waiter's and owner's cgroup; 0: not known.
type Pair = (u64, u64);

struct Pending {
    since: Duration,
    lock: u64,
    site: Site,
    pair: Pair,
    what: Observed,
}

/// An observation that has its class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Of the lock.
    pub class: String,
    /// Paths of the waiter's and the owner's cgroup.
    pub pair: [String; 2],
    /// What was observed.
    pub what: Observed,
}

/// The `mmap_lock` of any process, where programs are not named.
const ANY_MMAP: Site = Site {
    kind: abi::proxy_site_kind_SITE_MMAP,
    tgid: 0,
    at: 0,
};

/// Sorts events by class.
#[derive(Default)]
pub struct Classes {
    /// whether programs are named
    programs: bool,
    names: NameTable,
    /// by pid: lock, what asked for it, and cgroups
    waits: HashMap<u32, (u64, Site, Pair)>,
    pending: VecDeque<Pending>,
    known: BTreeSet<String>,
    known_pairs: BTreeSet<[String; 2]>,
}

impl Classes {
    /// No event yet; `programs`: a class may hold the name of a program.
    pub fn new(programs: bool) -> Self {
        let mut all = Self {
            programs,
            ..Self::default()
        };
        all.names.learn(&Names {
            sites: vec![(ANY_MMAP, "mmap_lock".into())],
            ..Names::default()
        });
        all
    }

    /// What an event says asked for its lock, as far as that may be named.
    fn site(&self, event: &proxy_event) -> Site {
        match Site::of(event) {
            site if self.programs || !site.is_of_a_program() => site,
            site if site.kind == ANY_MMAP.kind => ANY_MMAP,
            _ => Site::UNKNOWN,
        }
    }

    /// Takes in a batch at `now`.
    pub fn learn(&mut self, batch: &Batch, now: Duration) {
        match self.programs {
            true => self.names.learn(&batch.names),
            false => self.names.learn(&Names {
                cgroups: batch.names.cgroups.clone(),
                ..batch.names.of_the_kernel()
            }),
        }
        if batch.snapshot {
            self.waits.clear();
        }
        for event in &batch.events {
            self.event(event, now);
        }
    }

    fn event(&mut self, event: &proxy_event, now: Duration) {
        let site = self.site(event);
        match event.kind {
            abi::proxy_event_kind_EVENT_BLOCK | abi::proxy_event_kind_EVENT_SNAPSHOT
                if self.waits.len() < WAITS_MAX =>
            {
                let pair = (event.cgroup, event.other_cgroup);
                self.waits.insert(event.pid, (event.lock, site, pair));
            }
            abi::proxy_event_kind_EVENT_WAKE => {
                let known = self.waits.remove(&event.pid);
                let (lock, site) = match (event.lock, known) {
                    (0, Some((lock, site, _))) => (lock, site),
                    (lock, Some((same, known, _))) if lock == same && site == Site::UNKNOWN => {
                        (lock, known)
                    }
                    (lock, _) => (lock, site),
                };
                let (waiter, owner) = known.map_or((0, 0), |(_, _, pair)| pair);
                let newest = |now: u64, then: u64| if now == 0 { then } else { now };
                let pair = (
                    newest(event.cgroup, waiter),
                    newest(event.other_cgroup, owner),
                );
                let what = Observed::Wait {
                    waited_ns: event.value,
                    inverted_ns: event.inverted_ns.min(event.value),
                };
                self.hold(lock, site, pair, what, now);
            }
            abi::proxy_event_kind_EVENT_DONATE => {
                // such an event does not say what asked for the lock
                let known = self.waits.get(&event.pid).copied();
                let (lock, site, pair) = known.unwrap_or((event.lock, site, (0, 0)));
                self.hold(lock, site, pair, Observed::Donation(event.value), now);
            }
            _ => {}
        }
    }

    fn hold(&mut self, lock: u64, site: Site, pair: Pair, what: Observed, now: Duration) {
        self.pending.push_back(Pending {
            since: now,
            lock,
            site,
            pair,
            what,
        });
    }

    /// What has its class at `now`, because it got a name or will hardly get one any more.
    pub fn settled(&mut self, now: Duration) -> Vec<Settled> {
        let mut settled = Vec::new();
        for pending in std::mem::take(&mut self.pending) {
            let crowded = self.pending.len() >= PENDING_MAX;
            let named = pending.site == Site::UNKNOWN || self.names.site(pending.site).is_some();
            if named || crowded || now.saturating_sub(pending.since) >= PATIENCE {
                settled.push(Settled {
                    class: self.class(pending.lock, pending.site),
                    pair: self.pair(pending.pair),
                    what: pending.what,
                });
            } else {
                self.pending.push_back(pending);
            }
        }
        settled
    }

    fn pair(&mut self, (waiter, owner): Pair) -> [String; 2] {
        let pair = [waiter, owner].map(|id| Labels(&self.names).cgroup(id));
        if self.known_pairs.contains(&pair) {
            return pair;
        }
        if self.known_pairs.len() >= PAIRS_MAX {
            return [OTHER, OTHER].map(str::to_owned);
        }
        self.known_pairs.insert(pair.clone());
        pair
    }

    fn class(&mut self, lock: u64, site: Site) -> String {
        let class = match self.names.site(site) {
            _ if lock == 0 => "unknown".to_owned(),
            // a site that nobody could name
            Some(name) if name.contains("0x") && !name.contains('+') => {
                edge::type_name(lock).to_owned()
            }
            _ => Labels(&self.names).class_of(lock, site),
        };
        if self.known.contains(&class) {
            return class;
        }
        if self.known.len() >= CLASSES_MAX {
            return OTHER.to_owned();
        }
        self.known.insert(class.clone());
        class
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: u64 = 0xffff_8880_0000_1230;
    const NOW: Duration = Duration::from_secs(100);

    fn event(kind: u32, pid: u32, site: u64) -> proxy_event {
        proxy_event {
            lock: LOCK + (u64::from(pid) << 8),
            value: 5,
            kind,
            pid,
            site,
            site_kind: abi::proxy_site_kind_SITE_KERNEL,
            ..Default::default()
        }
    }

    fn wake(pid: u32, site: u64) -> Batch {
        Batch {
            events: vec![event(abi::proxy_event_kind_EVENT_WAKE, pid, site)],
            ..Batch::default()
        }
    }

    fn name(site: u64, name: &str) -> Batch {
        let site = Site::of(&event(0, 0, site));
        let names = Names {
            sites: vec![(site, name.into())],
            ..Names::default()
        };
        Batch {
            names,
            ..Batch::default()
        }
    }

    fn classes(settled: Vec<Settled>) -> Vec<String> {
        settled.into_iter().map(|settled| settled.class).collect()
    }

    #[test]
    fn a_name_is_waited_for_but_not_for_ever() {
        let mut all = Classes::default();
        all.learn(&wake(1, 7), NOW);
        all.learn(&wake(2, 8), NOW);
        assert!(all.settled(NOW).is_empty());
        all.learn(&name(7, "fdget_pos"), NOW);
        assert_eq!(classes(all.settled(NOW)), ["mutex fdget_pos"]);
        assert_eq!(classes(all.settled(NOW + PATIENCE)), ["mutex"]);
    }

    #[test]
    fn programs_are_named_only_if_asked() {
        let user = |kind, at| {
            let mut event = event(abi::proxy_event_kind_EVENT_WAKE, 1, at);
            (event.site_kind, event.tgid) = (kind, 42);
            event
        };
        let pthread = user(abi::proxy_site_kind_SITE_USER, 7);
        let mmap = user(abi::proxy_site_kind_SITE_MMAP, 42);
        let names = Names {
            sites: vec![
                (Site::of(&pthread), "secret+0x7".into()),
                (Site::of(&mmap), "mmap_lock of secret".into()),
            ],
            ..Names::default()
        };
        let batch = Batch {
            events: vec![pthread, mmap],
            names,
            ..Batch::default()
        };
        for (programs, expected) in [
            (true, ["mutex secret+0x7", "mutex mmap_lock of secret"]),
            (false, ["mutex", "mutex mmap_lock"]),
        ] {
            let mut all = Classes::new(programs);
            all.learn(&batch, NOW);
            assert_eq!(classes(all.settled(NOW)), expected);
        }
    }

    #[test]
    fn a_donation_is_of_the_class_that_the_donor_waits_for() {
        let mut all = Classes::default();
        all.learn(&name(7, "fdget_pos"), NOW);
        let mut donate = event(abi::proxy_event_kind_EVENT_DONATE, 1, 0);
        (donate.lock, donate.site_kind) = (0, 0);
        let events = vec![event(abi::proxy_event_kind_EVENT_BLOCK, 1, 7), donate];
        let batch = Batch {
            events,
            ..Batch::default()
        };
        all.learn(&batch, NOW);
        let settled = all.settled(NOW);
        assert_eq!(settled[0].what, Observed::Donation(5));
        assert_eq!(classes(settled), ["mutex fdget_pos"]);
    }

    #[test]
    fn pairs_of_cgroups_are_named_and_few() {
        let mut all = Classes::default();
        let cgroups = (1..=1000).map(|id| (id, format!("/{id}")));
        let names = Names {
            cgroups: cgroups.collect(),
            ..Names::default()
        };
        all.learn(
            &Batch {
                names,
                ..Batch::default()
            },
            NOW,
        );
        for id in 1..=1000 {
            let mut event = event(abi::proxy_event_kind_EVENT_WAKE, 1, 0);
            event.site_kind = abi::proxy_site_kind_SITE_NONE;
            (event.cgroup, event.other_cgroup) = (id, 1);
            let events = vec![event];
            all.learn(
                &Batch {
                    events,
                    ..Batch::default()
                },
                NOW,
            );
        }
        let settled = all.settled(NOW);
        assert_eq!(settled[1].pair, ["/2", "/1"]);
        assert_eq!(settled[999].pair, [OTHER, OTHER]);
        let pairs: BTreeSet<_> = settled.into_iter().map(|settled| settled.pair).collect();
        assert_eq!(pairs.len(), PAIRS_MAX + 1);
    }

    #[test]
    fn classes_are_few_and_have_no_addresses() {
        let mut all = Classes::default();
        for site in 0..1000 {
            all.learn(&name(site, &format!("function_{site}")), NOW);
            all.learn(&wake(site as u32, site), NOW);
        }
        let classes = classes(all.settled(NOW));
        let distinct: BTreeSet<_> = classes.iter().collect();
        assert_eq!((classes.len(), distinct.len()), (1000, CLASSES_MAX + 1));
        assert_eq!(classes.last().map(String::as_str), Some(OTHER));
        let mut all = Classes::default();
        all.learn(&name(1, "0xffffffff81000000"), NOW);
        all.learn(&wake(1, 1), NOW);
        assert_eq!(super::tests::classes(all.settled(NOW)), ["mutex"]);
    }
}
