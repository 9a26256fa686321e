// SPDX-License-Identifier: GPL-2.0-only
//! Reads a recording, a chunk at a time and in the order in which they were written, wherever the
//! ring begins. What is damaged or cut is skipped and counted. The file may be larger than memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result};

use super::format::{self, Body, CHUNK_HEADER_BYTES, ChunkHeader, HEADER_BYTES, Header};
use crate::events::{Batch, Event};
use crate::waits::Waits;

/// What is looked through at a time for the next whole chunk.
const SCAN_BYTES: usize = 64 << 10;

/// What a replay had to leave out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Stretches of the file that are no whole chunk.
    pub parts: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Events that were in them, as far as the chunks around them tell.
    pub events: u64,
}

impl Damage {
    /// For a person; `None` if there is none.
    #[must_use]
    pub fn describe(&self) -> Option<String> {
        (self.parts > 0 || self.events > 0).then(|| {
            format!(
                "{} damaged or cut parts ({} bytes) were skipped, at least {} events with them",
                self.parts, self.bytes, self.events
            )
        })
    }
}

/// Seconds since the beginning of a recording between which it is replayed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Span {
    /// Before that, only the waits that go on are kept.
    pub from: Option<f64>,
    /// After that, nothing is.
    pub to: Option<f64>,
}

/// A recording that is read.
pub struct Recording {
    file: File,
    len: u64,
    header: Header,
    /// where the oldest chunk is, and where the newest ends
    first: u64,
    newest_end: u64,
    /// earliest and latest time of what happened
    begin_ns: u64,
    end_ns: u64,
}

impl Recording {
    /// Opens a recording.
    ///
    /// # Errors
    /// There is no such file, or it is no recording that can be read.
    pub fn open(path: &Path) -> Result<Self> {
        let open = || -> Result<Self> {
            let file = File::open(path)?;
            let len = file.metadata()?.len();
            let mut bytes = vec![0; HEADER_BYTES.min(usize::try_from(len)?)];
            file.read_exact_at(&mut bytes, 0)?;
            let header = Header::from_bytes(&bytes)?;
            let mut recording = Self {
                file,
                len,
                header,
                first: HEADER_BYTES as u64,
                newest_end: len,
                begin_ns: u64::MAX,
                end_ns: 0,
            };
            recording.find_ends()?;
            Ok(recording)
        };
        open().with_context(|| format!("cannot read {}", path.display()))
    }

    /// What was recorded.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The span by the clock of the events.
    fn bounds(&self, span: Span) -> (u64, u64) {
        let at = |secs: f64| self.header.began_ns.saturating_add((secs * 1e9) as u64);
        (span.from.map_or(0, at), span.to.map_or(u64::MAX, at))
    }

    /// When what is replayed of `span` begins and ends, in ns of the kernel's monotonic clock.
    #[must_use]
    pub fn times(&self, span: Span) -> (u64, u64) {
        // waits that go on began before the recording did
        let begin_ns = self.begin_ns.max(self.header.began_ns);
        let (from_ns, to_ns) = self.bounds(span);
        let end_ns = self.end_ns.min(to_ns);
        (begin_ns.max(from_ns).min(end_ns), end_ns)
    }

    /// Looks at the headers of all chunks: the numbers grow, but for one place in a ring.
    fn find_ends(&mut self) -> Result<()> {
        let (mut oldest, mut newest) = (u64::MAX, 0);
        let mut at = HEADER_BYTES as u64;
        while let Some((found, chunk)) = self.find_chunk(at, self.len)? {
            self.begin_ns = self.begin_ns.min(chunk.begin_ns);
            self.end_ns = self.end_ns.max(chunk.end_ns);
            if chunk.seq < oldest {
                (oldest, self.first) = (chunk.seq, found);
            }
            if chunk.seq > newest {
                (newest, self.newest_end) = (chunk.seq, found + chunk.stride());
            }
            at = found + chunk.stride();
        }
        Ok(())
    }

    /// The first whole header of a chunk from `at` on.
    fn find_chunk(&self, at: u64, end: u64) -> Result<Option<(u64, ChunkHeader)>> {
        let step = CHUNK_HEADER_BYTES as u64;
        let mut at = at.next_multiple_of(step);
        let mut block = CHUNK_HEADER_BYTES;
        while at + step <= end {
            let left = usize::try_from(end - at).unwrap_or(usize::MAX);
            let mut bytes = vec![0; block.min(left) / CHUNK_HEADER_BYTES * CHUNK_HEADER_BYTES];
            self.file.read_exact_at(&mut bytes, at)?;
            let headers = bytes.chunks_exact(CHUNK_HEADER_BYTES);
            for (nr, header) in (0_u64..).zip(headers) {
                if let Some(chunk) = ChunkHeader::from_bytes(header) {
                    return Ok(Some((at + nr * step, chunk)));
                }
            }
            at += bytes.len() as u64;
            // it mostly is where it is looked for
            block = SCAN_BYTES;
        }
        Ok(None)
    }

    /// The body of the chunk at `at`; `None` if it is damaged or cut.
    fn body(&self, at: u64, chunk: &ChunkHeader) -> Result<Option<Body>> {
        let mut bytes = vec![0; chunk.body_bytes as usize];
        let body_at = at + CHUNK_HEADER_BYTES as u64;
        match self.file.read_exact_at(&mut bytes, body_at) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        Ok(Body::from_bytes(&bytes, chunk, self.header.event_bytes as usize).ok())
    }

