// SPDX-License-Identifier: GPL-2.0-only
//! The tables of a view, made of sums, of the waits that go on, and of names.

use std::collections::HashMap;
use std::hash::Hash;

use super::chains::Path;
use super::ledger::{Ledger, LockSums, TaskSums};
use super::view::{Chain, ClassRow, HeldRow, Link, LockRow, PairRow, Sums, Task, TaskRow, View};
use crate::events::label::OTHER;
use crate::events::{Labels, edge};
use crate::waits::{Wait, Waits};

/// Sums of a wait that goes on, but for its donations, which were counted when they began.
fn so_far(wait: &Wait, now_ns: u64) -> Sums {
    let waited_ns = now_ns.saturating_sub(wait.since_ns);
    Sums {
        waits: 1,
        waited_ns,
        inverted_ns: wait.details.inverted_ns.min(waited_ns),
        longest_ns: waited_ns,
        ..Sums::default()
    }
}

/// All but the chains and what is not in tables.
pub fn tables(ledger: &Ledger, waits: &Waits, labels: Labels, now_ns: u64, rows: usize) -> View {
    // the waits that go on are added to a copy, so that its bounds hold for them, too
    let mut ledger = ledger.clone();
    let mut ongoing: Vec<(&u32, &Wait)> = waits.all().iter().collect();
    ongoing.sort_unstable_by_key(|(pid, wait)| (wait.since_ns, **pid));
    for (pid, wait) in ongoing {
        if let Some(about) = waits.about(*pid) {
            ledger.add(&about, &so_far(wait, now_ns));
        }
    }
    View {
        total: ledger.total,
        waiting_now: count(waits.all().len()),
        locks: locks(&ledger, waits, labels, rows),
        classes: classes(&ledger, waits, labels, rows),
        tasks: tasks(&ledger, waits, labels, rows),
        pairs: pairs(&ledger, labels, rows),
        held: held(&ledger, labels, rows),
        ..View::default()
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// How many wait for what has each key.
fn waiting<K: Eq + Hash>(waits: &Waits, key: impl Fn(&Wait) -> K) -> HashMap<K, u32> {
    let mut waiting = HashMap::new();
    for wait in waits.all().values() {
        *waiting.entry(key(wait)).or_default() += 1;
    }
    waiting
}

fn locks(ledger: &Ledger, waits: &Waits, labels: Labels, rows: usize) -> Vec<LockRow> {
    let mut waiting = waiting(waits, |wait| wait.lock);
    let (largest, other) = ledger.locks.largest(rows);
    let row = |(id, row): (u64, &LockSums)| LockRow {
        id,
        lock_type: edge::type_name(id).to_owned(),
        class: labels.class_of(id, row.site),
        name: labels.lock(id, row.site),
        sums: row.sums,
        waiting_now: waiting.remove(&id).unwrap_or(0),
        owner: waits.owner(id).map(|pid| labels.task(pid, 0)),
    };
    let mut all: Vec<LockRow> = largest.into_iter().map(row).collect();
    let waiting_now = waiting.values().sum();
    if other.sums != Sums::default() || waiting_now > 0 {
        all.push(LockRow {
            class: OTHER.to_owned(),
            name: OTHER.to_owned(),
            sums: other.sums,
            waiting_now,
            ..LockRow::default()
        });
    }
    all
}

/// Rows of the same name are one; the `rows` largest, and the sums of all others.
fn by_name<K, N>(
    (all, mut other): (Vec<(K, &Sums)>, Sums),
    name: impl Fn(K) -> N,
    rows: usize,
) -> (Vec<(N, Sums)>, Sums)
where
    N: Eq + Hash + Ord,
{
    let mut merged: HashMap<N, Sums> = HashMap::new();
    for (key, sums) in all {
        merged.entry(name(key)).or_default().add(sums);
    }
    let mut merged: Vec<(N, Sums)> = merged.into_iter().collect();
    merged.sort_unstable_by(|(a, x), (b, y)| y.rank().cmp(&x.rank()).then_with(|| a.cmp(b)));
    for (_, sums) in merged.drain(rows.min(merged.len())..) {
        other.add(&sums);
    }
    (merged, other)
}

/// A function asks for locks in several places: they are one class.
fn classes(ledger: &Ledger, waits: &Waits, labels: Labels, rows: usize) -> Vec<ClassRow> {
    let mut waiting = waiting(waits, |wait| labels.class_of(wait.lock, wait.details.site));
    let all = ledger.classes.largest(usize::MAX);
    let (merged, other) = by_name(all, |class| labels.class(class), rows);
    let row = |(class, sums): (String, Sums)| ClassRow {
        waiting_now: waiting.remove(&class).unwrap_or(0),
        class,
        sums,
    };
    let mut all: Vec<ClassRow> = merged.into_iter().map(row).collect();
    let waiting_now = waiting.values().sum();
    if other != Sums::default() || waiting_now > 0 {
        all.push(ClassRow {
            class: OTHER.to_owned(),
            sums: other,
            waiting_now,
        });
    }
    all
}

fn tasks(ledger: &Ledger, waits: &Waits, labels: Labels, rows: usize) -> Vec<TaskRow> {
    let (largest, other) = ledger.tasks.largest(rows);
    let row = |(pid, row): (u32, &TaskSums)| TaskRow {
        task: labels.task(pid, row.tgid),
        cgroup: match row.cgroup {
            0 => String::new(),
            id => labels.cgroup(id),
        },
        waited: row.waited,
        owned: row.owned,
        waits_for: waits
            .get(pid)
            .map(|wait| labels.lock(wait.lock, wait.details.site)),
    };
    let mut all: Vec<TaskRow> = largest.into_iter().map(row).collect();
    if (other.waited, other.owned) != (Sums::default(), Sums::default()) {
        all.push(TaskRow {
            task: Task {
                comm: OTHER.to_owned(),
                ..Task::default()
            },
            waited: other.waited,
            owned: other.owned,
            ..TaskRow::default()
        });
    }
    all
}

/// Cgroups whose names are not known are one.
fn pairs(ledger: &Ledger, labels: Labels, rows: usize) -> Vec<PairRow> {
    let all = ledger.pairs.largest(usize::MAX);
    let names = |(waiter, owner)| (labels.cgroup(waiter), labels.cgroup(owner));
    let (merged, other) = by_name(all, names, rows);
    let row = |((waiter, owner), sums)| PairRow {
        waiter,
        owner,
        sums,
    };
    let mut all: Vec<PairRow> = merged.into_iter().map(row).collect();
    if other != Sums::default() {
        all.push(PairRow {
            waiter: OTHER.to_owned(),
            owner: OTHER.to_owned(),
            sums: other,
        });
    }
    all
}

/// Threads of one name are one.
fn held(ledger: &Ledger, labels: Labels, rows: usize) -> Vec<HeldRow> {
    let (all, mut other) = ledger.held.largest(usize::MAX);
    let mut merged: Vec<HeldRow> = Vec::new();
    let mut places: HashMap<(String, String, String), usize> = HashMap::new();
    for ((class, owner, waiter), sums) in all {
        let class = labels.class(class);
        let (owner, waiter) = (labels.task(owner, 0), labels.task(waiter, 0));
        let key = (class.clone(), owner.comm.clone(), waiter.comm.clone());
        let place = *places.entry(key).or_insert(merged.len());
        if place == merged.len() {
            merged.push(HeldRow {
                class,
                owner,
                waiter,
                sums: Sums::default(),
            });
        }
        merged[place].sums.add(sums);
    }
    merged.sort_by_key(|row| std::cmp::Reverse(row.sums.rank()));
    for row in merged.drain(rows.min(merged.len())..) {
        other.add(&row.sums);
    }
    if other != Sums::default() {
        merged.push(HeldRow {
            class: OTHER.to_owned(),
            sums: other,
            ..HeldRow::default()
        });
    }
    merged
}

/// A chain with names.
pub fn chain(path: &Path, waits: &Waits, labels: Labels, now_ns: u64) -> Chain {
    let link = |pid: &u32| {
        let wait = waits.get(*pid)?;
        Some(Link {
            task: labels.task(*pid, wait.details.tgid),
            lock: wait.lock,
            lock_name: labels.lock(wait.lock, wait.details.site),
            waited_ns: now_ns.saturating_sub(wait.since_ns),
        })
    };
    let donor = path.waiters.first().and_then(|pid| waits.get(*pid));
    Chain {
        links: path.waiters.iter().filter_map(link).collect(),
        end: path.end.map(|pid| labels.task(pid, 0)),
        cycle: path.cycle,
        donations: donor.map_or(0, |wait| wait.details.donations),
    }
}
