// SPDX-License-Identifier: GPL-2.0-only
//! [`Watch`]: takes events in and keeps what a view is made of.

use super::chains;
use super::history::History;
use super::ledger::Ledger;
use super::show;
use super::view::{HistoryLine, Sums, View};
use crate::events::{Batch, Event, Labels, NameTable, What};
use crate::waits::{Change, Waits};

/// Waits in progress, and sums over all waits. Whatever events come, it stays within bounds:
/// those of `ledger`, `history`, of the names and of the waits.
#[derive(Debug)]
pub struct Watch {
    since_ns: u64,
    donating: bool,
    lost_events: u64,
    names: NameTable,
    waits: Waits,
    ledger: Ledger,
    history: History,
}

impl Watch {
    /// Knows nothing yet. Sums are kept from `since_ns` on, of the kernel's monotonic clock.
    #[must_use]
    pub fn new(since_ns: u64) -> Self {
        Self {
            since_ns,
            donating: false,
            lost_events: 0,
            names: NameTable::default(),
            waits: Waits::default(),
            ledger: Ledger::default(),
            history: History::default(),
        }
    }

    /// Takes in what happened since the last batch.
    pub fn learn(&mut self, batch: &Batch) {
        self.lost_events = self.lost_events.saturating_add(batch.lost);
        self.names.learn(&batch.names);
        let (waits, events) = batch.split();
        if batch.snapshot {
            for event in self.waits.restate(waits).news {
                self.history.keep(event);
            }
        }
        for event in events {
            self.take(event);
        }
        self.donating = batch.donating;
    }

    fn take(&mut self, event: &Event) {
        match self.waits.take(event) {
            Change::Began { .. } => {}
            Change::Ended { ended, .. } => self.ledger.add(&ended.about, &Sums::of(&ended)),
            Change::Donated { about, to, .. } => self.ledger.donated(&about, to),
            // no news: what it is given for has been told
            Change::Gave { about, ns } => return self.ledger.gave(&about, ns),
            Change::None => match event.what {
                What::Migrate { .. } | What::Park { .. } | What::Return(_) => {}
                What::Switch { donating } => return self.donating = donating,
                // what only restates a wait, is of no task or of an unknown kind; and what comes again at each look
                // at a chain that ends nowhere, and would drive all else out
                _ => return,
            },
        }
        self.history.keep(event);
    }

    /// The tables at `now_ns`, with `rows` rows each at the most. What has no row of its own is in
    /// one more row, the last, which is called `other`: so each table's rows make up the total.
    #[must_use]
    pub fn view(&self, now_ns: u64, rows: usize) -> View {
        let labels = Labels(&self.names);
        let mut view = show::tables(&self.ledger, &self.waits, labels, now_ns, rows);
        let chains = chains::chains(&self.waits, rows);
        view.chains = chains
            .iter()
            .map(|path| show::chain(path, &self.waits, labels, now_ns))
            .collect();
        view.time_ns = now_ns;
        view.since_ns = self.since_ns;
        view.donating = self.donating;
        view.lost_events = self.lost_events;
        view
    }

    /// What happened to `pid` lately, the oldest first, with the names that are known now.
    #[must_use]
    pub fn history(&self, pid: u32) -> Vec<HistoryLine> {
        self.history.of(pid, Labels(&self.names))
    }

    /// The waits that go on, as events: what a new follower is told first.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Event> {
        self.waits.snapshot()
    }

    /// All names that are known.
    #[must_use]
    pub fn names(&self) -> &NameTable {
        &self.names
    }
}
