// SPDX-License-Identifier: GPL-2.0-only
//! The six screens: which columns each has, and how its rows come from what is known.

use std::collections::HashMap;

use super::actions::{self, Action, Counted};
use super::data::Data;
use super::sums::{RowId, Span};
use super::table::{Cell, Column, Row, Side};
use super::text;
use crate::stats::GroupRow;
use crate::watch::View;
use crate::watch::view::{Chain, LockRow, Sums, Task};

/// A screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Screen {
    /// Locks, or classes of them.
    Locks,
    /// Chains as they stand.
    Chains,
    /// Tasks as waiters and as owners.
    Tasks,
    /// Pairs of cgroups.
    Cgroups,
    /// What the scheduler does.
    Actions,
    /// Weights and limits of cgroups.
    Weights,
}

/// All, in the order of their keys.
pub const SCREENS: [Screen; 6] = [
    Screen::Locks,
    Screen::Chains,
    Screen::Tasks,
    Screen::Cgroups,
    Screen::Actions,
    Screen::Weights,
];

const fn words(head: &'static str, min: usize, rank: u8) -> Column {
    let side = Side::Left;
    Column {
        head,
        side,
        min,
        rank,
    }
}

const fn path(head: &'static str, min: usize, rank: u8) -> Column {
    let side = Side::Path;
    Column {
        head,
        side,
        min,
        rank,
    }
}

const fn number(head: &'static str, min: usize, rank: u8) -> Column {
    let side = Side::Right;
    Column {
        head,
        side,
        min,
        rank,
    }
}

static LOCKS: &[Column] = &[
    words("LOCK", 14, 0),
    words("TYPE", 7, 7),
    number("INVERTED", 9, 1),
    number("WAITED", 7, 3),
    number("WAITS", 6, 2),
    number("LONGEST", 8, 4),
    number("NOW", 4, 5),
    words("OWNER", 13, 6),
    number("DONATED", 8, 8),
    words("CLASS", 18, 9),
];
static CLASSES: &[Column] = &[
    words("CLASS", 14, 0),
    number("INVERTED", 9, 1),
    number("WAITED", 7, 3),
    number("WAITS", 6, 2),
    number("LONGEST", 8, 4),
    number("NOW", 4, 5),
    number("DONATED", 8, 6),
];
static CHAINS: &[Column] = &[
    number("WAITED", 7, 1),
    number("DONATED", 8, 3),
    number("LOCKS", 6, 2),
    words("CHAIN", 16, 0),
];
static TASKS: &[Column] = &[
    number("PID", 7, 1),
    words("TASK", 12, 0),
    number("INVERTED", 9, 2),
    number("WAITED", 7, 5),
    number("WAITS", 6, 7),
    number("GAVE", 6, 8),
    number("TIME GIVEN", 10, 12),
    number("OWNED:INV", 10, 3),
    number("WAITED", 7, 9),
    number("WAITS", 6, 10),
    number("GOT", 6, 6),
    number("TIME GOT", 8, 13),
    words("WAITS FOR", 14, 4),
    path("CGROUP", 16, 11),
];
static PAIRS: &[Column] = &[
    path("WAITER'S CGROUP", 16, 0),
    path("OWNER'S CGROUP", 16, 1),
    number("INVERTED", 9, 2),
    number("WAITED", 7, 4),
    number("WAITS", 6, 3),
    number("LONGEST", 8, 5),
    number("DONATED", 8, 6),
    number("LENT", 7, 7),
];
static WEIGHTS: &[Column] = &[
    path("CGROUP", 16, 0),
    number("WEIGHT", 7, 4),
    number("EFFECTIVE", 9, 1),
    number("COMPETING", 9, 5),
    number("MAX", 12, 3),
    number("THROTTLED", 9, 2),
    number("TIMES", 7, 6),
    number("TIME GIVEN", 10, 7),
    number("TIME GOT", 8, 8),
];
static ACTIONS: &[Column] = &[
    words("KIND", 7, 4),
    words("ACTION", 15, 0),
    number("PER SEC", 8, 1),
    number("IN ALL", 7, 3),
    Column {
        head: "LATELY",
        side: Side::Tail,
        min: 20,
        rank: 2,
    },
    words("MEANING", 30, 5),
];

