//! The agent: follows who waits for whom, and tells BPF what it cannot find out
//! within its own bounds. BPF is complete without it: a slow, stopped or dead agent
//! costs hints, never correctness.
//!
//! Data flow: events (ring) → `graph` → `hints`, `outcomes` → hint maps. Only this
//! module's thread writes those maps; `kernel` is its whole contact with BPF. `deadlock`
//! puts in words what goes to the log.

mod deadlock;
pub mod edge;
mod graph;
mod hints;
mod kernel;
pub mod line;
mod outcomes;

pub use graph::{Graph, Wait};
pub use kernel::KernelSide;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use log::{debug, warn};

use crate::abi;
use crate::watch::NameTable;
use hints::HintTable;
use outcomes::Outcomes;

/// How often the agent looks at the ring while something happens, and while nothing does.
const BUSY_PERIOD: Duration = Duration::from_millis(5);
const IDLE_PERIOD: Duration = Duration::from_millis(40);
/// Looks that empty a ring of the largest size, also while events keep coming.
const DRAINS_MAX: u32 = 256;
/// Between a failure and the next try.
const RESTART_DELAY: Duration = Duration::from_millis(500);

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
    /// Times that the graph was built anew from the kernel's state.
    pub rebuilds: AtomicU64,
    /// Deadlocks that were reported.
    pub deadlocks: AtomicU64,
    /// Times that the thread was started again after a failure.
    pub restarts: AtomicU64,
}

/// The running agent; dropped, it stops.
pub struct Agent {
    state: Arc<AgentState>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Agent {
    /// Starts the agent's thread, which calls `connect` for its side of BPF, again
    /// after each failure. `print`: each event goes to stdout, too.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn start<F>(print: bool, connect: F) -> Result<Self>
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
                    serve(connect()?, print, &shared, &stopped)
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
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
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
            "the agent failed: {why}; the scheduler goes on without hints, a new one starts in {} ms",
            RESTART_DELAY.as_millis()
        );
        state.restarts.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(RESTART_DELAY);
    }
}

fn serve(
    mut side: KernelSide,
    mut print: bool,
    state: &AgentState,
    stop: &AtomicBool,
) -> Result<()> {
    let mut mind = Mind::default();
    // tasks may have been waiting before the ring was there
    let mut lost_seen = side.events_lost()?;
    rebuild(&mut side, &mut mind, state)?;
    let mut last_refresh = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let events = side.take_events()?;
        // the reader went away: nobody is left to print for
        print = print && print_all(&events).is_ok();
        let lost = side.events_lost()?;
        if lost != lost_seen {
            debug!("{} events were lost", lost.wrapping_sub(lost_seen));
            lost_seen = lost;
            rebuild(&mut side, &mut mind, state)?;
        } else {
            events.iter().for_each(|event| mind.learn(event));
        }
        if !events.is_empty() || last_refresh.elapsed() >= hints::LIFETIME / 4 {
            last_refresh = Instant::now();
            mind.give_hints(&mut side)?;
        }
        mind.show(events.len(), state);
        std::thread::sleep(if events.is_empty() {
            IDLE_PERIOD
        } else {
            BUSY_PERIOD
        });
    }
    Ok(())
}

fn print_all(events: &[abi::proxy_event]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for event in events {
        writeln!(out, "{}", line::line(event))?;
    }
    out.flush()
}

/// Forgets all waits and reads them anew from the kernel. What the ring still holds is
/// older than that, and dropped.
fn rebuild(side: &mut KernelSide, mind: &mut Mind, state: &AgentState) -> Result<()> {
    for _ in 0..DRAINS_MAX {
        if side.take_events()?.is_empty() {
            break;
        }
    }
    mind.graph = Graph::default();
    side.snapshot()?
        .iter()
        .for_each(|event| mind.graph.apply(event));
    state.rebuilds.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// What the agent knows and concludes; no I/O but through [`KernelSide`], and for the report of
/// a deadlock.
#[derive(Default)]
struct Mind {
    graph: Graph,
    /// Names for reports, as far as they are known.
    names: NameTable,
    hints: HintTable,
    outcomes: Outcomes,
    deadlocks: u64,
}

impl Mind {
    fn learn(&mut self, event: &abi::proxy_event) {
        self.graph.apply(event);
        self.hints.learn(event);
        self.outcomes.learn(event);
    }

    fn give_hints(&mut self, side: &mut KernelSide) -> Result<()> {
        let now_ns = kernel::now_ns();
        let changes = self.hints.refresh(&self.graph, now_ns);
        // the map has room for those that stand, no more
        for pid in &changes.removed {
            side.remove_wait_hint(*pid)?;
        }
        for (pid, hint) in &changes.set {
            side.set_wait_hint(*pid, hint)?;
        }
        if !changes.new_deadlocks.is_empty() {
            // owners are remembered from when somebody last blocked: ask the kernel who has
            // the locks now, before anybody is told
            let mut now = Graph::default();
            side.snapshot()?.iter().for_each(|event| now.apply(event));
            self.report(&changes.new_deadlocks, &now, now_ns);
        }
        for (class, hint) in self.outcomes.hints(now_ns) {
            side.set_return_hint(class, &hint)?;
        }
        Ok(())
    }

    /// Says which of these cycles stand in `now`; the others are looked at again later.
    fn report(&mut self, cycles: &[Vec<u32>], now: &Graph, now_ns: u64) {
        for cycle in cycles {
            if !now.has_cycle(cycle) {
                self.hints.not_confirmed(cycle, now_ns);
                continue;
            }
            self.deadlocks += 1;
            // a line each, so that what reads the log keeps them apart
            for line in deadlock::lines(cycle, now, &self.names, now_ns, &deadlock::Proc) {
                warn!("{line}");
            }
        }
    }

    fn show(&self, events: usize, state: &AgentState) {
        state.rounds.fetch_add(1, Ordering::Relaxed);
        state.events.fetch_add(events as u64, Ordering::Relaxed);
        let waits = self.graph.waits().len() as u64;
        state.waits_now.store(waits, Ordering::Relaxed);
        let hints = self.hints.len() as u64;
        state.hints_now.store(hints, Ordering::Relaxed);
        state.deadlocks.store(self.deadlocks, Ordering::Relaxed);
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
