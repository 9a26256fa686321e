// SPDX-License-Identifier: GPL-2.0-only
//! The watcher at work: takes in what it is fed, gives it names, keeps the tables, hands events on to
//! followers, and answers requests. Views are brought up to date first: the scheduler is asked
//! for all waits, and who asked waits for that, but not for long.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use crossbeam::channel::{Receiver, select};
use log::warn;

use super::feed::Outbox;
use super::requests::Request;
use super::server::Clients;
use crate::clock;
use crate::events::Batch;
use crate::events::stream::Followers;
use crate::naming::Namer;
use crate::watch::Watch;

/// How long the scheduler's waits are waited for; then an answer is made of what is known.
const RESTATED_WITHIN: Duration = Duration::from_secs(2);
/// How often it looks after names while nothing comes.
const PERIOD: Duration = Duration::from_millis(50);
/// How long it stays when the last client has gone: whoever looks now and then finds the same tables.
const LINGER: Duration = Duration::from_secs(60);

/// All that the main thread has.
pub struct Service {
    events: Receiver<Batch>,
    incoming: Receiver<Request>,
    outbox: Outbox,
    clients: Arc<Clients>,
    watch: Watch,
    followers: Followers,
    /// `None` if its thread could not be started: then there are no names.
    namer: Option<Namer>,
    donating: bool,
    /// Requests that are answered as soon as all waits were restated, and since when they wait.
    waiting: Vec<(Instant, Request)>,
    watched: Instant,
}

impl Service {
    /// Begins to watch now.
    ///
    /// # Errors
    /// None yet.
    pub fn new(
        events: Receiver<Batch>,
        incoming: Receiver<Request>,
        outbox: Outbox,
        clients: Arc<Clients>,
    ) -> Result<Self> {
        Ok(Self {
            events,
            incoming,
            outbox,
            clients,
            watch: Watch::new(clock::monotonic_ns()),
            followers: Followers::default(),
            namer: Namer::start()
                .inspect_err(|e| warn!("locks and tasks have no names: {e:#}"))
                .ok(),
            donating: false,
            waiting: Vec::new(),
            watched: Instant::now(),
        })
    }

    /// Works until the scheduler has gone, or there was no client for a while.
    pub fn run(mut self) {
        self.outbox.ready();
        loop {
            let (events, incoming) = (self.events.clone(), self.incoming.clone());
            select! {
                recv(events) -> batch => match batch {
                    Ok(batch) => self.learn(batch),
                    Err(_) => return,
                },
                recv(incoming) -> request => if let Ok(request) = request {
                    self.hear(request);
                },
                default(PERIOD) => self.learn(Batch {
                    donating: self.donating,
                    ..Batch::default()
                }),
            }
            let late = |(since, _): &(Instant, Request)| since.elapsed() >= RESTATED_WITHIN;
            if self.waiting.first().is_some_and(late) {
                self.answer_waiting();
            }
            if self.clients.any() {
                self.watched = Instant::now();
            } else if self.watched.elapsed() >= LINGER {
                return;
            }
        }
    }

    /// Takes a batch in, and hands it on.
    fn learn(&mut self, mut batch: Batch) {
        self.donating = batch.donating;
        if let Some(namer) = &mut self.namer {
            namer.ask(&batch.events);
            batch.names = namer.take();
        }
        if batch.is_new() {
            return;
        }
        self.watch.learn(&batch);
        if std::mem::take(&mut batch.restated) {
            self.answer_waiting();
            // no news for who follows, unless it stands for what was lost
            if !batch.snapshot {
                batch.events.clear();
            }
        }
        if self.followers.is_empty() || batch.is_new() {
            return;
        }
        batch.events.shrink_to_fit();
        let (watch, donating) = (&self.watch, self.donating);
        // what goes on is known here: nothing can fail
        let _ = self
            .followers
            .send(&Arc::new(batch), || Ok(first_batch(watch, donating)));
    }

    fn hear(&mut self, request: Request) {
        if let Request::History(pid, reply) = request {
            let _ = reply.send(self.watch.history(pid));
            return;
        }
        if self.waiting.is_empty() {
            self.outbox.restate();
        }
        self.waiting.push((Instant::now(), request));
    }

    /// The sender of the request may have gone meanwhile; that is no error.
    fn answer_waiting(&mut self) {
        for (_, request) in std::mem::take(&mut self.waiting) {
            match request {
                Request::View(rows, reply) => {
                    let _ = reply.send(self.watch.view(clock::monotonic_ns(), rows));
                }
                Request::Follow(outlet, reply) => {
                    let now = first_batch(&self.watch, self.donating);
                    let _ = reply.send(self.followers.add(outlet, now));
                }
                Request::History(..) => {}
            }
        }
    }
}

/// What a new follower is told first: all waits that go on, all names that are known.
fn first_batch(watch: &Watch, donating: bool) -> Batch {
    Batch {
        events: watch.snapshot(),
        snapshot: true,
        names: watch.names().to_names(),
        donating,
        ..Batch::default()
    }
}
