// SPDX-License-Identifier: GPL-2.0-only
//! Owns a page that is missing until another process provides it (userfaultfd): whoever touches it
//! sleeps, also in the middle of a system call, and with the locks that the call holds.
//!
//! A userfaultfd speaks of the memory of the process that made it, and forked children do not
//! inherit it. So the sleeper arms its own page, under a descriptor number that its parent chose
//! before the fork, and the parent takes a copy of that descriptor (pidfd_getfd).
//!
//! Only faults taken in user mode are free to everybody. These are taken in the kernel, by a copy to
//! user memory, which asks for CAP_SYS_PTRACE, vm.unprivileged_userfaultfd or /dev/userfaultfd.

use crate::alias::PAGE_BYTES;
use crate::sys;
use crate::task::Task;
use anyhow::{Context, Result, ensure};
use std::ffi::c_void;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const DEVICE: &str = "/dev/userfaultfd";

// Numbers and structures from include/uapi/linux/userfaultfd.h.
const UFFD_API: u64 = 0xAA;
const UFFD_EVENT_PAGEFAULT: u8 = 0x12;
const REGISTER_MODE_MISSING: u64 = 1 << 0;
const ZEROPAGE_MODE_DONTWAKE: u64 = 1 << 0;
const USERFAULTFD_IOC_NEW: libc::Ioctl = libc::_IO(0xAA, 0x00);
const UFFDIO_API: libc::Ioctl = libc::_IOWR::<Api>(0xAA, 0x3F);
const UFFDIO_REGISTER: libc::Ioctl = libc::_IOWR::<Register>(0xAA, 0x00);
/// The kernel's header has read and write the wrong way round here, and so it stays.
const UFFDIO_WAKE: libc::Ioctl = libc::_IOR::<Range>(0xAA, 0x02);
const UFFDIO_ZEROPAGE: libc::Ioctl = libc::_IOWR::<ZeroPage>(0xAA, 0x04);

#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Range {
    start: u64,
    len: u64,
}

#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct Register {
    range: Range,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct ZeroPage {
    range: Range,
    mode: u64,
    zeropage: i64,
}

/// `struct uffd_msg`: the event is its first byte.
const MESSAGE_BYTES: usize = 32;

/// Why pages cannot be withheld from the kernel here, if so.
pub fn unavailable() -> Option<String> {
    let error = open_userfaultfd().err()?;
    Some(match error.raw_os_error() {
        Some(libc::ENOSYS) => {
            "this kernel has no userfaultfd (it is built without CONFIG_USERFAULTFD)".to_string()
        }
        Some(libc::EPERM | libc::EACCES | libc::ENOENT) => format!(
            "an owner can sleep inside read() only where userfaultfd may hold up the kernel's own page \
             faults; run as root (or with CAP_SYS_PTRACE, access to {DEVICE}, or \
             vm.unprivileged_userfaultfd=1)"
        ),
        _ => format!("cannot make a userfaultfd: {error}"),
    })
}

