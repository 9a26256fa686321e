// SPDX-License-Identifier: GPL-2.0-only
//! Owns the ways in which workers live: each in a process of its own, or all as threads of one
//! process, for locks that only tasks with the same memory can share.
//!
//! A worker that is a thread never ends before its process does: a thread's id is free for others
//! as soon as it ends, and the parent still asks and sets things by it. One that fails takes the
//! process with it.

use crate::child::{self, Child};
use crate::topology::Place;
use anyhow::Result;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerKind {
    Processes,
    Threads,
}

/// One worker: where it lives, and what it does there. Its value is its exit status.
pub struct Worker<'a> {
    pub place: Place,
    pub nice: i32,
    pub body: Box<dyn FnOnce() -> i32 + Send + 'a>,
}

/// Starts all of them. Dropped, the children are killed and reaped, and their threads with them.
pub fn all(kind: WorkerKind, workers: Vec<Worker>) -> Result<Vec<Child>> {
    match kind {
        WorkerKind::Processes => workers
            .into_iter()
            .map(|worker| Child::spawn(worker.place, worker.nice, worker.body))
            .collect(),
        WorkerKind::Threads => Ok(vec![Child::spawn(None, 0, || host(workers))?]),
    }
}

/// The life of a process of threads: its first thread starts them and does nothing more.
fn host(workers: Vec<Worker>) -> i32 {
    std::thread::scope(|scope| {
        for worker in workers {
            let thread = std::thread::Builder::new();
            if let Err(error) = thread.spawn_scoped(scope, || live(worker)) {
                child::exit(error.raw_os_error().unwrap_or(1));
            }
        }
        pause_forever()
    })
}

fn live(worker: Worker) {
    let status = child::guarded(|| match child::settle(worker.place, worker.nice) {
        Ok(()) => (worker.body)(),
        Err(error) => error.raw_os_error().unwrap_or(1),
    });
    if status != 0 {
        child::exit(status);
    }
    pause_forever()
}

pub fn pause_forever() -> ! {
    loop {
        // SAFETY: pause has no preconditions.
        unsafe { libc::pause() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::Board;
    use crate::sys;
    use crate::task::Task;
    use std::time::Duration;

    const STEP: Duration = Duration::from_millis(1);
    const LIMIT: Duration = Duration::from_secs(10);

    fn worker<'a>(nice: i32, body: impl FnOnce() -> i32 + Send + 'a) -> Worker<'a> {
        Worker {
            place: None,
            nice,
            body: Box::new(body),
        }
    }

    #[test]
    fn threads_have_ids_and_nice_values_of_their_own() -> Result<()> {
        let board = Board::new()?;
        let slots = [&board.holders[0], &board.waiter];
        let workers = slots.iter().zip([3, 7]).map(|(slot, nice)| {
            worker(nice, || {
                slot.set_ready();
                0
            })
        });
        let children = all(WorkerKind::Threads, workers.collect())?;
        assert_eq!(children.len(), 1);
        let asleep = sys::poll_until(LIMIT, STEP, || {
            Ok(slots.iter().all(|slot| slot.task().is_asleep()))
        })?;
        assert!(asleep);
        let [first, second] = slots.map(|slot| slot.task());
        let nice = |task: Task| task.stat().map(|stat| stat.nice);
        assert_eq!((nice(first), nice(second)), (Some(3), Some(7)));
        // Nobody else's clock: /proc counts.
        assert!(first.cpu_ns()? > 0);
        assert!(first.preemptions().is_ok());
        Ok(())
    }

    #[test]
    fn a_thread_that_fails_ends_the_process() -> Result<()> {
        let workers = vec![worker(0, || pause_forever()), worker(0, || 9)];
        let mut children = all(WorkerKind::Threads, workers)?;
        let mut end = None;
        sys::poll_until(LIMIT, STEP, || {
            end = children[0].ended()?;
            Ok(end.is_some())
        })?;
        assert_eq!(end.as_deref(), Some("exit status 9"));
        Ok(())
    }
}