    /// What was recorded within `span`, the oldest first; a chunk at a time is in memory. Each
    /// batch has the names of all that is in it, and what is missing before it counts as lost.
    #[must_use]
    pub fn batches(&self, span: Span) -> Batches<'_> {
        let (from_ns, to_ns) = self.bounds(span);
        Batches {
            recording: self,
            at: self.first,
            end: self.len,
            around: false,
            last_seq: 0,
            events_seen: None,
            from_ns,
            to_ns,
            begun: false,
            waits: Waits::default(),
            damage: Damage::default(),
        }
    }
}

/// Iterates over a recording, see [`Recording::batches`].
pub struct Batches<'a> {
    recording: &'a Recording,
    at: u64,
    end: u64,
    /// whether the end of the file was reached
    around: bool,
    last_seq: u64,
    /// events up to here; `None` before the first chunk
    events_seen: Option<u64>,
    from_ns: u64,
    to_ns: u64,
    /// whether the span has begun
    begun: bool,
    /// those that go on when it does
    waits: Waits,
    damage: Damage,
}

impl Batches<'_> {
    /// What had to be left out so far.
    pub fn damage(&self) -> Damage {
        self.damage
    }

    fn skip(&mut self, from: u64, to: u64) {
        // behind the newest chunk is what it left of those that it was written over
        let torn = from == self.recording.newest_end && self.recording.first >= from;
        if to > from && !torn {
            self.damage.parts += 1;
            self.damage.bytes += to - from;
        }
    }

    /// The next whole chunk of the span, in order.
    fn chunk(&mut self) -> Result<Option<(ChunkHeader, Body)>> {
        loop {
            let Some((found, chunk)) = self.recording.find_chunk(self.at, self.end)? else {
                self.skip(self.at, self.end);
                if self.around {
                    self.at = self.end;
                    return Ok(None);
                }
                // the rest of a ring: from the beginning of the file to where we began
                self.around = true;
                (self.at, self.end) = (HEADER_BYTES as u64, self.recording.first);
                continue;
            };
            self.skip(self.at, found);
            self.at = found + chunk.stride();
            if chunk.seq <= self.last_seq {
                continue;
            }
            if !self.begun && chunk.end_ns < self.from_ns {
                // the next one says which waits go on
                self.last_seq = chunk.seq;
                self.events_seen = None;
                continue;
            }
            match self.recording.body(found, &chunk)? {
                Some(body) => {
                    self.last_seq = chunk.seq;
                    return Ok(Some((chunk, body)));
                }
                None => self.skip(found, self.at.min(self.end)),
            }
        }
    }

    /// The events of a chunk from the beginning of the span on; whether they begin with the waits that go on.
    fn cut(&mut self, snapshot: bool, body: Body) -> (Vec<Event>, bool) {
        let Body { waits, events, .. } = body;
        if self.begun {
            let waits = if snapshot { waits } else { Vec::new() };
            return (waits.into_iter().chain(events).collect(), snapshot);
        }
        if snapshot {
            self.waits.restate(&waits);
        }
        let mut kept = Vec::new();
        for event in events {
            let happened_ns = event.happened_ns();
            if !self.begun && happened_ns.is_some_and(|ns| ns >= self.from_ns) {
                kept = self.begin();
            }
            if self.begun {
                kept.push(event);
            } else {
                self.waits.take(&event);
            }
        }
        if self.from_ns == 0 && !self.begun {
            kept = self.begin();
        }
        (kept, self.begun)
    }

    /// The span begins: with the waits that go on.
    fn begin(&mut self) -> Vec<Event> {
        self.begun = true;
        std::mem::take(&mut self.waits).snapshot()
    }
}

impl Iterator for Batches<'_> {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (chunk, mut body) = match self.chunk() {
                Ok(found) => found?,
                Err(error) => return Some(Err(error)),
            };
            if chunk.begin_ns > self.to_ns {
                // time goes on from chunk to chunk
                (self.at, self.around) = (self.end, true);
                return None;
            }
            let seen = self.events_seen.unwrap_or(chunk.events_before);
            let missing = chunk.events_before.saturating_sub(seen);
            // what it begins with is news if something is missing before it
            let snapshot = chunk.flags & format::FLAG_SNAPSHOT != 0
                || missing > 0
                || self.events_seen.is_none();
            let nr_events = u64::from(chunk.nr_events);
            self.events_seen = Some(chunk.events_before.saturating_add(nr_events));
            self.damage.events = self.damage.events.saturating_add(missing);
            let was_begun = self.begun;
            let names = std::mem::take(&mut body.names);
            let (mut events, snapshot) = self.cut(snapshot, body);
            if self.begun {
                events.retain(|event| event.happened_ns().is_none_or(|ns| ns <= self.to_ns));
                return Some(Ok(Batch {
                    events,
                    restated: false,
                    snapshot,
                    lost: if was_begun || self.from_ns == 0 {
                        chunk.lost.saturating_add(missing)
                    } else {
                        0
                    },
                    names,
                    donating: chunk.flags & format::FLAG_DONATING != 0,
                }));
            }
        }
    }
}
