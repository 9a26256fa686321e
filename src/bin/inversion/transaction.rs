// SPDX-License-Identifier: GPL-2.0-only
//! Owns a small client and a small server of binder (module binder_linux): one synchronous transaction
//! without contents, from whoever asks to the context manager, handle 0.
//!
//! A `Connection` belongs to the process that opened the device, and is of no use to its children.

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

pub const DEVICE: &str = "/dev/binder";

// Numbers and structures from include/uapi/linux/android/binder.h.
const BINDER_WRITE_READ: libc::Ioctl = libc::_IOWR::<WriteRead>(b'b' as u32, 1);
const BINDER_SET_CONTEXT_MGR: libc::Ioctl = libc::_IOW::<i32>(b'b' as u32, 7);
const BC_TRANSACTION: u32 = libc::_IOW::<Transaction>(b'c' as u32, 0) as u32;
const BC_REPLY: u32 = libc::_IOW::<Transaction>(b'c' as u32, 1) as u32;
const BC_FREE_BUFFER: u32 = libc::_IOW::<u64>(b'c' as u32, 3) as u32;
const BC_ENTER_LOOPER: u32 = libc::_IO(b'c' as u32, 12) as u32;
const BR_ERROR: u32 = libc::_IOR::<i32>(b'r' as u32, 0) as u32;
const BR_TRANSACTION: u32 = libc::_IOR::<Transaction>(b'r' as u32, 2) as u32;
const BR_REPLY: u32 = libc::_IOR::<Transaction>(b'r' as u32, 3) as u32;
const BR_DEAD_REPLY: u32 = libc::_IO(b'r' as u32, 5) as u32;
const BR_FAILED_REPLY: u32 = libc::_IO(b'r' as u32, 17) as u32;
const BR_FROZEN_REPLY: u32 = libc::_IO(b'r' as u32, 18) as u32;

#[repr(C)]
struct WriteRead {
    write_size: u64,
    write_consumed: u64,
    write_buffer: u64,
    read_size: u64,
    read_consumed: u64,
    read_buffer: u64,
}

/// `struct binder_transaction_data`, of which a transaction to handle 0 without contents has nothing
/// but zeroes.
#[repr(C)]
struct Transaction {
    target: u64,
    cookie: u64,
    code: u32,
    flags: u32,
    sender_pid: i32,
    sender_euid: u32,
    data_size: u64,
    offsets_size: u64,
    buffer: u64,
    offsets: u64,
}

const EMPTY_TRANSACTION: [u8; size_of::<Transaction>()] = [0; size_of::<Transaction>()];
const BUFFER_FIELD: std::ops::Range<usize> = {
    let at = std::mem::offset_of!(Transaction, buffer);
    at..at + size_of::<u64>()
};

/// Where the kernel puts what the process receives; also an empty message needs some of it.
const AREA_BYTES: usize = 64 << 10;
const READ_BYTES: usize = 256;

#[derive(Debug)]
pub struct Connection {
    device: File,
    area: *mut c_void,
}

// SAFETY: only the address is kept, to unmap it; nobody looks into the area.
unsafe impl Send for Connection {}
// SAFETY: as above.
unsafe impl Sync for Connection {}

impl Connection {
    pub fn open() -> io::Result<Connection> {
        let device = File::options().read(true).write(true).open(DEVICE)?;
        let (anywhere, fd) = (std::ptr::null_mut(), device.as_raw_fd());
        let (protection, flags) = (libc::PROT_READ, libc::MAP_PRIVATE | libc::MAP_NORESERVE);
        // SAFETY: a new mapping at a place that the kernel chooses.
        let area = unsafe { libc::mmap(anywhere, AREA_BYTES, protection, flags, fd, 0) };
        if area == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Connection { device, area })
    }

    /// EBUSY while another process is, or was a moment ago.
    pub fn become_manager(&self) -> io::Result<()> {
        let unused = 0i32;
        // SAFETY: `unused` is valid for reading.
        let result = unsafe {
            libc::ioctl(
                self.device.as_raw_fd(),
                BINDER_SET_CONTEXT_MGR,
                &raw const unused,
            )
        };
        check(result)
    }

    /// Of the context manager: sleeps until a client asks, does `work`, and answers.
    pub fn serve_one(&self, work: impl FnOnce()) -> io::Result<()> {
        let asked = self.exchange(&BC_ENTER_LOOPER.to_ne_bytes(), BR_TRANSACTION)?;
        work();
        let answer = [
            &BC_FREE_BUFFER.to_ne_bytes()[..],
            asked.get(BUFFER_FIELD).ok_or_else(garbled)?,
            &BC_REPLY.to_ne_bytes(),
            &EMPTY_TRANSACTION,
        ];
        self.write_read(&answer.concat(), &mut []).map(drop)
    }

    /// Asks the context manager and sleeps until it has answered.
    pub fn ask(&self) -> io::Result<()> {
        let question = [&BC_TRANSACTION.to_ne_bytes()[..], &EMPTY_TRANSACTION];
        self.exchange(&question.concat(), BR_REPLY).map(drop)
    }

    /// Writes `commands`, and reads until `wanted` is there: its contents.
    fn exchange(&self, commands: &[u8], wanted: u32) -> io::Result<Vec<u8>> {
        let mut answers = [0; READ_BYTES];
        let mut length = self.write_read(commands, &mut answers)?;
        loop {
            if let Some(found) = find(answers.get(..length).ok_or_else(garbled)?, wanted)? {
                return Ok(found);
            }
            length = self.write_read(&[], &mut answers)?;
        }
    }

    /// How much was read. Nothing to read into means no sleep.
    fn write_read(&self, commands: &[u8], answers: &mut [u8]) -> io::Result<usize> {
        let mut both = WriteRead {
            write_size: commands.len() as u64,
            write_consumed: 0,
            write_buffer: commands.as_ptr().addr() as u64,
            read_size: answers.len() as u64,
            read_consumed: 0,
            read_buffer: answers.as_mut_ptr().expose_provenance() as u64,
        };
        // SAFETY: `both` is valid for reading and writing, and names two buffers with their lengths.
        let result =
            unsafe { libc::ioctl(self.device.as_raw_fd(), BINDER_WRITE_READ, &raw mut both) };
        check(result)?;
        Ok(both.read_consumed as usize)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: mapped by `open` with this size, and no reference into it is ever made.
        unsafe { libc::munmap(self.area, AREA_BYTES) };
    }
}

