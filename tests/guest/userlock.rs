// SPDX-License-Identifier: GPL-2.0-only
//! Locks of user space for staged scenarios: mutexes of glibc with and without priority
//! inheritance, and a semaphore, which has no owner.

use std::cell::UnsafeCell;
use std::io;
use std::mem::MaybeUninit;

use scx_proxy::model::program::LockKind;

/// A lock that threads of this process share; it stays where it is.
pub struct UserLock {
    inner: Box<Inner>,
}

enum Inner {
    Mutex(UnsafeCell<libc::pthread_mutex_t>),
    Semaphore(UnsafeCell<libc::sem_t>),
}

// SAFETY: the C library's locks are made to be used by several threads at a time.
unsafe impl Send for UserLock {}
// SAFETY: as above.
unsafe impl Sync for UserLock {}

fn check(error: libc::c_int) -> io::Result<()> {
    match error {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

fn mutex(protocol: libc::c_int) -> io::Result<libc::pthread_mutex_t> {
    let mut attributes = MaybeUninit::uninit();
    let mut mutex = MaybeUninit::uninit();
    // SAFETY: both are valid for writing; the attributes are initialised by the first call,
    // the mutex by the third, if they return 0.
    unsafe {
        check(libc::pthread_mutexattr_init(attributes.as_mut_ptr()))?;
        check(libc::pthread_mutexattr_setprotocol(
            attributes.as_mut_ptr(),
            protocol,
        ))?;
        check(libc::pthread_mutex_init(
            mutex.as_mut_ptr(),
            attributes.as_ptr(),
        ))?;
        Ok(mutex.assume_init())
    }
}

impl UserLock {
    /// A lock of that kind; none for mutexes of the kernel.
    pub fn new(kind: LockKind) -> io::Result<Option<Self>> {
        let inner = match kind {
            LockKind::Pthread => Inner::Mutex(mutex(libc::PTHREAD_PRIO_NONE)?.into()),
            LockKind::Rtmutex => Inner::Mutex(mutex(libc::PTHREAD_PRIO_INHERIT)?.into()),
            LockKind::Unowned => {
                let mut semaphore = MaybeUninit::uninit();
                // SAFETY: valid for writing, and initialised if the call returns 0.
                let semaphore = unsafe {
                    if libc::sem_init(semaphore.as_mut_ptr(), 0, 1) != 0 {
                        return Err(io::Error::last_os_error());
                    }
                    semaphore.assume_init()
                };
                Inner::Semaphore(semaphore.into())
            }
            LockKind::Mutex => return Ok(None),
            LockKind::Rwsem | LockKind::Binder | LockKind::Unnamed => {
                let why = format!("locks of kind {kind:?} are not staged on the kernel here");
                return Err(io::Error::new(io::ErrorKind::Unsupported, why));
            }
        };
        Ok(Some(Self {
            inner: Box::new(inner),
        }))
    }

    /// Waits for it, runs `inside`, releases it.
    pub fn with(&self, inside: impl FnOnce()) -> io::Result<()> {
        match &*self.inner {
            // SAFETY: initialised, in a box that does not move, locked and unlocked by one thread.
            Inner::Mutex(mutex) => unsafe {
                check(libc::pthread_mutex_lock(mutex.get()))?;
                inside();
                check(libc::pthread_mutex_unlock(mutex.get()))
            },
            // SAFETY: initialised, in a box that does not move.
            Inner::Semaphore(semaphore) => unsafe {
                while libc::sem_wait(semaphore.get()) != 0 {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
                inside();
                libc::sem_post(semaphore.get());
                Ok(())
            },
        }
    }
}
