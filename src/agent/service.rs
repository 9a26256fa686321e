// SPDX-License-Identifier: GPL-2.0-only
//! The agent at work: reads events, hands them to [`Mind`], to the [`Watch`] and to those who
//! follow, and answers at the desk.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use crossbeam::channel::Receiver;
use log::{debug, warn};

use super::desk::{Followers, Question};
use super::kernel::KernelSide;
use super::mind::Mind;
use super::{AgentState, Options, hints, line};
use crate::abi;
use crate::clock;
use crate::naming::Namer;
use crate::watch::{Batch, View, Watch};

/// How often the agent looks at the ring while something happens, and while nothing does.
const BUSY_PERIOD: Duration = Duration::from_millis(5);
const IDLE_PERIOD: Duration = Duration::from_millis(40);
/// Looks that empty a ring of the largest size, also while events keep coming.
const DRAINS_MAX: u32 = 256;
/// Questions answered between two looks at the ring.
const ANSWERS_MAX: u32 = 16;

/// All that the agent's thread has.
pub struct Service<'a> {
    side: KernelSide,
    mind: Mind,
    watch: Watch,
    followers: Followers,
    /// `None` if its thread could not be started: then there are no names.
    namer: Option<Namer>,
    state: &'a AgentState,
    desk: &'a Receiver<Question>,
    donating: Arc<AtomicBool>,
    print: bool,
    lost_seen: u64,
    refreshed: Instant,
}

impl<'a> Service<'a> {
    /// Begins with what goes on now: tasks may have been waiting before the ring was there.
    ///
    /// # Errors
    /// What `side` says.
    pub fn new(
        side: KernelSide,
        opts: &Options,
        state: &'a AgentState,
        desk: &'a Receiver<Question>,
    ) -> Result<Self> {
        let lost_seen = side.events_lost()?;
        let mut service = Self {
            side,
            mind: Mind::default(),
            watch: Watch::new(clock::monotonic_ns()),
            followers: Followers::default(),
            namer: Namer::start()
                .inspect_err(|e| warn!("locks and tasks have no names: {e:#}"))
                .ok(),
            state,
            desk,
            donating: opts.donating.clone(),
            print: opts.print_events,
            lost_seen,
            refreshed: Instant::now(),
        };
        service.rebuild(0)?;
        Ok(service)
    }

    /// Works until `stop` is set.
    ///
    /// # Errors
    /// What BPF said.
    pub fn run(mut self, stop: &AtomicBool) -> Result<()> {
        while !stop.load(Ordering::Relaxed) {
            let nr_events = self.look()?;
            self.mind.show(nr_events, self.state);
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

    /// Takes in what the ring holds; the number of events.
    fn look(&mut self) -> Result<usize> {
        let events = self.side.take_events()?;
        let nr_events = events.len();
        // the reader went away: nobody is left to print for
        self.print = self.print && print_all(&events).is_ok();
        let lost = self.side.events_lost()?;
        if lost == self.lost_seen {
            events.iter().for_each(|event| self.mind.learn(event));
            self.publish(Batch {
                events,
                ..self.batch()
            })?;
        } else {
            let newly = lost.wrapping_sub(self.lost_seen);
            debug!("{newly} events were lost");
            self.lost_seen = lost;
            self.rebuild(newly + nr_events as u64)?;
        }
        if nr_events > 0 || self.refreshed.elapsed() >= hints::LIFETIME / 4 {
            self.refreshed = Instant::now();
            self.mind.give_hints(&mut self.side, self.watch.names())?;
        }
        Ok(nr_events)
    }

    fn batch(&self) -> Batch {
        Batch {
            donating: self.donating.load(Ordering::Relaxed),
            ..Batch::default()
        }
    }

    /// Hands a batch to all who want it.
    fn publish(&mut self, mut batch: Batch) -> Result<()> {
        if let Some(namer) = &mut self.namer {
            namer.ask(&batch.events);
            batch.names = namer.take();
        }
        if batch.is_new() {
            return Ok(());
        }
        self.watch.learn(&batch);
        if self.followers.is_empty() {
            return Ok(());
        }
        // the ring may have given it much more room than it needs
        batch.events.shrink_to_fit();
        let (side, watch) = (&self.side, &self.watch);
        self.followers.send(&Arc::new(batch), || {
            first_batch(side, watch, &self.donating)
        })
    }

    /// Forgets all waits and reads them anew from the kernel. What the ring still holds is
    /// older than that, and dropped; `lost` is what was lost before.
    fn rebuild(&mut self, mut lost: u64) -> Result<()> {
        for _ in 0..DRAINS_MAX {
            let dropped = self.side.take_events()?.len() as u64;
            lost += dropped;
            if dropped == 0 {
                break;
            }
        }
        let events = self.side.snapshot()?;
        self.mind.restate(&events);
        self.state.rebuilds.fetch_add(1, Ordering::Relaxed);
        self.publish(Batch {
            events,
            snapshot: true,
            lost,
            ..self.batch()
        })
    }

    /// Sleeps for `period`, and answers what was asked meanwhile. Not by waiting for a question: that
    /// is a futex, and whoever is preempted in its probe hides the waits of others on that CPU
    /// (bpf/lock/futex.bpf.h).
    fn attend(&mut self, period: Duration) -> Result<()> {
        std::thread::sleep(period);
        for _ in 0..ANSWERS_MAX {
            match self.desk.try_recv() {
                Ok(question) => self.answer(question)?,
                Err(_) => break,
            }
        }
        Ok(())
    }

    /// Whoever asked may have gone meanwhile; that is no error.
    fn answer(&mut self, question: Question) -> Result<()> {
        match question {
            Question::View(rows, reply) => {
                let _ = reply.send(self.view(rows)?);
            }
            Question::History(pid, reply) => {
                let _ = reply.send(self.watch.history(pid));
            }
            Question::Follow(outlet, reply) => {
                // what it is told first holds all that the ring does
                self.look()?;
                let now = first_batch(&self.side, &self.watch, &self.donating)?;
                let _ = reply.send(self.followers.add(outlet, now));
            }
            Question::Switched(on) => {
                let switch = abi::proxy_event {
                    time_ns: clock::monotonic_ns(),
                    kind: abi::proxy_event_kind_EVENT_SWITCH,
                    value: u64::from(on),
                    ..Default::default()
                };
                self.publish(Batch {
                    events: vec![switch],
                    ..self.batch()
                })?;
            }
        }
        Ok(())
    }

    /// The tables, with waits that go on brought up to date.
    fn view(&mut self, rows: usize) -> Result<View> {
        // first what is older than the snapshot
        self.look()?;
        self.watch.learn(&Batch {
            events: self.side.snapshot()?,
            ..self.batch()
        });
        Ok(self.watch.view(clock::monotonic_ns(), rows))
    }
}

/// What somebody is told first: all waits that go on, all names that are known.
fn first_batch(side: &KernelSide, watch: &Watch, donating: &AtomicBool) -> Result<Batch> {
    Ok(Batch {
        events: side.snapshot()?,
        snapshot: true,
        lost: 0,
        names: watch.names().to_names(),
        donating: donating.load(Ordering::Relaxed),
    })
}

fn print_all(events: &[abi::proxy_event]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for event in events {
        writeln!(out, "{}", line::line(event))?;
    }
    out.flush()
}
