// SPDX-License-Identifier: GPL-2.0-only
//! Puts batches into chunks and chunks into a file. A limited file is a ring: the chunk that no
//! longer fits goes to the beginning, over the oldest. Whatever fails, what is in the file before
//! that stays readable: a chunk is written whole, and cut off again if it could not be.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};

use super::format::{self, Body, CHUNK_HEADER_BYTES, ChunkHeader, HEADER_BYTES, Header};
use crate::events::{Batch, Event, NameTable, Names, Site};
use crate::waits::Waits;

/// Most events of a chunk.
pub const CHUNK_EVENTS: usize = 1600;
/// Most waits that a chunk begins with; more would be a list, not a recording.
const WAITS_MAX: usize = 8192;
/// Most bytes of names in a chunk, roughly; the rest goes without.
const NAMES_MAX_BYTES: usize = 1 << 20;

/// Where a recording is kept.
pub trait Storage {
    /// Writes all of `bytes` at this place.
    ///
    /// # Errors
    /// Whatever kept it from that.
    fn put(&mut self, bytes: &[u8], at: u64) -> io::Result<()>;

    /// Cuts off what is behind this place.
    ///
    /// # Errors
    /// Whatever kept it from that.
    fn cut(&mut self, at: u64) -> io::Result<()>;
}

impl Storage for File {
    fn put(&mut self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.write_all_at(bytes, at)
    }

    fn cut(&mut self, at: u64) -> io::Result<()> {
        self.set_len(at)
    }
}

/// What was recorded so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Events, those that a ring has overwritten included.
    pub events: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Events that were lost.
    pub lost: u64,
}

/// A recording under way.
pub struct Recorder<S> {
    storage: S,
    size_max: Option<u64>,
    /// where the next chunk goes
    at: u64,
    seq: u64,
    flushed: u64,
    progress: Progress,
    table: NameTable,
    /// those that go on
    waits: Waits,
    open: Open,
}

/// The chunk that is not written yet.
#[derive(Default)]
struct Open {
    waits: Vec<Event>,
    events: Vec<Event>,
    /// what the events speak of, and what got a name meanwhile
    used: Used,
    lost: u64,
    donating: bool,
    /// a wait that is not among `waits` is over
    snapshot: bool,
    begun: bool,
}

impl<S: Storage> Recorder<S> {
    /// Writes the header; `size_max` in it makes the file a ring.
    ///
    /// # Errors
    /// Those of the file.
    pub fn new(mut storage: S, header: &Header) -> Result<Self> {
        storage
            .put(&header.to_bytes(), 0)
            .context("cannot write its header")?;
        Ok(Self {
            storage,
            size_max: (header.size_max > 0).then_some(header.size_max),
            at: HEADER_BYTES as u64,
            seq: 0,
            flushed: 0,
            progress: Progress {
                bytes: HEADER_BYTES as u64,
                ..Progress::default()
            },
            table: NameTable::default(),
            waits: Waits::default(),
            open: Open::default(),
        })
    }

    /// What is recorded, the open chunk included.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// Takes in a batch; writes the chunks that it fills.
    ///
    /// # Errors
    /// Those of the file.
    pub fn add(&mut self, batch: &Batch) -> Result<()> {
        self.table.learn(&batch.names);
        let (waits, events) = batch.split();
        // what is missing is missing before a chunk
        if batch.snapshot || batch.lost > 0 {
            self.flush()?;
        }
        if batch.snapshot {
            self.waits.restate(waits);
        }
        self.begin(batch.donating);
        self.open.snapshot |= batch.snapshot;
        self.open.used.note_names(&batch.names);
        self.open.lost += batch.lost;
        self.progress.lost += batch.lost;
        for event in events {
            if self.open.events.len() >= CHUNK_EVENTS {
                self.flush()?;
                self.begin(batch.donating);
            }
            self.open.events.push(*event);
            self.open.used.note(event);
            self.progress.events += 1;
            self.waits.take(event);
        }
        Ok(())
    }

    fn begin(&mut self, donating: bool) {
        self.open.donating = donating;
        if !self.open.begun {
            self.open.begun = true;
            self.open.waits = self.waits.snapshot();
            self.open.waits.truncate(WAITS_MAX);
            let Open { waits, used, .. } = &mut self.open;
            waits.iter().for_each(|event| used.note(event));
        }
    }

    /// Writes the open chunk, if there is anything in it.
    ///
    /// # Errors
    /// Those of the file; the chunk is lost then, all before it is not.
    pub fn flush(&mut self) -> Result<()> {
        let open = std::mem::take(&mut self.open);
        if open.events.is_empty()
            && open.lost == 0
            && open.used == Used::default()
            && !open.snapshot
        {
            return Ok(());
        }
        let body = Body {
            names: open.used.names(&self.table),
            waits: open.waits,
            events: open.events,
        };
        let bytes = body.to_bytes()?;
        let (begin_ns, end_ns) = times(&body);
        let header = ChunkHeader {
            seq: self.seq + 1,
            body_bytes: u32::try_from(bytes.len())?,
            body_sum: crc32fast::hash(&bytes),
            events_before: self.flushed,
            lost: open.lost,
            begin_ns,
            end_ns,
            nr_events: u32::try_from(body.events.len())?,
            nr_waits: u16::try_from(body.waits.len())?,
            flags: u16::from(open.donating) * format::FLAG_DONATING
                + u16::from(open.snapshot) * format::FLAG_SNAPSHOT,
        };
        self.write(&header, &bytes)?;
        self.seq += 1;
        self.flushed += u64::from(header.nr_events);
        Ok(())
    }

