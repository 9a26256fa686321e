// SPDX-License-Identifier: GPL-2.0-only
//! Owns the rename demonstration: how long a foreground's rename() takes while a background task of
//! little weight renames in the same file system, whose mutex (s_vfs_rename_mutex: lock_rename() in
//! fs/namei.c) both need, and hogs want the CPUs.
//!
//! Nothing is staged, unlike everywhere else in this program: what the foreground meets, it meets. So
//! each round has two halves. In the first the background computes: what the foreground needs then is
//! its fair ideal. In the second it renames.

use crate::child::{self, Child};
use crate::groups::{self, Folder};
use crate::hogs::compute;
use crate::report::write_json;
use crate::summary::round3;
use crate::sys;
use anyhow::{Context, Result};
use clap::Args;
use scx_proxy::output::{self, Table};
use serde::Serialize;
use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long hogs and background run before it is measured.
const SETTLE: Duration = Duration::from_millis(500);

#[derive(Args, Debug)]
pub struct Rename {
    /// Rounds; each has two halves of --secs
    #[arg(long, value_name = "N", default_value_t = 3,
          value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,

    /// Seconds that each half of a round takes
    #[arg(long, value_name = "SECS", default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(1..=600))]
    secs: u64,

    /// Microseconds that the foreground sleeps between two renames
    #[arg(long, value_name = "US", default_value_t = 1000,
          value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    pause_us: u64,

    /// Hogs per CPU
    #[arg(long, value_name = "N", default_value_t = 2,
          value_parser = clap::value_parser!(u32).range(0..=64))]
    hogs: u32,

    /// cpu.weight of the background's cgroup; the foreground stays in the cgroup of this program
    #[arg(long, value_name = "WEIGHT", default_value_t = 4,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    background_weight: u32,

    /// cpu.weight of the cgroup of all hogs together
    #[arg(long, value_name = "WEIGHT", default_value_t = 512,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    hog_weight: u32,

    /// Make the folders in DIR, of the file system whose mutex is contended
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    dir: PathBuf,

    /// Write JSON to FILE, or to the standard output (and the table to the standard error)
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    json: Option<PathBuf>,
}

/// What the foreground's renames took in one half, in ms.
#[derive(Debug, Serialize)]
struct Half {
    renames: usize,
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    max_ms: f64,
}

#[derive(Debug, Serialize)]
struct Round {
    /// The background computed.
    ideal: Half,
    /// The background renamed.
    contended: Half,
    /// Maximum of the one by that of the other.
    max_ratio: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    kernel: String,
    cpus: usize,
    hogs: usize,
    background_weight: u32,
    hog_weight: u32,
    pause_us: u64,
    secs: u64,
    rounds: Vec<Round>,
}

/// Runs all rounds, telling `progress` a line each, and prints what came of them.
pub fn run(terms: &Rename, mut progress: impl FnMut(&str)) -> Result<()> {
    let cpus = sys::allowed_cpus()?.len();
    let hogs = cpus * terms.hogs as usize;
    let weights = [
        ("background", terms.background_weight),
        ("hogs", terms.hog_weight),
    ];
    let groups = groups::make_beside(weights)?;
    let [background, crowd] = &groups.folders;
    let foreground = Files::make(&terms.dir, "foreground")?;
    let others = Files::make(&terms.dir, "background")?;
    let mut report = Report {
        kernel: sys::kernel_release(),
        cpus,
        hogs,
        background_weight: terms.background_weight,
        hog_weight: terms.hog_weight,
        pause_us: terms.pause_us,
        secs: terms.secs,
        rounds: Vec::new(),
    };
    let _hogs = (0..hogs)
        .map(|_| start(crowd, compute))
        .collect::<Result<Vec<_>>>()?;
    let half = |body: &dyn Fn() -> i32| {
        let _background = start(background, body)?;
        std::thread::sleep(SETTLE);
        foreground.measure(terms)
    };
    for nr in 1..=terms.rounds {
        let ideal = half(&compute)?;
        let contended = half(&|| others.rename_forever())?;
        progress(&format!(
            "round {nr}: longest rename {:.2} ms beside a spinner, {:.2} ms beside a renamer",
            ideal.max_ms, contended.max_ms
        ));
        report.rounds.push(Round {
            max_ratio: round3(contended.max_ms / ideal.max_ms),
            ideal,
            contended,
        });
    }
    publish(&report, terms.json.as_deref())
}

/// A task in a cgroup, from its first step in `body` on.
fn start(folder: &Folder, body: impl FnOnce() -> i32) -> Result<Child> {
    let mut child = Child::spawn(None, 0, || {
        child::stop_self();
        body()
    })?;
    child.wait_stopped()?;
    folder.set("cgroup.procs", child.pid())?;
    child.resume();
    Ok(child)
}

