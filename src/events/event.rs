// SPDX-License-Identifier: GPL-2.0-only
//! An event, typed: the one place that knows the bytes of `struct proxy_event` (`include/events.h`).

use super::{Class, Site, edge};
use crate::abi::{
    self, EVENT_BYTES, proxy_event, proxy_event_kind_EVENT_BLOCK as BLOCK,
    proxy_event_kind_EVENT_CYCLE as CYCLE, proxy_event_kind_EVENT_DONATE as DONATE,
    proxy_event_kind_EVENT_GAVE as GAVE, proxy_event_kind_EVENT_MIGRATE as MIGRATE,
    proxy_event_kind_EVENT_PARK as PARK, proxy_event_kind_EVENT_RESTART as RESTART,
    proxy_event_kind_EVENT_RETURN as RETURN, proxy_event_kind_EVENT_SNAPSHOT as SNAPSHOT,
    proxy_event_kind_EVENT_SWITCH as SWITCH, proxy_event_kind_EVENT_TRUNCATED as TRUNCATED,
    proxy_event_kind_EVENT_WAKE as WAKE,
};

/// Something that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, in ns of the kernel's monotonic clock; of [`What::Snapshot`], when the wait began.
    pub time_ns: u64,
    /// The CPU that it is about.
    pub cpu: u32,
    /// What happened.
    pub what: What,
}

/// What a wait is about; 0 is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// Edge word.
    pub lock: u64,
    /// What asked for it.
    pub site: Site,
    /// The waiter.
    pub pid: u32,
    /// Its process.
    pub tgid: u32,
    /// Its cgroup.
    pub cgroup: u64,
    /// Whom it waits for.
    pub owner: u32,
    /// That one's cgroup.
    pub owner_cgroup: u64,
}

impl About {
    /// The class of its lock, if it is about one.
    pub fn class(&self) -> Option<Class> {
        (self.lock != 0).then(|| Class {
            lock_type: edge::lock_type(self.lock),
            site: self.site,
        })
    }
}

/// A wait that goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Begun {
    /// What it is about.
    pub about: About,
    /// Number of the wait, as BPF counts them for this task.
    pub number: u64,
    /// Inversion time so far.
    pub inverted_ns: u64,
}

/// A wait that is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// What it was about.
    pub about: About,
    /// How long it lasted.
    pub waited_ns: u64,
    /// Of that, inversion time.
    pub inverted_ns: u64,
}

/// The kinds of events, each with what it says. Tasks are pids.
#[allow(missing_docs)] // of fields: the kind's own words name them
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A wait begins.
    Block(Begun),
    /// A wait ends.
    Wake(Ended),
    /// `owner` runs in the context of `donor`, `locks` locks on.
    Donate { donor: u32, owner: u32, locks: u64 },
    /// The context of `donor` went to the event's CPU, where `owner` may run.
    Migrate { donor: u32, owner: u32 },
    /// `donor` waits for `owner` to stop or wake.
    Park { donor: u32, owner: u32 },
    /// The walk from `donor` was given up at the waiter `at`.
    Truncated { donor: u32, at: u32 },
    /// The walk from `donor` came to `at` twice.
    Cycle { donor: u32, at: u32 },
    /// A donor that woke runs again.
    Return(Return),
    /// A wait that goes on is said again.
    Snapshot(Begun),
    /// Donation is on from here, or off.
    Switch { donating: bool },
    /// The scheduler came back after so long; only in recordings.
    Restart { gone_ns: u64 },
    /// An owner ran so long in the context of a donor, who paid for it.
    Gave(Gave),
    /// Of a kind that a newer version sends: kept, so that it can be written again.
    Unknown(proxy_event),
}

/// CPU time that a donor paid, and that the owner got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gave {
    /// Who paid.
    pub donor: u32,
    /// The donor's cgroup, 0 if not known.
    pub donor_cgroup: u64,
    /// Who ran.
    pub owner: u32,
    /// The owner's cgroup, likewise.
    pub owner_cgroup: u64,
    /// How long.
    pub ns: u64,
}

/// How a donor that woke came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Return {
    /// Who.
    pub pid: u32,
    /// Where it was sent: `enum return_choice`.
    pub choice: u32,
    /// It ran somewhere else.
    pub moved: bool,
    /// Time from wakeup to running.
    pub after_ns: u64,
    /// `enum lock_type` of what it had waited for.
    pub lock_type: u32,
}

