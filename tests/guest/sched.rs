// SPDX-License-Identifier: GPL-2.0-only
//! The scheduler under test: started with some flags, shared by tests that want
//! the same, read through its stats socket, stopped at the end.

use std::fs::File;
use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use libtest_mimic::Failed;
use scx_proxy::stats::Metrics;
use scx_stats::StatsClient;

use crate::machine::{ensure, is_even, read, sched_ext_ops, sched_ext_state, wait_for};

pub const SCX_PROXY: &str = env!("CARGO_BIN_EXE_scx_proxy");
const LOG: &str = "/run/scx_proxy.log";
/// What it prints: with `--print-events`, a line an event.
pub const OUT: &str = "/run/scx_proxy.out";

/// The defaults, and its events on stdout: one load serves scenarios and the rest. On an even clock,
/// where factors are measured and no scenario is staged, nobody watches.
fn default_flags() -> &'static [&'static str] {
    if is_even() { &[] } else { &["--print-events"] }
}

/// For the tests of the tracepoint path and of the starvation guard: one load for both.
pub const TRACEPOINT: &[&str] = &["--tracepoint", "--starve-ms", "500"];

/// Verification alone takes many seconds under emulation, and minutes where the kernel checks itself.
pub const LOAD: Duration = Duration::from_secs(600);
pub const UNLOAD: Duration = Duration::from_secs(30);

pub struct Running {
    pub child: Child,
    flags: Vec<String>,
}

static PID: AtomicU32 = AtomicU32::new(0);
static SHARED: Mutex<Option<Running>> = Mutex::new(None);

pub fn loaded() -> bool {
    sched_ext_state() == "enabled" && sched_ext_ops().starts_with("proxy")
}

/// Waits until `child`, whose log is the file `log`, has loaded; it may not end meanwhile.
pub fn loads(child: &mut Child, log: &str) -> Result<(), Failed> {
    let mut ended = None;
    wait_for("the scheduler to load", LOAD, || {
        ended = child.try_wait().ok().flatten();
        ended.is_some() || loaded() && read(log).contains("is scheduling")
    })?;
    ensure(ended.is_none(), || format!("{ended:?}: {}", read(log)))
}

/// Waits until `child` has ended, and says how.
pub fn exits(child: &mut Child) -> Result<ExitStatus, Failed> {
    let mut status = None;
    wait_for("scx_proxy to exit", UNLOAD, || {
        status = child.try_wait().ok().flatten();
        status.is_some()
    })?;
    status.ok_or_else(|| "no exit status".into())
}

pub fn log() -> String {
    let mut text = String::new();
    if let Ok(mut file) = File::open(LOG) {
        let _ = file.read_to_string(&mut text);
    }
    text
}

impl Running {
    pub fn start(flags: &[&str]) -> Result<Self, Failed> {
        let child = Command::new(SCX_PROXY)
            .args(flags)
            // errors must not want more memory than there is, whatever is asked for
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(File::create(OUT)?)
            .stderr(File::create(LOG)?)
            .spawn()?;
        PID.store(child.id(), Ordering::Relaxed);
        let mut running = Self {
            child,
            flags: flags.iter().map(|f| (*f).to_owned()).collect(),
        };
        let mut ended = None;
        wait_for("the scheduler to load", LOAD, || {
            ended = running.child.try_wait().ok().flatten();
            loaded() || ended.is_some()
        })?;
        ensure(ended.is_none(), || {
            format!("did not load: {ended:?}\n{}", log())
        })?;
        // the socket comes right after the scheduler
        wait_for("the stats socket", UNLOAD, || {
            StatsClient::new().connect(None).is_ok()
        })?;
        Ok(running)
    }

    pub fn signal(&self, signal: &str) -> Result<(), Failed> {
        let status = Command::new("kill")
            .args([signal, &self.child.id().to_string()])
            .status()?;
        ensure(status.success(), || format!("kill {signal}: {status}"))
    }

    pub fn wait(&mut self) -> Result<ExitStatus, Failed> {
        exits(&mut self.child)
    }
}

/// Run `test` on a scheduler with `flags`: the running one if it has the same.
/// No flags stand for `default_flags()`.
pub fn with<T>(flags: &[&str], test: impl FnOnce() -> Result<T, Failed>) -> Result<T, Failed> {
    let flags = if flags.is_empty() {
        default_flags()
    } else {
        flags
    };
    let mut shared = SHARED.lock().map_err(|_| "an earlier test panicked")?;
    let usable = shared.as_ref().is_some_and(|r| r.flags == flags) && loaded();
    if !usable {
        if let Some(old) = shared.take() {
            end(old)?;
        }
        *shared = Some(Running::start(flags)?);
    }
    let result = test()?;
    ensure(loaded(), || {
        format!("no longer loaded after the test\n{}", log())
    })?;
    Ok(result)
}

/// Take the running scheduler over, to end it: whatever its flags, since each
/// load and unload patches the kernel, which emulation does not always survive.
pub fn take() -> Result<Running, Failed> {
    let mut shared = SHARED.lock().map_err(|_| "an earlier test panicked")?;
    match shared.take() {
        Some(running) if loaded() => Ok(running),
        _ => Running::start(default_flags()),
    }
}

/// Ends one that was started, or taken, for a test of its own.
pub fn end(mut running: Running) -> Result<(), Failed> {
    running.signal("-INT")?;
    running.wait()?;
    wait_for("the default scheduler", UNLOAD, || {
        sched_ext_state() == "disabled"
    })
}

/// Process id of the scheduler that was started last.
pub fn pid() -> u32 {
    PID.load(Ordering::Relaxed)
}

/// Stop the shared scheduler, if there is one.
pub fn stop() {
    if let Ok(mut shared) = SHARED.lock()
        && let Some(running) = shared.take()
        && let Err(e) = end(running)
    {
        eprintln!("{}", e.message().unwrap_or("the scheduler did not stop"));
    }
}

/// A reader of stats: each `delta` is what was counted since the last one.
pub struct Stats(StatsClient);

impl Stats {
    pub fn open() -> Result<Self, Failed> {
        let mut stats = Self(
            StatsClient::new()
                .connect(None)
                .map_err(|e| e.to_string())?,
        );
        stats.delta()?;
        Ok(stats)
    }

    pub fn delta(&mut self) -> Result<Metrics, Failed> {
        self.0
            .request::<Metrics>("stats", vec![])
            .map_err(|e| e.to_string().into())
    }
}