impl Screen {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Locks => "Locks",
            Self::Chains => "Chains",
            Self::Tasks => "Tasks",
            Self::Cgroups => "Cgroups",
            Self::Weights => "Weights",
            Self::Actions => "Actions",
        }
    }

    /// Its columns; `classes`: locks by class.
    #[must_use]
    pub fn columns(self, classes: bool) -> &'static [Column] {
        match self {
            Self::Locks if classes => CLASSES,
            Self::Locks => LOCKS,
            Self::Chains => CHAINS,
            Self::Tasks => TASKS,
            Self::Cgroups => PAIRS,
            Self::Weights => WEIGHTS,
            Self::Actions => ACTIONS,
        }
    }

    /// The column that it is sorted by at first; `None`: the order in which rows come.
    #[must_use]
    pub fn sorted_by(self, classes: bool) -> Option<usize> {
        let columns = self.columns(classes);
        match self {
            Self::Actions => None,
            Self::Chains => Some(0),
            Self::Weights => columns.iter().position(|column| column.head == "THROTTLED"),
            _ => columns.iter().position(|column| column.head == "INVERTED"),
        }
    }

    /// Its rows over `span`.
    #[must_use]
    pub fn rows(self, data: &Data, span: Span, classes: bool) -> Vec<Row> {
        let Some(view) = &data.view else {
            return Vec::new();
        };
        match self {
            Self::Locks if classes => class_rows(view, data, span),
            Self::Locks => view
                .locks
                .iter()
                .map(|row| lock_row(row, data, span))
                .collect(),
            Self::Chains => view.chains.iter().map(chain_row).collect(),
            Self::Tasks => task_rows(view, data, span),
            Self::Cgroups => pair_rows(view, data, span),
            Self::Weights => group_rows(view, data, span),
            Self::Actions => data.actions.counted().enumerate().map(action_row).collect(),
        }
    }

    /// What is said in place of no rows.
    #[must_use]
    pub fn nothing(self, data: &Data) -> &'static str {
        match self {
            _ if data.view.is_none() => "no data yet",
            Self::Actions => "nothing counted yet",
            Self::Chains => "nothing waits",
            Self::Weights => "no cgroups with the cpu controller",
            _ => "nothing waits, and nothing has waited",
        }
    }
}

/// A task as it is named everywhere.
#[must_use]
pub fn task_name(task: &Task) -> String {
    let comm = if task.comm.is_empty() {
        "?"
    } else {
        &task.comm
    };
    text::clean(&format!("{comm} {}", task.pid))
}

/// `donor -> lock -> owner -> ...`; a deadlock says so first, where it is not cut off.
#[must_use]
pub fn chain_text(chain: &Chain) -> String {
    let mut text = String::from(if chain.cycle { "DEADLOCK " } else { "" });
    for link in &chain.links {
        text += &format!(
            "{} -> {} -> ",
            task_name(&link.task),
            text::clean(&link.lock_name)
        );
    }
    text + &match &chain.end {
        Some(task) => task_name(task),
        None if chain.cycle => "back to one of them".into(),
        None => "no known owner".into(),
    }
}

fn lock_row(row: &LockRow, data: &Data, span: Span) -> Row {
    let id = RowId::Lock(row.id);
    let sums = data.sums(span, &id, &row.sums);
    let owner = row.owner.as_ref().map_or("-".into(), task_name);
    Row {
        cells: vec![
            Cell::words(&row.name),
            Cell::words(&row.lock_type),
            Cell::time(sums.inverted_ns),
            Cell::time(sums.waited_ns),
            Cell::count(sums.waits),
            Cell::time(sums.longest_ns),
            Cell::count(row.waiting_now.into()),
            Cell::words(&owner),
            Cell::count(sums.donations),
            Cell::words(&row.class),
        ],
        id,
        alarm: false,
    }
}

fn class_rows(view: &View, data: &Data, span: Span) -> Vec<Row> {
    let row = |row: &crate::watch::view::ClassRow| {
        let id = RowId::Class(row.class.clone());
        let sums = data.sums(span, &id, &row.sums);
        Row {
            cells: vec![
                Cell::words(&row.class),
                Cell::time(sums.inverted_ns),
                Cell::time(sums.waited_ns),
                Cell::count(sums.waits),
                Cell::time(sums.longest_ns),
                Cell::count(row.waiting_now.into()),
                Cell::count(sums.donations),
            ],
            id,
            alarm: false,
        }
    };
    view.classes.iter().map(row).collect()
}

