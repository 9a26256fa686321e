// SPDX-License-Identifier: GPL-2.0-only
//! Owns the pairs of processes that pass a byte to and fro through two pipes.

use crate::shared::{Shared, Zeroed};
use crate::spec::Weight;
use crate::stage::{Part, Phase, Span, Stage};
use crate::summary::{Range, round};
use crate::sys;
use anyhow::{Context, Result};
use scx_proxy::clock;
use serde::Serialize;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};

/// Written by the first of a pair, in a cache line of its own.
#[derive(Debug)]
#[repr(align(64))]
struct Slot {
    rounds: AtomicU64,
    /// When the wanted rounds were made; 0 before that.
    done_ns: AtomicU64,
}

// SAFETY: all of it is atomic, and zero is valid.
unsafe impl Zeroed for Slot {}

#[derive(Debug)]
pub struct Pairs {
    slots: Shared<Slot>,
}

/// What the pairs are.
#[derive(Debug)]
pub struct Plan<'a> {
    pub pairs: usize,
    /// A pair ends after so many rounds; None: it does not.
    pub rounds: Option<u64>,
    pub cpus: Option<&'a [usize]>,
    pub starts_on: Option<usize>,
}

#[derive(Debug, Serialize)]
pub struct PairsReport {
    pairs: usize,
    rounds: u64,
    /// Of all pairs together.
    rounds_per_sec: f64,
    pair_rounds_per_sec: Range,
    each_rounds_per_sec: Vec<f64>,
}

impl Pairs {
    pub fn start(stage: &mut Stage, plan: &Plan) -> Result<Pairs> {
        sys::check_cpus(plan.cpus.unwrap_or_default())?;
        let pairs = Pairs {
            slots: Shared::new(plan.pairs)?,
        };
        let part = Part {
            weight: Weight::Nice(0),
            cpus: plan.cpus,
            starts_on: plan.starts_on,
        };
        for slot in pairs.slots.iter() {
            let (to, fro) = (io::pipe(), io::pipe());
            let ((to_read, to_write), (fro_read, fro_write)) = (
                to.context("cannot make a pipe")?,
                fro.context("cannot make a pipe")?,
            );
            // by reference: what the closures own is dropped in the parent, too, right after this turn
            stage.task(part, |phase| {
                serve(slot, phase, plan.rounds, &to_write, &fro_read)
            })?;
            stage.task(part, |_| give_back(&to_read, &fro_write))?;
        }
        Ok(pairs)
    }

    pub fn all_done(&self) -> bool {
        let done = |slot: &Slot| slot.done_ns.load(Ordering::Acquire) != 0;
        self.slots.iter().all(done)
    }

    pub fn report(&self, span: Span) -> PairsReport {
        let mut rounds = 0;
        let rate = |slot: &Slot| {
            let (made, done_ns) = (
                slot.rounds.load(Ordering::Relaxed),
                slot.done_ns.load(Ordering::Relaxed),
            );
            rounds += made;
            let to_ns = if done_ns == 0 { span.to_ns } else { done_ns };
            round(made as f64 / Span { to_ns, ..span }.secs().max(1e-9))
        };
        let each: Vec<_> = self.slots.iter().map(rate).collect();
        PairsReport {
            pairs: each.len(),
            rounds,
            rounds_per_sec: round(each.iter().sum()),
            pair_rounds_per_sec: Range::of(&each),
            each_rounds_per_sec: each,
        }
    }
}

/// The first of a pair: it counts the rounds that it began while measuring went on. After the last it waits to
/// be killed, as everybody does.
fn serve(
    slot: &Slot,
    phase: &Phase,
    wanted: Option<u64>,
    mut to: &PipeWriter,
    mut fro: &PipeReader,
) -> i32 {
    let (mut rounds, mut byte) = (0, [0]);
    while wanted.is_none_or(|wanted| rounds < wanted) {
        let counts = phase.since_ns().is_some();
        if to.write_all(&byte).is_err() || fro.read_exact(&mut byte).is_err() {
            return 1;
        }
        if counts {
            rounds += 1;
            slot.rounds.store(rounds, Ordering::Relaxed);
        }
    }
    slot.done_ns.store(clock::monotonic_ns(), Ordering::Release);
    loop {
        sys::nanosleep(u64::from(u32::MAX));
    }
}

fn give_back(mut to: &PipeReader, mut fro: &PipeWriter) -> i32 {
    let mut byte = [0];
    while to.read_exact(&mut byte).is_ok() && fro.write_all(&byte).is_ok() {}
    1
}
