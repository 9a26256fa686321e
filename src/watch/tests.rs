// SPDX-License-Identifier: GPL-2.0-only
//! A [`Watch`] as a whole: what events make of a view.

use super::Watch;
use super::bounds::check;
use super::view::Sums;
use crate::abi;
use crate::events::{Batch, Event, Names, Site, TaskName};

pub const BLOCK: u32 = abi::proxy_event_kind_EVENT_BLOCK;
pub const WAKE: u32 = abi::proxy_event_kind_EVENT_WAKE;
pub const DONATE: u32 = abi::proxy_event_kind_EVENT_DONATE;
pub const SNAPSHOT: u32 = abi::proxy_event_kind_EVENT_SNAPSHOT;
pub const SWITCH: u32 = abi::proxy_event_kind_EVENT_SWITCH;
const LOCK: u64 = 0xffff_8880_0000_1230;

/// Task 1 and lock [`LOCK`] of task 2, wait number 1 or 7 ns long.
pub fn event(kind: u32, time_ns: u64) -> abi::proxy_event {
    abi::proxy_event {
        kind,
        time_ns,
        lock: LOCK,
        value: if kind == WAKE { 7 } else { 1 },
        pid: 1,
        other: 2,
        site: 0x55,
        site_kind: abi::proxy_site_kind_SITE_KERNEL,
        cgroup: 10,
        other_cgroup: 20,
        tgid: 1,
        ..Default::default()
    }
}

/// As events are, once they are read.
pub fn typed(raw: &[abi::proxy_event]) -> Vec<Event> {
    raw.iter().copied().map(Event::from).collect()
}

fn learn(watch: &mut Watch, events: &[abi::proxy_event]) {
    watch.learn(&Batch {
        events: typed(events),
        donating: true,
        ..Batch::default()
    });
}

fn snapshot(watch: &mut Watch, events: &[abi::proxy_event]) {
    watch.learn(&Batch {
        events: typed(events),
        snapshot: true,
        lost: 3,
        ..Batch::default()
    });
}

pub fn after(events: &[abi::proxy_event]) -> Watch {
    let mut watch = Watch::new(0);
    learn(&mut watch, events);
    watch
}

/// waits, waited, inverted
fn brief(sums: &Sums) -> (u64, u64, u64) {
    (sums.waits, sums.waited_ns, sums.inverted_ns)
}

#[test]
fn a_wait_counts_while_it_lasts_and_once_it_is_over() {
    let mut watch = after(&[event(BLOCK, 100)]);
    let view = watch.view(104, 9);
    assert_eq!((view.waiting_now, brief(&view.total)), (1, (1, 4, 0)));
    let lock = &view.locks[0];
    assert_eq!((lock.id, lock.waiting_now), (LOCK, 1));
    assert_eq!(lock.name, "mutex 0xffff888000001230");
    assert_eq!(lock.owner.as_ref().map(|task| task.pid), Some(2));
    assert_eq!(view.tasks[0].waits_for.as_ref(), Some(&lock.name));
    assert_eq!(view.chains[0].end.as_ref().map(|task| task.pid), Some(2));
    let woke = abi::proxy_event {
        inverted_ns: 5,
        ..event(WAKE, 107)
    };
    learn(&mut watch, &[woke]);
    let view = watch.view(999, 9);
    assert_eq!((view.waiting_now, brief(&view.total)), (0, (1, 7, 5)));
    assert_eq!(brief(&view.classes[0].sums), (1, 7, 5));
    assert_eq!(brief(&view.pairs[0].sums), (1, 7, 5));
    let owner = view.tasks.iter().find(|row| row.task.pid == 2);
    assert_eq!(owner.map(|row| brief(&row.owned)), Some((1, 7, 5)));
    assert!(view.chains.is_empty() && view.locks[0].owner.is_none());
}

#[test]
fn a_wait_whose_beginning_was_lost_counts_all_the_same() {
    let view = after(&[event(WAKE, 107)]).view(999, 9);
    assert_eq!(brief(&view.total), (1, 7, 0));
    assert_eq!(brief(&view.locks[0].sums), (1, 7, 0));
}

