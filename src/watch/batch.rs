// SPDX-License-Identifier: GPL-2.0-only
//! Events and the names of what is in them, on their way to the clients.

use crate::abi;

use super::Names;

/// What happened since the last batch.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The oldest first.
    pub events: Vec<abi::proxy_event>,
    /// The events begin with an `EVENT_SNAPSHOT` for each wait that goes on, and a wait that has
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
