// SPDX-License-Identifier: GPL-2.0-only
//! A recording as a trace for Perfetto. Tracks: each task, under its process, with slices "waits
//! for LOCK" and "runs for DONOR" and marks for what is done with donors; each lock, with slices
//! "held by OWNER" while somebody waits for it; the scheduler, with marks where it was loaded anew. Each donation is an arrow from donor to owner.
//!
//! No event says when an owner is done in a donor's context: the slice ends with the next
//! event that excludes it, so it is the longest that it can have been.

use std::collections::HashMap;
use std::io::Write;

use anyhow::Result;

use super::Sink;
use super::proto::{Event, Kind};
use super::tracks::{Tracks, lock_name, lock_uuid, task_name, task_uuid};
use crate::abi::{self, proxy_event};
use crate::agent::{edge, line};
use crate::record::format::Header;
use crate::watch::{Batch, Labels, NameTable, Site};

/// A wait that goes on.
struct Wait {
    lock: u64,
    number: u64,
    since_ns: u64,
    donations: u64,
}

/// A lock that somebody waits for.
#[derive(Default)]
struct Lock {
    waiting: u32,
    holder: u32,
}

/// Writes a trace.
pub struct Trace<W> {
    tracks: Tracks<W>,
    waits: HashMap<u32, Wait>,
    locks: HashMap<u64, Lock>,
    /// owner -> the donor that it runs for, and where
    runs: HashMap<u32, (u32, u32)>,
    flow: u64,
    last_ns: u64,
}

