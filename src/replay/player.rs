// SPDX-License-Identifier: GPL-2.0-only
//! A recording as a source for `top`: played at a speed, summed up as the scheduler's own agent does.

use std::iter::Peekable;
use std::sync::mpsc::{IntoIter, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::events::Batch;
use crate::record::reader::{Recording, Span};
use crate::top::source::ROWS;
use crate::top::{Reading, Source};
use crate::watch::Watch;
use crate::watch::view::HistoryLine;

/// Batches that are read ahead.
const AHEAD: usize = 4;

/// A recording that is played.
pub struct Player {
    /// The next one may be read, and not due yet.
    batches: Peekable<IntoIter<Result<Batch>>>,
    watch: Watch,
    /// Recorded seconds a second.
    speed: f64,
    began: Instant,
    begin_ns: u64,
    end_ns: u64,
    now_ns: u64,
}

impl Player {
    /// Plays `recording` from now on.
    ///
    /// # Errors
    /// No thread could be started to read it.
    pub fn new(recording: Recording, span: Span, speed: f64) -> Result<Self> {
        let (begin_ns, end_ns) = recording.times(span);
        let (send, batches) = sync_channel(AHEAD);
        std::thread::Builder::new()
            .name("proxy_replay".into())
            .spawn(move || {
                let mut batches = recording.batches(span);
                // until the last client has gone
                while batches.next().is_some_and(|batch| send.send(batch).is_ok()) {}
            })
            .context("thread that reads the recording")?;
        Ok(Self {
            batches: batches.into_iter().peekable(),
            watch: Watch::new(begin_ns),
            speed,
            began: Instant::now(),
            begin_ns,
            end_ns,
            now_ns: begin_ns,
        })
    }

    /// What has happened up to now, in the recording's time.
    fn catch_up(&mut self) -> Result<()> {
        // what begins later is for later; snapshots speak of what began before
        let is_due = |batch: &Result<Batch>| {
            let first = batch.as_ref().ok().and_then(|batch| batch.events.first());
            first.is_none_or(|event| event.time_ns <= self.now_ns)
        };
        while let Some(batch) = self.batches.next_if(is_due) {
            self.watch.learn(&batch?);
        }
        Ok(())
    }
}

impl Source for Player {
    fn read(&mut self) -> Result<Reading> {
        let played = Duration::from_secs_f64(self.began.elapsed().as_secs_f64() * self.speed);
        let played_ns = u64::try_from(played.as_nanos()).unwrap_or(u64::MAX);
        self.now_ns = self.begin_ns.saturating_add(played_ns).min(self.end_ns);
        self.catch_up()?;
        Ok(Reading {
            view: self.watch.view(self.now_ns, ROWS),
            metrics: None,
            groups: Vec::new(),
        })
    }

    fn history(&mut self, pid: u32) -> Result<Vec<HistoryLine>> {
        Ok(self.watch.history(pid))
    }

    fn position(&self) -> Option<(u64, u64)> {
        Some((self.now_ns - self.begin_ns, self.end_ns - self.begin_ns))
    }
}
