// SPDX-License-Identifier: GPL-2.0-only
//! A stream of batches to a reader that may be slow, or gone: the agent's to the watcher's keeper, and the
//! watcher's to its followers. The sender never waits. A reader that is too slow loses events, is told how
//! many, and gets a snapshot.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use anyhow::{Result, bail};
use crossbeam::channel::{Receiver, Sender, bounded};

use super::Batch;

/// Events that one follower may leave unread, 3.4 MB.
const UNREAD_EVENTS_MAX: usize = 32_768;
/// Batches likewise: one per poll.
const UNREAD_BATCHES_MAX: usize = 512;
/// Most followers at one time.
const FOLLOWERS_MAX: usize = 4;
/// Events of one answer, unless a single batch has more: an answer is copied several times.
const TAKEN_MAX: usize = 8192;

/// The sender's end of a stream of batches.
pub struct Outlet {
    batches: Sender<Arc<Batch>>,
    unread: Arc<AtomicUsize>,
    /// Events that found no room, until the follower is told.
    missed: u64,
}

/// A follower's end.
pub struct Follower {
    batches: Receiver<Arc<Batch>>,
    unread: Arc<AtomicUsize>,
    /// Taken, and not handed on yet.
    next: VecDeque<Arc<Batch>>,
    /// Events of the last answer, which is in memory as long as it is not sent.
    answered: usize,
    /// As of the last batch: nothing says it while nothing happens.
    donating: bool,
}

/// A stream, both ends of it.
#[must_use]
pub fn stream() -> (Outlet, Follower) {
    let (send, receive) = bounded(UNREAD_BATCHES_MAX);
    let unread = Arc::new(AtomicUsize::new(0));
    let outlet = Outlet {
        batches: send,
        unread: unread.clone(),
        missed: 0,
    };
    let follower = Follower {
        batches: receive,
        unread,
        next: VecDeque::new(),
        answered: 0,
        donating: false,
    };
    (outlet, follower)
}

impl Follower {
    /// What came since the last time, as one batch, or the first part of it; an empty one if
    /// nothing did.
    ///
    /// # Errors
    /// The sender has ended the stream.
    pub fn take(&mut self) -> Result<Batch> {
        self.unread.fetch_sub(self.answered, Ordering::Relaxed);
        self.answered = 0;
        self.next.extend(self.batches.try_iter());
        if self.next.is_empty() && self.batches.is_empty() && Arc::strong_count(&self.unread) == 1 {
            bail!("the stream of events has ended");
        }
        let mut all = Batch {
            donating: self.donating,
            ..Batch::default()
        };
        while let Some(batch) = self.next.front() {
            // a snapshot stands at the beginning of a batch, or not at all; what is restated, alone
            let is_full = all.events.len() + batch.events.len() > TAKEN_MAX;
            let alone = batch.snapshot || batch.restated || all.restated;
            if (alone || is_full) && !all.is_new() {
                break;
            }
            self.answered += batch.events.len();
            all.append(batch);
            self.next.pop_front();
        }
        self.donating = all.donating;
        Ok(all)
    }
}

/// Those who follow, on the sender's side.
#[derive(Default)]
pub struct Followers {
    outlets: Vec<Outlet>,
    /// Events that did not reach somebody, for the stats.
    pub missed: AtomicU64,
}

