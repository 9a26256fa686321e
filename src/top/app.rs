// SPDX-License-Identifier: GPL-2.0-only
//! What `top` knows and what the user chose; the rows that follow from both. No I/O: keys and
//! updates come in, [`Effect`]s go out.

use super::data::Data;
use super::freeze::Frozen;
use super::screens::{SCREENS, Screen};
use super::sums::{RowId, Span};
use super::table::{self, Row};
use super::worker::{Ask, Update};

/// What somebody with a terminal and a source has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// End.
    Quit,
    /// Stop as the shell's jobs do.
    Suspend,
    /// Draw everything anew.
    Redraw,
    /// Ask the source.
    Ask(Ask),
}

/// What was chosen for a screen.
#[derive(Clone, Debug, Default)]
pub struct Chosen {
    /// Column that it is sorted by.
    pub sort: Option<usize>,
    /// From large to small.
    pub descending: bool,
    /// The row that is selected.
    pub at: usize,
    /// The row that stands at the top.
    pub offset: usize,
    /// Stay with this row, wherever it goes; else with the place.
    pub follow: Option<RowId>,
}

/// A question in the footer that takes all keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// The filter is being typed.
    Filter,
    /// Whether donation is to be switched on, or off.
    Donate(bool),
}

/// All of it.
#[derive(Default)]
pub struct App {
    data: Data,
    screen: usize,
    chosen: [Chosen; SCREENS.len()],
    /// Locks by class.
    pub classes: bool,
    /// Over which time sums are shown.
    pub span: Span,
    /// What rows must hold.
    pub filter: String,
    /// The question that is open.
    pub prompt: Option<Prompt>,
    /// The help stands over everything.
    pub help: bool,
    /// The row whose history is kept.
    pub frozen: Option<Frozen>,
    /// The last thing to say; until the next key.
    pub message: Option<String>,
    /// Rows that a screen has room for, as last drawn.
    pub page: usize,
    rows: Vec<Row>,
}

impl App {
    /// As it is at the start.
    #[must_use]
    pub fn new() -> Self {
        let mut app = Self::default();
        for nr in 0..SCREENS.len() {
            app.screen = nr;
            app.sort_as_at_first();
        }
        app.screen = 0;
        app
    }

    /// The screen that is shown.
    #[must_use]
    pub fn screen(&self) -> Screen {
        SCREENS[self.screen]
    }

    /// What is chosen for it.
    #[must_use]
    pub fn chosen(&self) -> &Chosen {
        &self.chosen[self.screen]
    }

    /// Likewise, to choose differently.
    pub fn choose(&mut self) -> &mut Chosen {
        &mut self.chosen[self.screen]
    }

    /// What is known.
    #[must_use]
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// The rows of the screen, sorted and filtered.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Takes in what the source said.
    pub fn update(&mut self, update: Update) -> Option<Effect> {
        match update {
            Update::Reading(reading, position) => {
                self.data.take(*reading, position);
                if !self.data.is_paused() {
                    self.build();
                    return self.ask_history();
                }
            }
            Update::Missing(why) => self.data.missing = Some(why),
            Update::History(lines) => {
                if let Some(frozen) = &mut self.frozen {
                    frozen.learn(lines);
                }
            }
            Update::NoHistory(why) => {
                if let Some(frozen) = &mut self.frozen {
                    frozen.error = Some(why);
                }
            }
            Update::Said(words) => self.message = Some(words),
        }
        None
    }

    /// Looks at what is frozen, and asks what happened to it.
    fn ask_history(&mut self) -> Option<Effect> {
        let frozen = self.frozen.as_mut()?;
        frozen.look(self.data.view.as_ref()?);
        let pids = frozen.pids.clone();
        (!pids.is_empty()).then_some(Effect::Ask(Ask::History(pids)))
    }

    /// Makes the rows anew; what is selected stays selected.
    pub fn build(&mut self) {
        let mut rows = self.screen().rows(self.data(), self.span, self.classes);
        let Chosen {
            sort, descending, ..
        } = *self.chosen();
        if let Some(column) = sort {
            table::sort(&mut rows, column, descending);
        }
        table::filter(&mut rows, &self.filter);
        self.rows = rows;
        let followed = self.chosen().follow.as_ref();
        let place = followed.and_then(|id| self.rows.iter().position(|row| row.id == *id));
        let at = place.unwrap_or(self.chosen().at);
        self.choose().at = at;
        self.keep_in_sight();
    }

    /// Keeps the selection among the rows, and on the page.
    pub fn keep_in_sight(&mut self) {
        let (count, page) = (self.rows.len(), self.page.max(1));
        let chosen = self.choose();
        chosen.at = chosen.at.min(count.saturating_sub(1));
        chosen.offset = chosen
            .offset
            .clamp((chosen.at + 1).saturating_sub(page), chosen.at)
            .min(count.saturating_sub(page));
    }

    /// Selects the row at `at`, and stays with it; the first one is a place, not a row.
    pub fn select(&mut self, at: usize) {
        let at = at.min(self.rows.len().saturating_sub(1));
        let follow = (at > 0).then(|| self.rows.get(at).map(|row| row.id.clone()));
        self.choose().at = at;
        self.choose().follow = follow.flatten();
        self.keep_in_sight();
    }

    /// Shows a screen.
    pub fn show(&mut self, screen: usize) {
        self.screen = screen % SCREENS.len();
        self.build();
    }

    /// Shows the screen that is so many further.
    pub fn turn(&mut self, by: usize) {
        self.show(self.screen + by);
    }

    /// Sorts by the next column, from large to small if it has numbers.
    pub fn sort_next(&mut self) {
        let columns = self.screen().columns(self.classes);
        let next = self.chosen().sort.map_or(0, |column| column + 1) % columns.len();
        self.choose().sort = Some(next);
        self.choose().descending = columns[next].side.is_of_numbers();
        self.build();
    }

    fn sort_as_at_first(&mut self) {
        let sort = self.screen().sorted_by(self.classes);
        *self.choose() = Chosen {
            sort,
            descending: true,
            ..Chosen::default()
        };
    }

    /// Shows locks one by one, or by class; for the screen of locks.
    pub fn toggle_classes(&mut self) {
        self.classes = !self.classes;
        self.sort_as_at_first();
        self.build();
    }

    /// Holds the screen, or lets it go on with what is true now.
    pub fn toggle_pause(&mut self) -> Option<Effect> {
        self.data.toggle_pause();
        self.build();
        (!self.data.is_paused()).then_some(Effect::Ask(Ask::Read))
    }

    /// In total, per interval, and if there is a mark, since that.
    pub fn next_span(&mut self) {
        self.span = match self.span {
            Span::Total => Span::Interval,
            Span::Interval if self.data().is_marked() => Span::Marked,
            _ => Span::Total,
        };
        self.build();
    }

    /// Shows sums from now on.
    pub fn mark(&mut self) {
        self.data.mark();
        self.span = Span::Marked;
        self.build();
    }

    /// Freezes the row that is selected, or ends that.
    pub fn toggle_freeze(&mut self) -> Option<Effect> {
        if self.frozen.take().is_some() {
            return None;
        }
        let row = self.rows.get(self.chosen().at);
        let view = self.data().view.as_ref();
        self.frozen = row
            .zip(view)
            .and_then(|(row, view)| Frozen::new(&row.id, view));
        if self.frozen.is_none() {
            self.message = Some("a lock, a chain or a task can be frozen: select one".into());
        }
        self.ask_history()
    }
}
