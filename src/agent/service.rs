// SPDX-License-Identifier: GPL-2.0-only
//! The agent at work: reads events, hands them to [`Analysis`] and to followers, and answers requests.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use crossbeam::channel::Receiver;
use log::debug;

use super::analysis::Analysis;
use super::kernel::KernelSide;
use super::requests::Request;
use super::{AgentState, Options, hints};
use crate::clock;
use crate::events::stream::Followers;
use crate::events::{Batch, Event, What, line};

/// How often the agent looks at the ring while something happens, and while nothing does.
const BUSY_PERIOD: Duration = Duration::from_millis(5);
const IDLE_PERIOD: Duration = Duration::from_millis(40);
/// Looks that empty a ring of the largest size, also while events keep coming.
const DRAINS_MAX: u32 = 256;
/// After reading all waits anew the agent does something else for so many times as long as that took, also
/// while events are lost.
const REBUILD_REST: u32 = 4;
/// Requests answered between two polls of the ring.
const ANSWERS_MAX: u32 = 16;
/// After a walk was given up, waits are followed for so long at least: more may be.
const FOLLOWED_FOR: Duration = Duration::from_secs(1);

/// All that the agent's thread has.
pub struct Service<'a> {
    side: KernelSide,
    analysis: Analysis,
    followers: Followers,
    /// When a walk was given up last.
    asked: Option<Instant>,
    state: &'a AgentState,
    requests: &'a Receiver<Request>,
    donating: Arc<AtomicBool>,
    print: bool,
    lost_seen: u64,
    /// Lost, and not told to anybody yet: what is known is wrong until all waits are read anew.
    lost: u64,
    rebuild_at: Instant,
    refreshed: Instant,
}

impl<'a> Service<'a> {
    /// Knows of no wait until somebody watches.
    ///
    /// # Errors
    /// What `side` says.
    pub fn new(
        side: KernelSide,
        opts: &Options,
        state: &'a AgentState,
        requests: &'a Receiver<Request>,
    ) -> Result<Self> {
        let lost_seen = side.events_lost()?;
        let mut service = Self {
            side,
            analysis: Analysis::default(),
            followers: Followers::default(),
            asked: None,
            state,
            requests,
            donating: opts.donating.clone(),
            print: opts.print_events,
            lost_seen,
            lost: 0,
            rebuild_at: Instant::now(),
            refreshed: Instant::now(),
        };
        // an agent before this one may have had followers, and left their events
        let tells = service.side.set_watched(false)?;
        service.note_watched(tells);
        service.drain()?;
        service.rebuild(0)?;
        service.tell_watched()?;
        Ok(service)
    }

    /// Works until `stop` is set.
    ///
    /// # Errors
    /// What BPF said.
    pub fn run(mut self, stop: &AtomicBool) -> Result<()> {
        while !stop.load(Ordering::Relaxed) {
            let nr_events = self.look()?;
            self.analysis.show(nr_events, self.state);
            self.tell_watched()?;
            let missed = self.followers.missed.load(Ordering::Relaxed);
            self.state.missed.store(missed, Ordering::Relaxed);
            self.attend(if nr_events == 0 {
                IDLE_PERIOD
            } else {
                BUSY_PERIOD
            })?;
        }
        Ok(())
    }

    /// Tells BPF whether anybody follows, reads what is printed, or may need a hint.
    fn tell_watched(&mut self) -> Result<()> {
        let asked = self.analysis.is_asked()
            || (self.asked).is_some_and(|when| when.elapsed() < FOLLOWED_FOR);
        self.followers.forget_gone();
        self.set_watched(asked || self.print || !self.followers.is_empty())
    }

    /// As BPF was told. While nobody watches it says nothing of waits, and nothing is known of them.
    fn is_watched(&self) -> bool {
        self.state.watched.load(Ordering::Relaxed) != 0
    }

    fn note_watched(&self, tells: bool) {
        self.state.watched.store(tells.into(), Ordering::Relaxed);
    }

    fn set_watched(&mut self, watched: bool) -> Result<()> {
        if watched == self.is_watched() {
            return Ok(());
        }
        let tells = self.side.set_watched(watched)?;
        if tells == self.is_watched() {
            return Ok(());
        }
        self.note_watched(tells);
        if tells {
            return self.rebuild(0);
        }
        self.analysis.restate(&[]);
        self.analysis.give_hints(&mut self.side)
    }

    /// Drops what the ring holds, but for what BPF asks; the number of events.
    fn drain(&mut self) -> Result<u64> {
        let mut dropped = 0;
        for _ in 0..DRAINS_MAX {
            let events = self.side.take_events()?;
            if events.is_empty() {
                break;
            }
            self.analysis.learn_asked(&events);
            dropped += events.len() as u64;
        }
        Ok(dropped)
    }

