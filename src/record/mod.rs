//! `scx_proxy record`: what a running scheduler tells, in a file that can be replayed without it.
//! `format` is the bytes, `writer` makes chunks and the ring of them, `reader` gives the batches
//! back; `docs/recording.md` describes the file.

pub mod format;
pub mod reader;
pub mod writer;

pub use reader::{Damage, Recording, Span};

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, IsTerminal, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use crate::abi::EVENT_BYTES;
use crate::cli::RecordOpts;
use crate::clock;
use crate::watch::Client;
use format::Header;
use writer::{Progress, Recorder};

/// How often the scheduler is asked.
const POLL: Duration = Duration::from_millis(100);
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

fn create(path: &Path, force: bool) -> Result<File> {
    let mut options = OpenOptions::new();
    options.write(true);
    if force {
        options.create(true).truncate(true);
    } else {
        options.create_new(true);
    }
    options.open(path).map_err(|error| {
        let exists = error.kind() == ErrorKind::AlreadyExists;
        let error = anyhow::Error::new(error).context(format!("cannot create {}", path.display()));
        if exists {
            error.context("--force overwrites it")
        } else {
            error
        }
    })
}

/// Records until `stop` is set, the time is over, or the scheduler has gone.
///
/// # Errors
/// There is no scheduler to record, or the file cannot be written. What was written stays.
pub fn run(opts: &RecordOpts, stop: &AtomicBool) -> Result<()> {
    let mut client = Client::connect(&opts.socket)?;
    let first = client
        .batch()
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
        match client.batch() {
            Ok(batch) => {
                more = batch.events.len() >= MANY_EVENTS;
                recorder.add(&batch)?;
            }
            Err(error) => {
                if show {
                    eprintln!();
                }
                eprintln!("the scheduler has gone ({error:#}); the recording ends here");
                return Ok(());
            }
        }
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

fn line(progress: Progress) -> String {
    let Progress {
        events,
        bytes,
        lost,
    } = progress;
    // the blanks cover what a longer line left
    format!(
        "{events} events, {:.1} MiB, {lost} lost   ",
        bytes as f64 / 1048576.0
    )
}

/// A size in bytes, from a number with K, M, G or T behind it.
///
/// # Errors
/// It is none, or too small to hold a few chunks.
pub fn parse_size(text: &str) -> Result<u64> {
    const MIN: u64 = 8 << 20;
    let (digits, shift) = match text.trim_end_matches(|c: char| c.is_ascii_alphabetic()) {
        digits if digits.len() == text.len() => (digits, 0),
        digits => match text[digits.len()..].to_ascii_uppercase().as_str() {
            "K" | "KIB" => (digits, 10),
            "M" | "MIB" => (digits, 20),
            "G" | "GIB" => (digits, 30),
            "T" | "TIB" => (digits, 40),
            _ => bail!("not a size: 64M, 1G"),
        },
    };
    let number: u64 = digits.parse().context("not a size: 64M, 1G")?;
    match number.checked_mul(1 << shift) {
        Some(bytes) if (MIN..=1 << 40).contains(&bytes) => Ok(bytes),
        _ => bail!("not in 8M..=1T"),
    }
}
