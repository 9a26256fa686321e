// SPDX-License-Identifier: GPL-2.0-only
//! Events and the names of what is in them, on their way to the clients.

use super::{Event, Names};

/// What happened since the last batch.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The oldest first.
    pub events: Vec<Event>,
    /// The events begin with an [`What::Snapshot`](super::What::Snapshot) for each wait that goes on, and a wait that has
    /// none is over. So it is in the first batch that a watcher gets, and in the first after a loss.
    pub snapshot: bool,
    /// The events are waits that go on, said again because somebody asked for that: no news, and for the
    /// watcher's own tables only.
    pub restated: bool,
    /// Events that are missing before these: the ring was full, or the watcher too slow.
    pub lost: u64,
    /// Names that are new since the last batch; of a first batch all that are known.
    pub names: Names,
    /// Whether the scheduler donates at the end of this batch.
    pub donating: bool,
}

impl Batch {
    /// Whether nothing is in it yet.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.events.is_empty()
            && !self.snapshot
            && !self.restated
            && self.lost == 0
            && self.names.is_empty()
    }

    /// The waits that go on, if it is a snapshot that begins with them, and what happened since.
    #[must_use]
    pub fn split(&self) -> (&[Event], &[Event]) {
        let waits = match self.snapshot {
            true => self
                .events
                .iter()
                .take_while(|event| event.is_snapshot())
                .count(),
            false => 0,
        };
        self.events.split_at(waits)
    }

    /// Takes in what came after it. `later` must not begin with a snapshot, unless this is new.
    pub fn append(&mut self, later: &Self) {
        self.snapshot |= later.snapshot;
        self.restated |= later.restated;
        self.events.extend_from_slice(&later.events);
        self.lost += later.lost;
        self.names.append(&later.names);
        self.donating = later.donating;
    }
}