    /// Takes in what the ring holds; the number of events.
    fn look(&mut self) -> Result<usize> {
        let events = self.side.take_events()?;
        let nr_events = events.len();
        // the reader went away: there is no reader left
        self.print = self.print && print_all(&events).is_ok();
        let known = self.is_watched();
        if events.iter().any(Event::is_given_up) {
            self.asked = Some(Instant::now());
            self.set_watched(true)?;
        }
        self.analysis.learn_asked(&events);
        let lost = self.side.events_lost()?;
        self.lost += lost.wrapping_sub(self.lost_seen);
        self.lost_seen = lost;
        if self.lost == 0 {
            // else they are older than the snapshot, and of most waits the other events are missing
            if known {
                events.iter().for_each(|event| self.analysis.learn(event));
            }
            self.publish(Batch {
                events,
                ..self.batch()
            })?;
        } else {
            self.lost += nr_events as u64;
            if Instant::now() >= self.rebuild_at {
                debug!("{} events were lost", self.lost);
                let lost = std::mem::take(&mut self.lost);
                self.rebuild(lost)?;
            }
        }
        if nr_events > 0 || self.refreshed.elapsed() >= hints::LIFETIME / 4 {
            self.refreshed = Instant::now();
            self.analysis.give_hints(&mut self.side)?;
        }
        Ok(nr_events)
    }

    fn batch(&self) -> Batch {
        Batch {
            donating: self.donating.load(Ordering::Relaxed),
            ..Batch::default()
        }
    }

    /// Hands a batch to the followers.
    fn publish(&mut self, mut batch: Batch) -> Result<()> {
        if self.followers.is_empty() || batch.is_new() {
            return Ok(());
        }
        // the ring may have given it much more room than it needs
        batch.events.shrink_to_fit();
        let (side, donating) = (&self.side, &self.donating);
        self.followers
            .send(&Arc::new(batch), || first_batch(side, donating))
    }

    /// Forgets all waits and reads them anew from the kernel. What the ring still holds is
    /// older than that, and dropped; `lost` is what was lost before.
    fn rebuild(&mut self, mut lost: u64) -> Result<()> {
        if !self.is_watched() {
            return Ok(());
        }
        let began = Instant::now();
        lost += self.drain()?;
        let events = self.side.snapshot()?;
        self.analysis.restate(&events);
        self.state.rebuilds.fetch_add(1, Ordering::Relaxed);
        self.rebuild_at = Instant::now() + began.elapsed() * REBUILD_REST;
        self.publish(Batch {
            events,
            snapshot: true,
            lost,
            ..self.batch()
        })
    }

    /// Sleeps for `period`, and answers what was asked meanwhile. Not by waiting for a request: that
    /// is a futex, and whoever is preempted in its probe hides the waits of others on that CPU
    /// (bpf/lock/futex.bpf.h).
    fn attend(&mut self, period: Duration) -> Result<()> {
        std::thread::sleep(period);
        for _ in 0..ANSWERS_MAX {
            match self.requests.try_recv() {
                Ok(request) => self.answer(request)?,
                Err(_) => break,
            }
        }
        Ok(())
    }

    /// The sender of the request may have gone meanwhile; that is no error.
    fn answer(&mut self, request: Request) -> Result<()> {
        match request {
            Request::Follow(outlet, reply) => {
                self.set_watched(true)?;
                // what it is told first holds all that the ring does
                self.look()?;
                if self.followers.is_empty() && std::mem::take(&mut self.lost) > 0 {
                    // nobody misses that
                    self.rebuild(0)?;
                }
                let now = first_batch(&self.side, &self.donating)?;
                let _ = reply.send(self.followers.add(outlet, now));
            }
            Request::Restate => {
                // first what is older than the snapshot
                self.look()?;
                self.publish(Batch {
                    events: self.side.snapshot()?,
                    restated: true,
                    ..self.batch()
                })?;
            }
            Request::Switched(on) => {
                let switch = Event {
                    time_ns: clock::monotonic_ns(),
                    cpu: 0,
                    what: What::Switch { donating: on },
                };
                self.publish(Batch {
                    events: vec![switch],
                    ..self.batch()
                })?;
            }
        }
        Ok(())
    }
}

impl Drop for Service<'_> {
    /// Nobody reads what BPF tells until there is another one.
    fn drop(&mut self) {
        let _ = self.side.set_watched(false);
        self.note_watched(false);
    }
}

/// What a new follower is told first: all waits that go on.
fn first_batch(side: &KernelSide, donating: &AtomicBool) -> Result<Batch> {
    Ok(Batch {
        events: side.snapshot()?,
        snapshot: true,
        donating: donating.load(Ordering::Relaxed),
        ..Batch::default()
    })
}

fn print_all(events: &[Event]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for event in events {
        writeln!(out, "{}", line::line(event))?;
    }
    out.flush()
}
