// SPDX-License-Identifier: GPL-2.0-only
//! What the screens show: the last reading, and what it takes to say "per interval" and "per
//! second". Bounded: one view, and the sums of two earlier ones. While it is paused, later views
//! are not kept: their counters are.

use super::actions::Actions;
use super::source::{ROWS, Reading};
use super::sums::{RowId, Snapshot, Span};
use crate::stats::GroupRow;
use crate::watch::View;
use crate::watch::view::Sums;

/// Everything that is known.
#[derive(Default)]
pub struct Data {
    /// The last reading's tables.
    pub view: Option<View>,
    /// The last reading's cgroups, with their paths.
    pub groups: Vec<(String, GroupRow)>,
    /// What the scheduler does.
    pub actions: Actions,
    /// Why there is no newer reading.
    pub missing: Option<String>,
    /// How much of a finite source has been read.
    pub position: Option<(u64, u64)>,
    /// Whether the scheduler donates, also while that is not shown.
    pub donating: bool,
    before: Snapshot,
    marked: Option<Snapshot>,
    /// When counters were last taken in.
    counted_ns: u64,
    /// While it is paused: the actions as they go on.
    going_on: Option<Actions>,
}

impl Data {
    /// Takes in a reading.
    pub fn take(&mut self, reading: Reading, position: Option<(u64, u64)>) {
        self.count(&reading);
        self.donating = reading.view.donating;
        self.missing = None;
        if self.is_paused() {
            return;
        }
        let view = reading.view;
        self.groups = reading.groups;
        self.before = match self.view.as_ref().map(Snapshot::of) {
            Some(last) if last.precedes(&view) => last,
            Some(_) => {
                // another life of the scheduler: its sums began at 0
                self.marked = self.marked.take().map(|_| Snapshot::zero(&view));
                Snapshot::zero(&view)
            }
            None => Snapshot::of(&view),
        };
        self.view = Some(view);
        self.position = position;
    }

    /// Adds the counters of a reading; of the first one they are over an unknown time.
    fn count(&mut self, reading: &Reading) {
        let now_ns = reading.view.time_ns;
        let ns = now_ns.saturating_sub(self.counted_ns);
        if let Some(metrics) = reading.metrics.as_ref()
            && self.counted_ns > 0
            && ns > 0
        {
            let actions = self.going_on.as_mut().unwrap_or(&mut self.actions);
            actions.take(metrics, ns as f64 / 1e9);
        }
        self.counted_ns = now_ns;
    }

    /// Whether what is shown stays as it is.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.going_on.is_some()
    }

    /// What is shown stays as it is; or goes on, from the next reading.
    pub fn toggle_pause(&mut self) {
        match self.going_on.take() {
            Some(actions) => self.actions = actions,
            None => self.going_on = Some(self.actions.clone()),
        }
    }

    /// From now on [`Span::Marked`] begins here.
    pub fn mark(&mut self) {
        self.marked = self.view.as_ref().map(Snapshot::of);
    }

    /// Whether [`Data::mark`] was called.
    #[must_use]
    pub fn is_marked(&self) -> bool {
        self.marked.is_some()
    }

    fn start(&self, span: Span) -> Option<&Snapshot> {
        match span {
            Span::Total => None,
            Span::Interval => Some(&self.before),
            Span::Marked => self.marked.as_ref(),
        }
    }

    /// A row's sums over `span`, given those in all.
    #[must_use]
    pub fn sums(&self, span: Span, id: &RowId, total: &Sums) -> Sums {
        match self.start(span) {
            Some(start) => start.row_until(id, total, ROWS),
            None => *total,
        }
    }

    /// How long `span` is by now.
    #[must_use]
    pub fn length_ns(&self, span: Span) -> u64 {
        let Some(view) = &self.view else { return 0 };
        let start = self
            .start(span)
            .map_or(view.since_ns, |start| start.time_ns);
        view.time_ns.saturating_sub(start)
    }

    /// What was added since the reading before, and the seconds in between; `None`: there was none.
    #[must_use]
    pub fn pace(&self) -> Option<(Sums, f64)> {
        let view = self.view.as_ref()?;
        let ns = self.length_ns(Span::Interval);
        (ns > 0).then(|| (self.before.total_until(view), ns as f64 / 1e9))
    }
}
