// SPDX-License-Identifier: GPL-2.0-only
//! `scx_proxy bugreport`: what a maintainer asks for first, in one archive. Reads only; each part that
//! cannot be had is a line that says why.

mod redact;

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::cli::{BugreportOpts, RecordOpts};
use crate::client::Client;
use crate::doctor::Report;
use crate::locks::LockSet;
use crate::output;
use crate::record;

/// Newest lines of each log that are kept.
const LOG_LINES: usize = 500;
/// Longest part of a log that is read for them.
const LOG_BYTES: usize = 4 << 20;
/// Largest recording.
const RECORDING_BYTES: u64 = 8 << 20;

/// Parts of the report, each a file of the archive.
struct Parts {
    /// Modification time of all, in seconds since 1970.
    made: u64,
    archive: tar::Builder<GzEncoder<File>>,
}

impl Parts {
    fn add(&mut self, name: &str, content: &[u8]) -> Result<()> {
        output::print(&format!("{name}: {} bytes\n", content.len()))?;
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(self.made);
        let path = Path::new("scx_proxy-bugreport").join(name);
        Ok(self.archive.append_data(&mut header, path, content)?)
    }

    /// A part that may fail: then its file says why.
    fn try_add(&mut self, name: &str, content: Result<Vec<u8>>) -> Result<()> {
        let content = content.unwrap_or_else(|e| format!("not available: {e:#}\n").into_bytes());
        self.add(name, &content)
    }
}

/// Writes the report.
///
/// # Errors
/// The file cannot be written, or exists. What it would be about that cannot be had is no error.
pub fn run(opts: &BugreportOpts, version: &str, stop: &AtomicBool) -> Result<()> {
    let file = record::create(&opts.file, opts.force)?;
    let written = || format!("writing {}", opts.file.display());
    let made = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let archive = tar::Builder::new(GzEncoder::new(file, Compression::default()));
    let mut parts = Parts { made, archive };
    parts
        .collect(opts, version, stop)
        .and_then(|()| Ok(parts.archive.into_inner()?.finish()?))
        .and_then(|mut file| Ok(file.flush()?))
        .with_context(written)?;
    let names = match opts.names {
        true => "It names tasks and cgroups.",
        false => "It names no program and no cgroup; --names adds them.",
    };
    output::print(&format!(
        "{} is complete. {names} Read it before you send it: tar tzf, tar xzf.\n",
        opts.file.display()
    ))?;
    Ok(())
}

impl Parts {
    fn collect(&mut self, opts: &BugreportOpts, version: &str, stop: &AtomicBool) -> Result<()> {
        let kernel =
            |name: &str| fs::read_to_string(Path::new("/proc").join(name)).unwrap_or_default();
        let about = format!("{version}{}{}", kernel("version"), kernel("cmdline"));
        self.add("about.txt", about.as_bytes())?;
        let report = Report::of_this_machine(&LockSet::default());
        self.add("doctor.txt", report.to_text().as_bytes())?;
        self.try_add(
            "doctor.json",
            report.to_json().map(String::into_bytes).map_err(Into::into),
        )?;
        self.try_add("flags.txt", flags())?;
        let log = |log: Result<String>| {
            let log = last_lines(&log?);
            Ok(if opts.names { log } else { redact::log(&log) }.into_bytes())
        };
        self.try_add("service.log", log(service_log()))?;
        self.try_add("kernel.log", log(kernel_log()))?;
        self.try_add("counters.json", counters(&opts.socket, opts.seconds))?;
        self.try_add("recording", recording(opts, stop))
    }
}

/// The command line of each scheduler that runs, and the configuration file.
fn flags() -> Result<Vec<u8>> {
    let mut text = String::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let dir = entry.path();
        let pid: Option<u32> = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        let comm = fs::read_to_string(dir.join("comm")).unwrap_or_default();
        let is_scheduler =
            pid.is_some_and(|pid| pid != std::process::id()) && comm.trim() == "scx_proxy";
        if is_scheduler && let Ok(line) = fs::read(dir.join("cmdline")) {
            let words: Vec<_> = line
                .split(|b| *b == 0)
                .map(String::from_utf8_lossy)
                .collect();
            text += &format!("{}\n", words.join(" ").trim_end());
        }
    }
    match fs::read_to_string(crate::cli::CONFIG) {
        Ok(config) => text += &format!("\n{}:\n{config}", crate::cli::CONFIG),
        Err(e) => text += &format!("\n{}: {e}\n", crate::cli::CONFIG),
    }
    Ok(text.into_bytes())
}

fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let kept = &lines[lines.len().saturating_sub(LOG_LINES)..];
    kept.iter().map(|line| format!("{line}\n")).collect()
}

/// What a program of the system prints.
fn said(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output();
    let output = output.with_context(|| format!("cannot run {program}"))?;
    anyhow::ensure!(
        output.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let from = output.stdout.len().saturating_sub(LOG_BYTES);
    Ok(String::from_utf8_lossy(&output.stdout[from..]).into_owned())
}

/// The journal of the service; a scheduler that was started by hand wrote to its terminal.
fn service_log() -> Result<String> {
    let lines = LOG_LINES.to_string();
    let what = [
        "-u",
        "scx_proxy",
        "-n",
        &lines,
        "-o",
        "cat",
        "--no-pager",
        "-q",
    ];
    let log = said("journalctl", &what)?;
    anyhow::ensure!(
        !log.is_empty(),
        "the journal has nothing of scx_proxy.service: add what the scheduler printed"
    );
    Ok(log)
}

/// Of the kernel's log what bears on the scheduler.
fn kernel_log() -> Result<String> {
    const ABOUT: [&str; 7] = [
        "sched_ext",
        "scx",
        "BPF",
        "bpf",
        "rcu:",
        "lockup",
        "hung_task",
    ];
    let log = said("dmesg", &[])?;
    let about = |line: &&str| ABOUT.iter().any(|word| line.contains(word));
    Ok(log
        .lines()
        .filter(about)
        .map(|line| format!("{line}\n"))
        .collect())
}

/// All counters: what was counted in `secs`.
fn counters(socket: &Path, secs: f64) -> Result<Vec<u8>> {
    let mut client = Client::connect(socket)?;
    client.metrics()?;
    std::thread::sleep(Duration::from_secs_f64(secs.min(2.0)));
    let metrics = client.metrics()?;
    Ok(serde_json::to_vec_pretty(&metrics)?)
}

fn recording(opts: &BugreportOpts, stop: &AtomicBool) -> Result<Vec<u8>> {
    // without a name: nobody can put a link there, and it goes with us
    let mut temporary = tempfile::tempfile()?;
    let what = RecordOpts {
        file: format!("/proc/self/fd/{}", temporary.as_raw_fd()).into(),
        force: true,
        seconds: Some(opts.seconds),
        max_size: RECORDING_BYTES,
        wait: 0.0,
        no_names: !opts.names,
        socket: opts.socket.clone(),
    };
    record::run(&what, stop)?;
    let mut recorded = Vec::new();
    temporary.rewind()?;
    temporary.read_to_end(&mut recorded)?;
    Ok(recorded)
}