    fn write(&mut self, header: &ChunkHeader, body: &[u8]) -> Result<()> {
        let mut bytes = Vec::with_capacity(CHUNK_HEADER_BYTES + body.len());
        bytes.extend_from_slice(&header.to_bytes());
        bytes.extend_from_slice(body);
        bytes.resize(usize::try_from(header.stride())?, 0);
        let len = header.stride();
        if self.size_max.is_some_and(|max| self.at + len > max) {
            // what is left of the last round behind this place is older than all else
            self.storage.cut(self.at).context("cannot cut it")?;
            self.progress.bytes = self.at;
            self.at = HEADER_BYTES as u64;
        }
        if let Err(error) = self.storage.put(&bytes, self.at) {
            if self.at + len > self.progress.bytes {
                let _ = self.storage.cut(self.at);
            }
            return Err(error).context("cannot write to it");
        }
        self.at += len;
        self.progress.bytes = self.progress.bytes.max(self.at);
        Ok(())
    }
}

/// When the first and the last thing happened; a wait that goes on began before that.
fn times(body: &Body) -> (u64, u64) {
    let happened = body.events.iter().filter_map(Event::happened_ns);
    let end = happened.clone().max().unwrap_or(0);
    (happened.min().unwrap_or(end), end)
}

/// What events speak of.
#[derive(Default, PartialEq)]
struct Used {
    tasks: BTreeSet<u32>,
    sites: BTreeSet<Site>,
    locks: BTreeSet<u64>,
    cgroups: BTreeSet<u64>,
}

impl Used {
    fn note(&mut self, event: &Event) {
        let about = event.about();
        // a task's name may be that of its process
        self.tasks.extend([about.pid, about.tgid, about.owner]);
        self.locks.insert(about.lock);
        self.sites.insert(about.site);
        self.cgroups.extend([about.cgroup, about.owner_cgroup]);
    }

    fn note_names(&mut self, names: &Names) {
        self.tasks.extend(names.tasks.iter().map(|(pid, _)| pid));
        self.sites.extend(names.sites.iter().map(|(site, _)| site));
        self.locks.extend(names.locks.iter().map(|(lock, _)| lock));
        self.cgroups.extend(names.cgroups.iter().map(|(id, _)| id));
    }

    /// Those of them that have a name, as far as there is room.
    fn names(&self, table: &NameTable) -> Names {
        let mut room = NAMES_MAX_BYTES;
        Names {
            tasks: named(&self.tasks, &mut room, |pid| {
                let name = table.task(pid)?.clone();
                Some((name.comm.len(), name))
            }),
            sites: named(&self.sites, &mut room, |site| sized(table.site(site))),
            locks: named(&self.locks, &mut room, |lock| sized(table.lock(lock))),
            cgroups: named(&self.cgroups, &mut room, |id| sized(table.cgroup(id))),
        }
    }
}

/// A name, behind its length.
fn sized(name: Option<&str>) -> Option<(usize, String)> {
    name.map(|name| (name.len(), name.to_owned()))
}

/// The keys that have a name, with it, while there is room.
fn named<K: Copy, V>(
    keys: &BTreeSet<K>,
    room: &mut usize,
    name: impl Fn(K) -> Option<(usize, V)>,
) -> Vec<(K, V)> {
    let names = keys.iter().filter_map(|key| Some((*key, name(*key)?)));
    let mut fits = |len| {
        *room = room.saturating_sub(len + 64);
        *room > 0
    };
    names
        .filter(|(_, (len, _))| fits(*len))
        .map(|(key, (_, name))| (key, name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::EVENT_BYTES;
    use crate::events::event::tests::wake;

    /// A disk with room for so many bytes.
    struct Disk {
        bytes: Vec<u8>,
        room: usize,
    }

    impl Storage for &mut Disk {
        fn put(&mut self, bytes: &[u8], at: u64) -> io::Result<()> {
            let at = at as usize;
            let fits = bytes.len().min(self.room.saturating_sub(at));
            let end = self.bytes.len().max(at + fits);
            self.bytes.resize(end, 0);
            self.bytes[at..at + fits].copy_from_slice(&bytes[..fits]);
            if fits < bytes.len() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            Ok(())
        }

        fn cut(&mut self, at: u64) -> io::Result<()> {
            self.bytes.truncate(at as usize);
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_keeps_what_was_written_before() {
        let mut disk = Disk {
            bytes: Vec::new(),
            room: 30_000,
        };
        let header = Header {
            event_bytes: EVENT_BYTES as u32,
            ..Header::default()
        };
        let mut recorder = Recorder::new(&mut disk, &header).expect("a header");
        let batch = Batch {
            events: vec![wake(0, 0); 100],
            ..Batch::default()
        };
        let mut write = || recorder.add(&batch).and_then(|()| recorder.flush());
        let written = (0..9).take_while(|_| write().is_ok()).count();
        assert_eq!(written, 3, "a chunk has some 8000 bytes");
        let chunk = ChunkHeader::from_bytes(&disk.bytes[HEADER_BYTES..]).expect("a chunk");
        let whole = HEADER_BYTES as u64 + 3 * chunk.stride();
        assert_eq!(
            disk.bytes.len() as u64,
            whole,
            "the fourth was cut off again"
        );
    }
}
