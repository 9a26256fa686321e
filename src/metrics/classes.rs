// SPDX-License-Identifier: GPL-2.0-only
//! What is observed of each class of locks: waits that ended, and how deep donations reached.
//! A class is named by the type of the lock and by what asked for it, never by an address. Names
//! come late: an observation waits for its own for a moment. No clock: the caller says what time
//! it is.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::abi;
use crate::events::{About, Batch, Labels, NameTable, Names, Site, edge};
use crate::waits::{Change, Waits};

/// How long an observation waits for a name. The first names take seconds where hogs are on every CPU.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most observations that wait.
const PENDING_MAX: usize = 4096;
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
    /// CPU time in ns that the waiter gave and the owner got.
    Gave(u64),
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
    waits: Waits,
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

    /// Takes in a batch at `now`.
    pub fn learn(&mut self, batch: &Batch, now: Duration) {
        match self.programs {
            true => self.names.learn(&batch.names),
            false => self.names.learn(&Names {
                cgroups: batch.names.cgroups.clone(),
                ..batch.names.of_the_kernel()
            }),
        }
        let (waits, events) = batch.split();
        if batch.snapshot {
            self.waits.restate(waits);
        }
        for event in events {
            let (about, what) = match self.waits.take(event) {
                Change::Ended { ended, .. } => {
                    let what = Observed::Wait {
                        waited_ns: ended.waited_ns,
                        inverted_ns: ended.inverted_ns,
                    };
                    (ended.about, what)
                }
                Change::Donated { about, locks, .. } => (about, Observed::Donation(locks)),
                Change::Gave { about, ns } => (about, Observed::Gave(ns)),
                Change::Began { .. } | Change::None => continue,
            };
            self.hold(&about, what, now);
        }
    }

    /// Keeps an observation until it has a name, of what may be named.
    fn hold(&mut self, about: &About, what: Observed, now: Duration) {
        let site = match about.site {
            site if self.programs || !site.is_of_a_program() => site,
            site if site.kind == ANY_MMAP.kind => ANY_MMAP,
            _ => Site::UNKNOWN,
        };
        self.pending.push_back(Pending {
            since: now,
            lock: about.lock,
            site,
            pair: (about.cgroup, about.owner_cgroup),
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
        if is_known(&mut self.known_pairs, &pair, PAIRS_MAX) {
            return pair;
        }
        [OTHER, OTHER].map(str::to_owned)
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
        if is_known(&mut self.known, &class, CLASSES_MAX) {
            return class;
        }
        OTHER.to_owned()
    }
}

/// Whether `one` is known, or is from now on because there is room for it.
fn is_known<T: Ord + Clone>(known: &mut BTreeSet<T>, one: &T, max: usize) -> bool {
    if known.len() < max {
        known.insert(one.clone());
    }
    known.contains(one)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::proxy_event;
    use crate::events::Event;

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

    fn batch<const N: usize>(events: [proxy_event; N], names: Names) -> Batch {
        Batch {
            events: events.map(Event::from).to_vec(),
            names,
            ..Batch::default()
        }
    }

    fn wake(pid: u32, site: u64) -> Batch {
        let event = event(abi::proxy_event_kind_EVENT_WAKE, pid, site);
        batch([event], Names::default())
    }

    /// Names of what asked for the locks of these events.
    fn sites<const N: usize>(named: [(proxy_event, &str); N]) -> Names {
        let site = |event| Event::from(event).about().site;
        Names {
            sites: named
                .map(|(event, name)| (site(event), name.into()))
                .to_vec(),
            ..Names::default()
        }
    }

    fn name(site: u64, name: &str) -> Batch {
        batch([], sites([(event(0, 0, site), name)]))
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
        let names = sites([(pthread, "secret+0x7"), (mmap, "mmap_lock of secret")]);
        let batch = batch([pthread, mmap], names);
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
        let block = event(abi::proxy_event_kind_EVENT_BLOCK, 1, 7);
        all.learn(&batch([block, donate], Names::default()), NOW);
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
        all.learn(&batch([], names), NOW);
        for id in 1..=1000 {
            let mut event = event(abi::proxy_event_kind_EVENT_WAKE, 1, 0);
            event.site_kind = abi::proxy_site_kind_SITE_NONE;
            (event.cgroup, event.other_cgroup) = (id, 1);
            all.learn(&batch([event], Names::default()), NOW);
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
