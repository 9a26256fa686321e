// SPDX-License-Identifier: GPL-2.0-only
//! What the watcher's keeper asks of the agent: the stream of events, and all waits at this moment. No
//! names, no tables. Only the agent's thread touches its state; a caller sends a request, and does not wait
//! for more than a moment.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use crossbeam::channel::{Receiver, Sender, bounded};

use crate::events::stream::{self, Follower, Outlet};

/// The agent polls for requests several times a second.
const PATIENCE: Duration = Duration::from_secs(3);
/// Requests that wait to be answered.
const REQUESTS_MAX: usize = 64;

/// Something to be answered by the agent.
pub enum Request {
    /// Send all events there from now on.
    Follow(Outlet, Sender<Result<(), &'static str>>),
    /// Send all waits that go on to the followers, after what happened before.
    Restate,
    /// Donation was switched on, or off.
    Switched(bool),
}

/// Sends requests to the agent.
#[derive(Clone)]
pub struct Requests(Sender<Request>);

/// Where requests are sent, and where the agent receives them.
#[must_use]
pub fn channel() -> (Requests, Receiver<Request>) {
    let (ask, answer) = bounded(REQUESTS_MAX);
    (Requests(ask), answer)
}

impl Requests {
    /// All events from now on.
    ///
    /// # Errors
    /// The agent does not answer in time, or there are too many followers.
    pub fn follow(&self) -> Result<Follower> {
        let (outlet, follower) = stream::stream();
        let (reply, answer) = bounded(1);
        let sent = self
            .0
            .send_timeout(Request::Follow(outlet, reply), PATIENCE);
        sent.ok().context("the agent does not listen")?;
        let answer = answer.recv_timeout(PATIENCE);
        match answer.context("the agent does not answer")? {
            Ok(()) => Ok(follower),
            Err(why) => bail!(why),
        }
    }

    /// Asks for all waits that go on, as a batch of the stream that is `restated`. A caller that asks too often may
    /// get no answer.
    pub fn restate(&self) {
        let _ = self.0.try_send(Request::Restate);
    }

    /// Tells the agent that donation was switched. Nothing depends on it.
    pub fn switched(&self, on: bool) {
        let _ = self.0.try_send(Request::Switched(on));
    }
}
