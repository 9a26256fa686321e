// SPDX-License-Identifier: GPL-2.0-only
//! Whatever events come to a [`Watch`], rows make up the total, within their bounds. And what an
//! event costs.

use proptest::prelude::*;

use super::ledger::{CLASSES_MAX, LOCKS_MAX, PAIRS_MAX, TASKS_MAX};
use super::tests::{BLOCK, DONATE, SNAPSHOT, SWITCH, WAKE, after, event, typed};
use super::view::Sums;
use super::{View, Watch};
use crate::abi;
use crate::events::Batch;
use crate::waits::WAITS_MAX;

fn sum<'a>(rows: impl Iterator<Item = &'a Sums>) -> Sums {
    rows.fold(Sums::default(), |mut all, sums| {
        all.add(sums);
        all
    })
}

/// Rows of each table make up the total, are in order, and are not too many.
pub fn check(view: &View) {
    let ordered = |ranks: &[[u64; 3]]| ranks.is_sorted_by(|a, b| a >= b);
    let ranks = |rows: &[(&str, &Sums)]| {
        let named = rows.iter().filter(|(name, _)| *name != "other");
        named.map(|(_, sums)| sums.rank()).collect::<Vec<_>>()
    };
    let locks: Vec<_> = view
        .locks
        .iter()
        .map(|r| (r.name.as_str(), &r.sums))
        .collect();
    let classes: Vec<_> = view
        .classes
        .iter()
        .map(|r| (r.class.as_str(), &r.sums))
        .collect();
    let pairs: Vec<_> = view
        .pairs
        .iter()
        .map(|r| (r.waiter.as_str(), &r.sums))
        .collect();
    for (rows, max) in [
        (locks, LOCKS_MAX),
        (classes, CLASSES_MAX),
        (pairs, PAIRS_MAX),
    ] {
        assert_eq!(sum(rows.iter().map(|(_, sums)| *sums)), view.total);
        assert!(ordered(&ranks(&rows)) && rows.len() <= max + 1);
    }
    assert_eq!(sum(view.tasks.iter().map(|r| &r.waited)), view.total);
    assert_eq!(sum(view.tasks.iter().map(|r| &r.owned)), view.total);
    assert!(view.tasks.len() <= TASKS_MAX + 1);
    let waiting: u32 = view.locks.iter().map(|row| row.waiting_now).sum();
    assert_eq!(waiting, view.waiting_now);
    let waiting: u32 = view.classes.iter().map(|row| row.waiting_now).sum();
    assert_eq!(waiting, view.waiting_now);
    assert!(view.waiting_now as usize <= WAITS_MAX);
}

/// Events that often concern the same tasks and locks.
fn likely() -> impl Strategy<Value = abi::proxy_event> {
    let kind = prop::sample::select(vec![
        BLOCK, BLOCK, WAKE, WAKE, DONATE, SNAPSHOT, SWITCH, 4, 8, 12,
    ]);
    let few = (1..12_u32, 0..12_u32, 0..6_u64, 0..4_u32, 0..4_u64);
    (kind, 0..100_u64, few, 0..50_u64, any::<u16>()).prop_map(
        |(kind, time_ns, (pid, other, lock, site_kind, cgroup), value, inverted)| {
            abi::proxy_event {
                kind,
                time_ns,
                pid,
                other,
                lock: (lock << 3) | (lock % 3),
                site_kind,
                site: lock % 2,
                cgroup,
                other_cgroup: cgroup / 2,
                value,
                inverted_ns: u64::from(inverted),
                tgid: pid / 3,
                ..Default::default()
            }
        },
    )
}

