// SPDX-License-Identifier: GPL-2.0-only
//! Finds out what events speak of in numbers: tasks, call sites, static locks, cgroups.
//!
//! Data flow: events → `asked`, which knows what was asked before → questions (a bounded
//! channel) → `answer`, in a thread of its own, since it reads files and may wait for them →
//! [`Names`]. Nobody waits for a name. What does not fit into the channel is asked again when it
//! comes up again.

mod answer;
mod asked;
pub mod cgroups;
mod kallsyms;
pub(crate) mod proc;
mod user;

pub use proc::use_proc;

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use log::warn;

use crate::abi;
use crate::watch::Names;
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

/// Light enough not to be favoured, and no lighter: while it reads about a process it holds the lock of
/// that process's address space, and shares the heap with the agent.
const NICE: i32 = 1;

/// Reading all symbols of the kernel takes as long as it takes: nobody is to wait for a CPU
/// because of it. The scheduler does not favour its own threads that have stepped back.
fn step_back() {
    // SAFETY: no memory is involved; on Linux 0 is the thread that calls. Should it fail, it is no worse
    // than before.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
}

/// Gives names to what is in events. Dropped, it stops.
pub struct Namer {
    asked: Asked,
    /// `None` while it is dropped, as `answers`.
    questions: Option<SyncSender<Question>>,
    answers: Option<Receiver<Names>>,
    thread: Option<JoinHandle<()>>,
}

impl Namer {
    /// Starts the thread `proxy_names`.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn start() -> Result<Self> {
        let (questions, asked) = sync_channel(QUESTIONS_MAX);
        let (answers, answered) = sync_channel(ANSWERS_MAX);
        let thread = std::thread::Builder::new()
            .name("proxy_names".into())
            .spawn(move || {
                step_back();
                serve(&asked, &answers)
            })
            .context("thread that finds out names")?;
        Ok(Self {
            asked: Asked::default(),
            questions: Some(questions),
            answers: Some(answered),
            thread: Some(thread),
        })
    }

    /// Asks for the names of all that is in these events and was not asked for of late.
    pub fn ask(&mut self, events: &[abi::proxy_event]) {
        let Some(questions) = &self.questions else {
            return;
        };
        let now = Instant::now();
        for event in events {
            self.asked
                .learn(event, now, |question| questions.try_send(question).is_ok());
        }
    }

    /// The names that were found out since the last call. Does not wait.
    pub fn take(&mut self) -> Names {
        let mut all = Names::default();
        for names in self.answers.iter().flat_map(Receiver::try_iter) {
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
        // the thread ends when there is nobody to ask or to answer
        self.questions = None;
        self.answers = None;
        let Some(thread) = self.thread.take() else {
            return;
        };
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
fn serve(questions: &Receiver<Question>, answers: &SyncSender<Names>) {
    loop {
        let work = std::panic::AssertUnwindSafe(|| answer_all(questions, answers));
        if std::panic::catch_unwind(work).is_ok() {
            return;
        }
        warn!("finding out names failed: some will stay unknown");
    }
}

fn answer_all(questions: &Receiver<Question>, answers: &SyncSender<Names>) {
    let mut answerer = Answerer::default();
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
        let names = answerer.answer(&together, Instant::now());
        if !names.is_empty() && answers.send(names).is_err() {
            return;
        }
    }
}

/// The names of all that is in these events, found out at once: for tools and tests.
#[must_use]
pub fn names_of(events: &[abi::proxy_event]) -> Names {
    let (mut asked, mut together) = (Asked::default(), Vec::new());
    let now = Instant::now();
    for event in events {
        asked.learn(event, now, |question| {
            together.push(question);
            true
        });
    }
    Answerer::default().answer(&together, now)
}

#[cfg(test)]
mod tests;
