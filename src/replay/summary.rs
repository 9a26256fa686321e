// SPDX-License-Identifier: GPL-2.0-only
//! What a recording comes to: tables of waits by class of lock, by task, by pair of cgroups.

use std::io::Write;

use anyhow::Result;

use super::Sink;
use crate::events::{Batch, Event, NameTable, What};
use crate::output::Table;
use crate::record::format::Header;
use crate::watch::Watch;
use crate::watch::view::{Sums, TaskRow, View};

/// Rows of a table.
const ROWS: usize = 20;

/// Sums up, and prints the tables at the end.
pub struct Summary<W> {
    out: W,
    head: String,
    began_ns: u64,
    watch: Watch,
    last_ns: u64,
    restarts: usize,
}

impl<W: Write> Summary<W> {
    /// Of the recording that begins so.
    pub fn new(header: &Header, out: W) -> Self {
        Self {
            out,
            head: header.describe(),
            began_ns: header.began_ns,
            watch: Watch::new(header.began_ns),
            last_ns: header.began_ns,
            restarts: 0,
        }
    }
}

impl<W: Write> Sink for Summary<W> {
    fn batch(&mut self, batch: &Batch, _names: &NameTable) -> Result<()> {
        self.watch.learn(batch);
        let happened = batch.events.iter().filter_map(Event::happened_ns);
        self.last_ns = self.last_ns.max(happened.max().unwrap_or(0));
        let restarts = batch.events.iter();
        let restarts = restarts.filter(|event| matches!(event.what, What::Restart { .. }));
        self.restarts += restarts.count();
        Ok(())
    }

    fn end(&mut self, _names: &NameTable) -> Result<()> {
        let view = self.watch.view(self.last_ns, ROWS);
        let secs = (self.last_ns - self.began_ns) as f64 / 1e9;
        let restarts = match self.restarts {
            0 => String::new(),
            1 => ", over 1 restart of the scheduler".to_owned(),
            more => format!(", over {more} restarts of the scheduler"),
        };
        let text = format!("{}, {secs:.1} s{restarts}\n{}", self.head, tables(&view));
        self.out.write_all(text.as_bytes())?;
        Ok(self.out.flush()?)
    }
}

const HEADS: [&str; 6] = [
    "waits",
    "waited ms",
    "inverted ms",
    "longest ms",
    "donations",
    "lent ms",
];

fn table(heads: &[&str], rows: impl Iterator<Item = (Vec<String>, Sums)>) -> String {
    let heads: Vec<&str> = heads.iter().chain(&HEADS).copied().collect();
    let mut table = Table::new(&heads);
    let ms = |ns: u64| format!("{:.3}", ns as f64 / 1e6);
    for (mut row, sums) in rows.filter(|(_, sums)| sums.waits > 0 || sums.lent_ns > 0) {
        row.extend([
            sums.waits.to_string(),
            ms(sums.waited_ns),
            ms(sums.inverted_ns),
            ms(sums.longest_ns),
            sums.donations.to_string(),
            ms(sums.lent_ns),
        ]);
        table.row(row);
    }
    table.render()
}

fn task(row: &TaskRow) -> String {
    match (row.task.pid, row.task.comm.as_str()) {
        (0, _) => "other".to_owned(),
        (pid, "") => pid.to_string(),
        (pid, comm) => format!("{comm} {pid}"),
    }
}

fn tables(view: &View) -> String {
    let total = &view.total;
    let classes = view.classes.iter();
    let classes = classes.map(|row| (vec![row.class.clone()], row.sums));
    let waiters = view.tasks.iter();
    let waiters = waiters.map(|row| (vec![task(row)], row.waited));
    let owners = view.tasks.iter();
    let owners = owners.map(|row| (vec![task(row)], row.owned));
    let pairs = view.pairs.iter();
    let pairs = pairs.map(|row| (vec![row.waiter.clone(), row.owner.clone()], row.sums));
    format!(
        "{} waits, {} in progress; {} events lost\n\n{}\n{}\n{}\n{}",
        total.waits,
        view.waiting_now,
        view.lost_events,
        table(&["lock"], classes),
        table(&["waiter"], waiters),
        table(&["owner"], owners),
        table(&["cgroup that waits", "cgroup that owns"], pairs),
    )
}