impl Return {
    /// Where it was sent, in a word.
    pub fn choice_name(&self) -> &'static str {
        match self.choice {
            abi::return_choice_RETURN_IDLE => "idle",
            abi::return_choice_RETURN_HOME => "home",
            abi::return_choice_RETURN_OWNER => "owner",
            _ => "unknown",
        }
    }
}

impl Event {
    /// The event that these bytes begin with, in the machine's byte order. One of an older version ends early: what
    /// it lacks is 0.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let mut whole = [0; EVENT_BYTES];
        let known = bytes.len().min(EVENT_BYTES);
        whole[..known].copy_from_slice(&bytes[..known]);
        proxy_event::from(whole).into()
    }

    /// Its bytes, in the machine's byte order.
    pub fn to_bytes(&self) -> [u8; EVENT_BYTES] {
        proxy_event::from(*self).into()
    }

    /// All events in `bytes`, of `event_bytes` each.
    pub fn read_all(bytes: &[u8], event_bytes: usize) -> Vec<Self> {
        let events = bytes.chunks_exact(event_bytes);
        events.map(Self::from_bytes).collect()
    }

    /// Appends the bytes of all these events.
    pub fn write_all<'a>(events: impl IntoIterator<Item = &'a Self>, into: &mut Vec<u8>) {
        for event in events {
            into.extend_from_slice(&event.to_bytes());
        }
    }

    /// Whether it only says again that a wait goes on.
    pub fn is_snapshot(&self) -> bool {
        matches!(self.what, What::Snapshot(_))
    }

    /// When it happened, unless it only says again that a wait goes on.
    pub fn happened_ns(&self) -> Option<u64> {
        (!self.is_snapshot()).then_some(self.time_ns)
    }

    /// Whether BPF gave a walk up, and the agent may find out more.
    pub fn is_given_up(&self) -> bool {
        matches!(self.what, What::Truncated { .. } | What::Cycle { .. })
    }

    /// Whom it is about: as `pid` and `owner` the tasks of whatever kind of event, and of those of waits all else.
    pub fn about(&self) -> About {
        let tasks = |pid, owner| About {
            pid,
            owner,
            ..About::default()
        };
        match self.what {
            What::Block(begun) | What::Snapshot(begun) => begun.about,
            What::Wake(ended) => ended.about,
            What::Donate { donor, owner, .. }
            | What::Migrate { donor, owner }
            | What::Park { donor, owner } => tasks(donor, owner),
            What::Truncated { donor, at } | What::Cycle { donor, at } => tasks(donor, at),
            What::Return(back) => tasks(back.pid, 0),
            What::Gave(gave) => About {
                cgroup: gave.donor_cgroup,
                owner_cgroup: gave.owner_cgroup,
                ..tasks(gave.donor, gave.owner)
            },
            What::Switch { .. } | What::Restart { .. } => About::default(),
            What::Unknown(raw) => about(&raw),
        }
    }
}

fn about(raw: &proxy_event) -> About {
    About {
        lock: raw.lock,
        site: Site::new(raw.site_kind, raw.tgid, raw.site),
        pid: raw.pid,
        tgid: raw.tgid,
        cgroup: raw.cgroup,
        owner: raw.other,
        owner_cgroup: raw.other_cgroup,
    }
}

impl From<proxy_event> for Event {
    fn from(raw: proxy_event) -> Self {
        let begun = Begun {
            about: about(&raw),
            number: raw.value,
            inverted_ns: raw.inverted_ns,
        };
        let (donor, owner, at) = (raw.pid, raw.other, raw.other);
        let what = match raw.kind {
            BLOCK => What::Block(begun),
            SNAPSHOT => What::Snapshot(begun),
            WAKE => What::Wake(Ended {
                about: begun.about,
                waited_ns: raw.value,
                inverted_ns: raw.inverted_ns,
            }),
            DONATE => What::Donate {
                donor,
                owner,
                locks: raw.value,
            },
            MIGRATE => What::Migrate { donor, owner },
            PARK => What::Park { donor, owner },
            TRUNCATED => What::Truncated { donor, at },
            CYCLE => What::Cycle { donor, at },
            RETURN => What::Return(Return {
                pid: raw.pid,
                choice: raw.other & !abi::RETURN_MOVED,
                moved: raw.other & abi::RETURN_MOVED != 0,
                after_ns: raw.value,
                lock_type: u32::try_from(raw.lock).unwrap_or(u32::MAX),
            }),
            SWITCH => What::Switch {
                donating: raw.value != 0,
            },
            RESTART => What::Restart { gone_ns: raw.value },
            GAVE => What::Gave(Gave {
                donor,
                donor_cgroup: raw.cgroup,
                owner,
                owner_cgroup: raw.other_cgroup,
                ns: raw.value,
            }),
            _ => What::Unknown(raw),
        };
        Self {
            time_ns: raw.time_ns,
            cpu: raw.cpu,
            what,
        }
    }
}