#[test]
fn snapshots_restate_inversion_and_never_add_to_it() {
    let inverted = |kind, inverted_ns| abi::proxy_event {
        inverted_ns,
        ..event(kind, 100)
    };
    let mut watch = after(&[event(BLOCK, 100), inverted(SNAPSHOT, 30)]);
    learn(&mut watch, &[inverted(SNAPSHOT, 40)]);
    // the event of its beginning comes late: the snapshot knew more
    learn(&mut watch, &[event(BLOCK, 100)]);
    assert_eq!(brief(&watch.view(200, 9).total), (1, 100, 40));
    let end = abi::proxy_event {
        value: 110,
        ..inverted(WAKE, 50)
    };
    learn(
        &mut watch,
        &[abi::proxy_event {
            time_ns: 210,
            ..end
        }],
    );
    assert_eq!(brief(&watch.view(300, 9).total), (1, 110, 50));
    assert_eq!(watch.history(1).len(), 2, "it begins and ends once");
}

#[test]
fn waits_that_a_snapshot_does_not_know_are_over() {
    let other = abi::proxy_event {
        pid: 5,
        ..event(BLOCK, 100)
    };
    let mut watch = after(&[event(BLOCK, 100), other, event(DONATE, 101)]);
    snapshot(&mut watch, &[event(SNAPSHOT, 100), event(DONATE, 120)]);
    let view = watch.view(200, 9);
    assert_eq!((view.waiting_now, view.lost_events), (1, 3));
    assert_eq!(view.chains[0].donations, 2, "it is the same wait");
    snapshot(&mut watch, &[]);
    let view = watch.view(200, 9);
    assert_eq!((view.waiting_now, view.total.waits), (0, 0));
    assert_eq!(view.total.donations, 2, "what was counted stays");
    // a batch without a snapshot ends nothing
    learn(&mut watch, &[event(SNAPSHOT, 150)]);
    learn(&mut watch, &[]);
    assert_eq!(watch.view(200, 9).waiting_now, 1);
}

#[test]
fn events_from_before_a_snapshot_do_not_end_a_later_wait() {
    let second = abi::proxy_event {
        value: 2,
        ..event(SNAPSHOT, 150)
    };
    let mut watch = Watch::new(0);
    snapshot(&mut watch, &[second, event(BLOCK, 100), event(WAKE, 107)]);
    let view = watch.view(160, 9);
    assert_eq!((view.waiting_now, view.total.waits), (1, 2));
    assert_eq!(view.total.waited_ns, 17);
}

#[test]
fn donations_count_for_the_wait_and_for_who_ran() {
    let donated = abi::proxy_event {
        lock: 0,
        other: 3,
        ..event(DONATE, 101)
    };
    let view = after(&[event(BLOCK, 100), donated, donated]).view(110, 9);
    let of = |sums: &Sums| sums.donations;
    assert_eq!((of(&view.total), of(&view.locks[0].sums)), (2, 2));
    assert_eq!(of(&view.classes[0].sums) + of(&view.pairs[0].sums), 4);
    let task = |pid| view.tasks.iter().find(|row| row.task.pid == pid);
    assert_eq!(task(1).map(|row| of(&row.waited)), Some(2));
    assert_eq!(task(2).map(|row| of(&row.owned)), Some(0));
    assert_eq!(task(3).map(|row| of(&row.owned)), Some(2));
    assert_eq!(task(3).map(|row| row.cgroup.as_str()), Some(""));
    let lost = after(&[donated]).view(110, 9);
    assert_eq!((of(&lost.total), lost.locks[0].name.as_str()), (1, "other"));
}

