// SPDX-License-Identifier: GPL-2.0-only
//! Finds out what events speak of in numbers: tasks, call sites, static locks, cgroups.
//!
//! Data flow: events → `asked`, which knows what was asked before → questions (a bounded
//! channel) → `answer`, in a thread of its own, since it reads files and may wait for them →
//! [`Names`]. No task waits for a name. What does not fit into the channel is asked again when it
//! comes up again. A thread that waits for too long is left behind, and another takes its place.

mod answer;
mod asked;
pub mod cgroups;
pub(crate) mod elf;
pub(crate) mod kallsyms;
pub(crate) mod proc;
pub(crate) mod user;

pub use proc::use_proc;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use log::warn;

use crate::events::{Event, Names};
use answer::Answerer;
use asked::{Asked, Question};

/// Questions that wait for the thread.
const QUESTIONS_MAX: usize = 4096;
/// Answers that wait for whoever asks; the thread waits beyond that.
const ANSWERS_MAX: usize = 64;
/// Questions that are answered together.
const TOGETHER_MAX: usize = 1024;
/// How often the thread looks whether what it put off may be looked up now.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How long dropping it waits for the thread, which may be waiting for a file.
const STOP_MAX: Duration = Duration::from_millis(500);

/// One batch of questions takes no longer, unless a file or a process is made to hold it up: also where
/// heavier tasks are on every CPU and the kernel's symbols take many times the usual second.
const STUCK: Duration = Duration::from_secs(60);
/// Threads that may be left behind before places in programs are left alone, and before all is.
const LEFT_BEHIND_PROGRAMS: u32 = 2;
const LEFT_BEHIND_MAX: u32 = 4;

/// Gives names to what is in events. Dropped, it stops.
pub struct Namer {
    asked: Asked,
    helper: Option<Helper>,
    left_behind: u32,
    stuck_after: Duration,
}

/// The thread, and the ways to it and back.
struct Helper {
    questions: SyncSender<Question>,
    answers: Receiver<Names>,
    /// Since when it works on a batch, in ms after `began`; 0: it does not.
    busy_ms: Arc<AtomicU64>,
    began: Instant,
    thread: JoinHandle<()>,
}

impl Helper {
    fn start(answerer: impl FnOnce() -> Answerer + Send + 'static) -> Result<Self> {
        let (questions, asked) = sync_channel(QUESTIONS_MAX);
        let (answers, answered) = sync_channel(ANSWERS_MAX);
        let (busy_ms, began) = (Arc::new(AtomicU64::new(0)), Instant::now());
        let busy = Busy {
            since_ms: busy_ms.clone(),
            began,
        };
        let thread = std::thread::Builder::new()
            .name("proxy_names".into())
            .spawn(move || serve(answerer(), &asked, &answers, &busy))
            .context("thread that finds out names")?;
        Ok(Self {
            questions,
            answers: answered,
            busy_ms,
            began,
            thread,
        })
    }

    fn busy_for(&self) -> Duration {
        match self.busy_ms.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since_ms => self
                .began
                .elapsed()
                .saturating_sub(Duration::from_millis(since_ms)),
        }
    }
}

/// The thread's word on what it does.
struct Busy {
    since_ms: Arc<AtomicU64>,
    began: Instant,
}

impl Busy {
    fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        let now_ms = self.began.elapsed().as_millis() as u64;
        self.since_ms.store(now_ms.max(1), Ordering::Relaxed);
        let result = work();
        self.since_ms.store(0, Ordering::Relaxed);
        result
    }
}

impl Namer {
    /// Starts the thread `proxy_names`.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn start() -> Result<Self> {
        Ok(Self {
            asked: Asked::default(),
            helper: Some(Helper::start(|| Answerer::new(true))?),
            left_behind: 0,
            stuck_after: STUCK,
        })
    }

    /// Puts another thread in the place of one that is held up.
    fn look_after(&mut self) {
        let stuck = |helper: &Helper| helper.busy_for() >= self.stuck_after;
        if !self.helper.as_ref().is_some_and(stuck) {
            return;
        }
        self.left_behind += 1;
        // what it was asked has no answer
        self.asked = Asked::default();
        let programs = self.left_behind < LEFT_BEHIND_PROGRAMS;
        self.helper = match self.left_behind {
            LEFT_BEHIND_MAX.. => None,
            _ => Helper::start(move || Answerer::new(programs)).ok(),
        };
        let now = match (&self.helper, programs) {
            (None, _) => "nothing is named any more",
            (_, false) => "places in programs have no names any more",
            _ => "another one continues",
        };
        warn!("finding out names is held up by a file or a process: {now}");
    }

    /// Asks for the names of all that is in these events and was not asked for of late.
    pub fn ask(&mut self, events: &[Event]) {
        self.look_after();
        let Some(helper) = &self.helper else {
            return;
        };
        let now = Instant::now();
        for event in events {
            self.asked.learn(event, now, |question| {
                helper.questions.try_send(question).is_ok()
            });
        }
    }

    /// The names that were found out since the last call. Does not wait.
    pub fn take(&mut self) -> Names {
        let mut all = Names::default();
        for names in self
            .helper
            .iter()
            .flat_map(|helper| helper.answers.try_iter())
        {
            all.tasks.extend(names.tasks);
            all.sites.extend(names.sites);
            all.locks.extend(names.locks);
            all.cgroups.extend(names.cgroups);
        }
        all
    }
}

impl Drop for Namer {
    fn drop(&mut self) {
        let Some(Helper { thread, .. }) = self.helper.take() else {
            return;
        };
        // the thread ends when there is nobody to ask or to answer
        // it may be waiting for a dead file server: then it is left behind
        let begun = Instant::now();
        while !thread.is_finished() && begun.elapsed() < STOP_MAX {
            std::thread::sleep(Duration::from_millis(1));
        }
        if thread.is_finished() {
            let _ = thread.join();
        }
    }
}

/// Answers until there is nobody to answer to. A panic costs what was being looked up.
fn serve(
    mut answerer: Answerer,
    questions: &Receiver<Question>,
    answers: &SyncSender<Names>,
    busy: &Busy,
) {
    loop {
        let work =
            std::panic::AssertUnwindSafe(|| answer_all(&mut answerer, questions, answers, busy));
        if std::panic::catch_unwind(work).is_ok() {
            return;
        }
        warn!("finding out names failed: some will stay unknown");
    }
}

fn answer_all(
    answerer: &mut Answerer,
    questions: &Receiver<Question>,
    answers: &SyncSender<Names>,
    busy: &Busy,
) {
    loop {
        let first = match answerer.has_put_off() {
            true => questions.recv_timeout(LOOK_AGAIN),
            false => questions.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        let mut together = Vec::new();
        match first {
            Ok(question) => {
                together.push(question);
                together.extend(questions.try_iter().take(TOGETHER_MAX - 1));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let names = busy.during(|| answerer.answer(&together, Instant::now()));
        if !names.is_empty() && answers.send(names).is_err() {
            return;
        }
    }
}

/// The names of all that is in these events, found out at once: for tools and tests.
#[must_use]
pub fn names_of(events: &[Event]) -> Names {
    let (mut asked, mut together) = (Asked::default(), Vec::new());
    let now = Instant::now();
    for event in events {
        asked.learn(event, now, |question| {
            together.push(question);
            true
        });
    }
    let mut answerer = Answerer::new(true);
    let mut names = answerer.answer(&together, now);
    while answerer.has_put_off() {
        std::thread::sleep(Duration::from_millis(10));
        names.append(&answerer.answer(&[], Instant::now()));
    }
    names
}

#[cfg(test)]
mod tests;
