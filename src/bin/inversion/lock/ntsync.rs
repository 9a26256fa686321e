// SPDX-License-Identifier: GPL-2.0-only
//! Owns the recipe for a mutex of Windows as Wine has it (module ntsync): the owner takes it under a
//! number of its own and computes, the waiter waits for it.
//!
//! The kernel knows the owner by that number only. What it means shows when a thread waits for
//! anything, as here when the owner takes the mutex.

use super::{Recipe, Setup, compute};
use crate::spawn::WorkerKind;
use anyhow::{Context, Result};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

pub static RECIPE: Recipe = Recipe {
    name: "ntsync",
    summary: "mutex of /dev/ntsync (Wine): owner computes, waiter waits for it",
    default_hogs: 1,
    by_default: false,
    donates: true,
    workers: WorkerKind::Threads,
    links: 1,
    pages_max: super::compute_max,
    unavailable,
    build: |units| Ok(Box::new(Mutex::new(units)?)),
};

const DEVICE: &str = "/dev/ntsync";

// Numbers and structures from include/uapi/linux/ntsync.h.
const WAIT_ANY: libc::Ioctl = libc::_IOWR::<WaitArgs>(b'N' as u32, 0x82);
const CREATE_MUTEX: libc::Ioctl = libc::_IOW::<MutexArgs>(b'N' as u32, 0x84);
const MUTEX_UNLOCK: libc::Ioctl = libc::_IOWR::<MutexArgs>(b'N' as u32, 0x85);
const NO_TIMEOUT: u64 = u64::MAX;

#[repr(C)]
struct MutexArgs {
    owner: u32,
    count: u32,
}

#[repr(C)]
struct WaitArgs {
    timeout: u64,
    objects: u64,
    count: u32,
    index: u32,
    flags: u32,
    owner: u32,
    alert: u32,
    pad: u32,
}

fn unavailable() -> Option<String> {
    let error = Mutex::new(1).err()?;
    Some(format!("{error:#}; load its module (modprobe ntsync)"))
}

struct Mutex {
    device: File,
    mutex: OwnedFd,
    units: usize,
}

impl Mutex {
    fn new(units: usize) -> Result<Mutex> {
        let device = File::options().read(true).write(true).open(DEVICE);
        let device = device.with_context(|| format!("cannot open {DEVICE}"))?;
        let mutex = create(&device).context("cannot make a mutex of ntsync")?;
        Ok(Mutex {
            device,
            mutex,
            units,
        })
    }

    fn lock(&self) -> io::Result<()> {
        let descriptor = self.mutex.as_raw_fd();
        let mut arguments = WaitArgs {
            timeout: NO_TIMEOUT,
            objects: (&raw const descriptor).expose_provenance() as u64,
            count: 1,
            index: 0,
            flags: 0,
            owner: number(),
            alert: 0,
            pad: 0,
        };
        call(&self.device, WAIT_ANY, &raw mut arguments).map(drop)
    }

    /// Only for the thread that has it.
    fn unlock(&self) -> io::Result<()> {
        let mut arguments = MutexArgs {
            owner: number(),
            count: 0,
        };
        call(&self.mutex, MUTEX_UNLOCK, &raw mut arguments).map(drop)
    }
}

/// What a thread calls itself: anything that no other thread does.
fn number() -> u32 {
    // SAFETY: gettid has no preconditions.
    unsafe { libc::gettid() }.unsigned_abs()
}

/// A mutex that nobody has.
fn create(device: &File) -> io::Result<OwnedFd> {
    let mut arguments = MutexArgs { owner: 0, count: 0 };
    let descriptor = call(device, CREATE_MUTEX, &raw mut arguments)?;
    // SAFETY: just opened by the kernel for us, and ours alone.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Calls one of the ioctls above with its own structure.
fn call<T>(file: &impl AsRawFd, request: libc::Ioctl, argument: *mut T) -> io::Result<i32> {
    // SAFETY: `argument` comes from a reference to a T, which is what `request` is made of; what
    // it points to lives in the caller.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request, argument) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

impl Setup for Mutex {
    /// A new one: the last owner may have died with the old one.
    fn reset(&mut self) -> Result<()> {
        self.mutex = create(&self.device).context("cannot make a mutex of ntsync")?;
        Ok(())
    }

    fn hold(&self, _link: usize) -> io::Result<()> {
        self.lock()?;
        compute(self.units);
        self.unlock()
    }

    fn wait(&self) -> io::Result<()> {
        self.lock()?;
        self.unlock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    fn numbers_are_those_of_the_kernel() {
        assert_eq!(WAIT_ANY, 0xc028_4e82);
        assert_eq!(CREATE_MUTEX, 0x4008_4e84);
        assert_eq!(MUTEX_UNLOCK, 0xc008_4e85);
    }
}
