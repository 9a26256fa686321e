// SPDX-License-Identifier: GPL-2.0-only
//! Owns the hogs: processes that do nothing but compute, stopped except while a `Running` lives.

use crate::child::{self, Child};
use crate::groups::{Groups, Role};
use crate::topology::Place;
use anyhow::Result;
use std::hint::black_box;
use std::time::Duration;

/// How long new hogs run once, so that the scheduler spreads those that are not pinned.
const SPREAD: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub struct Hogs {
    children: Vec<Child>,
}

impl Hogs {
    /// Starts one hog a place; all of them are stopped when this returns.
    pub fn spawn(places: &[Place], nice: i32, groups: Option<&Groups>) -> Result<Hogs> {
        let mut hogs = Hogs {
            children: Vec::with_capacity(places.len()),
        };
        for place in places {
            hogs.children
                .push(Child::spawn(*place, nice, compute_later)?);
        }
        for child in &mut hogs.children {
            child.wait_stopped()?;
            if let Some(groups) = groups {
                groups.host(child.pid())?;
                groups.enter(Role::Hog, child.task())?;
            }
        }
        let running = hogs.run();
        std::thread::sleep(SPREAD);
        running.stop()?;
        Ok(hogs)
    }

    pub fn run(&mut self) -> Running<'_> {
        for child in &self.children {
            child.resume();
        }
        Running { hogs: self }
    }
}

/// Stops itself first, so that no hog ever runs outside of a trial.
fn compute_later() -> i32 {
    child::stop_self();
    compute()
}

/// Without end.
pub fn compute() -> i32 {
    let mut turns = 0u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

/// Hogs run while this lives. An owner of processes that the hogs may starve must drop it before
/// waiting for them.
#[derive(Debug)]
pub struct Running<'a> {
    hogs: &'a mut Hogs,
}

impl Running<'_> {
    /// Whether each of these CPUs has a hog that runs or wants to run there.
    pub fn occupy(&self, cpus: &[usize]) -> bool {
        let stats = self
            .hogs
            .children
            .iter()
            .filter_map(|hog| hog.task().stat());
        let busy: Vec<_> = stats
            .filter(|stat| stat.is_runnable())
            .map(|stat| stat.cpu)
            .collect();
        cpus.iter().all(|cpu| busy.contains(cpu))
    }

    /// Stops the hogs and waits until all of them have stopped.
    pub fn stop(self) -> Result<()> {
        for child in &self.hogs.children {
            child.stop();
        }
        for child in &mut self.hogs.children {
            child.wait_stopped()?;
        }
        Ok(())
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        for child in &self.hogs.children {
            child.stop();
        }
    }
}
