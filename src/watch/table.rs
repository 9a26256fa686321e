// SPDX-License-Identifier: GPL-2.0-only
//! Tables of sums with a bound: rows that there is no room for are folded into one, so that the
//! sum over all rows stays what it was.

use std::collections::HashMap;
use std::hash::Hash;

use super::view::Sums;
use crate::events::Ended;

impl Sums {
    /// Of one wait that is over.
    pub fn of(ended: &Ended) -> Self {
        Self {
            waits: 1,
            waited_ns: ended.waited_ns,
            inverted_ns: ended.inverted_ns,
            longest_ns: ended.waited_ns,
            ..Self::default()
        }
    }

    /// Adds the waits that `more` is about.
    pub fn add(&mut self, more: &Self) {
        self.waits = self.waits.saturating_add(more.waits);
        self.waited_ns = self.waited_ns.saturating_add(more.waited_ns);
        self.inverted_ns = self.inverted_ns.saturating_add(more.inverted_ns);
        self.longest_ns = self.longest_ns.max(more.longest_ns);
        self.lent_ns = self.lent_ns.saturating_add(more.lent_ns);
        self.donations = self.donations.saturating_add(more.donations);
    }

    /// What rows are ordered by, the largest first: inversion time, waiting time, waits.
    #[must_use]
    pub fn rank(&self) -> [u64; 3] {
        [self.inverted_ns, self.waited_ns, self.waits]
    }
}

/// What a row of a table holds.
pub trait Entry: Clone + Default {
    /// Adds the sums of `more`, and nothing else of it.
    fn fold(&mut self, more: &Self);
    /// What rows are ordered by, the largest first.
    fn rank(&self) -> [u64; 3];
}

impl Entry for Sums {
    fn fold(&mut self, more: &Self) {
        self.add(more);
    }

    fn rank(&self) -> [u64; 3] {
        Sums::rank(self)
    }
}

/// At most `max` rows, and one for all others.
#[derive(Clone, Debug)]
pub struct Table<K, E> {
    rows: HashMap<K, E>,
    other: E,
    max: usize,
}

impl<K: Copy + Eq + Hash + Ord, E: Entry> Table<K, E> {
    /// An empty table.
    pub fn new(max: usize) -> Self {
        Self {
            rows: HashMap::new(),
            other: E::default(),
            max: max.max(1),
        }
    }

    /// The row of `key`, which is made if there is none; without a key the row of all others.
    pub fn row(&mut self, key: Option<K>) -> &mut E {
        let Some(key) = key else {
            return &mut self.other;
        };
        if self.rows.len() >= self.max && !self.rows.contains_key(&key) {
            self.make_room();
        }
        self.rows.entry(key).or_default()
    }

    /// Folds the row of `key` into that of all others.
    pub fn retire(&mut self, key: K) {
        if let Some(row) = self.rows.remove(&key) {
            self.other.fold(&row);
        }
    }

    /// Folds the least eighth of the rows. One at a time would mean a search for each new row
    /// once the table is full; so it is eight steps for each.
    fn make_room(&mut self) {
        let mut ranks: Vec<([u64; 3], K)> = self
            .rows
            .iter()
            .map(|(key, row)| (row.rank(), *key))
            .collect();
        let goes = (self.max / 8).max(1).min(ranks.len());
        if goes < ranks.len() {
            ranks.select_nth_unstable(goes);
        }
        for (_, key) in ranks.drain(..goes) {
            self.retire(key);
        }
    }

    /// The rows of the largest ranks, the largest first, at most `rows`; and the sums of all
    /// others.
    pub fn largest(&self, rows: usize) -> (Vec<(K, &E)>, E) {
        let mut all: Vec<(K, &E)> = self.rows.iter().map(|(key, row)| (*key, row)).collect();
        all.sort_unstable_by(|(a, x), (b, y)| y.rank().cmp(&x.rank()).then(a.cmp(b)));
        let mut other = self.other.clone();
        for (_, row) in all.drain(rows.min(all.len())..) {
            other.fold(row);
        }
        (all, other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(waited_ns: u64) -> Sums {
        Sums {
            waits: 1,
            waited_ns,
            ..Sums::default()
        }
    }

    #[test]
    fn a_full_table_folds_the_least_rows() {
        let mut table: Table<u32, Sums> = Table::new(16);
        for key in 1..=17_u32 {
            table.row(Some(key)).add(&sums(u64::from(key)));
        }
        let (rows, other) = table.largest(usize::MAX);
        assert_eq!(
            (rows.len(), rows[0].0),
            (15, 17),
            "an eighth of 16, and one came"
        );
        assert_eq!((other.waits, other.waited_ns), (2, 3), "1 and 2 went");
        let (rows, other) = table.largest(2);
        assert_eq!((rows.len(), other.waits), (2, 15));
    }

    #[test]
    fn what_has_no_key_goes_to_the_others() {
        let mut table: Table<u32, Sums> = Table::new(16);
        table.row(None).add(&sums(5));
        table.row(Some(1)).add(&sums(6));
        table.retire(1);
        table.retire(1);
        let (rows, other) = table.largest(9);
        assert_eq!((rows.len(), other.waited_ns), (0, 11));
    }
}
