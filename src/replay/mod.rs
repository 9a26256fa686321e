// SPDX-License-Identifier: GPL-2.0-only
//! `scx_proxy replay`: a recording as text (`agent::line`), as JSON (`json`), as a trace for
//! Perfetto (`perfetto`, `tracks`, `proto`), summed up (`summary`),
//! or played again in `top` (`player`). One chunk and the names that are known
//! are in memory, however long the recording is.

pub mod json;
pub mod perfetto;
mod player;
pub mod proto;
pub mod summary;
mod tracks;

use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cli::ReplayOpts;
use crate::events::line;
use crate::events::{Batch, NameTable};
use crate::record::reader::{Recording, Span};
use crate::top;

/// Between two looks of `--top`.
const LOOK: Duration = Duration::from_millis(500);

/// What becomes of a recording.
pub trait Sink {
    /// Takes in the next batch. `names` has what is known of it, and what the batch after it told.
    ///
    /// # Errors
    /// Those of whatever is written to.
    fn batch(&mut self, batch: &Batch, names: &NameTable) -> Result<()>;

    /// After the last batch.
    ///
    /// # Errors
    /// As above.
    fn end(&mut self, names: &NameTable) -> Result<()>;
}

/// Gives all of a recording to `sink`, the oldest first.
///
/// # Errors
/// The file cannot be read, or `sink` fails. Damage is no error: it is warned of.
pub fn feed(recording: &Recording, span: Span, sink: &mut dyn Sink) -> Result<()> {
    let mut names = NameTable::default();
    // names come late: each batch waits for those that come with the next one
    let mut held: Option<Batch> = None;
    let mut batches = recording.batches(span);
    for batch in batches.by_ref() {
        let batch = batch?;
        names.learn(&batch.names);
        if let Some(last) = held.replace(batch) {
            sink.batch(&last, &names)?;
        }
    }
    if let Some(last) = held {
        sink.batch(&last, &names)?;
    }
    sink.end(&names)?;
    if let Some(damage) = batches.damage().describe() {
        eprintln!("warning: {damage}");
    }
    Ok(())
}

/// Lines as `--print-events` prints them.
pub(crate) struct Text<W>(pub W);

impl<W: Write> Sink for Text<W> {
    fn batch(&mut self, batch: &Batch, _names: &NameTable) -> Result<()> {
        for event in &batch.events {
            writeln!(self.0, "{}", line::line(event))?;
        }
        Ok(())
    }

    fn end(&mut self, _names: &NameTable) -> Result<()> {
        Ok(self.0.flush()?)
    }
}

/// Replays as the flags say.
///
/// # Errors
/// The recording cannot be read, or what comes of it cannot be written. That nobody reads it any
/// more is none.
pub fn run(opts: &ReplayOpts) -> Result<()> {
    let recording = Recording::open(&opts.file)?;
    let span = Span {
        from: opts.from,
        to: opts.to,
    };
    if opts.top {
        let player = player::Player::new(recording, span, opts.speed)?;
        return top::show(Box::new(player), LOOK);
    }
    if let Some(path) = &opts.perfetto {
        let doing = || format!("cannot write {}", path.display());
        let out = BufWriter::new(File::create(path).with_context(doing)?);
        let mut trace = perfetto::Trace::new(out, recording.header()).with_context(doing)?;
        return feed(&recording, span, &mut trace).with_context(doing);
    }
    let out = BufWriter::new(io::stdout().lock());
    let fed = if opts.json {
        feed(&recording, span, &mut json::Json::new(out))
    } else if opts.text {
        feed(&recording, span, &mut Text(out))
    } else {
        let mut summary = summary::Summary::new(recording.header(), out);
        feed(&recording, span, &mut summary)
    };
    fed.or_else(|error| match error.downcast_ref::<io::Error>() {
        Some(io) if io.kind() == ErrorKind::BrokenPipe => Ok(()),
        _ => Err(error),
    })
}
