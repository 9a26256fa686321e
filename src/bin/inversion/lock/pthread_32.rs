// SPDX-License-Identifier: GPL-2.0-only
//! Owns the recipe for a pthread mutex of a 32-bit program, as glibc lays it out on i386. The waiter waits as such
//! a program does: it goes over to 32-bit code, as Wine does, which makes the system call by `int $0x80`. So no
//! C library of 32 bits is needed.
//!
//! The mutex is made by hand, after nptl/lowlevellock.c and sysdeps/nptl/bits/struct_mutex.h of glibc, at an address
//! of 32 bits that is no multiple of 8.

use super::Recipe;
use super::by_hand::{self, Locked};
use crate::child::Child;
use crate::spawn::WorkerKind;
use crate::sys;
use anyhow::{Context, Result};
use std::arch::asm;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub static RECIPE: Recipe = Recipe {
    name: "pthread_32",
    summary: "pthread mutex of a 32-bit program: owner computes, waiter locks it from 32-bit code",
    default_hogs: 2,
    by_default: false,
    donates: true,
    workers: WorkerKind::Threads,
    links: 1,
    pages_max: super::compute_max,
    unavailable,
    build: |units| {
        Ok(Box::new(Locked {
            mutex: Low::new()?,
            units,
        }))
    },
};

/// arch/x86/entry/syscalls/syscall_32.tbl
const FUTEX_32: u32 = 240;
const GETPID_32: u32 = 20;
/// arch/x86/include/asm/segment.h: selectors of user code of 32 and of 64 bits.
const CODE_32: u16 = 0x23;
const CODE_64: u16 = 0x33;

const FREE: u32 = 0;
const TAKEN: u32 = 1;
const CONTENDED: u32 = 2;

/// A jump to code of another size: as `ljmp` wants it.
#[repr(C, packed)]
struct Far {
    offset: u32,
    selector: u16,
}

/// What lies below 4 GiB.
#[repr(C)]
struct Page {
    /// What the 64-bit code has to find again, since 32-bit code may lose upper halves: its stack, its frame, `rbx`.
    stack: u64,
    frame: u64,
    base: u64,
    /// Where it goes on.
    goes_on: u64,
    into_32: Far,
    into_64: Far,
    pad: u32,
    code_32: [u8; 16],
    code_64: [u8; 16],
    /// So that the mutex begins 4 bytes behind a multiple of 8.
    odd: u32,
    mutex: Mutex,
}

/// The beginning of a `pthread_mutex_t` of i386: the kind comes before the number of users.
#[repr(C)]
struct Mutex {
    lock: AtomicU32,
    count: AtomicU32,
    owner: AtomicU32,
    kind: AtomicU32,
    users: AtomicU32,
    spins: AtomicU32,
}

struct Low(NonNull<Page>);

// SAFETY: one thread at a time uses the way into 32-bit code (the waiter); the mutex is atomics.
unsafe impl Send for Low {}
// SAFETY: as above.
unsafe impl Sync for Low {}

