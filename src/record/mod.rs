// SPDX-License-Identifier: GPL-2.0-only
//! `scx_proxy record`: what a running scheduler tells, in a file that can be replayed without it.
//! `format` is the bytes, `writer` makes chunks and the ring of them, `reader` gives the batches
//! back; `docs/recording.md` describes the file.

pub mod format;
pub mod reader;
pub mod writer;

pub use reader::{Damage, Recording, Span};

use std::fs::{File, OpenOptions, Permissions};
use std::io::{IsTerminal, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use crate::abi::EVENT_BYTES;
use crate::cli::RecordOpts;
use crate::client::Client;
use crate::clock;
use crate::events::{Batch, Event, What};
use format::Header;
use writer::{Progress, Recorder};

/// How often the scheduler is asked.
const POLL: Duration = Duration::from_millis(100);
/// How often a scheduler that has gone is looked for.
const RETRY: Duration = Duration::from_millis(200);
/// An answer of so many may be a part only.
const MANY_EVENTS: usize = 4096;
/// How much of the recording is in memory only, at the most.
const FLUSH: Duration = Duration::from_secs(1);

/// The header of a recording that begins now.
#[must_use]
pub fn header(size_max: u64) -> Header {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH);
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease");
    Header {
        event_bytes: EVENT_BYTES as u32,
        size_max,
        began_wall_ns: wall.map_or(0, |wall| u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX)),
        began_ns: clock::monotonic_ns(),
        began_boot_ns: clock::ns(libc::CLOCK_BOOTTIME),
        release: release.map_or_else(|_| "unknown".into(), |text| text.trim().to_owned()),
        made_by: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// Creates a file for its owner only.
///
/// # Errors
/// It exists, unless `force` is set, or cannot be created.
pub fn create(path: &Path, force: bool) -> Result<File> {
    let mut options = OpenOptions::new();
    // it says which task waits for which one on the whole machine
    options.write(true).mode(0o600);
    match force {
        true => options.create(true).truncate(true),
        false => options.create_new(true),
    };
    let file = options.open(path).with_context(|| {
        let how = match !force && path.exists() {
            true => " (--force overwrites it)",
            false => "",
        };
        format!("cannot create {}{how}", path.display())
    })?;
    // one that was there has kept its mode
    file.set_permissions(Permissions::from_mode(0o600))
        .with_context(|| format!("mode of {}", path.display()))?;
    Ok(file)
}

/// Records until `stop` is set, the time is over, or the scheduler has gone and does not come back.
///
/// # Errors
/// There is no scheduler to record, or the file cannot be written. What was written stays.
pub fn run(opts: &RecordOpts, stop: &AtomicBool) -> Result<()> {
    let mut client = Client::connect(&opts.socket)?;
    let first = next(&mut client, opts)
        .context("the scheduler gives no events: does it run with --no-agent?")?;
    let file = create(&opts.file, opts.force)?;
    let written = || format!("recording to {}", opts.file.display());
    let mut recorder = Recorder::new(file, &header(opts.max_size)).with_context(written)?;
    recorder.add(&first).with_context(written)?;
    let show = std::io::stderr().is_terminal();
    let result = follow(opts, &mut client, &mut recorder, show, stop);
    // also after a failure: what is not written yet may still fit
    let flushed = recorder.flush();
    if show {
        eprintln!("\r{}", line(recorder.progress()));
    }
    result.and(flushed).with_context(|| {
        let kept = recorder.progress().events;
        format!("{}: of {kept} events, those before are kept", written())
    })
}

/// What happened since the last time, with the names that are to be kept.
fn next(client: &mut Client, opts: &RecordOpts) -> Result<Batch> {
    let mut batch = client.batch()?;
    if opts.no_names {
        batch.names = batch.names.of_the_kernel();
    }
    Ok(batch)
}

fn follow(
    opts: &RecordOpts,
    client: &mut Client,
    recorder: &mut Recorder<File>,
    show: bool,
    stop: &AtomicBool,
) -> Result<()> {
    let end = opts
        .seconds
        .map(|secs| Instant::now() + Duration::from_secs_f64(secs));
    let mut flushed = Instant::now();
    let mut more = false;
    while !stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        let left = end.map_or(POLL, |end| end.saturating_duration_since(now));
        if left.is_zero() {
            return Ok(());
        }
        // an answer has so many events at the most: there may be more
        if !more {
            std::thread::sleep(left.min(POLL));
        }
        let batch = match next(client, opts) {
            Ok(batch) => batch,
            Err(error) => {
                recorder.flush()?;
                if show {
                    eprintln!();
                }
                let is_over =
                    || stop.load(Ordering::Relaxed) || end.is_some_and(|end| Instant::now() >= end);
                let Some((back, batch)) = come_back(opts, &error, is_over) else {
                    return Ok(());
                };
                *client = back;
                batch
            }
        };
        more = batch.events.len() >= MANY_EVENTS;
        recorder.add(&batch)?;
        if flushed.elapsed() >= FLUSH {
            flushed = Instant::now();
            recorder.flush()?;
            if show {
                eprint!("\r{}", line(recorder.progress()));
                let _ = std::io::stderr().flush();
            }
        }
    }
    Ok(())
}

/// Waits for a scheduler that has gone to be loaded anew, but not for ever, nor when the recording
/// `is_over`. Its first batch begins with a mark of that.
fn come_back(
    opts: &RecordOpts,
    why: &anyhow::Error,
    is_over: impl Fn() -> bool,
) -> Option<(Client, Batch)> {
    let gone = Instant::now();
    let wait = Duration::from_secs_f64(opts.wait);
    if wait.is_zero() {
        eprintln!("the scheduler has gone ({why:#}); the recording ends here");
        return None;
    }
    eprintln!(
        "the scheduler has gone ({why:#}); waiting up to {} s for it to come back",
        opts.wait
    );
    let ask = || -> Result<(Client, Batch)> {
        let mut client = Client::connect_again(&opts.socket)?;
        let batch = next(&mut client, opts)?;
        Ok((client, batch))
    };
    while !is_over() {
        std::thread::sleep(RETRY);
        match ask() {
            Ok((client, mut batch)) => {
                let ns = gone.elapsed().as_nanos();
                mark_restart(&mut batch, u64::try_from(ns).unwrap_or(u64::MAX));
                eprintln!(
                    "the scheduler is back after {:.1} s; the recording continues",
                    gone.elapsed().as_secs_f64()
                );
                return Some((client, batch));
            }
            Err(error) if gone.elapsed() >= wait => {
                eprintln!("the scheduler has not come back ({error:#}); the recording ends here");
                return None;
            }
            Err(_) => {}
        }
    }
    None
}

/// The mark comes behind the waits that a first batch begins with, before all else.
fn mark_restart(batch: &mut Batch, gone_ns: u64) {
    let (waits, events) = batch.split();
    let first_ns = events.first().map_or(u64::MAX, |event| event.time_ns);
    let mark = Event {
        time_ns: clock::monotonic_ns().min(first_ns),
        cpu: 0,
        what: What::Restart { gone_ns },
    };
    batch.events.insert(waits.len(), mark);
}

fn line(progress: Progress) -> String {
    let mib = progress.bytes as f64 / 1048576.0;
    // the blanks cover what a longer line left
    format!(
        "{} events, {mib:.1} MiB, {} lost   ",
        progress.events, progress.lost
    )
}
