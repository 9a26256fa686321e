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
use super::proto::{Event as Slice, Kind};
use super::tracks::{Tracks, lock_uuid, task_name, task_uuid};
use crate::events::{Batch, Begun, Ended, Event, Labels, NameTable, What, edge};
use crate::record::format::Header;
use crate::waits::{Change, Wait, Waits};

/// Writes a trace.
pub struct Trace<W> {
    tracks: Tracks<W>,
    waits: Waits,
    /// lock -> who holds it, as drawn
    holders: HashMap<u64, u32>,
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
            waits: Waits::default(),
            holders: HashMap::new(),
            runs: HashMap::new(),
            flow: 0,
            last_ns: header.began_ns,
        })
    }

    fn mark(&mut self, names: &NameTable, event: &Event, what: &str) -> Result<()> {
        let about = event.about();
        let track = self.tracks.task(names, about.pid, about.tgid)?;
        let mark = Slice::new(Kind::Instant, track)
            .name(what)
            .number("cpu", event.cpu.into());
        self.tracks.write(event.time_ns, &mark)
    }

    /// A wait begins; `before`: one of the same task whose end was lost.
    fn wait_begins(
        &mut self,
        names: &NameTable,
        event: &Event,
        before: Option<Wait>,
    ) -> Result<()> {
        let about = event.about();
        self.stop(event.time_ns, |owner, _| owner == about.pid)?;
        if let Some(wait) = before {
            self.wait_ends(names, about.pid, event.time_ns, &wait, None)?;
        }
        let task = self.tracks.task(names, about.pid, about.tgid)?;
        let class = Labels(names).class_of(about.lock, about.site);
        let lock = Labels(names).lock(about.lock, about.site);
        let mut slice = Slice::new(Kind::Begin, task)
            .name(&format!("waits for {class}"))
            .text("lock", &lock)
            .text("class", &class)
            .text("address", &format!("{:#x}", edge::address(about.lock)))
            .number("cpu", event.cpu.into());
        if about.owner != 0 {
            slice = slice.text("owner", &task_name(names, about.owner));
        }
        if let Some(path) = names.cgroup(about.cgroup) {
            slice = slice.text("cgroup", path);
        }
        self.tracks.write(event.time_ns, &slice)?;
        self.tracks.lock(about.lock, &lock)?;
        self.show_holder(names, about.lock, event.time_ns)
    }

    /// Draws who holds a lock now, if that is another one than before.
    fn show_holder(&mut self, names: &NameTable, lock: u64, at_ns: u64) -> Result<()> {
        let (uuid, now) = (lock_uuid(lock), self.waits.owner(lock));
        let last = match now {
            Some(pid) => self.holders.insert(lock, pid),
            None => self.holders.remove(&lock),
        };
        if last == now {
            return Ok(());
        }
        if last.is_some() {
            self.tracks.write(at_ns, &Slice::new(Kind::End, uuid))?;
        }
        if let Some(pid) = now {
            let name = format!("held by {}", task_name(names, pid));
            let slice = Slice::new(Kind::Begin, uuid).name(&name);
            self.tracks.write(at_ns, &slice)?;
        }
        Ok(())
    }

    fn wait_ends(
        &mut self,
        names: &NameTable,
        pid: u32,
        at_ns: u64,
        wait: &Wait,
        ended: Option<&Ended>,
    ) -> Result<()> {
        self.stop(at_ns, |owner, (donor, _)| owner == pid || donor == pid)?;
        let donations = wait.details.donations;
        let mut end = Slice::new(Kind::End, task_uuid(pid)).number("donations", donations);
        if let Some(ended) = ended {
            end = end
                .number("waited_ns", ended.waited_ns)
                .number("inverted_ns", ended.inverted_ns);
        }
        self.tracks.write(at_ns, &end)?;
        self.show_holder(names, wait.lock, at_ns)
    }

    /// A wait whose beginning was lost is known from its end on, if there is room on the track.
    fn begin_late(&mut self, names: &NameTable, event: &Event, ended: &Ended) -> Result<()> {
        let about = ended.about;
        let began_ns = event.time_ns.saturating_sub(ended.waited_ns);
        let free = self.tracks.last_ns(task_uuid(about.pid)) <= began_ns;
        if about.lock == 0 || self.waits.get(about.pid).is_some() || !free {
            return Ok(());
        }
        let begun = Begun {
            about,
            number: 0,
            inverted_ns: 0,
        };
        let begin = Event {
            time_ns: began_ns,
            what: What::Block(begun),
            ..*event
        };
        self.event(names, &begin)
    }

    /// Ends what owners run for donors, where that `is_over`: of an owner, its donor and the CPU.
    fn stop(&mut self, at_ns: u64, is_over: impl Fn(u32, (u32, u32)) -> bool) -> Result<()> {
        let over = self.runs.extract_if(|owner, run| is_over(*owner, *run));
        for (owner, _) in over {
            let end = Slice::new(Kind::End, task_uuid(owner));
            self.tracks.write(at_ns, &end)?;
        }
        Ok(())
    }

    fn donates(&mut self, names: &NameTable, event: &Event, owner: u32, locks: u64) -> Result<()> {
        let (donor, at_ns) = (event.about().pid, event.time_ns);
        // a CPU runs one task, and a donor lends to one
        self.stop(at_ns, |runs, (lent, cpu)| {
            runs == owner || lent == donor || cpu == event.cpu
        })?;
        self.flow += 1;
        let from = self.tracks.task(names, donor, 0)?;
        let to = self.tracks.task(names, owner, 0)?;
        let mark = Slice::new(Kind::Instant, from)
            .name(&format!("donates to {}", task_name(names, owner)))
            .number("cpu", event.cpu.into())
            .number("locks", locks)
            .flow(self.flow);
        self.tracks.write(at_ns, &mark)?;
        // an arrow leads from the earlier to the later
        let began_ns = self.tracks.last_ns(from).max(at_ns);
        let slice = Slice::new(Kind::Begin, to)
            .name(&format!("runs for {}", task_name(names, donor)))
            .number("cpu", event.cpu.into())
            .flow_end(self.flow);
        self.tracks.write(began_ns, &slice)?;
        self.runs.insert(owner, (donor, event.cpu));
        Ok(())
    }

    fn event(&mut self, names: &NameTable, event: &Event) -> Result<()> {
        self.last_ns = self.last_ns.max(event.time_ns);
        if let What::Wake(ended) = &event.what {
            self.begin_late(names, event, ended)?;
        }
        match self.waits.take(event) {
            Change::Began { before } => return self.wait_begins(names, event, before),
            Change::Ended {
                ended,
                wait: Some(wait),
            } => {
                let pid = ended.about.pid;
                return self.wait_ends(names, pid, event.time_ns, &wait, Some(&ended));
            }
            Change::Donated { to, locks, .. } if to != 0 => {
                return self.donates(names, event, to, locks);
            }
            _ => {}
        }
        let other = task_name(names, event.about().owner);
        let what = match event.what {
            What::Migrate { .. } => format!("migrates to {other}"),
            What::Park { .. } => format!("parks on {other}"),
            What::Truncated { .. } => format!("walk given up at {other}"),
            What::Cycle { .. } => format!("cycle through {other}"),
            What::Return(back) => format!("returns: {}", back.choice_name()),
            What::Restart { gone_ns } => return self.restarted(event.time_ns, gone_ns),
            // who holds a lock may be known better now
            What::Block(Begun { about, .. }) | What::Snapshot(Begun { about, .. }) => {
                let wait = self.waits.get(about.pid);
                if wait.is_some_and(|wait| wait.lock == about.lock) {
                    self.show_holder(names, about.lock, event.time_ns)?;
                }
                return Ok(());
            }
            _ => return Ok(()),
        };
        self.mark(names, event, &what)
    }

    /// The scheduler was away, and with it whoever ran for a donor.
    fn restarted(&mut self, at_ns: u64, gone_ns: u64) -> Result<()> {
        self.stop(at_ns, |_, _| true)?;
        let track = self.tracks.scheduler()?;
        let mark = Slice::new(Kind::Instant, track)
            .name("scheduler loaded again")
            .number("gone_ns", gone_ns);
        self.tracks.write(at_ns, &mark)
    }

    /// Waits that are over, and nobody knows since when.
    fn end_all(&mut self, names: &NameTable, over: Vec<(u32, Wait)>) -> Result<()> {
        let last_ns = self.last_ns;
        over.into_iter()
            .try_for_each(|(pid, wait)| self.wait_ends(names, pid, last_ns, &wait, None))
    }
}

impl<W: Write> Sink for Trace<W> {
    fn batch(&mut self, batch: &Batch, names: &NameTable) -> Result<()> {
        let (waits, events) = batch.split();
        if batch.snapshot {
            let restated = self.waits.restate(waits);
            self.end_all(names, restated.over)?;
            for event in restated.news {
                self.last_ns = self.last_ns.max(event.time_ns);
                self.wait_begins(names, event, None)?;
            }
        }
        (events.iter()).try_for_each(|event| self.event(names, event))
    }

    fn end(&mut self, names: &NameTable) -> Result<()> {
        self.stop(self.last_ns, |_, _| true)?;
        let over = self.waits.restate(&[]).over;
        self.end_all(names, over)?;
        self.tracks.flush()
    }
}
