// SPDX-License-Identifier: GPL-2.0-only
//! The thread that asks the source, so that keys never wait for an answer. Both of its channels
//! are bounded: a slow terminal holds the questions up, and nothing piles up.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};

use super::source::{Reading, Source};
use crate::watch::view::HistoryLine;

/// Least time between an attempt that failed and the next.
const RETRY: Duration = Duration::from_secs(1);
/// Questions that may wait to be asked.
const ROOM: usize = 4;

/// A question beside the readings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// What happened to these tasks.
    History(Vec<u32>),
    /// Switch donation.
    SetDonating(bool),
    /// A reading, without waiting for its time.
    Read,
}

/// What the source said.
pub enum Update {
    /// A reading, and [`Source::position`].
    Reading(Box<Reading>, Option<(u64, u64)>),
    /// There is none now; why.
    Missing(String),
    /// An answer to [`Ask::History`], in the order of time.
    History(Vec<HistoryLine>),
    /// Why there is no answer to [`Ask::History`].
    NoHistory(String),
    /// An answer to [`Ask::SetDonating`], in words.
    Said(String),
}

/// The near end of that thread, which ends when this is dropped.
pub struct Worker {
    asks: Sender<Ask>,
    updates: Receiver<Update>,
}

/// The thread has ended, which it does of itself only by a panic.
#[derive(Debug, thiserror::Error)]
#[error("the thread that asks the scheduler has failed")]
pub struct Failed;

impl Worker {
    /// Starts to read `source` every `interval`.
    ///
    /// # Errors
    /// There can be no thread.
    pub fn start(source: Box<dyn Source>, interval: Duration) -> io::Result<Self> {
        let (asks, questions) = bounded(ROOM);
        // no answer waits in between: the next reading is made when this one was taken, and there
        // is memory for few of them
        let (answers, updates) = bounded(0);
        let mut far = Far {
            source,
            interval,
            answers,
        };
        thread::Builder::new()
            .name("top-source".into())
            .spawn(move || far.run(&questions))?;
        Ok(Self { asks, updates })
    }

    /// Asks; false if too much has been asked already.
    pub fn ask(&self, ask: Ask) -> bool {
        self.asks.try_send(ask).is_ok()
    }

    /// The next answer, if there is one.
    ///
    /// # Errors
    /// None will ever come.
    pub fn next(&self) -> Result<Option<Update>, Failed> {
        match self.updates.try_recv() {
            Ok(update) => Ok(Some(update)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(Failed),
        }
    }
}

struct Far {
    source: Box<dyn Source>,
    interval: Duration,
    answers: Sender<Update>,
}

impl Far {
    fn run(&mut self, questions: &Receiver<Ask>) {
        let mut next = Instant::now();
        loop {
            let ended = self.source.position().is_some_and(|(done, of)| done >= of);
            if Instant::now() >= next && !ended {
                let (update, pause) = match self.source.read() {
                    Ok(reading) => {
                        let position = self.source.position();
                        (Update::Reading(Box::new(reading), position), self.interval)
                    }
                    Err(why) => (Update::Missing(format!("{why:#}")), RETRY),
                };
                if self.answers.send(update).is_err() {
                    return; // there is no reader left
                }
                next = Instant::now() + pause;
            }
            let wait = if ended {
                RETRY
            } else {
                next.saturating_duration_since(Instant::now())
            };
            let update = match questions.recv_timeout(wait) {
                Ok(Ask::History(pids)) => self.history(&pids),
                Ok(Ask::SetDonating(on)) => {
                    next = Instant::now(); // to show it at once
                    self.set_donating(on)
                }
                Ok(Ask::Read) => {
                    next = Instant::now();
                    continue;
                }
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if self.answers.send(update).is_err() {
                return;
            }
        }
    }

    fn history(&mut self, pids: &[u32]) -> Update {
        let mut lines = Vec::new();
        for pid in pids {
            match self.source.history(*pid) {
                Ok(more) => lines.extend(more),
                Err(why) => return Update::NoHistory(format!("{why:#}")),
            }
        }
        lines.sort_by_key(|line| line.time_ns);
        Update::History(lines)
    }

    fn set_donating(&mut self, on: bool) -> Update {
        let word = if on { "on" } else { "off" };
        Update::Said(match self.source.set_donating(on) {
            Ok(()) => format!("donation switched {word}"),
            Err(why) => format!("{why:#}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Result, bail};

    /// Three readings, then the end; the second attempt fails.
    #[derive(Default)]
    struct Finite {
        tries: u64,
        done: u64,
    }

    impl Source for Finite {
        fn read(&mut self) -> Result<Reading> {
            self.tries += 1;
            if self.tries == 2 {
                bail!("not now");
            }
            self.done += 1;
            let mut reading = Reading::default();
            reading.view.time_ns = self.done;
            Ok(reading)
        }
        fn history(&mut self, pid: u32) -> Result<Vec<HistoryLine>> {
            Ok(vec![HistoryLine {
                time_ns: 100 - u64::from(pid),
                text: pid.to_string(),
            }])
        }
        fn position(&self) -> Option<(u64, u64)> {
            Some((self.done, 3))
        }
    }

    #[test]
    fn a_finite_source_is_read_to_its_end_and_still_answers() {
        let worker = Worker::start(Box::new(Finite::default()), Duration::ZERO).expect("thread");
        let next = || {
            worker
                .updates
                .recv_timeout(Duration::from_secs(30))
                .expect("an answer")
        };
        for done in 1..=3 {
            if done == 2 {
                assert!(matches!(next(), Update::Missing(why) if why == "not now"));
            }
            let Update::Reading(reading, position) = next() else {
                panic!("no reading");
            };
            assert_eq!((reading.view.time_ns, position), (done, Some((done, 3))));
        }
        assert!(worker.ask(Ask::History(vec![1, 2])));
        let Update::History(lines) = next() else {
            panic!("no history");
        };
        assert_eq!(lines[0].text, "2", "in the order of time");
        assert!(worker.ask(Ask::SetDonating(true)));
        assert!(matches!(next(), Update::Said(why) if why.contains("no running scheduler")));
        assert!(worker.next().expect("alive").is_none());
    }
}
