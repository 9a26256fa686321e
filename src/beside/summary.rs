// SPDX-License-Identifier: GPL-2.0-only
//! What it comes to: how much inversion there was, and who held up whom by which lock. Tables are the
//! watcher's; here they become sentences, or one JSON object.

use std::collections::HashMap;
use std::fmt::Write;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use crate::stats::Metrics;
use crate::watch::View;
use crate::watch::view::{HeldRow, Sums};

/// Who held up whom: as many are named.
const NAMED: usize = 10;
/// Tasks whose nice value is remembered.
const NICE_MAX: usize = 1024;
/// Less is what any machine has at any time, and nobody notices.
const NOTICED: Duration = Duration::from_millis(1);

/// A line of the summary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Held {
    /// `mutex fdget_pos`.
    pub class: String,
    /// Who had the lock, its pid, and its nice value, if it still lived when that was asked.
    pub owner: String,
    /// See above.
    pub owner_pid: u32,
    /// See above.
    pub owner_nice: Option<i32>,
    /// Who waited.
    pub waiter: String,
    /// Its pid.
    pub waiter_pid: u32,
    /// Over the waits.
    pub sums: Sums,
}

/// What was seen from the beginning to the end.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    /// How long it was looked.
    pub seconds: f64,
    /// Of so many waits one was looked at.
    pub sample: u32,
    /// Over all waits that were looked at.
    pub total: Sums,
    /// Who held up whom, the largest inversion time first.
    pub held: Vec<Held>,
    /// Events that are missing in the sums.
    pub lost_events: u64,
    /// Waits of which no inversion time is known, or that nothing could be kept of.
    pub untracked: u64,
    #[serde(skip)]
    since_ns: u64,
    /// Since when the watcher has its sums, and what came before.
    #[serde(skip)]
    tables_since_ns: u64,
    #[serde(skip)]
    before: Sums,
    #[serde(skip)]
    nice: HashMap<u32, i32>,
}

/// The nice value of a task that lives.
fn nice_of(pid: u32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // behind the name, which may hold anything: state is the 3rd field, nice the 19th
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(16)?.parse().ok()
}

impl Summary {
    /// Nothing seen yet.
    #[must_use]
    pub fn new(sample: u32) -> Self {
        Self {
            sample,
            ..Self::default()
        }
    }

    /// Sums count from this view on.
    pub fn begin(&mut self, view: &View) {
        self.since_ns = view.time_ns;
        self.tables_since_ns = view.since_ns;
    }

    /// Takes a later view for what was seen so far. If the watcher was started again, its sums have begun anew.
    pub fn look(&mut self, view: &View) {
        if view.since_ns != self.tables_since_ns {
            self.tables_since_ns = view.since_ns;
            self.before.add(&self.total);
        }
        self.seconds =
            Duration::from_nanos(view.time_ns.saturating_sub(self.since_ns)).as_secs_f64();
        self.total = self.before;
        self.total.add(&view.total);
        self.lost_events = view.lost_events;
        for row in view.held.iter().filter(|row| row.owner.pid != 0) {
            let pid = row.owner.pid;
            if self.nice.len() < NICE_MAX
                && !self.nice.contains_key(&pid)
                && let Some(nice) = nice_of(pid)
            {
                self.nice.insert(pid, nice);
            }
        }
        let nice = &self.nice;
        let held = |row: &HeldRow| Held {
            class: row.class.clone(),
            owner: row.owner.comm.clone(),
            owner_pid: row.owner.pid,
            owner_nice: nice.get(&row.owner.pid).copied(),
            waiter: row.waiter.comm.clone(),
            waiter_pid: row.waiter.pid,
            sums: row.sums,
        };
        self.held = view
            .held
            .iter()
            .filter(|row| row.owner.pid != 0)
            .map(held)
            .collect();
    }

    /// Takes the names of a view that came after the end, and nothing else.
    pub fn name(&mut self, view: &View) {
        for held in &mut self.held {
            let pids = (held.owner_pid, held.waiter_pid);
            let mut rows = view.held.iter();
            let Some(row) = rows.find(|row| (row.owner.pid, row.waiter.pid) == pids) else {
                continue;
            };
            held.owner.clone_from(&row.owner.comm);
            held.waiter.clone_from(&row.waiter.comm);
            if !held.class.contains(' ') {
                held.class.clone_from(&row.class);
            }
        }
    }

    /// Whether all that would be told has a name.
    #[must_use]
    pub fn is_named(&self) -> bool {
        let mut told = self.held.iter().filter(|held| held.sums.inverted_ns > 0);
        // a class without a site is its type alone
        let named = |held: &Held| !held.owner.is_empty() && held.class.contains(' ');
        told.by_ref().take(NAMED).all(named)
    }

    /// Takes in what was counted.
    pub fn end(&mut self, metrics: &Metrics) {
        self.untracked = metrics.inversion_untracked;
    }