impl From<Event> for proxy_event {
    fn from(event: Event) -> Self {
        let about = event.about();
        let (mut lock, mut other, mut inverted_ns) = (about.lock, about.owner, 0);
        let (kind, value) = match event.what {
            What::Block(begun) => {
                inverted_ns = begun.inverted_ns;
                (BLOCK, begun.number)
            }
            What::Snapshot(begun) => {
                inverted_ns = begun.inverted_ns;
                (SNAPSHOT, begun.number)
            }
            What::Wake(ended) => {
                inverted_ns = ended.inverted_ns;
                (WAKE, ended.waited_ns)
            }
            What::Donate { locks, .. } => (DONATE, locks),
            What::Migrate { .. } => (MIGRATE, 0),
            What::Park { .. } => (PARK, 0),
            What::Truncated { .. } => (TRUNCATED, 0),
            What::Cycle { .. } => (CYCLE, 0),
            What::Return(back) => {
                lock = back.lock_type.into();
                other = back.choice | if back.moved { abi::RETURN_MOVED } else { 0 };
                (RETURN, back.after_ns)
            }
            What::Switch { donating } => (SWITCH, donating.into()),
            What::Restart { gone_ns } => (RESTART, gone_ns),
            What::Gave(gave) => (GAVE, gave.ns),
            What::Unknown(raw) => return raw,
        };
        Self {
            time_ns: event.time_ns,
            lock,
            value,
            kind,
            cpu: event.cpu,
            pid: about.pid,
            other,
            site: about.site.at,
            cgroup: about.cgroup,
            other_cgroup: about.owner_cgroup,
            inverted_ns,
            site_kind: about.site.kind,
            tgid: match about.tgid {
                0 => about.site.tgid,
                tgid => tgid,
            },
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A wait of `pid` for `lock` begins.
    pub fn block(time_ns: u64, pid: u32, lock: u64, owner: u32, number: u64) -> Event {
        let about = About {
            lock,
            pid,
            owner,
            ..About::default()
        };
        let begun = Begun {
            about,
            number,
            inverted_ns: 0,
        };
        Event {
            time_ns,
            cpu: 0,
            what: What::Block(begun),
        }
    }

    /// A wait of `pid` is over.
    pub fn wake(time_ns: u64, pid: u32) -> Event {
        let about = About {
            pid,
            ..About::default()
        };
        let ended = Ended {
            about,
            ..Ended::default()
        };
        Event {
            time_ns,
            cpu: 0,
            what: What::Wake(ended),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        /// Whatever bytes come, nothing that an event says is lost on its way out and in again; and of an
        /// event of an unknown kind not a bit.
        #[test]
        fn an_event_survives_its_bytes(
            bytes in prop::collection::vec(any::<u8>(), 0..2 * EVENT_BYTES), kind in 0..16_u32,
        ) {
            let mut raw = proxy_event::from(Event::from_bytes(&bytes));
            raw.kind = kind;
            let event = Event::from(raw);
            let written = event.to_bytes();
            prop_assert_eq!(Event::from_bytes(&written), event);
            prop_assert_eq!(proxy_event::from(event).kind, kind);
            if matches!(event.what, What::Unknown(_)) {
                prop_assert_eq!(written, <[u8; EVENT_BYTES]>::from(raw));
            }
        }
    }

    #[test]
    fn what_an_older_version_did_not_say_is_zero() {
        let event = Event::from(proxy_event {
            time_ns: 9,
            kind: abi::proxy_event_kind_EVENT_BLOCK,
            pid: 7,
            tgid: 7,
            ..Default::default()
        });
        let cut = Event::from_bytes(&event.to_bytes()[..40]);
        assert_eq!((cut.time_ns, cut.about().pid, cut.about().tgid), (9, 7, 0));
        assert_eq!(Event::from_bytes(&[]).about(), About::default());
    }
}