impl<W: Write> Trace<W> {
    /// Begins a trace of the recording that begins so.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn new(out: W, header: &Header) -> Result<Self> {
        Ok(Self {
            tracks: Tracks::new(out, header)?,
            waits: HashMap::new(),
            locks: HashMap::new(),
            runs: HashMap::new(),
            flow: 0,
            last_ns: header.began_ns,
        })
    }

    fn mark(&mut self, names: &NameTable, event: &proxy_event, what: &str) -> Result<u64> {
        let track = self.tracks.task(names, event.pid, event.tgid)?;
        let mark = Event::new(Kind::Instant, track)
            .name(what)
            .number("cpu", event.cpu.into());
        self.tracks
            .write(Kind::Instant, track, event.time_ns, &mark)?;
        Ok(track)
    }

    fn blocked(&mut self, names: &NameTable, event: &proxy_event) -> Result<()> {
        if let Some(wait) = self.waits.get(&event.pid)
            && ((wait.lock, wait.number) == (event.lock, event.value)
                || event.time_ns < wait.since_ns)
        {
            // a snapshot restates this wait, or was ahead of the events before it
            return Ok(());
        }
        self.stop(event.pid, event.time_ns)?;
        // its end was lost
        self.wait_ends(names, event.pid, event.time_ns, None)?;
        let task = self.tracks.task(names, event.pid, event.tgid)?;
        let class = Labels(names).class_of(event.lock, Site::of(event));
        let mut slice = Event::new(Kind::Begin, task)
            .name(&format!("waits for {class}"))
            .text("lock", &lock_name(names, event))
            .text("class", &class)
            .text("address", &format!("{:#x}", edge::address(event.lock)))
            .number("cpu", event.cpu.into());
        if event.other != 0 {
            slice = slice.text("owner", &task_name(names, event.other));
        }
        if let Some(path) = names.cgroup(event.cgroup) {
            slice = slice.text("cgroup", path);
        }
        self.tracks.begin(task, event.time_ns, &slice)?;
        self.waits.insert(
            event.pid,
            Wait {
                lock: event.lock,
                number: event.value,
                since_ns: event.time_ns,
                donations: 0,
            },
        );
        self.tracks.lock(names, event)?;
        self.locks.entry(event.lock).or_default().waiting += 1;
        if event.other != 0 {
            self.holds(names, event.lock, event.other, event.time_ns)?;
        }
        Ok(())
    }

    /// Somebody holds a lock, or with `pid` 0 nobody is known to.
    fn holds(&mut self, names: &NameTable, lock: u64, pid: u32, at_ns: u64) -> Result<()> {
        let uuid = lock_uuid(lock);
        let state = self.locks.entry(lock).or_default();
        let last = std::mem::replace(&mut state.holder, pid);
        if last == pid {
            return Ok(());
        }
        if last != 0 {
            self.tracks.end(uuid, at_ns, &Event::new(Kind::End, uuid))?;
        }
        if pid != 0 {
            let name = format!("held by {}", task_name(names, pid));
            self.tracks
                .begin(uuid, at_ns, &Event::new(Kind::Begin, uuid).name(&name))?;
        }
        Ok(())
    }

    fn wait_ends(
        &mut self,
        names: &NameTable,
        pid: u32,
        at_ns: u64,
        wake: Option<&proxy_event>,
    ) -> Result<()> {
        let Some(wait) = self.waits.remove(&pid) else {
            return Ok(());
        };
        self.runs_for_end(pid, at_ns)?;
        self.stop(pid, at_ns)?;
        let uuid = task_uuid(pid);
        let mut end = Event::new(Kind::End, uuid).number("donations", wait.donations);
        if let Some(wake) = wake {
            end = end
                .number("waited_ns", wake.value)
                .number("inverted_ns", wake.inverted_ns);
        }
        self.tracks.end(uuid, at_ns, &end)?;
        let state = self.locks.entry(wait.lock).or_default();
        state.waiting = state.waiting.saturating_sub(1);
        let waiting = state.waiting;
        // who wakes has the lock, unless others share it
        let passes = wake.is_some() && waiting > 0 && edge::is_exclusive(wait.lock);
        self.holds(names, wait.lock, if passes { pid } else { 0 }, at_ns)?;
        if waiting == 0 {
            self.locks.remove(&wait.lock);
        }
        Ok(())
    }

    /// A wait whose beginning was lost is known from its end on, if there is room on the track.
    fn begin_late(&mut self, names: &NameTable, wake: &proxy_event) -> Result<()> {
        let began_ns = wake.time_ns.saturating_sub(wake.value);
        let free = self.tracks.last_ns(task_uuid(wake.pid)) <= began_ns;
        if wake.lock == 0 || self.waits.contains_key(&wake.pid) || !free {
            return Ok(());
        }
        let begin = proxy_event {
            time_ns: began_ns,
            value: 0,
            ..*wake
        };
        self.blocked(names, &begin)
    }

    /// Whether this end is that of the wait that is known, and not of one before a snapshot.
    fn is_of_wait(&self, wake: &proxy_event) -> bool {
        let wait = self.waits.get(&wake.pid);
        wait.is_some_and(|wait| wake.time_ns >= wait.since_ns)
    }

    /// Ends what `owner` runs for a donor.
    fn stop(&mut self, owner: u32, at_ns: u64) -> Result<()> {
        if self.runs.remove(&owner).is_some() {
            let uuid = task_uuid(owner);
            self.tracks.end(uuid, at_ns, &Event::new(Kind::End, uuid))?;
        }
        Ok(())
    }

    /// Ends what anybody runs for `donor`.
    fn runs_for_end(&mut self, donor: u32, at_ns: u64) -> Result<()> {
        let owners: Vec<u32> = (self.runs.iter())
            .filter(|(_, (of, _))| *of == donor)
            .map(|(owner, _)| *owner)
            .collect();
        owners
            .into_iter()
            .try_for_each(|owner| self.stop(owner, at_ns))
    }

    fn donates(&mut self, names: &NameTable, event: &proxy_event) -> Result<()> {
        let (donor, owner, at_ns) = (event.pid, event.other, event.time_ns);
        // a CPU runs one task, and a donor lends to one
        let here: Vec<u32> = (self.runs.iter())
            .filter(|(_, (of, cpu))| *of == donor || *cpu == event.cpu)
            .map(|(owner, _)| *owner)
            .collect();
        for owner in here.into_iter().chain([owner]) {
            self.stop(owner, at_ns)?;
        }
        if let Some(wait) = self.waits.get_mut(&donor) {
            wait.donations += 1;
        }
        self.flow += 1;
        let from = self.tracks.task(names, donor, event.tgid)?;
        let to = self.tracks.task(names, owner, 0)?;
        let mark = Event::new(Kind::Instant, from)
            .name(&format!("donates to {}", task_name(names, owner)))
            .number("cpu", event.cpu.into())
            .number("locks", event.value)
            .flow(self.flow);
        self.tracks.write(Kind::Instant, from, at_ns, &mark)?;
        // an arrow leads from the earlier to the later
        let began_ns = self.tracks.last_ns(from).max(at_ns);
        let slice = Event::new(Kind::Begin, to)
            .name(&format!("runs for {}", task_name(names, donor)))
            .number("cpu", event.cpu.into())
            .flow_end(self.flow);
        self.tracks.begin(to, began_ns, &slice)?;
        self.runs.insert(owner, (donor, event.cpu));
        Ok(())
    }

    fn event(&mut self, names: &NameTable, event: &proxy_event) -> Result<()> {
        self.last_ns = self.last_ns.max(event.time_ns);
        let other = || task_name(names, event.other);
        match event.kind {
            abi::proxy_event_kind_EVENT_BLOCK | abi::proxy_event_kind_EVENT_SNAPSHOT => {
                self.blocked(names, event)?;
            }
            abi::proxy_event_kind_EVENT_WAKE => {
                self.begin_late(names, event)?;
                if self.is_of_wait(event) {
                    self.wait_ends(names, event.pid, event.time_ns, Some(event))?;
                }
            }
            abi::proxy_event_kind_EVENT_DONATE if event.other != 0 => self.donates(names, event)?,
            abi::proxy_event_kind_EVENT_MIGRATE => {
                self.mark(names, event, &format!("migrates to {}", other()))?;
            }
            abi::proxy_event_kind_EVENT_PARK => {
                self.mark(names, event, &format!("parks on {}", other()))?;
            }
            abi::proxy_event_kind_EVENT_TRUNCATED => {
                self.mark(names, event, &format!("walk given up at {}", other()))?;
            }
            abi::proxy_event_kind_EVENT_CYCLE => {
                self.mark(names, event, &format!("cycle through {}", other()))?;
            }
            abi::proxy_event_kind_EVENT_RETURN => {
                let what = format!("returns: {}", line::choice(event.other));
                self.mark(names, event, &what)?;
            }
            abi::proxy_event_kind_EVENT_RESTART => self.restarted(event)?,
            _ => {}
        }
        Ok(())
    }

    /// The scheduler was away, and with it whoever ran for a donor.
    fn restarted(&mut self, event: &proxy_event) -> Result<()> {
        for owner in self.runs.keys().copied().collect::<Vec<u32>>() {
            self.stop(owner, event.time_ns)?;
        }
        let track = self.tracks.scheduler()?;
        let mark = Event::new(Kind::Instant, track)
            .name("scheduler loaded again")
            .number("gone_ns", event.value);
        self.tracks
            .write(Kind::Instant, track, event.time_ns, &mark)
    }
}

impl<W: Write> Sink for Trace<W> {
    fn batch(&mut self, batch: &Batch, names: &NameTable) -> Result<()> {
        if batch.snapshot {
            // what is not in it is over, and nobody knows when
            let at = |event: &&proxy_event| event.kind == abi::proxy_event_kind_EVENT_SNAPSHOT;
            let going = batch.events.iter().take_while(at);
            let going: HashMap<u32, u64> = going.map(|event| (event.pid, event.value)).collect();
            let over = (self.waits.iter())
                .filter(|(pid, wait)| going.get(pid) != Some(&wait.number))
                .map(|(pid, _)| *pid);
            for pid in over.collect::<Vec<u32>>() {
                self.wait_ends(names, pid, self.last_ns, None)?;
            }
        }
        (batch.events.iter()).try_for_each(|event| self.event(names, event))
    }

    fn end(&mut self, names: &NameTable) -> Result<()> {
        let last_ns = self.last_ns;
        for owner in self.runs.keys().copied().collect::<Vec<u32>>() {
            self.stop(owner, last_ns)?;
        }
        for pid in self.waits.keys().copied().collect::<Vec<u32>>() {
            self.wait_ends(names, pid, last_ns, None)?;
        }
        self.tracks.flush()
    }
}
