// SPDX-License-Identifier: GPL-2.0-only
//! The agent's contact with BPF: the event ring, a snapshot of all waits, the hint maps.

use std::cell::RefCell;
use std::io::Read;
use std::mem::size_of;
use std::rc::Rc;

use anyhow::{Context, Result};
use libbpf_rs::{Iter, Link, MapCore, MapFlags, MapHandle, RingBuffer, RingBufferBuilder};

use crate::abi;
use crate::events::Event;
use crate::waits::WAITS_MAX;

/// Most events taken in one look; the rest waits for the next.
const EVENTS_PER_LOOK: usize = 16_384;
/// Events of a snapshot that are read at a time.
const PIECE_EVENTS: usize = 512;

/// Handles of the maps, and the iterator over tasks.
pub struct KernelSide {
    ring: RingBuffer<'static>,
    /// The ring refers to it.
    _events: MapHandle,
    taken: Rc<RefCell<Vec<Event>>>,
    stats: MapHandle,
    /// Of waits, of return migration; `None` beside another scheduler, which takes no hints.
    hints: Option<[MapHandle; 2]>,
    snapshot: std::sync::Arc<Link>,
    /// Where BPF is told that somebody watches; `None` beside another scheduler, where nobody gives time.
    watched: Option<MapHandle>,
}

