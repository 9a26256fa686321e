// SPDX-License-Identifier: GPL-2.0-only
//! The agent's contact with BPF: the event ring, a snapshot of all waits, the hint maps.

use std::cell::RefCell;
use std::io::Read;
use std::mem::size_of;
use std::rc::Rc;

use anyhow::{Context, Result};
use libbpf_rs::{Iter, Link, MapCore, MapFlags, MapHandle, RingBuffer, RingBufferBuilder};

use crate::abi;

/// Most events taken in one look; the rest waits for the next.
const EVENTS_PER_LOOK: usize = 16_384;

/// Handles of the maps, and the iterator over tasks.
pub struct KernelSide {
    ring: RingBuffer<'static>,
    /// The ring refers to it.
    _events: MapHandle,
    taken: Rc<RefCell<Vec<abi::proxy_event>>>,
    stats: MapHandle,
    wait_hints: MapHandle,
    return_hints: MapHandle,
    snapshot: std::sync::Arc<Link>,
}

fn bytes_of<T: Copy>(value: &T) -> &[u8] {
    // SAFETY: only used for the structs of include/hints.h, which have no padding.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}

impl KernelSide {
    /// `maps`: events, proxy_stats, wait_hints, return_hints; `snapshot`: the link of the
    /// task iterator.
    ///
    /// # Errors
    /// What libbpf said.
    pub fn new(maps: [MapHandle; 4], snapshot: std::sync::Arc<Link>) -> Result<Self> {
        let [events, stats, wait_hints, return_hints] = maps;
        let taken = Rc::new(RefCell::new(Vec::with_capacity(EVENTS_PER_LOOK)));
        let sink = taken.clone();
        let mut builder = RingBufferBuilder::new();
        builder
            .add(&events, move |bytes| {
                sink.borrow_mut()
                    .extend(abi::proxy_event::from_bytes(bytes));
                0
            })
            .context("ring of events")?;
        let ring = builder.build().context("ring of events")?;
        // what an agent before this one left behind, nobody would renew or remove
        let keys: Vec<_> = wait_hints.keys().collect();
        for key in keys {
            let _ = wait_hints.delete(&key);
        }
        Ok(Self {
            ring,
            _events: events,
            taken,
            stats,
            wait_hints,
            return_hints,
            snapshot,
        })
    }

    /// The events that the ring holds, the oldest first, at most `EVENTS_PER_LOOK`.
    ///
    /// # Errors
    /// What libbpf said.
    pub fn take_events(&mut self) -> Result<Vec<abi::proxy_event>> {
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

    /// All waits that go on now, as events.
    ///
    /// # Errors
    /// What the iterator said.
    pub fn snapshot(&self) -> Result<Vec<abi::proxy_event>> {
        let mut bytes = Vec::new();
        Iter::new(&self.snapshot)
            .and_then(|mut iter| Ok(iter.read_to_end(&mut bytes)?))
            .context("snapshot of all waits")?;
        let events = bytes.chunks_exact(abi::EVENT_BYTES);
        Ok(events.filter_map(abi::proxy_event::from_bytes).collect())
    }

    /// Writes the hint about the wait of `pid`.
    ///
    /// # Errors
    /// What libbpf said.
    pub fn set_wait_hint(&mut self, pid: u32, hint: &abi::wait_hint) -> Result<()> {
        self.wait_hints
            .update(&pid.to_ne_bytes(), bytes_of(hint), MapFlags::ANY)
            .context("hint about a wait")
    }

    /// Removes the hint about the wait of `pid`, if there is one.
    ///
    /// # Errors
    /// What libbpf said.
    pub fn remove_wait_hint(&mut self, pid: u32) -> Result<()> {
        match self.wait_hints.delete(&pid.to_ne_bytes()) {
            Err(e) if e.kind() == libbpf_rs::ErrorKind::NotFound => Ok(()),
            other => other.context("hint about a wait"),
        }
    }

    /// Writes the hint about return migration for a class of locks.
    ///
    /// # Errors
    /// What libbpf said.
    pub fn set_return_hint(&mut self, class: u32, hint: &abi::return_hint) -> Result<()> {
        self.return_hints
            .update(&class.to_ne_bytes(), bytes_of(hint), MapFlags::ANY)
            .context("hint about return migration")
    }
}