impl Low {
    fn new() -> Result<Low> {
        let protection = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_32BIT;
        let (anywhere, bytes) = (std::ptr::null_mut(), size_of::<Page>());
        // SAFETY: a new mapping at a place the kernel chooses.
        let page = unsafe { libc::mmap(anywhere, bytes, protection, flags, -1, 0) };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error()).context("cannot map memory below 4 GiB");
        }
        let page = NonNull::new(page.cast::<Page>()).context("mapped at address 0")?;
        let low = Low(page);
        low.write_code()?;
        Ok(low)
    }

    fn write_code(&self) -> Result<()> {
        let at = self.0.as_ptr();
        // SAFETY: fields of memory that is ours alone so far, large enough and aligned.
        unsafe {
            let address = |field: *const u8| u32::try_from(field as usize);
            let into_64 = address((&raw const (*at).into_64).cast())?.to_le_bytes();
            let goes_on = address((&raw const (*at).goes_on).cast())?;
            let code_64 = address((&raw const (*at).code_64).cast())?;
            let next = code_64 + 6;
            (*at).into_32 = Far {
                offset: address((&raw const (*at).code_32).cast())?,
                selector: CODE_32,
            };
            (*at).into_64 = Far {
                offset: code_64,
                selector: CODE_64,
            };
            // int $0x80; ljmp *%cs:into_64 - the other segments are empty here
            let [a, b, c, d] = into_64;
            (&raw mut (*at).code_32)
                .cast::<[u8; 9]>()
                .write([0xcd, 0x80, 0x2e, 0xff, 0x2d, a, b, c, d]);
            // jmp *goes_on(%rip)
            let [a, b, c, d] = goes_on.wrapping_sub(next).to_le_bytes();
            (&raw mut (*at).code_64)
                .cast::<[u8; 6]>()
                .write([0xff, 0x25, a, b, c, d]);
        }
        Ok(())
    }

    /// A system call of a 32-bit program. One thread at a time may make one.
    fn call_32(&self, nr: u32, args: [u32; 4]) -> i32 {
        let mut result = u64::from(nr);
        let [bx, cx, dx, si] = args.map(u64::from);
        // SAFETY: the page has code that comes back; what it and the kernel may change is said, or kept in
        // the page. The flags of the direction and of interrupts are as they were.
        unsafe {
            asm!(
                "mov [rdi], rsp",
                "mov [rdi + 8], rbp",
                "mov [rdi + 16], rbx",
                "lea r8, [rip + 2f]",
                "mov [rdi + 24], r8",
                "mov rbx, r9",
                "jmp fword ptr [rdi + 32]",
                "2:",
                "mov edi, edi",
                "mov rsp, [rdi]",
                "mov rbp, [rdi + 8]",
                "mov rbx, [rdi + 16]",
                inout("rax") result,
                inout("rdi") self.0.as_ptr() => _,
                inout("rcx") cx => _,
                inout("rdx") dx => _,
                inout("rsi") si => _,
                inout("r9") bx => _,
                out("r8") _, out("r10") _, out("r11") _,
                out("r12") _, out("r13") _, out("r14") _, out("r15") _,
            );
        }
        result as i32
    }

    fn mutex(&self) -> &Mutex {
        // SAFETY: it lies in memory that lives as long as `self`, and is atomics.
        unsafe { &(*self.0.as_ptr()).mutex }
    }

    /// FUTEX_WAIT by 32-bit code.
    fn sleep(&self) -> io::Result<()> {
        let word = self.mutex().lock.as_ptr() as usize as u32;
        let op = (libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG) as u32;
        match -self.call_32(FUTEX_32, [word, op, CONTENDED, 0]) {
            0 | libc::EAGAIN | libc::EINTR => Ok(()),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

impl by_hand::Mutex for Low {
    fn renew(&self) {
        let m = self.mutex();
        for word in [&m.lock, &m.count, &m.owner, &m.kind, &m.users, &m.spins] {
            word.store(0, Ordering::SeqCst);
        }
    }

    fn lock(&self) -> io::Result<()> {
        let m = self.mutex();
        let taken = m
            .lock
            .compare_exchange(FREE, TAKEN, Ordering::SeqCst, Ordering::SeqCst);
        if taken.is_err() {
            while m.lock.swap(CONTENDED, Ordering::SeqCst) != FREE {
                self.sleep()?;
            }
        }
        // SAFETY: gettid has no preconditions.
        let id = unsafe { libc::gettid() } as u32;
        m.owner.store(id, Ordering::SeqCst);
        m.users.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn unlock(&self) -> io::Result<()> {
        let m = self.mutex();
        m.owner.store(0, Ordering::SeqCst);
        m.users.fetch_sub(1, Ordering::SeqCst);
        if m.lock.swap(FREE, Ordering::SeqCst) == CONTENDED {
            let op = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
            // SAFETY: a word that lives as long as `self`.
            if unsafe { libc::syscall(libc::SYS_futex, m.lock.as_ptr(), op, 1) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }
}

impl Drop for Low {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this size; nobody uses it any more.
        unsafe { libc::munmap(self.0.as_ptr().cast(), size_of::<Page>()) };
    }
}

/// Where 32-bit programs do not run, a child that tries dies of it.
fn unavailable() -> Option<String> {
    const LIMIT: Duration = Duration::from_secs(10);
    let lives = || -> Result<bool> {
        let low = Low::new()?;
        let mut child = Child::spawn(None, 0, || {
            let pid = low.call_32(GETPID_32, [0; 4]);
            low.mutex().owner.store(pid as u32, Ordering::SeqCst);
            0
        })?;
        let pid = u32::try_from(child.pid());
        sys::poll_until(LIMIT, Duration::from_millis(1), || {
            Ok(child.ended()?.is_some())
        })?;
        Ok(pid == Ok(low.mutex().owner.load(Ordering::SeqCst)))
    };
    match lives() {
        Ok(true) => None,
        Ok(false) => Some("this kernel runs no 32-bit programs (CONFIG_IA32_EMULATION)".to_owned()),
        Err(error) => Some(format!("{error:#}")),
    }
}

#[cfg(test)]
mod tests {
    use super::by_hand::Mutex as _;
    use super::*;

    #[test]
    fn the_mutex_lies_where_32_bit_code_can_reach_it_and_not_on_8_bytes() -> Result<()> {
        let low = Low::new()?;
        let at = low.mutex().lock.as_ptr() as usize;
        assert!(u32::try_from(at).is_ok(), "{at:#x}");
        assert_eq!(at % 8, 4);
        let owner = low.mutex().owner.as_ptr() as usize;
        assert_eq!(owner - at, 8);
        Ok(())
    }

    #[test]
    fn a_call_of_32_bits_is_one_and_comes_back() -> Result<()> {
        if unavailable().is_some() {
            return Ok(());
        }
        let low = Low::new()?;
        let pid = low.call_32(GETPID_32, [0; 4]);
        assert_eq!(u32::try_from(pid), Ok(std::process::id()));
        // the word has another value
        low.sleep()?;
        Ok(())
    }

    #[test]
    fn a_waiter_gets_it_in_the_end() -> Result<()> {
        if unavailable().is_some() {
            return Ok(());
        }
        let low = Low::new()?;
        std::thread::scope(|scope| {
            low.lock()?;
            let waiter = scope.spawn(|| low.lock().and_then(|()| low.unlock()));
            while low.mutex().lock.load(Ordering::SeqCst) != CONTENDED {
                std::thread::yield_now();
            }
            low.unlock()?;
            waiter.join().expect("no panic")?;
            Ok(())
        })
    }
}