impl Followers {
    /// Nobody follows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.outlets.is_empty()
    }

    /// Those that went away are noticed here.
    pub fn forget_gone(&mut self) {
        self.outlets
            .retain(|outlet| Arc::strong_count(&outlet.unread) > 1);
    }

    /// One more, who is told first what goes on: `now` is asked for that.
    ///
    /// # Errors
    /// There are too many.
    pub fn add(&mut self, outlet: Outlet, now: Batch) -> Result<(), &'static str> {
        self.forget_gone();
        if self.outlets.len() >= FOLLOWERS_MAX {
            return Err("too many follow the scheduler's events already: end one of them");
        }
        outlet.unread.fetch_add(now.events.len(), Ordering::Relaxed);
        let _ = outlet.batches.try_send(Arc::new(now));
        self.outlets.push(outlet);
        Ok(())
    }

    /// Passes a batch on. A reader that is too slow misses it, and gets what `now` returns, once there is room.
    ///
    /// # Errors
    /// What `now` says.
    pub fn send(
        &mut self,
        batch: &Arc<Batch>,
        mut now: impl FnMut() -> Result<Batch>,
    ) -> Result<()> {
        // what is restated was told before
        let news = if batch.restated {
            0
        } else {
            batch.events.len() as u64
        };
        for outlet in &mut self.outlets {
            let unread = outlet.unread.load(Ordering::Relaxed);
            if unread + batch.events.len() > UNREAD_EVENTS_MAX || outlet.batches.is_full() {
                outlet.missed += news + batch.lost;
                self.missed.fetch_add(news, Ordering::Relaxed);
                continue;
            }
            let next = if outlet.missed > 0 {
                // this batch is older than the snapshot that is made now
                let lost = std::mem::take(&mut outlet.missed) + news + batch.lost;
                let restated = batch.restated;
                Arc::new(Batch {
                    lost,
                    restated,
                    ..now()?
                })
            } else {
                batch.clone()
            };
            outlet
                .unread
                .fetch_add(next.events.len(), Ordering::Relaxed);
            // one that went away is noticed by forget_gone()
            let _ = outlet.batches.send(next);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::event::tests::wake;

    fn batch(events: usize, snapshot: bool) -> Batch {
        Batch {
            events: vec![wake(0, 0); events],
            snapshot,
            donating: true,
            ..Batch::default()
        }
    }

    fn one() -> (Followers, Follower) {
        let (outlet, follower) = stream();
        let mut followers = Followers::default();
        followers.add(outlet, batch(2, true)).expect("room");
        (followers, follower)
    }

    #[test]
    fn batches_are_joined_and_a_snapshot_begins_one() {
        let (mut followers, mut follower) = one();
        followers
            .send(&Arc::new(batch(3, false)), || unreachable!())
            .expect("sent");
        followers
            .send(&Arc::new(batch(4, true)), || unreachable!())
            .expect("sent");
        let first = follower.take().expect("a batch");
        assert_eq!((first.events.len(), first.snapshot), (5, true));
        let second = follower.take().expect("a batch");
        assert_eq!((second.events.len(), second.snapshot), (4, true));
        let nothing = follower.take().expect("a batch");
        assert!(nothing.events.is_empty() && nothing.donating);
    }

    #[test]
    fn who_is_too_slow_loses_events_is_told_and_gets_a_snapshot() {
        let (mut followers, mut follower) = one();
        let big = Arc::new(batch(UNREAD_EVENTS_MAX, false));
        followers.send(&big, || unreachable!()).expect("sent");
        assert_eq!(follower.take().expect("a batch").events.len(), 2);
        followers
            .send(&Arc::new(batch(7, false)), || Ok(batch(1, true)))
            .expect("sent");
        let told = follower.take().expect("a batch");
        let lost = UNREAD_EVENTS_MAX as u64 + 7;
        assert_eq!(
            (told.lost, told.events.len(), told.snapshot),
            (lost, 1, true)
        );
        assert_eq!(
            followers.missed.load(Ordering::Relaxed),
            UNREAD_EVENTS_MAX as u64
        );
    }

    #[test]
    fn who_went_away_makes_room() {
        let mut followers = Followers::default();
        let mut kept = Vec::new();
        for _ in 0..FOLLOWERS_MAX {
            let (outlet, follower) = stream();
            followers.add(outlet, Batch::default()).expect("room");
            kept.push(follower);
        }
        let (outlet, _follower) = stream();
        followers
            .add(outlet, Batch::default())
            .expect_err("no room");
        kept.pop();
        let (outlet, _follower) = stream();
        followers.add(outlet, Batch::default()).expect("room again");
    }

    #[test]
    fn what_is_restated_comes_alone() {
        let (mut followers, mut follower) = one();
        follower.take().expect("the first");
        let restated = Batch {
            restated: true,
            ..batch(2, false)
        };
        for sent in [batch(3, false), restated, batch(4, false)] {
            followers
                .send(&Arc::new(sent), || unreachable!())
                .expect("sent");
        }
        let mut taken = || {
            let batch = follower.take().expect("a batch");
            (batch.events.len(), batch.restated)
        };
        assert_eq!(
            [taken(), taken(), taken()],
            [(3, false), (2, true), (4, false)]
        );
    }

    #[test]
    fn a_stream_without_a_sender_ends() {
        let (followers, mut follower) = one();
        drop(followers);
        assert_eq!(follower.take().expect("what was left").events.len(), 2);
        follower.take().expect_err("nobody sends any more");
    }
}
