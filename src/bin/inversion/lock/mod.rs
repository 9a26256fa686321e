// SPDX-License-Identifier: GPL-2.0-only
//! Owns the interface between the locks and the rest, the list of locks, and the calibration.
//!
//! One file per lock: a `Recipe` names it and builds a `Setup` of a given size; a `Setup` knows the
//! syscall by which a holder holds the lock for a time that grows with the size, the one by which a
//! waiter waits for it, and whether the owner sleeps inside. Nothing here knows of hogs, topologies or trials. A new lock is a
//! new file and one line in `RECIPES`.

mod binder;
mod by_hand;
mod chain;
mod console_sem;
mod f_pos;
mod i_rwsem;
mod mixed;
mod mmap_lock;
mod musl;
mod ntsync;
mod percpu_rwsem;
mod pthread;
mod pthread_32;
mod seq_file;
mod signal;
mod sleeping;
mod unnamed;
mod ww_mutex;

use crate::board::Board;
use crate::child::Child;
use crate::hogs::Hogs;
use crate::missing_page::Sleeper;
use crate::spawn::WorkerKind;
use crate::sys;
use crate::task::Task;
use crate::topology::Place;
use anyhow::{Context, Result, anyhow, bail};
use std::fs::File;
use std::hint::black_box;
use std::io::{self, Seek};
use std::time::Duration;

/// The longest chain of holders a recipe may have.
pub const LINKS_MAX: usize = 2;

/// All locks, in the order in which they are measured.
pub const RECIPES: &[&Recipe] = &[
    &f_pos::RECIPE,
    &seq_file::RECIPE,
    &chain::RECIPE,
    &sleeping::RECIPE,
    &i_rwsem::RECIPE,
    &mmap_lock::WRITER,
    &mmap_lock::READER,
    &pthread::PI,
    &pthread::NORMAL,
    &pthread::RECURSIVE,
    &pthread::ERRORCHECK,
    &pthread::ADAPTIVE,
    &pthread::ROBUST,
    &pthread::SHARED,
    &pthread_32::RECIPE,
    &musl::RECIPE,
    &musl::SLOW_WAKE,
    &unnamed::RWLOCK_WRITER,
    &unnamed::SHARED_MUTEX,
    &unnamed::RUST_MUTEX,
    &unnamed::RUST_MUTEX_SIBLINGS,
    &unnamed::GO_LIKE_SEMA,
    &unnamed::MUSL_NORMAL,
    &mixed::MUTEX_RWSEM,
    &mixed::PTHREAD_THEN_MUTEX,
    &mmap_lock::READ_OWNED,
    &percpu_rwsem::RECIPE,
    &console_sem::RECIPE,
    &signal::CONDVAR,
    &signal::SEMAPHORE,
    &signal::BARRIER,
    &binder::RECIPE,
    &ww_mutex::RECIPE,
    &ntsync::RECIPE,
];

#[derive(Debug)]
pub struct Recipe {
    pub name: &'static str,

    /// One line for --list.
    pub summary: &'static str,

    /// Hogs per CPU unless the command line says otherwise.
    pub default_hogs: u32,

    /// Whether it is staged when no lock is named.
    pub by_default: bool,

    /// False if the kernel names no owner that a scheduler may trust, so that it must not lend to
    /// the task that is waited for.
    pub donates: bool,

    /// Where its workers live: tasks that share memory, not only files, are threads.
    pub workers: WorkerKind,

    /// How many holders stand between the waiter and the end owner, both counted: 1 for one lock.
    pub links: usize,

    /// The largest size that `build` takes.
    pub pages_max: fn() -> usize,

    /// Why this kernel or this user cannot stage it, if so.
    pub unavailable: fn() -> Option<String>,

    /// Makes everything that trials share, with a critical section of `pages` units.
    pub build: fn(pages: usize) -> Result<Box<dyn Setup>>,
}

pub trait Setup: Sync {
    /// Brings files back to where a trial starts; called before each, with all workers gone.
    fn reset(&mut self) -> Result<()>;

    /// What only holder `link` itself can set up; called by it before it is ready, and before the
    /// calibration.
    fn prepare(&self, _link: usize) -> io::Result<()> {
        Ok(())
    }

