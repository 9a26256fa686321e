// SPDX-License-Identifier: GPL-2.0-only
//! What clients ask of the watcher's tables. Only its main thread touches these; whoever asks sends a
//! question and waits, and gives up after a while.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use crossbeam::channel::{Receiver, Sender, bounded};

use crate::watch::View;
use crate::watch::stream::{self, Follower, Outlet};
use crate::watch::view::HistoryLine;

/// Longer than the scheduler's answer is waited for.
const PATIENCE: Duration = Duration::from_secs(4);
/// Questions that wait to be answered.
const QUESTIONS_MAX: usize = 64;

/// Something to be answered.
pub enum Question {
    /// The tables, this many rows of each.
    View(usize, Sender<View>),
    /// What happened to a task.
    History(u32, Sender<Vec<HistoryLine>>),
    /// Send all events there from now on.
    Follow(Outlet, Sender<Result<(), &'static str>>),
}

/// The clients' side of the desk.
#[derive(Clone)]
pub struct Desk(Sender<Question>);

/// A desk, and the side of who answers.
pub fn open() -> (Desk, Receiver<Question>) {
    let (ask, answer) = bounded(QUESTIONS_MAX);
    (Desk(ask), answer)
}

impl Desk {
    fn ask<T>(&self, question: impl FnOnce(Sender<T>) -> Question) -> Result<T> {
        let (reply, answer) = bounded(1);
        let sent = self.0.send_timeout(question(reply), PATIENCE);
        sent.ok().context("the watcher does not listen")?;
        let answer = answer.recv_timeout(PATIENCE);
        answer.context("the watcher does not answer")
    }

    /// The tables now, `rows` of each at the most.
    ///
    /// # Errors
    /// The watcher does not answer in time. Likewise for all below.
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
        let (outlet, follower) = stream::stream();
        match self.ask(|reply| Question::Follow(outlet, reply))? {
            Ok(()) => Ok(follower),
            Err(why) => bail!(why),
        }
    }
}
