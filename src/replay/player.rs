// SPDX-License-Identifier: GPL-2.0-only
//! A recording as a source for `top`: played at a speed, summed up as the scheduler's own agent does.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
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
    batches: Receiver<Result<Batch>>,
    /// Read, and not due yet.
    next: Option<Batch>,
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
            .spawn(move || read(&recording, span, &send))
            .context("thread that reads the recording")?;
        Ok(Self {
            batches,
            next: None,
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
        while self.now_ns <= self.end_ns {
            let batch = match self.next.take() {
                Some(batch) => batch,
                None => match self.batches.recv() {
                    Ok(batch) => batch?,
                    Err(_) => return Ok(()), // all is read
                },
            };
            // what begins later is for later; snapshots speak of what began before
            let is_due = |event: &crate::events::Event| event.time_ns <= self.now_ns;
            if batch.events.first().is_some_and(|event| !is_due(event)) {
                self.next = Some(batch);
                return Ok(());
            }
            self.watch.learn(&batch);
        }
        Ok(())
    }
}

fn read(recording: &Recording, span: Span, send: &SyncSender<Result<Batch>>) {
    for batch in recording.batches(span) {
        // the last client has gone
        if send.send(batch).is_err() {
            return;
        }
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