    /// As `prepare`, and called after it, but in trials only: sets up what holder `link` is to sleep on.
    fn arm(&self, _link: usize) -> io::Result<()> {
        Ok(())
    }

    /// What every worker does before it is ready, in trials only: they use the lock in turn, as a
    /// program would that has run for a while.
    fn warm_up(&self, _is_waiter: bool) -> io::Result<()> {
        Ok(())
    }

    /// Of a lock whose end owner (`owner`, a process) goes to sleep inside as soon as it holds it: what
    /// wakes it. The parent does so when the wait has begun. Called when all workers are ready.
    fn sleeper(&self, _owner: Task) -> Result<Option<Sleeper>> {
        Ok(None)
    }

    /// Whether the end owner sleeps inside until the waiter's own syscall wakes it, to work for it.
    fn serves(&self) -> bool {
        false
    }

    /// What holder `link` does, mostly one syscall. Holder 0, the end owner, needs the CPU in it; the others own
    /// their lock and wait for the one before.
    fn hold(&self, link: usize) -> io::Result<()>;

    /// What the calibration has the end owner do: the same, unless that needs a waiter to end.
    fn hold_alone(&self) -> io::Result<()> {
        self.hold(0)
    }

    /// What the waiter does, mostly one syscall; it needs next to no CPU of its own.
    fn wait(&self) -> io::Result<()>;
}

/// What waits for f_pos_lock: asks for the position of an open file.
fn ask_position(mut file: &File) -> io::Result<()> {
    file.stream_position().map(drop)
}

/// Turns of a loop in one unit of `compute`: about as long as one page keeps the kernel busy.
const UNIT_TURNS: u64 = 1000;

/// What an owner does inside a lock of its program. It must not need the kernel or other memory.
fn compute(units: usize) {
    for turn in 0..units as u64 * UNIT_TURNS {
        black_box(turn);
    }
}

/// Several seconds.
fn compute_max() -> usize {
    1 << 23
}

const FIRST_PAGES: usize = 2048;
const ROUNDS_MAX: usize = 10;
/// Measured over wanted length of a critical section: what ends the search at once.
const GOOD_SIZE: std::ops::Range<f64> = 0.9..1.4;
/// What is taken if nothing better was found: on a machine whose pace changes from one measurement
/// to the next, trials correct the size as they go.
const USABLE_SIZE: std::ops::Range<f64> = 0.3..4.0;
/// ... and what a rehearsal makes as short as that. Where one thread emulates four CPUs four times as much is normal,
/// and right: until the hogs run, an owner is that much faster.
const TOO_LONG: f64 = 10.0;
const REHEARSALS_MAX: usize = 3;
const MEASURE_LIMIT: Duration = Duration::from_secs(120);

/// A setup and its size.
pub struct SizedSetup {
    recipe: &'static Recipe,
    pages: usize,
    setup: Box<dyn Setup>,
}

impl SizedSetup {
    pub fn setup(&mut self) -> &mut dyn Setup {
        self.setup.as_mut()
    }

    /// Makes it smaller if it takes many times `target_ns` beside the hogs of a trial, and not by itself: how far a
    /// CPU gets in a millisecond depends on the others where they are emulated.
    pub fn rehearse(&mut self, target_ns: u64, mut company: Company) -> Result<()> {
        for _ in 0..REHEARSALS_MAX {
            let took_ns = critical_section_ns(self.setup.as_mut(), Some(&mut company))?;
            let ratio = took_ns as f64 / target_ns as f64;
            if ratio <= TOO_LONG {
                break;
            }
            self.resize(USABLE_SIZE.end / ratio)?;
        }
        Ok(())
    }

    /// Builds it again, larger or smaller.
    pub fn resize(&mut self, scale: f64) -> Result<()> {
        let pages = (self.pages as f64 * scale) as usize;
        self.pages = pages.clamp(1, (self.recipe.pages_max)());
        self.setup = (self.recipe.build)(self.pages)?;
        Ok(())
    }
}

/// What an owner runs beside, as in a trial.
pub struct Company<'a> {
    pub place: Place,
    /// Not above that of the hogs.
    pub nice: i32,
    pub hogs: &'a mut Hogs,
}

