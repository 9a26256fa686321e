// SPDX-License-Identifier: GPL-2.0-only
//! The tracks of a trace, and what is written to them. Slices of a track must nest, and none may
//! begin before the last one ended: times that go back are drawn forward. A track is described
//! before it is used.

use std::collections::HashMap;
use std::io::Write;

use anyhow::Result;

use super::proto::{self, Event, Kind, Message};
use crate::events::NameTable;
use crate::record::format::Header;

/// Tracks whose description is remembered; described again, they stay what they were.
const TRACKS_MAX: usize = 65_536;
/// Track of all locks.
const LOCKS: u64 = 1 << 60;
/// Track of what happens to the scheduler itself.
const SCHEDULER: u64 = LOCKS + 1;

fn process_uuid(tgid: u32) -> u64 {
    1 << 61 | u64::from(tgid)
}

/// The track of a task.
pub fn task_uuid(pid: u32) -> u64 {
    1 << 62 | u64::from(pid)
}

/// The track of a lock. Addresses of the kernel have the upper bits set, and none of user space has one of them.
pub fn lock_uuid(lock: u64) -> u64 {
    1 << 63 | lock
}

/// What was written to a track.
#[derive(Default)]
struct Track {
    /// slices that have not ended
    depth: u32,
    last_ns: u64,
}

/// All tracks.
pub struct Tracks<W> {
    out: W,
    tracks: HashMap<u64, Track>,
}

impl<W: Write> Tracks<W> {
    /// Begins a trace.
    ///
    /// # Errors
    /// Those of the writer, likewise below.
    pub fn new(mut out: W, header: &Header) -> Result<Self> {
        let clocks = [
            (proto::CLOCK_MONOTONIC, header.began_ns),
            (proto::CLOCK_BOOTTIME, header.began_boot_ns),
            (proto::CLOCK_REALTIME, header.began_wall_ns),
        ];
        out.write_all(proto::clocks(&clocks).bytes())?;
        out.write_all(proto::track(LOCKS, 0, "Locks").bytes())?;
        Ok(Self {
            out,
            tracks: HashMap::new(),
        })
    }

    /// Writes what is buffered.
    pub fn flush(&mut self) -> Result<()> {
        Ok(self.out.flush()?)
    }

    /// When something was last written to a track.
    pub fn last_ns(&self, uuid: u64) -> u64 {
        self.tracks.get(&uuid).map_or(0, |track| track.last_ns)
    }

    fn put(&mut self, message: &Message) -> Result<()> {
        Ok(self.out.write_all(message.bytes())?)
    }

    /// Whether nothing says yet what this track is.
    fn is_new(&mut self, uuid: u64) -> bool {
        if self.tracks.len() >= TRACKS_MAX && !self.tracks.contains_key(&uuid) {
            self.tracks.retain(|_, track| track.depth > 0);
        }
        let new = !self.tracks.contains_key(&uuid);
        self.tracks.entry(uuid).or_default();
        new
    }

    pub fn task(&mut self, names: &NameTable, pid: u32, tgid: u32) -> Result<u64> {
        let uuid = task_uuid(pid);
        if !self.is_new(uuid) {
            return Ok(uuid);
        }
        let name = names.task(pid);
        let comm = name.map(|name| name.comm.as_str());
        let tgid = match (tgid, name) {
            (0, Some(name)) => name.tgid,
            (tgid, _) => tgid,
        };
        if tgid == 0 {
            let name = comm.map_or_else(|| format!("task {pid}"), |comm| format!("{comm} {pid}"));
            self.put(&proto::track(uuid, 0, &name))?;
            return Ok(uuid);
        }
        let process = process_uuid(tgid);
        if self.is_new(process) {
            let name = names.task(tgid).map(|name| name.comm.as_str());
            self.put(&proto::process(process, tgid, name))?;
        }
        self.put(&proto::thread(uuid, process, tgid, pid, comm))?;
        Ok(uuid)
    }

    pub fn scheduler(&mut self) -> Result<u64> {
        if self.is_new(SCHEDULER) {
            self.put(&proto::track(SCHEDULER, 0, "Scheduler"))?;
        }
        Ok(SCHEDULER)
    }

    pub fn lock(&mut self, lock: u64, name: &str) -> Result<()> {
        match self.is_new(lock_uuid(lock)) {
            true => self.put(&proto::track(lock_uuid(lock), LOCKS, name)),
            false => Ok(()),
        }
    }

    /// Writes to a track, no earlier than what was written to it before.
    pub fn write(&mut self, at_ns: u64, event: &Event) -> Result<()> {
        let track = self.tracks.entry(event.track).or_default();
        track.last_ns = track.last_ns.max(at_ns);
        track.depth = match event.kind {
            Kind::Begin => track.depth + 1,
            Kind::End => track.depth.saturating_sub(1),
            Kind::Instant => track.depth,
        };
        let message = event.at(track.last_ns);
        self.put(&message)
    }
}

/// `firefox (812)`.
pub fn task_name(names: &NameTable, pid: u32) -> String {
    let name = names.task(pid);
    name.map_or_else(
        || format!("task {pid}"),
        |name| format!("{} ({pid})", name.comm),
    )
}
