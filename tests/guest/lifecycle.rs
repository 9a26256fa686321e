// SPDX-License-Identifier: GPL-2.0-only
//! Coming and going: refusals, Ctrl-C, kill -9, hotplug. Whatever happens, the
//! kernel's default scheduler takes over.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use libtest_mimic::Failed;
use scx_proxy::cli::SOCKET;

use crate::Test;

use crate::machine::{cpu_numbers, ensure, sched_ext_state, wait_for};
use crate::sched::{self, SCX_PROXY, UNLOAD, loaded, log};
use crate::watcher;

/// Before the others: they need a scheduler that loads.
pub const FIRST: &[Test] = &[
    ("lifecycle::refused_without_root", refused_without_root),
    ("lifecycle::refused_beside_another", refused_beside_another),
    ("lifecycle::socket_is_roots_own", socket_is_roots_own),
];

/// While the shared scheduler runs.
pub const HOTPLUG: &[Test] = &[("lifecycle::restarts_on_hotplug", restarts_on_hotplug)];

/// These end the shared scheduler.
pub const KILL_9: &[Test] = &[(
    "lifecycle::kill_9_leaves_the_default",
    kill_9_leaves_the_default,
)];
pub const CTRL_C: &[Test] = &[("lifecycle::ctrl_c_exits_0", ctrl_c_exits_0)];

fn refusal(out: &Output, why: &str) -> Result<(), Failed> {
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    ensure(out.status.code() == Some(1), || {
        format!("{}: {said}", out.status)
    })?;
    ensure(said.contains(why), || said.clone())?;
    ensure(
        said.lines().count() == 2 && said.contains("\n  try: "),
        || said.clone(),
    )
}

fn refused_without_root() -> Result<(), Failed> {
    refusal(&Command::new(SCX_PROXY).uid(65534).output()?, "needs root")
}

fn refused_beside_another() -> Result<(), Failed> {
    sched::with(&[], || {
        refusal(
            &Command::new(SCX_PROXY).output()?,
            "another sched_ext scheduler is loaded: proxy",
        )
    })
}

/// Who may connect may switch donation off. The umask of the scheduler here is a lax one.
fn socket_is_roots_own() -> Result<(), Failed> {
    sched::with(&[], || {
        let mode = fs::metadata(SOCKET)?.permissions().mode() & 0o777;
        ensure(mode == 0o600, || format!("mode {mode:o}"))?;
        let umask = fs::read_to_string(format!("/proc/{}/status", sched::pid()))?;
        let umask = umask.lines().find(|line| line.starts_with("Umask:"));
        ensure(umask.is_some_and(|line| !line.ends_with("177")), || {
            format!("the umask was not put back: {umask:?}")
        })
    })
}

fn default_is_back() -> Result<(), Failed> {
    wait_for("the default scheduler", UNLOAD, || {
        sched_ext_state() == "disabled"
    })
}

fn ctrl_c_exits_0() -> Result<(), Failed> {
    let mut running = sched::take()?;
    watcher::top()?;
    let watcher = watcher::pid().ok_or("no watcher")?;
    running.signal("-INT")?;
    let status = running.wait()?;
    ensure(status.success(), || format!("{status}\n{}", log()))?;
    ensure(log().contains("EXIT: "), || {
        format!("no exit report: {}", log())
    })?;
    default_is_back()?;
    watcher_is_gone(watcher)?;
    let left: Vec<_> = fs::read_dir("/run/scx/root")?.flatten().collect();
    ensure(left.is_empty(), || format!("left behind: {left:?}"))
}

fn kill_9_leaves_the_default() -> Result<(), Failed> {
    let mut running = sched::take()?;
    watcher::top()?;
    let watcher = watcher::pid().ok_or("no watcher")?;
    running.signal("-KILL")?;
    running.wait()?;
    default_is_back()?;
    watcher_is_gone(watcher)
}

/// Whatever the scheduler started ends with it.
fn watcher_is_gone(watcher: u32) -> Result<(), Failed> {
    wait_for("the watcher to end", UNLOAD, || {
        !std::path::Path::new(&format!("/proc/{watcher}/exe")).exists()
    })
}

fn restarts_on_hotplug() -> Result<(), Failed> {
    sched::with(&[], hotplug)
}

/// CPU 3 goes and comes back; the scheduler restarts for both.
pub fn hotplug() -> Result<(), Failed> {
    switch_cpu(3, false)?;
    switch_cpu(3, true)
}

/// A CPU goes on or off line, and the scheduler restarts for that.
pub fn switch_cpu(cpu: usize, online: bool) -> Result<(), Failed> {
    let file = format!("/sys/devices/system/cpu/cpu{cpu}/online");
    restarts_for(&file, if online { "1" } else { "0" })
}

/// `text` is written to `file`, which changes the CPUs that are online: the scheduler restarts, once or
/// more often, and schedules those that are online then.
pub fn restarts_for(file: &str, text: &str) -> Result<(), Failed> {
    let loads = || log().matches("is scheduling").count();
    let before = loads();
    fs::write(file, text).map_err(|error| format!("{file}: {error}"))?;
    let online = cpu_numbers("online")?.len();
    let last = format!("is scheduling {online} CPU");
    wait_for(
        &format!("a restart for {text} in {file}"),
        UNLOAD * 4,
        || {
            let log = log();
            let mut said = log.lines().filter(|line| line.contains("is scheduling"));
            loaded()
                && loads() > before
                && said.next_back().is_some_and(|line| line.contains(&last))
        },
    )
}
