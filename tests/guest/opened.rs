// SPDX-License-Identifier: GPL-2.0-only
//! Which files a process opens, said by the kernel (fanotify): every one on every mount but those of `/proc` and
//! `/sys`, by any of its threads, without holding them up.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use libtest_mimic::Failed;

/// Whole file systems whose files are the kernel's own.
const KERNELS_OWN: [&str; 10] = [
    "proc",
    "sysfs",
    "cgroup",
    "cgroup2",
    "bpf",
    "debugfs",
    "tracefs",
    "securityfs",
    "configfs",
    "fusectl",
];

/// What was opened since it was made.
pub struct Opened {
    group: File,
    pid: u32,
    files: BTreeSet<String>,
    /// Files that others opened: that it sees at all.
    pub others: usize,
}

fn failed(what: &str) -> Failed {
    format!("{what}: {}", std::io::Error::last_os_error()).into()
}

impl Opened {
    /// Follows process `pid` from now on.
    pub fn by(pid: u32) -> Result<Self, Failed> {
        let class = libc::FAN_CLASS_NOTIF | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK;
        let flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_LARGEFILE;
        // SAFETY: no memory is involved.
        let fd = unsafe {
            libc::fanotify_init(class | libc::FAN_UNLIMITED_QUEUE, flags.cast_unsigned())
        };
        if fd < 0 {
            return Err(failed("fanotify_init"));
        }
        // SAFETY: just made, and ours alone.
        let group = unsafe { File::from_raw_fd(fd) };
        for line in fs::read_to_string("/proc/self/mountinfo")?.lines() {
            let kind = line.split_once(" - ").map_or("", |(_, after)| after);
            let kind = kind.split(' ').next().unwrap_or_default();
            let Some(point) = line
                .split(' ')
                .nth(4)
                .filter(|_| !KERNELS_OWN.contains(&kind))
            else {
                continue;
            };
            let path = CString::new(point)?;
            // SAFETY: a path that lives as long as the call.
            let marked = unsafe {
                libc::fanotify_mark(
                    group.as_raw_fd(),
                    libc::FAN_MARK_ADD | libc::FAN_MARK_MOUNT,
                    libc::FAN_OPEN | libc::FAN_OPEN_EXEC,
                    libc::AT_FDCWD,
                    path.as_ptr(),
                )
            };
            if marked != 0 {
                return Err(failed(&format!("fanotify_mark of {point} ({kind})")));
            }
        }
        Ok(Self {
            group,
            pid,
            files: BTreeSet::new(),
            others: 0,
        })
    }

    /// The files that it has opened so far.
    pub fn files(&mut self) -> Result<&BTreeSet<String>, Failed> {
        const HEAD: usize = size_of::<libc::fanotify_event_metadata>();
        let mut bytes = [0_u8; 64 * HEAD];
        loop {
            let nr = match self.group.read(&mut bytes) {
                Ok(0) => break,
                Ok(nr) => nr,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                // a file of which the kernel cannot give us a copy: a socket, a device that is gone
                Err(_) => continue,
            };
            let mut at = 0;
            while let Some(head) = bytes[..nr].get(at..at + HEAD) {
                // SAFETY: long enough, all fields are integers, and the copy need not be aligned.
                let event: libc::fanotify_event_metadata =
                    unsafe { std::ptr::read_unaligned(head.as_ptr().cast()) };
                self.take(&event);
                at += (event.event_len as usize).max(HEAD);
            }
        }
        Ok(&self.files)
    }

    fn take(&mut self, event: &libc::fanotify_event_metadata) {
        if event.fd < 0 {
            return;
        }
        // SAFETY: the kernel has opened it for us.
        let fd = unsafe { OwnedFd::from_raw_fd(event.fd) };
        if event.pid.cast_unsigned() != self.pid {
            self.others += 1;
            return;
        }
        let path = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        let path = path.unwrap_or_else(|e| format!("? ({e})").into());
        self.files.insert(path.display().to_string());
    }
}
