// SPDX-License-Identifier: GPL-2.0-only
//! `scx_proxy observe --beside`: watches who waits for whose locks while another scheduler runs the machine,
//! and says at the end who held up whom.
//!
//! Data flow: as the scheduler's, without one. `kernel` loads BPF that only looks (`bpf/beside/`); the agent
//! (`crate::agent`) reads its events and reports deadlocks; the watcher (`crate::watcher`) names and sums
//! up; `top`, `record` and `metrics` come to a socket of our own. `summary` puts the end in words.

mod kernel;
mod summary;

use std::fs::{File, TryLockError};
use std::mem::MaybeUninit;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use crossbeam::channel::TryRecvError;
use log::{info, warn};
use scx_stats::prelude::*;

use crate::agent::requests;
use crate::agent::{self, Agent, AgentState};
use crate::cli::BESIDE;
use crate::cli::ObserveOpts;
use crate::client::Client;
use crate::doctor;
use crate::loader::{self, OwnSocket};
use crate::output;
use crate::stats::{self, Answer, Metrics, Readings, Request};
use crate::watch::View;
use crate::watcher::Keeper;
use kernel::Observer;
use summary::Summary;

/// Locked by who observes.
const LOCK: &str = "/var/run/scx/root/beside.lock";
/// Where the watcher listens.
const WATCHER: &str = "/var/run/scx/root/beside.watch";
/// How often the end, and questions, are looked for.
const POLL: Duration = Duration::from_millis(100);
/// How often the tables are read, for what is known of owners only as long as they live.
const LOOK: Duration = Duration::from_secs(1);
const ROWS: usize = 100;
/// Names come behind the events: so long they are waited for at the end.
const NAMED_WITHIN: Duration = Duration::from_secs(10);

/// Watches until `shutdown` is set, or the time is over; returns what is to be printed.
///
/// # Errors
/// This kernel cannot be watched, somebody watches already, or the watcher failed.
pub fn run(opts: &ObserveOpts, shutdown: &AtomicBool) -> Result<String> {
    doctor::beside::check()?;
    const WRITABLE: &str = "stats server: is /var/run writable?";
    loader::make_socket_folder().context(WRITABLE)?;
    let _only = OnlyOne::lock().context(WRITABLE)??;
    let mut object = MaybeUninit::uninit();
    let mut observer = Observer::load(opts, &mut object)?;
    let shows_all_tasks = loader::look_for_names();
    let (requests, incoming) = requests::channel();
    let options = agent::Options {
        print_events: false,
        donating: Arc::default(),
    };
    let agent = Agent::start(options, incoming, observer.connection()?)?;
    let args = loader::watcher_args(WATCHER, shows_all_tasks);
    let keeper = Keeper::start(requests, WATCHER, args)?;
    let server = stats::server_data(Some(keeper.handle()), std::thread::current());
    let server = StatsServer::new(server).set_path(BESIDE);
    let server = output::private_umask(|| server.launch()).context(WRITABLE)?;
    let socket = OwnSocket::new(BESIDE);
    let mut tables = Tables::open()?;
    let mut summary = Summary::new(opts.sample);
    summary.begin(&tables.client()?.view(0)?);
    info!("observing beside the machine's scheduler, which stays what it is; Ctrl-C ends it");
    let (answers, requests) = server.channels();
    let (began, mut looked) = (Instant::now(), Instant::now());
    let over = || {
        let secs = opts.seconds.map(Duration::from_secs_f64);
        secs.is_some_and(|secs| began.elapsed() >= secs)
    };
    while !shutdown.load(Ordering::Relaxed) && !over() {
        match requests.try_recv() {
            Ok(request) => answers.send(answer(request, &observer, agent.state())?)?,
            Err(TryRecvError::Empty) => std::thread::park_timeout(POLL),
            Err(e) => Err(e)?,
        }
        if looked.elapsed() >= LOOK {
            looked = Instant::now();
            if let Some(view) = tables.view() {
                summary.look(&view);
            }
        }
    }
    observer.detach();
    let ended = Instant::now();
    // no wakeup is seen any more: later views have names to add, and no times
    if let Some(view) = tables.view() {
        summary.look(&view);
    }
    while !summary.is_named() && ended.elapsed() < NAMED_WITHIN {
        std::thread::sleep(POLL);
        if let Some(view) = tables.view() {
            summary.name(&view);
        }
    }
    let metrics = metrics(&observer, agent.state())?;
    summary.end(&metrics);
    drop((tables, keeper, agent, server, socket));
    match opts.json {
        true => summary.to_json(),
        false => Ok(summary.to_text()),
    }
}