#[test]
fn time_given_is_time_got() {
    let gave = |value, other| abi::proxy_event {
        lock: 0,
        site_kind: abi::proxy_site_kind_SITE_NONE,
        value,
        other,
        other_cgroup: 30,
        ..event(abi::proxy_event_kind_EVENT_GAVE, 102)
    };
    // to the owner, to one further down the chain, and of what was run until the donor woke
    let events = [
        event(BLOCK, 100),
        gave(5, 2),
        event(DONATE, 101),
        gave(30, 3),
        event(WAKE, 107),
        gave(7, 3),
    ];
    let view = after(&events).view(110, 9);
    check(&view);
    assert_eq!((view.total.lent_ns, view.locks[0].sums.lent_ns), (42, 42));
    let task = |pid| view.tasks.iter().find(|row| row.task.pid == pid);
    assert_eq!(
        task(1).map(|row| (row.waited.lent_ns, row.owned.lent_ns)),
        Some((42, 0))
    );
    assert_eq!(task(2).map(|row| row.owned.lent_ns), Some(5));
    assert_eq!(task(3).map(|row| row.owned.lent_ns), Some(37));
    let history = after(&events).history(3);
    assert!(history.is_empty(), "it is told of donations: {history:?}");
    // of a donor that nothing is known of, on both sides all the same
    let view = after(&[gave(9, 3)]).view(110, 9);
    check(&view);
    assert_eq!(
        (view.total.lent_ns, view.locks[0].name.as_str()),
        (9, "other")
    );
    assert_eq!(view.pairs.len(), 1);
}

#[test]
fn who_wakes_owns_the_lock() {
    let third = abi::proxy_event {
        pid: 3,
        ..event(BLOCK, 100)
    };
    let view = after(&[event(BLOCK, 100), third, event(WAKE, 107)]).view(110, 9);
    assert_eq!(view.locks[0].owner.as_ref().map(|task| task.pid), Some(1));
}

#[test]
fn names_apply_to_what_came_before_them() {
    let elsewhere = abi::proxy_event {
        pid: 3,
        site: 0x77,
        lock: LOCK + 0x100,
        ..event(BLOCK, 100)
    };
    let mut watch = after(&[event(BLOCK, 100), elsewhere]);
    let site = |at| Site {
        kind: abi::proxy_site_kind_SITE_KERNEL,
        tgid: 0,
        at,
    };
    watch.learn(&Batch {
        names: Names {
            tasks: vec![(
                2,
                TaskName {
                    tgid: 9,
                    comm: "tar".to_owned(),
                },
            )],
            sites: vec![
                (site(0x55), "fdget_pos".into()),
                (site(0x77), "fdget_pos".into()),
            ],
            locks: vec![(LOCK, "cgroup_mutex".into())],
            cgroups: vec![(10, "/a".into())],
        },
        ..Batch::default()
    });
    let view = watch.view(110, 9);
    assert_eq!(view.classes.len(), 1, "two sites, one function");
    let class = &view.classes[0];
    assert_eq!(
        (class.class.as_str(), class.waiting_now),
        ("mutex fdget_pos", 2)
    );
    let mut names: Vec<&str> = view.locks.iter().map(|row| row.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        ["cgroup_mutex", "mutex fdget_pos 0xffff888000001330"]
    );
    assert_eq!(
        (view.pairs[0].waiter.as_str(), view.pairs[0].owner.as_str()),
        ("/a", "?")
    );
    let owner = view.locks[0].owner.as_ref();
    assert_eq!(
        owner.map(|task| (task.comm.as_str(), task.tgid)),
        Some(("tar", 9))
    );
}

#[test]
fn a_pid_that_was_given_again_is_another_task() {
    let again = abi::proxy_event {
        tgid: 8,
        ..event(WAKE, 207)
    };
    let view = after(&[event(WAKE, 107), again]).view(300, 9);
    let row = view.tasks.iter().find(|row| row.task.pid == 1);
    assert_eq!(row.map(|row| row.waited.waits), Some(1));
    check(&view);
}

#[test]
fn donation_is_switched_by_an_event_and_at_the_end_of_a_batch() {
    let mut watch = Watch::new(0);
    let batch = |donating| Batch {
        events: typed(&[event(SWITCH, 1)]),
        donating,
        ..Batch::default()
    };
    watch.learn(&batch(true));
    assert!(watch.view(0, 9).donating);
    watch.learn(&batch(false));
    assert!(!watch.view(0, 9).donating);
}

#[test]
fn a_deadlock_does_not_drive_a_history_out() {
    let mut watch = after(&[event(BLOCK, 100)]);
    let cycle = event(abi::proxy_event_kind_EVENT_CYCLE, 101);
    learn(&mut watch, &vec![cycle; 5_000]);
    assert_eq!(watch.history(1).len(), 1);
}
