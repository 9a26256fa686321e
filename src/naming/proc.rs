//! What `/proc` says of a task: its name and its process. Nothing, once it has gone.

use std::fs;

/// `/proc/PID/comm`.
pub fn comm(pid: u32) -> Option<String> {
    let comm = fs::read(format!("/proc/{pid}/comm")).ok()?;
    let comm = String::from_utf8_lossy(&comm);
    Some(comm.strip_suffix('\n').unwrap_or(&comm).to_owned())
}

/// The process that thread `pid` belongs to.
pub fn process(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
    line?.trim().parse().ok()
}
