// SPDX-License-Identifier: GPL-2.0-only
//! Sums over a span of time: the difference between two views, row by row. A row that a view did
//! not have, or that went back (the scheduler was loaded anew), is never a negative number.

use std::collections::HashMap;

use crate::watch::View;
use crate::watch::view::{PairRow, Sums};

/// What a row is about: it stays when the numbers change.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RowId {
    /// A lock, by edge word.
    Lock(u64),
    /// A class of locks.
    Class(String),
    /// A task; its waits.
    Task(u32),
    /// A task as an owner; only a key of [`Snapshot`].
    Owner(u32),
    /// A waiter's and an owner's cgroup.
    Pair(String, String),
    /// A chain, by its donor.
    Chain(u32),
    /// A cgroup, by its id.
    Group(u64),
    /// An action, by its place in the list.
    Action(usize),
}

impl RowId {
    /// That of a pair.
    #[must_use]
    pub fn pair(row: &PairRow) -> Self {
        Self::Pair(row.waiter.clone(), row.owner.clone())
    }
}

/// Which span of time the sums are over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Span {
    /// Since the scheduler was loaded.
    #[default]
    Total,
    /// Since the reading before.
    Interval,
    /// Since the user said so.
    Marked,
}

/// The sums of all rows at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// When, on the kernel's clock.
    pub time_ns: u64,
    total: Sums,
    rows: HashMap<RowId, Sums>,
    /// Rows of the fullest table.
    longest: usize,
}

impl Snapshot {
    /// That of a view.
    #[must_use]
    pub fn of(view: &View) -> Self {
        let mut rows = HashMap::new();
        rows.extend(view.locks.iter().map(|row| (RowId::Lock(row.id), row.sums)));
        let classes = view.classes.iter();
        rows.extend(classes.map(|row| (RowId::Class(row.class.clone()), row.sums)));
        rows.extend(view.pairs.iter().map(|row| (RowId::pair(row), row.sums)));
        for row in &view.tasks {
            rows.insert(RowId::Task(row.task.pid), row.waited);
            rows.insert(RowId::Owner(row.task.pid), row.owned);
        }
        let tables = [
            view.locks.len(),
            view.classes.len(),
            view.pairs.len(),
            view.tasks.len(),
        ];
        Self {
            time_ns: view.time_ns,
            total: view.total,
            rows,
            longest: tables.into_iter().max().unwrap_or(0),
        }
    }

    /// That of the moment at which the sums of `view` began.
    #[must_use]
    pub fn zero(view: &View) -> Self {
        Self {
            time_ns: view.since_ns,
            ..Self::default()
        }
    }

    /// Whether `view` came later, and of the same sums.
    #[must_use]
    pub fn precedes(&self, view: &View) -> bool {
        self.time_ns >= view.since_ns
            && self.time_ns <= view.time_ns
            && self.total.waits <= view.total.waits
    }

    /// What was added to the sums of all waits.
    #[must_use]
    pub fn total_until(&self, view: &View) -> Sums {
        added(&view.total, &self.total)
    }

    /// What was added to the sums of a row. Tables have at most `room` rows: one that was not in a
    /// full table may be as old as any, and nothing is said about it.
    #[must_use]
    pub fn row_until(&self, id: &RowId, now: &Sums, room: usize) -> Sums {
        match self.rows.get(id) {
            Some(before) => added(now, before),
            None if self.longest >= room => Sums::default(),
            None => *now,
        }
    }
}

/// `longest_ns` is that of the span only if it is a new record; else it is not known, and 0.
fn added(now: &Sums, before: &Sums) -> Sums {
    if now.waits < before.waits || now.waited_ns < before.waited_ns {
        return *now; // it was forgotten, and began anew
    }
    let record = now.longest_ns > before.longest_ns;
    Sums {
        waits: now.waits - before.waits,
        waited_ns: now.waited_ns - before.waited_ns,
        inverted_ns: now.inverted_ns.saturating_sub(before.inverted_ns),
        longest_ns: if record { now.longest_ns } else { 0 },
        donations: now.donations.saturating_sub(before.donations),
        lent_ns: now.lent_ns.saturating_sub(before.lent_ns),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::view::LockRow;

    fn view(time_ns: u64, waits: u64) -> View {
        let sums = Sums {
            waits,
            waited_ns: waits * 10,
            inverted_ns: waits * 5,
            longest_ns: 10,
            donations: waits,
            ..Sums::default()
        };
        let row = LockRow {
            id: 1,
            sums,
            ..LockRow::default()
        };
        View {
            time_ns,
            since_ns: 100,
            total: sums,
            locks: vec![row],
            ..View::default()
        }
    }

    #[test]
    fn a_span_is_the_difference() {
        let (first, second) = (view(200, 3), view(300, 8));
        let before = Snapshot::of(&first);
        assert!(before.precedes(&second));
        let sums = before.row_until(&RowId::Lock(1), &second.locks[0].sums, 10);
        assert_eq!((sums.waits, sums.waited_ns, sums.inverted_ns), (5, 50, 25));
        assert_eq!(sums.longest_ns, 0, "not known: the record is older");
        assert_eq!(before.total_until(&second).donations, 5);
        let new = before.row_until(&RowId::Lock(2), &second.locks[0].sums, 10);
        assert_eq!(new.waits, 8);
        let hidden = before.row_until(&RowId::Lock(2), &second.locks[0].sums, 1);
        assert_eq!(
            hidden.waits, 0,
            "it may have been below the end of the table"
        );
    }

    #[test]
    fn sums_that_went_back_are_not_negative() {
        let before = Snapshot::of(&view(500, 8));
        let mut anew = view(700, 2);
        anew.since_ns = 600;
        assert!(!before.precedes(&anew));
        assert!(Snapshot::zero(&anew).precedes(&anew));
        let sums = before.row_until(&RowId::Lock(1), &anew.locks[0].sums, 10);
        assert_eq!((sums.waits, sums.longest_ns), (2, 10));
    }
}
