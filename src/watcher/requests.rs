// SPDX-License-Identifier: GPL-2.0-only
//! What clients ask of the watcher's tables. Only its main thread touches these; a client's thread sends a
//! request and waits, and gives up after a while.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use crossbeam::channel::{Receiver, Sender, bounded};

use crate::events::stream::{self, Follower, Outlet};
use crate::watch::View;
use crate::watch::view::HistoryLine;

/// Longer than the scheduler's answer is waited for.
const PATIENCE: Duration = Duration::from_secs(4);
/// Requests that wait to be answered.
const REQUESTS_MAX: usize = 64;

/// Something to be answered.
pub enum Request {
    /// The tables, this many rows of each.
    View(usize, Sender<View>),
    /// What happened to a task.
    History(u32, Sender<Vec<HistoryLine>>),
    /// Send all events there from now on.
    Follow(Outlet, Sender<Result<(), &'static str>>),
}

/// Sends requests to the main thread.
#[derive(Clone)]
pub struct Requests(Sender<Request>);

/// Where requests are sent, and where the main thread receives them.
pub fn channel() -> (Requests, Receiver<Request>) {
    let (ask, answer) = bounded(REQUESTS_MAX);
    (Requests(ask), answer)
}

impl Requests {
    fn ask<T>(&self, request: impl FnOnce(Sender<T>) -> Request) -> Result<T> {
        let (reply, answer) = bounded(1);
        let sent = self.0.send_timeout(request(reply), PATIENCE);
        sent.ok().context("the watcher does not listen")?;
        let answer = answer.recv_timeout(PATIENCE);
        answer.context("the watcher does not answer")
    }

    /// The tables now, `rows` of each at the most.
    ///
    /// # Errors
    /// The watcher does not answer in time. Likewise for all below.
    pub fn view(&self, rows: usize) -> Result<View> {
        self.ask(|reply| Request::View(rows, reply))
    }

    /// What happened to `pid` lately.
    ///
    /// # Errors
    /// As above.
    pub fn history(&self, pid: u32) -> Result<Vec<HistoryLine>> {
        self.ask(|reply| Request::History(pid, reply))
    }

    /// All events from now on.
    ///
    /// # Errors
    /// As above, or there are too many followers.
    pub fn follow(&self) -> Result<Follower> {
        let (outlet, follower) = stream::stream();
        match self.ask(|reply| Request::Follow(outlet, reply))? {
            Ok(()) => Ok(follower),
            Err(why) => bail!(why),
        }
    }
}