    /// One JSON object.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn to_json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// For a person.
    #[must_use]
    pub fn to_text(&self) -> String {
        let during = length(Duration::from_secs_f64(self.seconds));
        let all = self.total;
        let inverted = Duration::from_nanos(all.inverted_ns);
        let mut text = if inverted < NOTICED {
            format!(
                "in {during} no inversion was seen: {} waits for locks, {} in all, the longest {}\n",
                all.waits,
                length(Duration::from_nanos(all.waited_ns)),
                length(Duration::from_nanos(all.longest_ns))
            )
        } else {
            let mut text = format!("in {during} {} of inversion\n", length(inverted));
            let named = self.held.iter().filter(|held| held.sums.inverted_ns > 0);
            for held in named.take(NAMED) {
                let _ = writeln!(text, "  {}", held.line());
            }
            text.push_str(
                "while these waited, the owner of their lock could have run and did not, although it kept more \
                 important tasks waiting: scx_proxy would have run it in their place\n",
            );
            text
        };
        if self.sample > 1 {
            let _ = writeln!(
                text,
                "about one in {} waits was sampled: multiply by that for an estimate of all",
                self.sample
            );
        }
        if self.lost_events > 0 {
            let _ = writeln!(
                text,
                "{} events were lost, and are missing here",
                self.lost_events
            );
        }
        if self.untracked > 0 {
            let _ = writeln!(text, "{} waits could not be timed", self.untracked);
        }
        text
    }
}

impl Held {
    /// `0.9 s  mutex fdget_pos: tar 907 (nice 19) held up firefox 812, 12 waits, the longest 0.5 s`
    fn line(&self) -> String {
        let name = |comm: &str, pid: u32| match comm {
            "" => pid.to_string(),
            comm => format!("{comm} {pid}"),
        };
        let nice = self
            .owner_nice
            .map_or(String::new(), |nice| format!(" (nice {nice})"));
        let waits = match self.sums.waits {
            1 => "1 wait".to_owned(),
            n => format!("{n} waits"),
        };
        format!(
            "{}  {}: {}{nice} held up {}, {waits}, the longest {}",
            length(Duration::from_nanos(self.sums.inverted_ns)),
            self.class,
            name(&self.owner, self.owner_pid),
            name(&self.waiter, self.waiter_pid),
            length(Duration::from_nanos(self.sums.longest_ns))
        )
    }
}

/// `10 min`, `3.1 s`, `12.5 ms`.
fn length(time: Duration) -> String {
    let secs = time.as_secs_f64();
    match secs {
        _ if secs >= 600.0 => format!("{:.0} min", secs / 60.0),
        _ if secs >= 1.0 => format!("{secs:.1} s"),
        _ => format!("{:.1} ms", secs * 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::view::Task;

    fn view(inverted_ns: u64) -> View {
        let task = |pid, comm: &str| Task {
            pid,
            tgid: pid,
            comm: comm.to_owned(),
        };
        let sums = Sums {
            waits: 12,
            waited_ns: 4_000_000_000,
            inverted_ns,
            longest_ns: 900_000_000,
            ..Sums::default()
        };
        View {
            time_ns: 601_000_000_000,
            total: sums,
            held: vec![HeldRow {
                class: "mutex fdget_pos".into(),
                // more than any pid
                owner: task(u32::MAX, "tar"),
                waiter: task(812, "firefox"),
                sums,
            }],
            ..View::default()
        }
    }

    fn summary(inverted_ns: u64) -> Summary {
        let mut summary = Summary::new(1);
        summary.begin(&View {
            time_ns: 1_000_000_000,
            ..View::default()
        });
        summary.nice.insert(u32::MAX, 19);
        summary.look(&view(inverted_ns));
        summary
    }

    #[test]
    fn who_held_up_whom_is_said() {
        let text = summary(3_100_000_000).to_text();
        assert!(text.starts_with("in 10 min 3.1 s of inversion\n"), "{text}");
        let line = "3.1 s  mutex fdget_pos: tar 4294967295 (nice 19) held up firefox 812, 12 waits, \
                    the longest 900.0 ms\n";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn what_has_no_name_yet_is_known() {
        let mut named = summary(1_000_000);
        assert!(named.is_named() && summary(0).is_named());
        named.held[0].class = "mutex".into();
        assert!(!named.is_named());
    }

    #[test]
    fn names_come_after_the_end_and_times_do_not() {
        let mut summary = summary(1_000_000_000);
        summary.held[0].class = "mutex".into();
        summary.held[0].owner.clear();
        summary.name(&view(9_000_000_000));
        assert!(summary.is_named());
        assert_eq!(summary.held[0].owner, "tar");
        assert_eq!(summary.held[0].sums.inverted_ns, 1_000_000_000);
        assert_eq!(summary.total.inverted_ns, 1_000_000_000);
    }

    #[test]
    fn sums_go_on_when_the_watcher_was_started_again() {
        let mut summary = summary(1_000_000_000);
        let again = View {
            since_ns: 500_000_000_000,
            ..view(2_000_000_000)
        };
        summary.look(&again);
        summary.look(&again);
        assert_eq!(summary.total.inverted_ns, 3_000_000_000);
    }

    #[test]
    fn nothing_seen_is_said_too() {
        let text = summary(400_000).to_text();
        assert!(
            text.starts_with("in 10 min no inversion was seen: 12 waits"),
            "{text}"
        );
        let json = summary(0).to_json().expect("JSON");
        let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(json["held"][0]["owner_nice"], 19);
        assert_eq!(json["total"]["inverted_ns"], 0);
    }

    #[test]
    fn the_nice_value_of_this_process_is_read() {
        // SAFETY: no memory is involved.
        let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
        assert_eq!(nice_of(std::process::id()), Some(nice));
        assert_eq!(nice_of(u32::MAX), None);
    }
}