fn bytes_of<T: Copy>(value: &T) -> &[u8] {
    // SAFETY: only used for the structs of include/hints.h, which have no padding.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}

/// At most `max` events from `source`, a piece at a time.
fn read_events(source: impl Read, max: usize) -> std::io::Result<Vec<Event>> {
    let mut source = source.take((max * abi::EVENT_BYTES) as u64);
    let mut piece = vec![0; PIECE_EVENTS * abi::EVENT_BYTES];
    let (mut events, mut filled) = (Vec::new(), 0);
    loop {
        match source.read(&mut piece[filled..]) {
            Ok(0) => return Ok(events),
            Ok(bytes) => filled += bytes,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        }
        let whole = filled - filled % abi::EVENT_BYTES;
        events.extend(Event::read_all(&piece[..whole], abi::EVENT_BYTES));
        piece.copy_within(whole..filled, 0);
        filled -= whole;
    }
}

impl KernelSide {
    /// `maps`: events, proxy_stats; `hints`: wait_hints, return_hints, if there are any; `snapshot`: the link
    /// of the task iterator; `watched`: the map of that name, if there is one.
    ///
    /// # Errors
    /// What libbpf said.
    pub fn new(
        maps: [MapHandle; 2],
        hints: Option<[MapHandle; 2]>,
        snapshot: std::sync::Arc<Link>,
        watched: Option<MapHandle>,
    ) -> Result<Self> {
        let [events, stats] = maps;
        let taken = Rc::new(RefCell::new(Vec::with_capacity(EVENTS_PER_LOOK)));
        let sink = taken.clone();
        let mut builder = RingBufferBuilder::new();
        builder
            .add(&events, move |bytes| {
                sink.borrow_mut().push(Event::from_bytes(bytes));
                0
            })
            .context("ring of events")?;
        let ring = builder.build().context("ring of events")?;
        // what an agent before this one left behind, nobody would renew or remove
        if let Some([wait_hints, _]) = &hints {
            let keys: Vec<_> = wait_hints.keys().collect();
            for key in keys {
                let _ = wait_hints.delete(&key);
            }
        }
        Ok(Self {
            ring,
            _events: events,
            taken,
            stats,
            hints,
            snapshot,
            watched,
        })
    }

    /// The events that the ring holds, the oldest first, at most `EVENTS_PER_LOOK`.
    ///
    /// # Errors
    /// What libbpf said.
    pub fn take_events(&mut self) -> Result<Vec<Event>> {
        let taken = self.ring.consume_raw_n(EVENTS_PER_LOOK);
        anyhow::ensure!(taken >= 0, "cannot read the ring of events: error {taken}");
        Ok(std::mem::take(&mut *self.taken.borrow_mut()))
    }

    /// Events that found the ring full, since the scheduler was loaded.
    ///
    /// # Errors
    /// What libbpf said.
    pub fn events_lost(&self) -> Result<u64> {
        let key = abi::proxy_stat_STAT_EVENT_LOST.to_ne_bytes();
        let copies = self.stats.lookup_percpu(&key, MapFlags::ANY)?;
        let count = |copy: Vec<u8>| {
            copy.first_chunk::<8>()
                .map_or(0, |b| u64::from_ne_bytes(*b))
        };
        Ok(copies.unwrap_or_default().into_iter().map(count).sum())
    }

    /// The waits that go on now, as events, `WAITS_MAX` of them at the most.
    ///
    /// # Errors
    /// What the iterator said.
    pub fn snapshot(&self) -> Result<Vec<Event>> {
        let iter = Iter::new(&self.snapshot).context("snapshot of all waits")?;
        read_events(iter, WAITS_MAX).context("snapshot of all waits")
    }

    /// Whether BPF is to tell what only who watches wants to know. Returns whether it does: beside another scheduler
    /// always.
    ///
    /// # Errors
    /// What libbpf said.
    pub fn set_watched(&self, on: bool) -> Result<bool> {
        let Some(watched) = &self.watched else {
            return Ok(true);
        };
        let (key, value) = (0_u32.to_ne_bytes(), u32::from(on).to_ne_bytes());
        let written = watched.update(&key, &value, MapFlags::ANY);
        written.context("whether somebody watches")?;
        Ok(on)
    }

    /// Writes the hint about the wait of `pid`.
    ///
    /// # Errors
    /// What libbpf said.
    pub fn set_wait_hint(&mut self, pid: u32, hint: &abi::wait_hint) -> Result<()> {
        let Some([wait_hints, _]) = &self.hints else {
            return Ok(());
        };
        wait_hints
            .update(&pid.to_ne_bytes(), bytes_of(hint), MapFlags::ANY)
            .context("hint about a wait")
    }

    /// Removes the hint about the wait of `pid`, if there is one.
    ///
    /// # Errors
    /// What libbpf said.
    pub fn remove_wait_hint(&mut self, pid: u32) -> Result<()> {
        let Some([wait_hints, _]) = &self.hints else {
            return Ok(());
        };
        match wait_hints.delete(&pid.to_ne_bytes()) {
            Err(e) if e.kind() == libbpf_rs::ErrorKind::NotFound => Ok(()),
            other => other.context("hint about a wait"),
        }
    }

    /// Writes the hint about return migration for a class of locks.
    ///
    /// # Errors
    /// What libbpf said.
    pub fn set_return_hint(&mut self, class: u32, hint: &abi::return_hint) -> Result<()> {
        let Some([_, return_hints]) = &self.hints else {
            return Ok(());
        };
        return_hints
            .update(&class.to_ne_bytes(), bytes_of(hint), MapFlags::ANY)
            .context("hint about return migration")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::event::tests as event;

    /// Gives what it has in odd pieces.
    struct Odd<'a>(&'a [u8]);

    impl Read for Odd<'_> {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            let bytes = into.len().min(77);
            self.0.read(&mut into[..bytes])
        }
    }

    #[test]
    fn a_snapshot_is_read_whole_up_to_its_bound() {
        let begin = |pid| event::block(1, pid, 8, 0, 1).to_bytes();
        let bytes: Vec<u8> = (0..2000).flat_map(begin).collect();
        let pids = |max| {
            let events = read_events(Odd(&bytes), max).expect("events");
            events
                .iter()
                .map(|event| event.about().pid)
                .collect::<Vec<_>>()
        };
        assert_eq!(pids(5000), (0..2000).collect::<Vec<_>>());
        assert_eq!(pids(700), (0..700).collect::<Vec<_>>());
    }
}
