// SPDX-License-Identifier: GPL-2.0-only
//! What others ask of the agent, and how it answers: views and histories of its [`Watch`], and the
//! stream of events for those who follow it. Only the agent's thread touches its tables; whoever
//! asks sends a question and waits, and gives up after a while.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use crossbeam::channel::{Receiver, Sender, bounded};

use crate::watch::view::HistoryLine;
use crate::watch::{Batch, View};

/// The agent looks at its desk several times a second.
const PATIENCE: Duration = Duration::from_secs(3);
/// Questions that wait to be answered.
const QUESTIONS_MAX: usize = 64;
/// Events that one follower may leave unread, 2.6 MB of the agent's fixed heap.
const UNREAD_EVENTS_MAX: usize = 32_768;
/// Batches likewise: one a look.
const UNREAD_BATCHES_MAX: usize = 512;
/// Most followers at one time.
const FOLLOWERS_MAX: usize = 4;
/// Events of one answer, unless a single batch has more: an answer is copied several times.
const TAKEN_MAX: usize = 8192;

/// Something to be answered by the agent.
pub enum Question {
    /// The tables, this many rows of each.
    View(usize, Sender<View>),
    /// What happened to a task.
    History(u32, Sender<Vec<HistoryLine>>),
    /// Send all events there from now on.
    Follow(Outlet, Sender<Result<(), &'static str>>),
    /// Donation was switched on, or off.
    Switched(bool),
}

/// The public's side of the desk.
#[derive(Clone)]
pub struct Desk(Sender<Question>);

/// A desk, and the agent's side of it.
pub fn open() -> (Desk, Receiver<Question>) {
    let (ask, answer) = bounded(QUESTIONS_MAX);
    (Desk(ask), answer)
}

impl Desk {
    fn ask<T>(&self, question: impl FnOnce(Sender<T>) -> Question) -> Result<T> {
        let (reply, answer) = bounded(1);
        let sent = self.0.send_timeout(question(reply), PATIENCE);
        sent.ok().context("the agent does not listen")?;
        let answer = answer.recv_timeout(PATIENCE);
        answer.context("the agent does not answer")
    }

    /// The tables now, `rows` of each at the most.
    ///
    /// # Errors
    /// The agent does not answer in time. Likewise for all below.
    pub fn view(&self, rows: usize) -> Result<View> {
        self.ask(|reply| Question::View(rows, reply))
    }

    /// What happened to `pid` lately.
    ///
    /// # Errors
    /// As above.
    pub fn history(&self, pid: u32) -> Result<Vec<HistoryLine>> {
        self.ask(|reply| Question::History(pid, reply))
    }

    /// All events from now on.
    ///
    /// # Errors
    /// As above, or there are too many followers.
    pub fn follow(&self) -> Result<Follower> {
        let (outlet, follower) = stream();
        match self.ask(|reply| Question::Follow(outlet, reply))? {
            Ok(()) => Ok(follower),
            Err(why) => bail!(why),
        }
    }

    /// Tells the agent that donation was switched. Nothing hangs on whether it hears it.
    pub fn switched(&self, on: bool) {
        let _ = self.0.try_send(Question::Switched(on));
    }
}

/// The agent's end of a stream of batches.
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

fn stream() -> (Outlet, Follower) {
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
    /// The agent has ended the stream: it failed, or the scheduler ends.
    pub fn take(&mut self) -> Result<Batch> {
        self.unread.fetch_sub(self.answered, Ordering::Relaxed);
        self.answered = 0;
        self.next.extend(self.batches.try_iter());
        if self.next.is_empty() && self.batches.is_empty() && Arc::strong_count(&self.unread) == 1 {
            bail!("the agent has ended the stream of events");
        }
        let mut all = Batch {
            donating: self.donating,
            ..Batch::default()
        };
        while let Some(batch) = self.next.front() {
            // a snapshot stands at the beginning of a batch, or not at all
            let is_full = all.events.len() + batch.events.len() > TAKEN_MAX;
            if (batch.snapshot || is_full) && !all.is_new() {
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

/// Those who follow, on the agent's side.
#[derive(Default)]
pub struct Followers {
    outlets: Vec<Outlet>,
    /// Events that did not reach somebody, for the stats.
    pub missed: AtomicU64,
}

impl Followers {
    /// Nobody follows.
    pub fn is_empty(&self) -> bool {
        self.outlets.is_empty()
    }

    /// One more, who is told first what goes on: `now` is asked for that.
    ///
    /// # Errors
    /// There are too many.
    pub fn add(&mut self, outlet: Outlet, now: Batch) -> Result<(), &'static str> {
        // those that went away are noticed at the next batch only
        self.outlets
            .retain(|outlet| Arc::strong_count(&outlet.unread) > 1);
        if self.outlets.len() >= FOLLOWERS_MAX {
            return Err("too many follow the scheduler's events already: end one of them");
        }
        outlet.unread.fetch_add(now.events.len(), Ordering::Relaxed);
        let _ = outlet.batches.try_send(Arc::new(now));
        self.outlets.push(outlet);
        Ok(())
    }

    /// Hands a batch on. Who is too slow misses it, and gets what `now` returns, once there is room.
    pub fn send(
        &mut self,
        batch: &Arc<Batch>,
        mut now: impl FnMut() -> Result<Batch>,
    ) -> Result<()> {
        let mut gone = false;
        for outlet in &mut self.outlets {
            let unread = outlet.unread.load(Ordering::Relaxed);
            if unread + batch.events.len() > UNREAD_EVENTS_MAX || outlet.batches.is_full() {
                outlet.missed += batch.events.len() as u64 + batch.lost;
                self.missed
                    .fetch_add(batch.events.len() as u64, Ordering::Relaxed);
                continue;
            }
            let next = if outlet.missed > 0 {
                // this batch is older than the snapshot that is made now
                outlet.missed += batch.events.len() as u64 + batch.lost;
                let lost = std::mem::take(&mut outlet.missed);
                Arc::new(Batch { lost, ..now()? })
            } else {
                batch.clone()
            };
            outlet
                .unread
                .fetch_add(next.events.len(), Ordering::Relaxed);
            gone |= outlet.batches.send(next).is_err();
        }
        if gone {
            self.outlets
                .retain(|outlet| Arc::strong_count(&outlet.unread) > 1);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi;

    fn batch(events: usize, snapshot: bool) -> Batch {
        Batch {
            events: vec![abi::proxy_event::default(); events],
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
    fn a_stream_without_an_agent_ends() {
        let (followers, mut follower) = one();
        drop(followers);
        assert_eq!(follower.take().expect("what was left").events.len(), 2);
        follower.take().expect_err("nobody sends any more");
    }
}
