// SPDX-License-Identifier: GPL-2.0-only
//! Processes that the scheduler starts: this program again, with a hidden subcommand. They get one open
//! file, as standard input, and end with the scheduler.

use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use log::warn;

/// This program, also if its file has been replaced meanwhile.
const SELF: &str = "/proc/self/exe";
/// Between an end and the next start: doubled each time, unless the one before lived for long.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);
const LONG_LIFE: Duration = Duration::from_secs(60);
/// How often it is looked whether a child has ended.
const LOOK: Duration = Duration::from_millis(250);

/// Starts this program with `args`; `file` is its standard input. It has a process group of its own: what
/// a terminal sends the scheduler is not for it. Call it from a thread that outlives the child, which is
/// killed when that thread ends.
///
/// # Errors
/// What the kernel said.
pub fn start(args: &[String], file: OwnedFd) -> Result<Child> {
    Command::new(SELF)
        .arg0("scx_proxy")
        .args(args)
        .stdin(Stdio::from(file))
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {}", args.first().map_or("", String::as_str)))
}

/// Called first in the child of `parent`: the file that it was given. From now on it dies with its parent.
///
/// # Errors
/// The parent has gone already.
pub fn begin(name: &str, parent: u32) -> Result<OwnedFd> {
    // SAFETY: prctl() with a number, and a string that lives as long as the call.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        ensure!(
            u32::try_from(libc::getppid()) == Ok(parent),
            "the scheduler has gone"
        );
        if let Ok(name) = std::ffi::CString::new(name) {
            libc::prctl(libc::PR_SET_NAME, name.as_ptr());
        }
    }
    // SAFETY: nothing else in this program uses the standard input, so it has one owner.
    Ok(unsafe { OwnedFd::from_raw_fd(libc::STDIN_FILENO) })
}

/// Ends a child, and waits for it.
pub fn end(child: &mut Child) -> Option<ExitStatus> {
    let _ = child.kill();
    child.wait().ok()
}

/// How long to wait before the next start.
#[derive(Debug)]
pub struct Pause {
    next: Duration,
}

impl Default for Pause {
    fn default() -> Self {
        Self { next: PAUSE_MIN }
    }
}

impl Pause {
    /// After one that lived for `life`.
    pub fn after(&mut self, life: Duration) -> Duration {
        if life >= LONG_LIFE {
            self.next = PAUSE_MIN;
        }
        let pause = self.next;
        self.next = (pause * 2).min(PAUSE_MAX);
        pause
    }
}

/// A child that is started again whenever it ends, until this is dropped.
pub struct Kept {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Kept {
    /// Keeps `args` running; `file` gives each its standard input.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn start<F>(name: &str, args: Vec<String>, file: F) -> Result<Self>
    where
        F: Fn() -> Result<OwnedFd> + Send + 'static,
    {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let what = name.to_owned();
        let keep = move || {
            let mut pause = Pause::default();
            while !stopped.load(Ordering::Relaxed) {
                let began = Instant::now();
                let ended = file().and_then(|file| live(&args, file, &stopped));
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let pause = pause.after(began.elapsed());
                let how = ended.map_or_else(|e| format!("{e:#}"), |how| format!("ended: {how}"));
                warn!("{what} {how}; started again in {pause:?}");
                std::thread::park_timeout(pause);
            }
        };
        let thread = std::thread::Builder::new().name(format!("{name}_keeper"));
        let thread = thread.spawn(keep).with_context(|| name.to_owned())?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

/// One child, from its start to its end.
fn live(args: &[String], file: OwnedFd, stop: &AtomicBool) -> Result<ExitStatus> {
    let mut child = start(args, file)?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if stop.load(Ordering::Relaxed) {
            return end(&mut child).context("it cannot be ended");
        }
        std::thread::park_timeout(LOOK);
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_bound_and_a_long_life_is_forgiven() {
        let mut pause = Pause::default();
        let pauses: Vec<_> = (0..9).map(|_| pause.after(Duration::ZERO)).collect();
        assert_eq!((pauses[0], pauses[1]), (PAUSE_MIN, 2 * PAUSE_MIN));
        assert_eq!(pauses[8], PAUSE_MAX);
        assert_eq!(pause.after(LONG_LIFE), PAUSE_MIN);
    }
}
