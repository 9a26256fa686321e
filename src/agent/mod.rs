// SPDX-License-Identifier: GPL-2.0-only
//! The agent: follows waits and their owners while somebody watches, or BPF asks for what it cannot find out
//! within its own bounds, and tells it. BPF is complete without it: a slow, stopped or dead agent
//! costs hints, never correctness.
//!
//! Data flow: events (ring) → `analysis` (`ends` → `hints`, `outcomes`) → hint maps; and events as they
//! are → the follower that asked by `requests`: the watcher (`crate::watcher`), if there is one. Only this
//! module's thread, which `service` is, writes those maps; `kernel` is its whole contact with BPF. It
//! opens no file but those of a deadlock's tasks in `/proc`, and knows no names.

mod analysis;
mod deadlock;
mod ends;
mod hints;
mod kernel;
mod outcomes;
pub mod requests;
mod service;

pub use kernel::KernelSide;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use crossbeam::channel::Receiver;
use log::warn;

use requests::Request;
use service::Service;

/// Between a failure and the next try.
const RESTART_DELAY: Duration = Duration::from_millis(500);
/// How long its end is waited for, and how often that is looked for.
const STOP_MAX: Duration = Duration::from_secs(2);
const STOP_LOOK: Duration = Duration::from_millis(5);

/// What the agent's thread tells the stats server. It is the only writer.
#[derive(Debug, Default)]
pub struct AgentState {
    /// Looks at the ring.
    pub rounds: AtomicU64,
    /// Events that were read.
    pub events: AtomicU64,
    /// Waits that the graph holds now.
    pub waits_now: AtomicU64,
    /// Hints that stand now.
    pub hints_now: AtomicU64,
    /// 1 while BPF tells of waits and donations, 0 otherwise.
    pub watched: AtomicU64,
    /// Times that the graph was built anew from the kernel's state.
    pub rebuilds: AtomicU64,
    /// Deadlocks that were reported.
    pub deadlocks: AtomicU64,
    /// Times that the thread was started again after a failure.
    pub restarts: AtomicU64,
    /// Events that somebody who follows them was too slow for.
    pub missed: AtomicU64,
}

/// How the agent is to work.
#[derive(Clone, Debug)]
pub struct Options {
    /// Each event goes to stdout, too.
    pub print_events: bool,
    /// Whether the scheduler donates; whoever switches it writes this.
    pub donating: Arc<AtomicBool>,
}

/// The running agent; dropped, it stops.
pub struct Agent {
    state: Arc<AgentState>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Agent {
    /// Starts the agent's thread, which calls `connect` for its side of BPF, again
    /// after each failure, and answers requests.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn start<F>(opts: Options, requests: Receiver<Request>, connect: F) -> Result<Self>
    where
        F: Fn() -> Result<KernelSide> + Send + 'static,
    {
        let state = Arc::new(AgentState::default());
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, stopped) = (state.clone(), stop.clone());
        let thread = std::thread::Builder::new()
            .name("proxy_agent".into())
            .spawn(move || {
                supervise(&shared, &stopped, || {
                    let service = Service::new(connect()?, &opts, &shared, &requests)?;
                    service.run(&stopped)
                })
            })
            .context("thread of the agent")?;
        Ok(Self {
            state,
            stop,
            thread: Some(thread),
        })
    }

    /// What it did so far.
    pub fn state(&self) -> &AgentState {
        &self.state
    }
}

impl Drop for Agent {
    /// Waits for the thread, but not for ever: it may be waiting for a file or for who reads its
    /// output, and is left behind then.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else {
            return;
        };
        let until = Instant::now() + STOP_MAX;
        while !thread.is_finished() {
            if Instant::now() > until {
                return;
            }
            std::thread::sleep(STOP_LOOK);
        }
        let _ = thread.join();
    }
}

/// Calls `work` until it ends well or `stop` is set; an error or a panic is reported, and
/// it is called again. The scheduler goes on meanwhile.
fn supervise(state: &AgentState, stop: &AtomicBool, work: impl Fn() -> Result<()>) {
    while !stop.load(Ordering::Relaxed) {
        let why = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(&work)) {
            Ok(Ok(())) => return,
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => "it panicked".to_owned(),
        };
        warn!(
            "the agent failed: {why}; the scheduler continues without hints, a new one starts in {} ms",
            RESTART_DELAY.as_millis()
        );
        state.restarts.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(RESTART_DELAY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn a_failed_agent_is_started_again() {
        let (state, stop) = (AgentState::default(), AtomicBool::new(false));
        let calls = Cell::new(0);
        supervise(&state, &stop, || {
            calls.set(calls.get() + 1);
            match calls.get() {
                1 => panic!("a bug"),
                2 => anyhow::bail!("the ring is gone"),
                _ => Ok(()),
            }
        });
        assert_eq!(calls.get(), 3);
        assert_eq!(state.restarts.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_stopped_agent_is_not_started_again() {
        let (state, stop) = (AgentState::default(), AtomicBool::new(true));
        supervise(&state, &stop, || panic!("must not be called"));
        assert_eq!(state.restarts.load(Ordering::Relaxed), 0);
    }
}
