// SPDX-License-Identifier: GPL-2.0-only
//! One view as text, for scripts and for terminals that are none.

use anyhow::Result;

use super::data::Data;
use super::screens::Screen;
use super::source::Reading;
use super::sums::Span;
use super::text;
use crate::output::Table;
use crate::watch::View;

/// The view as a JSON object.
///
/// # Errors
/// Those of the serializer.
pub fn json(view: &View) -> Result<String> {
    Ok(serde_json::to_string_pretty(view)? + "\n")
}

/// The tables, in total: all but the actions, since these take two readings.
#[must_use]
pub fn tables(reading: Reading) -> String {
    let mut data = Data::default();
    data.take(reading, None);
    let mut all = data.view.as_ref().map_or_else(String::new, head);
    for screen in [
        Screen::Locks,
        Screen::Chains,
        Screen::Tasks,
        Screen::Cgroups,
        Screen::Weights,
    ] {
        all += &format!("\n{}:\n", screen.name());
        all += &table(screen, &data);
    }
    all
}

fn head(view: &View) -> String {
    let total = &view.total;
    format!(
        "{}, watched {}; waits {}, waited {}, inverted {}, donations {}; waiting now {}, events lost {}\n",
        if view.donating {
            "donating"
        } else {
            "observing"
        },
        text::time(view.time_ns.saturating_sub(view.since_ns)),
        total.waits,
        text::time(total.waited_ns),
        text::time(total.inverted_ns),
        total.donations,
        view.waiting_now,
        view.lost_events,
    )
}

fn table(screen: Screen, data: &Data) -> String {
    let heads = screen.columns(false).iter().map(|column| column.head);
    let mut table = Table::new(&heads.collect::<Vec<_>>());
    let rows = screen.rows(data, Span::Total, false);
    if rows.is_empty() {
        return screen.nothing(data).to_owned() + "\n";
    }
    for row in rows {
        table.row(row.cells.into_iter().map(|cell| cell.text).collect());
    }
    table.render()
}
