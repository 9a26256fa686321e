// SPDX-License-Identifier: GPL-2.0-only
//! Asks the scheduler, again and again, and adds up what it says. A scheduler that goes is waited
//! for: it may be loaded anew.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use log::debug;

use super::classes::Classes;
use super::groups::Groups;
use super::series::{Answers, Series};
use crate::client::Client;
use crate::naming::cgroups::Paths;
use crate::stats::NO_AGENT;

/// Between two batches of events.
const POLL: Duration = Duration::from_millis(200);
const MANY_EVENTS: usize = 4096;
/// Between two readings of the counters, and between two attempts to connect.
const PERIOD: Duration = Duration::from_secs(1);

/// Collects until `stop` is set; `programs`: labels may name programs.
pub fn run(series: &Series, socket: &Path, programs: bool, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        if let Err(error) = follow(series, socket, programs, stop) {
            debug!("metrics: {error:#}");
        }
        series.set_up(None);
        std::thread::sleep(PERIOD);
    }
}

fn follow(series: &Series, socket: &Path, programs: bool, stop: &AtomicBool) -> Result<()> {
    let began = Instant::now();
    let mut client = Client::connect(socket)?;
    let mut classes = Classes::new(programs);
    let (mut groups, mut paths) = (Groups::default(), Paths::default());
    let mut asked: Option<Instant> = None;
    // without its agent a scheduler has no events, but counters all the same; the next one may have it
    let mut events = true;
    let mut more = false;
    while !stop.load(Ordering::Relaxed) {
        if asked.is_none_or(|asked| asked.elapsed() >= PERIOD) {
            series.count(&client.metrics()?)?;
            groups.read(series, paths.name(client.groups()?, |group| group.id));
            asked = Some(Instant::now());
        }
        if events {
            match client.batch() {
                Ok(batch) => {
                    series.lost(batch.lost);
                    classes.learn(&batch, began.elapsed());
                    // an answer of so many may be a part only
                    more = batch.events.len() >= MANY_EVENTS;
                }
                // a scheduler just loaded may be too busy for an answer: its agent has events, later
                Err(error) if format!("{error:#}").contains(NO_AGENT) => events = false,
                Err(error) => return Err(error),
            }
        }
        // counters and events: who sees it up misses nothing from now on
        series.set_up(Some(match client.is_beside() {
            true => Answers::Beside,
            false => Answers::Scheduler,
        }));
        for settled in classes.settled(began.elapsed()) {
            series.observe(settled);
        }
        if !std::mem::take(&mut more) {
            std::thread::sleep(POLL);
        }
    }
    Ok(())
}