fn chain_row(chain: &Chain) -> Row {
    let first = chain.links.first();
    Row {
        id: RowId::Chain(first.map_or(0, |link| link.task.pid)),
        cells: vec![
            Cell::time(first.map_or(0, |link| link.waited_ns)),
            Cell::count(chain.donations),
            Cell::count(chain.links.len() as u64),
            Cell::words(&chain_text(chain)),
        ],
        alarm: chain.cycle,
    }
}

fn task_rows(view: &View, data: &Data, span: Span) -> Vec<Row> {
    let row = |row: &crate::watch::view::TaskRow| {
        let (id, owner) = (RowId::Task(row.task.pid), RowId::Owner(row.task.pid));
        let waited = data.sums(span, &id, &row.waited);
        let owned = data.sums(span, &owner, &row.owned);
        Row {
            cells: vec![
                Cell::number(row.task.pid.into(), row.task.pid.to_string()),
                Cell::words(if row.task.comm.is_empty() {
                    "?"
                } else {
                    &row.task.comm
                }),
                Cell::time(waited.inverted_ns),
                Cell::time(waited.waited_ns),
                Cell::count(waited.waits),
                Cell::count(waited.donations),
                Cell::time(waited.lent_ns),
                Cell::time(owned.inverted_ns),
                Cell::time(owned.waited_ns),
                Cell::count(owned.waits),
                Cell::count(owned.donations),
                Cell::time(owned.lent_ns),
                Cell::words(row.waits_for.as_deref().unwrap_or("-")),
                Cell::words(&row.cgroup),
            ],
            id,
            alarm: false,
        }
    };
    view.tasks.iter().map(row).collect()
}

fn pair_rows(view: &View, data: &Data, span: Span) -> Vec<Row> {
    let row = |row: &crate::watch::view::PairRow| {
        let id = RowId::pair(row);
        let sums: Sums = data.sums(span, &id, &row.sums);
        let path = |path: &str| Cell::words(if path.is_empty() { "?" } else { path });
        Row {
            cells: vec![
                path(&row.waiter),
                path(&row.owner),
                Cell::time(sums.inverted_ns),
                Cell::time(sums.waited_ns),
                Cell::count(sums.waits),
                Cell::time(sums.longest_ns),
                Cell::count(sums.donations),
                Cell::time(sums.lent_ns),
            ],
            id,
            alarm: false,
        }
    };
    view.pairs.iter().map(row).collect()
}

/// With what the tasks of each gave and got, as donors and owners.
fn group_rows(view: &View, data: &Data, span: Span) -> Vec<Row> {
    let mut lent: HashMap<&str, [u64; 2]> = HashMap::new();
    for pair in &view.pairs {
        let ns = data.sums(span, &RowId::pair(pair), &pair.sums).lent_ns;
        lent.entry(&pair.waiter).or_default()[0] += ns;
        lent.entry(&pair.owner).or_default()[1] += ns;
    }
    let of = |path: &str| lent.get(path).copied().unwrap_or_default();
    let groups = data.groups.iter();
    groups
        .map(|(path, group)| group_row(path, group, of(path)))
        .collect()
}

fn group_row(path: &str, group: &GroupRow, [given_ns, got_ns]: [u64; 2]) -> Row {
    let (quota, period) = (group.quota_ns, group.period_ns);
    let max = match quota {
        0 => "-".to_owned(),
        quota => format!("{}/{}", text::time(quota), text::time(period)),
    };
    let of_one = quota as f64 / period.max(1) as f64;
    let weight = |weight: f64| Cell::number(weight, text::weight(weight));
    Row {
        id: RowId::Group(group.id),
        cells: vec![
            Cell::words(path),
            weight(group.weight),
            weight(group.effective_weight),
            weight(group.competing),
            Cell::number(of_one, max),
            Cell::time(group.throttled_ns),
            Cell::count(group.throttled),
            Cell::time(given_ns),
            Cell::time(got_ns),
        ],
        alarm: false,
    }
}

fn action_row((nr, (action, counted)): (usize, (&'static Action, &Counted))) -> Row {
    let rate = counted.rates.back().copied().unwrap_or(0.0);
    Row {
        id: RowId::Action(nr),
        cells: vec![
            Cell::words(action.kind),
            Cell::words(action.name),
            Cell::number(rate, text::rate(rate)),
            Cell::count(counted.sum),
            Cell::number(rate, actions::curve(&counted.rates)),
            Cell::words(action.about),
        ],
        alarm: false,
    }
}