/// The watcher's tables. It is a task like any other under whatever schedules this machine: it may answer late, or
/// be killed, and is started again.
struct Tables {
    /// The watcher stays as long as somebody is connected to it.
    client: Option<Client>,
}

impl Tables {
    fn open() -> Result<Self> {
        let client = Some(Client::connect(Path::new(BESIDE))?);
        Ok(Self { client })
    }

    fn client(&mut self) -> Result<&mut Client> {
        if self.client.is_none() {
            *self = Self::open()?;
        }
        self.client.as_mut().context("not connected")
    }

    /// `None`: it does not answer now.
    fn view(&mut self) -> Option<View> {
        let view = self.client().and_then(|client| client.view(ROWS));
        if let Err(error) = &view {
            warn!("the tables cannot be read now: {error:#}");
            self.client = None;
        }
        view.ok()
    }
}

/// The file that the only one of us keeps locked. It takes it away at its end.
struct OnlyOne(File);

impl OnlyOne {
    /// Two of us would share the socket, which is made long after the start: so the first one locks a file, as long
    /// as it lives. The inner result is the second one's.
    fn lock() -> std::io::Result<Result<Self>> {
        let mut open = File::options();
        open.write(true).create(true).truncate(false).mode(0o600);
        loop {
            let file = open.open(LOCK)?;
            match file.try_lock() {
                // one that was taken away meanwhile is nobody's
                Ok(()) if !is_at(&file, LOCK)? => continue,
                Ok(()) => return Ok(Ok(Self(file))),
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) => {
                    return Ok(Err(anyhow!(
                        "this machine is observed already, by what listens at {BESIDE}\nhelp: scx_proxy top shows it"
                    )));
                }
            }
        }
    }
}

impl Drop for OnlyOne {
    fn drop(&mut self) {
        // not if somebody else took it away, and a third has locked another one
        if matches!(is_at(&self.0, LOCK), Ok(true)) {
            let _ = std::fs::remove_file(LOCK);
        }
    }
}

/// Whether `path` leads to this file.
fn is_at(file: &File, path: &str) -> std::io::Result<bool> {
    let own = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (own.dev(), own.ino())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn answer(request: Request, observer: &Observer, state: &AgentState) -> Result<Answer> {
    Ok(match request {
        Request::Metrics => Answer::Metrics(Box::new(metrics(observer, state)?)),
        Request::Donate(on) => {
            if on {
                warn!("nothing can be donated here: another scheduler runs this machine");
            }
            Answer::Donating(false)
        }
        Request::Groups => Answer::Groups(Vec::new()),
    })
}

fn metrics(observer: &Observer, state: &AgentState) -> Result<Metrics> {
    let read = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed);
    let readings = Readings {
        agent_waits_now: read(&state.waits_now),
        agent_watched_now: read(&state.watched),
        agent_rounds: read(&state.rounds),
        agent_events: read(&state.events),
        agent_rebuilds: read(&state.rebuilds),
        agent_restarts: read(&state.restarts),
        events_missed: read(&state.missed),
        deadlocks: read(&state.deadlocks),
        recursion_misses: observer.recursion_misses()?,
        cpus: std::thread::available_parallelism().map_or(0, |n| n.get() as u64),
        ..Readings::default()
    };
    Ok(Metrics::new(&observer.totals()?, readings))
}