/// Looks for an answer among several; each says in its number how long its contents are.
fn find(mut answers: &[u8], wanted: u32) -> io::Result<Option<Vec<u8>>> {
    while let Some((number, rest)) = answers.split_first_chunk::<4>() {
        let number = u32::from_ne_bytes(*number);
        let contents_bytes = (number >> 16 & 0x3fff) as usize;
        let (contents, rest) = rest.split_at_checked(contents_bytes).ok_or_else(garbled)?;
        match number {
            _ if number == wanted => return Ok(Some(contents.to_vec())),
            BR_DEAD_REPLY => return Err(io::Error::from_raw_os_error(libc::ESRCH)),
            BR_FAILED_REPLY | BR_FROZEN_REPLY | BR_ERROR => return Err(garbled()),
            _ => answers = rest,
        }
    }
    Ok(None)
}

fn garbled() -> io::Error {
    io::Error::from_raw_os_error(libc::EPROTO)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Why there can be no transactions here, if so. A context manager of somebody else's is left alone.
pub fn unavailable(try_it: impl FnOnce() -> io::Result<()>) -> Option<String> {
    let error = try_it().err()?;
    Some(match error.raw_os_error() {
        Some(libc::ENOENT) => {
            format!("there is no {DEVICE}; load its module (modprobe binder_linux)")
        }
        Some(libc::EACCES | libc::EPERM) => format!("cannot open {DEVICE}; run as root"),
        Some(libc::EBUSY) => "binder has a context manager already".to_string(),
        _ => format!("cannot use {DEVICE}: {error}"),
    })
}

/// From here on binder may not raise the caller's nice value, as it may not for a program without rights.
pub fn refuse_nice() -> io::Result<()> {
    let none = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `none` is a valid rlimit.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NICE, &none) })?;
    drop_effective(CAP_SYS_NICE)
}

// From include/uapi/linux/capability.h.
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;
const CAP_SYS_NICE: u32 = 23;

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Capabilities {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Of the calling thread; `capability` is below 32.
fn drop_effective(capability: u32) -> io::Result<()> {
    let mut header = CapabilityHeader {
        version: CAPABILITY_VERSION_3,
        pid: 0,
    };
    let mut sets = [Capabilities::default(); 2];
    // SAFETY: the header is valid, and its version has two sets.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, sets.as_mut_ptr()) };
    check(result as libc::c_int)?;
    sets[0].effective &= !(1 << capability);
    // SAFETY: as above.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, sets.as_ptr()) };
    check(result as libc::c_int)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the C compiler has them.
    #[test]
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    fn numbers_are_those_of_the_kernel() {
        assert_eq!(BINDER_WRITE_READ, 0xc030_6201);
        assert_eq!(BINDER_SET_CONTEXT_MGR, 0x4004_6207);
        assert_eq!(BC_TRANSACTION, 0x4040_6300);
        assert_eq!(BC_REPLY, 0x4040_6301);
        assert_eq!(BC_FREE_BUFFER, 0x4008_6303);
        assert_eq!(BC_ENTER_LOOPER, 0x630c);
        assert_eq!(BR_ERROR, 0x8004_7200);
        assert_eq!(BR_TRANSACTION, 0x8040_7202);
        assert_eq!(BR_REPLY, 0x8040_7203);
        assert_eq!(BR_DEAD_REPLY, 0x7205);
        assert_eq!(BR_FAILED_REPLY, 0x7211);
        assert_eq!(BUFFER_FIELD, 48..56);
    }

    #[test]
    fn answers_are_told_apart() -> io::Result<()> {
        let noop = 0x720c_u32.to_ne_bytes();
        let reply = [&BR_REPLY.to_ne_bytes()[..], &[7; 64]].concat();
        let both = [&noop[..], &reply].concat();
        assert_eq!(find(&noop, BR_REPLY)?, None);
        assert_eq!(find(&both, BR_REPLY)?, Some(vec![7; 64]));
        assert_eq!(find(&both, BR_TRANSACTION)?, None);
        assert!(find(&both[..20], BR_REPLY).is_err());
        assert!(find(&BR_DEAD_REPLY.to_ne_bytes(), BR_REPLY).is_err());
        Ok(())
    }
}
