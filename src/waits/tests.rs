// SPDX-License-Identifier: GPL-2.0-only
//! What events make of the waits that are known.

use super::*;
use crate::abi;
use crate::events::event::tests as event;

fn block(pid: u32, lock: u64, owner: u32, number: u64) -> Event {
    event::block(number, pid, lock, owner, number)
}

fn wake(pid: u32) -> Event {
    event::wake(u64::MAX, pid)
}

#[test]
fn who_wakes_owns_the_lock() {
    let mut waits: Waits = Waits::default();
    waits.take(&block(1, 0x10, 9, 1));
    waits.take(&block(2, 0x10, 9, 1));
    waits.take(&wake(1));
    assert_eq!(waits.waits_for(2), Some(1));
    waits.take(&wake(2));
    assert!(waits.all().is_empty() && waits.nr_locks() == 0);
}

#[test]
fn readers_that_wake_are_no_owners() {
    let rwsem = 0x10 | u64::from(abi::lock_type_LOCK_RWSEM);
    let mut waits: Waits = Waits::default();
    waits.take(&block(1, rwsem, 9, 1));
    waits.take(&block(2, rwsem, 9, 1));
    waits.take(&wake(1));
    assert_eq!(waits.waits_for(2), None);
}

#[test]
fn a_wait_replaces_the_last_one() {
    let mut waits: Waits = Waits::default();
    waits.take(&block(1, 0x10, 9, 1));
    waits.take(&block(1, 0x20, 8, 2));
    assert_eq!((waits.all().len(), waits.nr_locks()), (1, 1));
    assert_eq!(waits.waits_for(1), Some(8));
}
#[test]
fn a_snapshot_says_what_is_news_and_what_is_over() {
    let mut waits: Waits = Waits::default();
    for (pid, lock) in [(1, 0x10), (2, 0x10), (3, 0x20)] {
        waits.take(&block(pid, lock, 9, 5));
    }
    let again = |pid, lock, number| {
        let event = block(pid, lock, 0, number);
        match event.what {
            What::Block(begun) => Event {
                what: What::Snapshot(begun),
                ..event
            },
            _ => event,
        }
    };
    // 1 goes on, 2 waits anew, 3 does not wait any more, 4 does
    let snapshot = [again(1, 0x10, 5), again(2, 0x10, 6), again(4, 0x20, 1)];
    let restated = waits.restate(&snapshot);
    let news: Vec<_> = restated
        .news
        .iter()
        .map(|event| event.about().pid)
        .collect();
    let over: Vec<_> = restated.over.iter().map(|(pid, _)| *pid).collect();
    assert_eq!((news, over), (vec![2, 4], vec![2, 3]));
    assert_eq!(waits.waits_for(1), Some(9), "what was known still is");
    assert_eq!(waits.waits_for(4), None);
    let pids: Vec<_> = waits
        .snapshot()
        .iter()
        .map(|event| event.about().pid)
        .collect();
    assert_eq!(pids, [1, 2, 4]);
    // one task waits once: the first that is said of it counts
    let twice = [again(5, 0x10, 1), again(5, 0x20, 2), again(5, 0x10, 1)];
    let restated = waits.restate(&twice);
    assert_eq!(restated.news, [&twice[0]]);
    assert_eq!((waits.all().len(), waits.nr_locks()), (1, 1));
    // what it says of itself, said to another one, makes the same
    let mut other: Waits = Waits::default();
    other.restate(&waits.snapshot());
    assert_eq!(other.snapshot(), waits.snapshot());
}

#[test]
fn an_end_tells_what_was_known_of_the_wait() {
    let mut waits: Waits = Waits::default();
    assert_eq!(
        waits.take(&block(1, 0x10, 9, 5)),
        Change::Began { before: None }
    );
    assert_eq!(
        waits.take(&block(1, 0x10, 9, 5)),
        Change::None,
        "it is known"
    );
    let Change::Ended { ended, wait } = waits.take(&event::wake(4, 1)) else {
        panic!("an end");
    };
    assert_eq!(
        (ended.about.lock, wait),
        (0, None),
        "that of an earlier wait"
    );
    let Change::Ended { ended, wait } = waits.take(&wake(1)) else {
        panic!("an end");
    };
    assert_eq!((ended.about.lock, ended.about.owner), (0x10, 9));
    assert_eq!(wait.map(|wait| wait.number), Some(5));
}

#[test]
fn there_are_no_more_than_there_may_be() {
    let mut waits: Waits = Waits::default();
    for pid in 1..=WAITS_MAX as u32 + 100 {
        waits.take(&block(pid, u64::from(pid) << 8, 0, 1));
    }
    assert_eq!(waits.all().len(), WAITS_MAX);
    let snapshot = waits.snapshot();
    assert!(waits.restate(&snapshot).over.is_empty());
    assert_eq!(
        (waits.all().len(), waits.nr_locks()),
        (WAITS_MAX, WAITS_MAX)
    );
}