/// Two folders, and a file that goes to and fro between them; removed when dropped.
#[derive(Debug)]
struct Files {
    folders: [PathBuf; 2],
    places: [CString; 2],
}

impl Files {
    fn make(dir: &Path, name: &str) -> Result<Files> {
        let pid = std::process::id();
        let folders = ["a", "b"].map(|end| dir.join(format!("inversion.{pid}.{name}.{end}")));
        let places = folders
            .each_ref()
            .map(|folder| CString::new(folder.join("file").into_os_string().into_encoded_bytes()));
        let [here, there] = places;
        // From here on dropping it removes what there is.
        let files = Files {
            folders,
            places: [here?, there?],
        };
        for folder in &files.folders {
            std::fs::create_dir(folder)
                .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        }
        let file = files.folders[0].join("file");
        std::fs::write(&file, "").with_context(|| format!("cannot make {}", file.display()))?;
        Ok(files)
    }

    /// The file is in the folder of number `from`, and goes to the other one.
    fn rename(&self, from: usize) -> bool {
        let [old, new] = [&self.places[from], &self.places[1 - from]];
        // SAFETY: both are C strings.
        unsafe { libc::rename(old.as_ptr(), new.as_ptr()) == 0 }
    }

    fn rename_forever(&self) -> i32 {
        // A background that was killed left the file in either of the folders.
        let mut from = usize::from(!self.folders[0].join("file").exists());
        while self.rename(from) {
            from = 1 - from;
        }
        1
    }

    fn measure(&self, terms: &Rename) -> Result<Half> {
        let mut took_ns = Vec::new();
        let mut from = 0;
        let end_ns = sys::monotonic_ns() + terms.secs * 1_000_000_000;
        // An even number, so that the file is back in the end.
        while sys::monotonic_ns() < end_ns || from != 0 {
            sys::check_interrupt()?;
            let begin_ns = sys::monotonic_ns();
            let renamed = self.rename(from);
            took_ns.push(sys::monotonic_ns() - begin_ns);
            if !renamed {
                let error = std::io::Error::last_os_error();
                return Err(error).context("a rename of the foreground failed");
            }
            from = 1 - from;
            if terms.pause_us > 0 {
                std::thread::sleep(Duration::from_micros(terms.pause_us));
            }
        }
        Ok(Half::of(took_ns))
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for folder in &self.folders {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

impl Half {
    /// `took_ns` is not empty.
    fn of(mut took_ns: Vec<u64>) -> Half {
        took_ns.sort_unstable();
        let part = |of_1000: usize| {
            let nr = (took_ns.len() * of_1000 / 1000).min(took_ns.len() - 1);
            round3(took_ns[nr] as f64 / 1e6)
        };
        Half {
            renames: took_ns.len(),
            p50_ms: part(500),
            p99_ms: part(990),
            p999_ms: part(999),
            max_ms: part(1000),
        }
    }

    fn cells(&self) -> Vec<String> {
        let times = [self.p50_ms, self.p99_ms, self.p999_ms, self.max_ms];
        let times = times.into_iter().map(|ms| format!("{ms:.2}"));
        std::iter::once(self.renames.to_string())
            .chain(times)
            .collect()
    }
}

fn publish(report: &Report, json: Option<&Path>) -> Result<()> {
    let mut table = Table::new(&[
        "round",
        "background",
        "renames",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "max ms",
    ]);
    for (nr, round) in report.rounds.iter().enumerate() {
        for (what, half) in [("computes", &round.ideal), ("renames", &round.contended)] {
            let head = [(nr + 1).to_string(), what.to_owned()];
            table.row(head.into_iter().chain(half.cells()).collect());
        }
    }
    let text = format!(
        "kernel {}, {} CPUs, {} hogs\n\n{}",
        report.kernel,
        report.cpus,
        report.hogs,
        table.render()
    );
    write_json(report, json, &text, |text| {
        output::print(text).context("cannot write to the standard output")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_renames() {
        let half = Half::of((1..=2000).map(|ms| ms * 1_000_000).collect());
        assert_eq!((half.renames, half.max_ms), (2000, 2000.0));
        assert_eq!(
            (half.p50_ms, half.p99_ms, half.p999_ms),
            (1001.0, 1981.0, 1999.0)
        );
        let one = Half::of(vec![1_000_000]);
        assert_eq!((one.p50_ms, one.max_ms), (1.0, 1.0));
    }

    #[test]
    fn a_file_goes_to_and_fro() -> Result<()> {
        let files = Files::make(&std::env::temp_dir(), "test")?;
        let folders = files.folders.clone();
        assert!(files.rename(0) && !files.rename(0) && files.rename(1));
        drop(files);
        assert!(!folders[0].exists() && !folders[1].exists());
        Ok(())
    }
}
