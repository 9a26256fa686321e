// SPDX-License-Identifier: GPL-2.0-only
//! The scheduler's side of the watcher: starts it when it is asked for, feeds it with what the agent sees,
//! ends it when it hangs. A thread of its own, which sleeps while there are no clients. Nothing of it waits for
//! the watcher, and nobody waits for this thread.

use std::path::Path;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use log::{debug, warn};

use super::child::{self, Pause};
use super::feed::Feeder;
use super::feed_pair;
use crate::agent::requests::Requests;

/// Where the watcher listens.
pub const SOCKET: &str = "/var/run/scx/root/watch";
/// How often events are handed on, while there are any and otherwise.
const BUSY_PERIOD: Duration = Duration::from_millis(5);
const IDLE_PERIOD: Duration = Duration::from_millis(40);
/// How often a watcher that is told nothing is asked whether it is there.
const ALIVE: Duration = Duration::from_secs(1);
/// A watcher that owes an answer for so long is ended: it hangs, or was stopped.
const HUNG: Duration = Duration::from_secs(10);
/// So long may it take to begin: beside the heaviest hogs it gets little.
const BEGIN: Duration = Duration::from_secs(60);
/// Least time between two readings of all waits.
const RESTATE: Duration = Duration::from_millis(50);
/// From the end of its stream to its own.
const ENDING: Duration = Duration::from_millis(500);

#[derive(Debug)]
struct Shared {
    wanted: AtomicBool,
    ready: AtomicBool,
    stop: AtomicBool,
    /// Where the watcher listens.
    socket: &'static str,
}

/// Asks for the watcher.
#[derive(Clone, Debug)]
pub struct Handle {
    shared: Arc<Shared>,
    thread: std::thread::Thread,
}

impl Handle {
    /// Where it listens; `None` while it is being started. Does not wait.
    #[must_use]
    pub fn want(&self) -> Option<&'static Path> {
        if self.shared.ready.load(Ordering::Relaxed) {
            return Some(Path::new(self.shared.socket));
        }
        self.shared.wanted.store(true, Ordering::Relaxed);
        self.thread.unpark();
        None
    }
}

/// Dropped, it ends the watcher.
pub struct Keeper {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    handle: Handle,
}

impl Keeper {
    /// Starts the thread. `args` are what the watcher is started with, which listens on `socket`.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn start(requests: Requests, socket: &'static str, args: Vec<String>) -> Result<Self> {
        let shared = Arc::new(Shared {
            wanted: AtomicBool::new(false),
            ready: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            socket,
        });
        let kept = shared.clone();
        let thread = std::thread::Builder::new()
            .name("proxy_keeper".into())
            .spawn(move || keep(&requests, &args, &kept))
            .context("thread of the watcher's keeper")?;
        let handle = Handle {
            shared: shared.clone(),
            thread: thread.thread().clone(),
        };
        Ok(Self {
            shared,
            thread: Some(thread),
            handle,
        })
    }

    /// Something to ask for the watcher with.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

fn keep(requests: &Requests, args: &[String], shared: &Shared) {
    let mut pause = Pause::default();
    while !shared.stop.load(Ordering::Relaxed) {
        if !shared.wanted.swap(false, Ordering::Relaxed) {
            std::thread::park();
            continue;
        }
        let began = Instant::now();
        let ended = live(requests, args, shared);
        shared.ready.store(false, Ordering::Relaxed);
        // it may not remove files itself
        let _ = std::fs::remove_file(shared.socket);
        if let Err(why) = ended {
            let pause = pause.after(began.elapsed());
            warn!(
                "the watcher {why:#}; scheduling goes on, and another is started when it is asked \
                 for, in {pause:?} at the earliest"
            );
            let until = Instant::now() + pause;
            while !shared.stop.load(Ordering::Relaxed) && Instant::now() < until {
                std::thread::park_timeout(until.saturating_duration_since(Instant::now()));
            }
        }
    }
}

/// One watcher, from its start to its end. It ends by itself when the last client has gone.
fn live(requests: &Requests, args: &[String], shared: &Shared) -> Result<()> {
    let (ours, theirs) = feed_pair()?;
    let mut child = child::start(args, theirs)?;
    debug!("watcher {} is started", child.id());
    let fed = feed(requests, Feeder::new(ours), shared);
    match fed {
        Ok(true) => ended(&mut child),
        other => {
            child::end(&mut child);
            other.map(|_| ())
        }
    }
}

/// Feeds it until it has gone (true), or we are to stop (false).
fn feed(requests: &Requests, mut feeder: Feeder, shared: &Shared) -> Result<bool> {
    let began = Instant::now();
    let mut follower = requests.follow()?;
    let (mut put, mut restated) = (Instant::now(), None::<Instant>);
    let mut want_restated = false;
    while !shared.stop.load(Ordering::Relaxed) {
        feeder.push();
        let mut busy = false;
        if feeder.is_free() {
            let batch = match follower.take() {
                Ok(batch) => batch,
                // a new agent begins with all waits
                Err(_) => {
                    follower = requests.follow()?;
                    follower.take()?
                }
            };
            busy = !batch.is_new();
            if busy || put.elapsed() >= ALIVE {
                feeder.put(&batch);
                put = Instant::now();
            }
        }
        feeder.wait(if busy { BUSY_PERIOD } else { IDLE_PERIOD });
        let said = feeder.listen();
        if said.gone {
            return Ok(true);
        }
        if said.ready {
            shared.ready.store(true, Ordering::Relaxed);
            // whoever wanted it finds it from now on
            shared.wanted.store(false, Ordering::Relaxed);
        }
        want_restated |= said.restate;
        if want_restated && restated.is_none_or(|when| when.elapsed() >= RESTATE) {
            (restated, want_restated) = (Some(Instant::now()), false);
            requests.restate();
        }
        let patience = match shared.ready.load(Ordering::Relaxed) {
            true => HUNG,
            false => BEGIN,
        };
        if feeder.stalled() >= patience && began.elapsed() >= patience {
            bail!("does not answer, and is ended");
        }
    }
    Ok(false)
}

/// How it ended, once its stream has: an error, unless the last client had gone.
fn ended(child: &mut Child) -> Result<()> {
    let until = Instant::now() + ENDING;
    while Instant::now() < until {
        if let Some(status) = child.try_wait()? {
            if status.success() {
                debug!("no clients: watcher {} has ended", child.id());
                return Ok(());
            }
            bail!("ended: {status}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child::end(child);
    bail!("closed its stream, and was ended");
}