/// One that reports faults taken in the kernel as well: UFFD_USER_MODE_ONLY is not set. Without
/// O_NONBLOCK a read would sleep where nothing is to be read yet.
fn open_userfaultfd() -> io::Result<OwnedFd> {
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
    // SAFETY: takes numbers only.
    let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, flags) };
    if let Err(error) = check(fd) {
        if error.raw_os_error() != Some(libc::EPERM) {
            return Err(error);
        }
        let device = File::options().read(true).write(true).open(DEVICE)?;
        // SAFETY: this ioctl takes flags by value.
        let fd = unsafe { libc::ioctl(device.as_raw_fd(), USERFAULTFD_IOC_NEW, flags) };
        return own(fd.into());
    }
    own(fd)
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// Takes the descriptor that a system call has just returned.
fn own(result: libc::c_long) -> io::Result<OwnedFd> {
    let fd = check(result)? as libc::c_int;
    // SAFETY: the descriptor is new and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Calls one of the ioctls above with its own structure.
fn uffd_ioctl<T>(fd: &impl AsRawFd, request: libc::Ioctl, argument: &mut T) -> io::Result<()> {
    let argument: *mut T = argument;
    // SAFETY: `argument` is valid for reading and writing a T, which is what `request` is made of.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request, argument) };
    check(result.into()).map(drop)
}

/// The page at `address` of whichever process arms it. Made before the fork.
#[derive(Debug)]
pub struct MissingPage {
    /// Keeps a descriptor number free, in the sleeper too, until that puts its userfaultfd there.
    number: File,
    range: Range,
}

impl MissingPage {
    pub fn new(address: *mut c_void) -> Result<MissingPage> {
        let number = File::open("/dev/null").context("cannot open /dev/null")?;
        let range = Range {
            start: address.addr() as u64,
            len: PAGE_BYTES as u64,
        };
        Ok(MissingPage { number, range })
    }

    /// Called in the sleeper's process, with memory of its own at the address that it has not
    /// touched yet.
    pub fn arm(&self) -> io::Result<()> {
        let uffd = open_userfaultfd()?;
        let mut api = Api {
            api: UFFD_API,
            features: 0,
            ioctls: 0,
        };
        uffd_ioctl(&uffd, UFFDIO_API, &mut api)?;
        let mut register = Register {
            range: self.range,
            mode: REGISTER_MODE_MISSING,
            ioctls: 0,
        };
        uffd_ioctl(&uffd, UFFDIO_REGISTER, &mut register)?;
        let (from, to) = (uffd.as_raw_fd(), self.number.as_raw_fd());
        // SAFETY: replaces a descriptor of ours that nothing is read from.
        check(unsafe { libc::dup3(from, to, libc::O_CLOEXEC) }.into()).map(drop)
    }

    /// Called in the parent, once `sleeper` has armed the page.
    pub fn of(&self, sleeper: Task) -> Result<Sleeper> {
        let uffd = copy_of_descriptor(sleeper.id(), self.number.as_raw_fd())
            .context("cannot take over the owner's userfaultfd (pidfd_getfd)")?;
        Ok(Sleeper {
            uffd: uffd.into(),
            range: self.range,
        })
    }
}

fn copy_of_descriptor(pid: libc::pid_t, fd: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers only.
    let process = own(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: takes numbers only.
    own(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), fd, 0) })
}

/// A process with an armed page, seen by the one that will provide the page.
#[derive(Debug)]
pub struct Sleeper {
    uffd: File,
    range: Range,
}

impl Sleeper {
    /// Whether the page has been touched since this was last asked. The kernel says so just before
    /// it puts the process to sleep.
    pub fn has_touched(&mut self) -> Result<bool> {
        let mut message = [0; MESSAGE_BYTES];
        match self.uffd.read(&mut message) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error).context("cannot read the owner's userfaultfd"),
            Ok(_) => {}
        }
        ensure!(
            message[0] == UFFD_EVENT_PAGEFAULT,
            "the owner's userfaultfd reported event {:#x} instead of a page fault",
            message[0]
        );
        Ok(true)
    }

    /// Provides the page and wakes the process; returns when, by CLOCK_MONOTONIC. The clock is read
    /// between the two, when nothing but the wakeup is left: what comes after it is the scheduler's,
    /// and a delay of this process there makes the wait look longer, never shorter.
    pub fn wake(&mut self) -> Result<u64> {
        let mut zero = ZeroPage {
            range: self.range,
            mode: ZEROPAGE_MODE_DONTWAKE,
            zeropage: 0,
        };
        uffd_ioctl(&self.uffd, UFFDIO_ZEROPAGE, &mut zero)
            .context("cannot provide the page that the owner waits for")?;
        let woken_ns = sys::monotonic_ns();
        uffd_ioctl(&self.uffd, UFFDIO_WAKE, &mut self.range).context("cannot wake the owner")?;
        Ok(woken_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the C compiler has them on x86-64 and arm64, where programs of other languages quote them.
    #[test]
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    fn numbers_are_those_of_the_kernel() {
        assert_eq!(USERFAULTFD_IOC_NEW, 0xaa00);
        assert_eq!(UFFDIO_API, 0xc018_aa3f);
        assert_eq!(UFFDIO_REGISTER, 0xc020_aa00);
        assert_eq!(UFFDIO_WAKE, 0x8010_aa02);
        assert_eq!(UFFDIO_ZEROPAGE, 0xc020_aa04);
    }

    #[test]
    fn failures_are_errors() {
        assert!(check(-1).is_err());
        assert!(check(0).is_ok());
        assert!(own(-1).is_err());
        assert!(copy_of_descriptor(1 << 27, 0).is_err());
    }
}
