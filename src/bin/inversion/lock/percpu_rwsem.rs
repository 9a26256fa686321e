// SPDX-License-Identifier: GPL-2.0-only
//! Owns the recipe for a percpu_rwsem, `dup_mmap_sem`: the owner puts a uprobe on a file that a process
//! has mapped very often, and breaks each mapping's page open as the writer of it; the waiter forks,
//! which reads. A percpu_rwsem has no word that names its owner.
//!
//! The kernel goes through the mappings twice, once to register the uprobe and once for the event, and
//! lets go of the lock in between. The first time takes little.

use super::{Recipe, Setup};
use crate::alias::{PAGE_BYTES, memfd};
use crate::child::{self, Child};
use crate::gate::Gate;
use crate::spawn::{WorkerKind, pause_forever};
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::time::Duration;

pub static RECIPE: Recipe = Recipe {
    name: "percpu_rwsem",
    summary: "dup_mmap_sem: owner puts a uprobe on a file with many mappings, waiter fork()s",
    default_hogs: 1,
    by_default: false,
    donates: false,
    workers: WorkerKind::Processes,
    links: 1,
    pages_max: mappings_max,
    unavailable,
    build: |mappings| Ok(Box::new(Probed::new(mappings)?)),
};

/// Most mappings of a process are the subject's own; some it has anyway.
fn mappings_max() -> usize {
    let limit = std::fs::read_to_string("/proc/sys/vm/max_map_count").ok();
    let limit = limit.and_then(|limit| limit.trim().parse::<usize>().ok());
    limit.map_or(1 << 15, |limit| limit.saturating_sub(1000).max(1))
}

fn unavailable() -> Option<String> {
    let try_it = || Probed::new(1).and_then(|probed| Ok(probed.put_uprobe().map(drop)?));
    try_it()
        .err()
        .map(|error| format!("cannot put a uprobe on a file (it takes root): {error:#}"))
}

const SUBJECT_LIMIT: Duration = Duration::from_secs(60);
const UPROBES: &str = "/sys/bus/event_source/devices/uprobe/type";
/// One instruction of x86-64 that nobody will execute.
const NOP: u8 = 0x90;

struct Probed {
    path: std::ffi::CString,
    event_type: u32,
    _subject: Child,
    _file: File,
}

impl Probed {
    fn new(mappings: usize) -> Result<Probed> {
        let event_type = std::fs::read_to_string(UPROBES)
            .with_context(|| format!("cannot read {UPROBES}"))?
            .trim()
            .parse()
            .with_context(|| format!("{UPROBES} has no number"))?;
        let mut file = memfd(c"inversion-uprobe")?;
        file.write_all(&[NOP; PAGE_BYTES])
            .context("cannot fill a file in memory")?;
        let subject = spawn_subject(&file, mappings)?;
        // Of this process, not of /proc/self: the owner finds it under the same path.
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        Ok(Probed {
            path: std::ffi::CString::new(path)?,
            event_type,
            _subject: subject,
            _file: file,
        })
    }

    /// The uprobe lasts as long as the descriptor.
    fn put_uprobe(&self) -> io::Result<OwnedFd> {
        let attributes = EventAttributes {
            event_type: self.event_type,
            size: size_of::<EventAttributes>() as u32,
            flags: FLAG_DISABLED,
            path: self.path.as_ptr() as u64,
            ..EventAttributes::default()
        };
        let (all_tasks, cpu, no_group, flags) = (-1, 0, -1, 0);
        // SAFETY: `attributes` is as long as it says, and has the address of a C string.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                &raw const attributes,
                all_tasks,
                cpu,
                no_group,
                flags,
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nothing else owns it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
    }
}

/// `struct perf_event_attr` of include/uapi/linux/perf_event.h, up to PERF_ATTR_SIZE_VER1.
#[derive(Default)]
#[repr(C)]
struct EventAttributes {
    event_type: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup: u32,
    breakpoint_type: u32,
    path: u64,
    offset: u64,
}

/// It need not count.
const FLAG_DISABLED: u64 = 1;

/// A process that maps the file's page, executable and private as programs are, again and again.
fn spawn_subject(file: &File, mappings: usize) -> Result<Child> {
    let mapped = Gate::new()?;
    let mut subject = Child::spawn(None, 0, || {
        for _ in 0..mappings {
            if let Err(error) = map_code(file) {
                return error.raw_os_error().unwrap_or(1);
            }
        }
        let _ = mapped.open();
        pause_forever()
    })?;
    let ready = crate::sys::poll_until(SUBJECT_LIMIT, Duration::from_millis(1), || {
        if let Some(end) = subject.ended()? {
            bail!("the process with the mappings failed: {end}");
        }
        mapped.opens_within(Duration::ZERO)
    })?;
    if !ready {
        let limit = SUBJECT_LIMIT.as_secs();
        bail!("a process did not map a file {mappings} times within {limit} s");
    }
    Ok(subject)
}

fn map_code(file: &File) -> io::Result<()> {
    let (anywhere, fd) = (std::ptr::null_mut(), file.as_raw_fd());
    let protection = libc::PROT_READ | libc::PROT_EXEC;
    // SAFETY: a new mapping at a place that the kernel chooses.
    let page = unsafe { libc::mmap(anywhere, PAGE_BYTES, protection, libc::MAP_PRIVATE, fd, 0) };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

impl Setup for Probed {
    fn reset(&mut self) -> Result<()> {
        Ok(())
    }

    fn hold(&self, _link: usize) -> io::Result<()> {
        // Taking it away again would own the lock once more; that is left to the end of the process.
        let _left_open = self.put_uprobe()?.into_raw_fd();
        Ok(())
    }

    fn wait(&self) -> io::Result<()> {
        // SAFETY: a worker that is a process has one thread, and the child does nothing but end.
        match unsafe { libc::fork() } {
            0 => child::exit(0),
            pid if pid < 0 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_have_the_length_of_their_version() {
        assert_eq!(size_of::<EventAttributes>(), 72);
    }
}