/// Any bytes whatever, and any kind that there is.
fn arbitrary() -> impl Strategy<Value = abi::proxy_event> {
    let bytes = prop::collection::vec(any::<u8>(), abi::EVENT_BYTES);
    (bytes, 0..14_u32).prop_map(|(bytes, kind)| abi::proxy_event {
        kind,
        ..abi::proxy_event::from(<[u8; abi::EVENT_BYTES]>::try_from(bytes).expect("whole"))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn rows_make_up_the_total(
        batches in prop::collection::vec(
            (prop::collection::vec(likely(), 0..60), any::<bool>()), 1..6),
        now_ns in 0..200_u64,
        rows in 0..30_usize,
    ) {
        let mut watch = Watch::new(0);
        for (events, snapshot) in batches {
            watch.learn(&Batch { events: typed(&events), snapshot, ..Batch::default() });
            check(&watch.view(now_ns, usize::MAX));
            let view = watch.view(now_ns, rows);
            check(&view);
            prop_assert!(view.locks.len() <= rows + 1 && view.chains.len() <= rows);
            prop_assert!((0..12).all(|pid| watch.history(pid).len() <= 4096));
        }
    }

    #[test]
    fn no_event_is_too_strange(
        events in prop::collection::vec(arbitrary(), 0..300), snapshot in any::<bool>(), now_ns in any::<u64>(),
    ) {
        let mut watch = Watch::new(0);
        watch.learn(&Batch { events: typed(&events), snapshot, ..Batch::default() });
        check(&watch.view(now_ns, usize::MAX));
        let pid = 1;
        prop_assert!(watch.history(pid).len() <= 300);
    }
}

/// Waits of ever new tasks for ever new locks, each begun, and all but every third ended.
fn flood(n: u32) -> Vec<abi::proxy_event> {
    let mut events = Vec::new();
    for i in 1..=n {
        let about = |kind| abi::proxy_event {
            pid: i,
            tgid: i / 2,
            other: i + 1,
            lock: u64::from(i) << 6,
            site: u64::from(i / 3),
            cgroup: u64::from(i),
            other_cgroup: u64::from(i / 2),
            value: u64::from(i),
            inverted_ns: u64::from(i / 2),
            ..event(kind, u64::from(i))
        };
        events.push(about(BLOCK));
        if i % 3 != 0 {
            events.push(abi::proxy_event {
                time_ns: u64::from(2 * i),
                ..about(WAKE)
            });
        }
    }
    events
}

#[test]
fn floods_stay_within_bounds() {
    let watch = after(&flood(60_000));
    let view = watch.view(200_000, usize::MAX);
    check(&view);
    assert_eq!(view.waiting_now as usize, WAITS_MAX);
    assert!(view.locks.len() > LOCKS_MAX / 2 && view.tasks.len() > TASKS_MAX / 2);
}

/// `cargo test --release --lib watch -- --ignored --nocapture cost`
#[test]
#[ignore = "prints times, judges nothing"]
fn cost_of_an_event() {
    let time = |what: &str, batches: &[Vec<abi::proxy_event>]| {
        let mut watch = Watch::new(0);
        let mut last_ns = 0.0;
        for events in batches {
            let batch = Batch {
                events: typed(events),
                ..Batch::default()
            };
            let begun = std::time::Instant::now();
            watch.learn(&batch);
            last_ns = begun.elapsed().as_nanos() as f64 / events.len() as f64;
        }
        let begun = std::time::Instant::now();
        let view = watch.view(u64::MAX, 50);
        let view_us = begun.elapsed().as_micros();
        let waits = view.total.waits;
        println!("{what}: {last_ns:.0} ns per event, {view_us} us per view ({waits} waits)");
    };
    let pair = [event(BLOCK, 100), event(WAKE, 107)];
    time("one wait again and again", &[pair.repeat(500_000)]);
    let new: Vec<_> = flood(500_000);
    let ended: Vec<_> = new.iter().filter(|e| e.pid % 3 != 0).copied().collect();
    time(
        "ever new tasks and locks, all ended",
        &[ended.clone(), ended],
    );
    time("ever new tasks and locks, waits full", &[new.clone(), new]);
}
