// SPDX-License-Identifier: GPL-2.0-only
//! Owns producers and consumers that both compute, with room for a few items between the two of a pair.

use crate::shared::Shared;
use crate::spec::Weight;
use crate::stage::{Part, Phase, Span, Stage};
use crate::summary::{Range, round};
use crate::{sys, work};
use anyhow::{Context, Result};
use serde::Serialize;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};

/// A divisor of a page.
const ITEM_BYTES: usize = 512;

/// 8 to 16 items: a pipe's page is free again when all of it has been read.
const QUEUE_BYTES: usize = 8192;

#[derive(Debug)]
pub struct Producers {
    /// Items that the consumer of each pair has done with.
    items: Shared<AtomicU64>,
}

/// What the pairs are.
#[derive(Debug)]
pub struct Plan {
    pub pairs: usize,
    pub produce_us: u64,
    pub consume_us: u64,
}

#[derive(Debug, Serialize)]
pub struct ProducersReport {
    pairs: usize,
    /// Of all pairs together.
    items_per_sec: f64,
    pair_items_per_sec: Range,
}

impl Producers {
    pub fn start(stage: &mut Stage, plan: &Plan) -> Result<Producers> {
        let producers = Producers {
            items: Shared::new(plan.pairs)?,
        };
        let part = Part {
            weight: Weight::Nice(0),
            cpus: None,
            starts_on: None,
        };
        for items in producers.items.iter() {
            let (from, to) = io::pipe().context("cannot make a pipe")?;
            sys::pipe_bytes(&to, QUEUE_BYTES).context("cannot make a pipe small")?;
            stage.task(part, |_| produce(plan.produce_us * 1000, &to))?;
            stage.task(part, |phase| {
                consume(plan.consume_us * 1000, items, phase, &from)
            })?;
        }
        Ok(producers)
    }

    pub fn report(&self, span: Span) -> ProducersReport {
        let rate = |items: &AtomicU64| round(items.load(Ordering::Relaxed) as f64 / span.secs());
        let each: Vec<_> = self.items.iter().map(rate).collect();
        ProducersReport {
            pairs: each.len(),
            items_per_sec: round(each.iter().sum()),
            pair_items_per_sec: Range::of(&each),
        }
    }
}

fn produce(work_ns: u64, mut to: &PipeWriter) -> i32 {
    loop {
        work::compute(work_ns);
        if to.write_all(&[0; ITEM_BYTES]).is_err() {
            return 1;
        }
    }
}

fn consume(work_ns: u64, items: &AtomicU64, phase: &Phase, mut from: &PipeReader) -> i32 {
    let (mut item, mut done) = ([0; ITEM_BYTES], 0);
    while from.read_exact(&mut item).is_ok() {
        work::compute(work_ns);
        if phase.since_ns().is_some() {
            done += 1;
            items.store(done, Ordering::Relaxed);
        }
    }
    1
}