/// Builds a setup whose end owner needs about `target_ns` of CPU in its critical section.
pub fn calibrate(recipe: &'static Recipe, target_ns: u64) -> Result<SizedSetup> {
    let mut pages = FIRST_PAGES;
    let mut closest = (f64::INFINITY, 0);
    for _ in 0..ROUNDS_MAX {
        let mut setup = (recipe.build)(pages)?;
        let took_ns = critical_section_ns(setup.as_mut(), None)?;
        let ratio = took_ns as f64 / target_ns as f64;
        if GOOD_SIZE.contains(&ratio) {
            return Ok(SizedSetup {
                recipe,
                pages,
                setup,
            });
        }
        if ratio.ln().abs() < f64::ln(closest.0).abs() {
            closest = (ratio, pages);
        }
        let next = next_pages(pages, took_ns, target_ns, (recipe.pages_max)());
        if next == pages {
            break;
        }
        pages = next;
    }
    let (ratio, pages) = closest;
    if !USABLE_SIZE.contains(&ratio) {
        bail!(
            "{}: cannot make the critical section {} ms long (got {:.1} ms); try another \
             --critical-ms",
            recipe.name,
            target_ns / 1_000_000,
            ratio * target_ns as f64 / 1e6
        );
    }
    Ok(SizedSetup {
        recipe,
        pages,
        setup: (recipe.build)(pages)?,
    })
}

/// The size to try next: in proportion, aimed a little above the target, at most 16 times as much.
fn next_pages(pages: usize, took_ns: u64, target_ns: u64, pages_max: usize) -> usize {
    let scale = 1.1 * target_ns as f64 / took_ns.max(1) as f64;
    let next = pages as f64 * scale.clamp(0.02, 16.0);
    (next as usize).clamp(1, pages_max)
}

/// What the end owner's syscall costs with no contention, in a fresh process as in a trial.
fn critical_section_ns(setup: &mut dyn Setup, mut company: Option<&mut Company>) -> Result<u64> {
    setup.reset()?;
    let board = Board::new()?;
    let slot = &board.holders[0];
    let (place, nice) = company.as_ref().map_or((None, 0), |c| (c.place, c.nice));
    let mut child = Child::spawn(place, nice, || {
        if let Err(error) = setup.prepare(0) {
            slot.fail(&error);
            return 1;
        }
        slot.measure(|| setup.hold_alone());
        0
    })?;
    // Declared after the child, so that hogs stop first on every path and cannot starve its end.
    let running = company.as_mut().map(|company| company.hogs.run());
    let mut end = None;
    let ended = sys::poll_until(MEASURE_LIMIT, Duration::from_millis(1), || {
        end = child.ended()?;
        Ok(end.is_some())
    })?;
    if let Some(running) = running {
        running.stop()?;
    }
    if !ended {
        bail!(
            "a critical section took more than {} s",
            MEASURE_LIMIT.as_secs()
        );
    }
    if let Some(error) = slot.error() {
        return Err(error).context("the owner's syscall failed");
    }
    match slot.leave_cpu_ns() - slot.enter_cpu_ns() {
        0 => Err(anyhow!(
            "the owner's process failed: {}",
            end.unwrap_or_default()
        )),
        cpu_ns => Ok(cpu_ns),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_chains_bounded() {
        for &recipe in RECIPES {
            let same = RECIPES
                .iter()
                .filter(|other| other.name == recipe.name)
                .count();
            assert_eq!(same, 1);
            assert!((1..=LINKS_MAX).contains(&recipe.links));
            assert!(recipe.donates || !recipe.by_default, "{}", recipe.name);
        }
    }

    #[test]
    fn sizes_follow_the_measurement_within_bounds() {
        assert_eq!(next_pages(1000, 10, 100, 1 << 20), 11_000);
        assert_eq!(next_pages(1000, 1, 1_000_000, 1 << 20), 16_000);
        assert_eq!(next_pages(1000, 10, 100, 5000), 5000);
        assert_eq!(next_pages(1000, 1_000_000, 1, 5000), 20);
        assert_eq!(next_pages(1, 1_000_000, 1, 5000), 1);
    }
}
