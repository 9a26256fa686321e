// SPDX-License-Identifier: GPL-2.0-only
//! What `/proc` says of a task: its name and its process. Nothing, once it has gone, and nothing at all where
//! `/proc` knows other tasks by the kernel's numbers: a wrong name is worse than none.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::output::printable;

static USED: AtomicBool = AtomicBool::new(true);

/// Whether the numbers of tasks in `/proc` are the kernel's own, those of the initial pid namespace.
pub fn use_proc(shows_all_tasks: bool) {
    USED.store(shows_all_tasks, Ordering::Relaxed);
}

/// `/proc/PID/FILE` of the task that the kernel calls `pid`; none if it is not known which that is.
pub fn file(pid: u32, file: &str) -> Option<PathBuf> {
    let used = USED.load(Ordering::Relaxed);
    used.then(|| format!("/proc/{pid}/{file}").into())
}

/// `/proc/PID/comm`, as it may be shown.
pub fn comm(pid: u32) -> Option<String> {
    let comm = fs::read(file(pid, "comm")?).ok()?;
    let comm = String::from_utf8_lossy(&comm);
    Some(printable(comm.strip_suffix('\n').unwrap_or(&comm)))
}

/// The process that thread `pid` belongs to.
pub fn process(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(file(pid, "status")?).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
    line?.trim().parse().ok()
}
