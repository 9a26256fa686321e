// SPDX-License-Identifier: GPL-2.0-only
//! The bytes of a recording, `docs/recording.md`: the header of the file, the header of a chunk,
//! and a chunk's body. Says what is valid; reads and writes no file.

use anyhow::{Context, Result, ensure};

use crate::abi::EVENT_BYTES;
use crate::events::{Event, Names};
use crate::output::printable;

/// What a recording begins with.
pub const MAGIC: [u8; 8] = *b"SCXPROXY";
/// Written in the byte order of the machine that recorded.
const ORDER_MARK: u32 = 0x0a0b_0c0d;
/// The format that is written, and the newest that is read.
pub const VERSION: u32 = 1;
/// Size of the file's header.
pub const HEADER_BYTES: usize = 512;
/// `CLOCK_MONOTONIC`, which `bpf_ktime_get_ns()` reads.
const CLOCK_MONOTONIC: u32 = 1;
/// Room in the header for the kernel's release, and for the version of scx_proxy.
const RELEASE_BYTES: usize = 128;
const MADE_BY_BYTES: usize = 64;

/// What a chunk begins with.
pub const CHUNK_MAGIC: [u8; 4] = *b"CHNK";
/// Size of a chunk's header; also, each chunk begins at a multiple of this.
pub const CHUNK_HEADER_BYTES: usize = 64;
/// Most bytes of a chunk's body.
pub const BODY_MAX: usize = 4 << 20;
/// In a chunk's flags: the scheduler donates at its end.
const FLAG_DONATING: u16 = 1;
/// Likewise: a wait that is not among those that it begins with is over.
const FLAG_SNAPSHOT: u16 = 2;

/// What the file's header says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Bytes of each event.
    pub event_bytes: u32,
    /// Largest size of the file; 0: no limit.
    pub size_max: u64,
    /// When it began, in ns since 1970.
    pub began_wall_ns: u64,
    /// The same by the clock of the events.
    pub began_ns: u64,
    /// The same by `CLOCK_BOOTTIME`.
    pub began_boot_ns: u64,
    /// Release of the kernel.
    pub release: String,
    /// Version of scx_proxy that recorded.
    pub made_by: String,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..at + 4).and_then(|word| word.try_into().ok());
    word.map_or(0, u32::from_ne_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let word = bytes.get(at..at + 8).and_then(|word| word.try_into().ok());
    word.map_or(0, u64::from_ne_bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    let word = bytes.get(at..at + 2).and_then(|word| word.try_into().ok());
    word.map_or(0, u16::from_ne_bytes)
}

fn text_at(bytes: &[u8], at: usize, room: usize) -> String {
    let text = bytes[at..at + room].split(|byte| *byte == 0).next();
    String::from_utf8_lossy(text.unwrap_or_default()).into_owned()
}

/// The longest beginning of `text` that fits, with a 0 behind it.
fn put_text(bytes: &mut [u8], text: &str) {
    let mut end = text.len().min(bytes.len() - 1);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    bytes[..end].copy_from_slice(&text.as_bytes()[..end]);
}

impl Header {
    /// The header's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        let words = [
            (8, ORDER_MARK),
            (12, VERSION),
            (16, HEADER_BYTES as u32),
            (20, self.event_bytes),
            (32, CLOCK_MONOTONIC),
        ];
        for (at, word) in words {
            bytes[at..at + 4].copy_from_slice(&word.to_ne_bytes());
        }
        let words = [
            (24, self.size_max),
            (40, self.began_wall_ns),
            (48, self.began_ns),
            (56, self.began_boot_ns),
        ];
        for (at, word) in words {
            bytes[at..at + 8].copy_from_slice(&word.to_ne_bytes());
        }
        put_text(&mut bytes[64..64 + RELEASE_BYTES], &self.release);
        put_text(&mut bytes[192..192 + MADE_BY_BYTES], &self.made_by);
        let sum = crc32fast::hash(&bytes);
        bytes[36..40].copy_from_slice(&sum.to_ne_bytes());
        bytes
    }

    /// Reads a header.
    ///
    /// # Errors
    /// It is none, or one that this version or this machine cannot read.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        ensure!(
            bytes.len() >= MAGIC.len() && bytes[..8] == MAGIC,
            "this is no recording of scx_proxy"
        );
        ensure!(
            bytes.len() >= HEADER_BYTES,
            "the recording is cut inside its header: nothing is left of it"
        );
        let order = u32_at(bytes, 8);
        ensure!(
            order != ORDER_MARK.swap_bytes(),
            "it was recorded on a machine of the other byte order"
        );
        let version = u32_at(bytes, 12);
        ensure!(
            order != ORDER_MARK || version <= VERSION,
            "its format is version {version}, and this scx_proxy reads up to version {VERSION}: use a newer one"
        );
        let mut plain = bytes[..HEADER_BYTES].to_vec();
        plain[36..40].fill(0);
        ensure!(
            order == ORDER_MARK && crc32fast::hash(&plain) == u32_at(bytes, 36),
            "its header is damaged"
        );
        let header = Self {
            event_bytes: u32_at(bytes, 20),
            size_max: u64_at(bytes, 24),
            began_wall_ns: u64_at(bytes, 40),
            began_ns: u64_at(bytes, 48),
            began_boot_ns: u64_at(bytes, 56),
            release: text_at(bytes, 64, RELEASE_BYTES),
            made_by: text_at(bytes, 192, MADE_BY_BYTES),
        };
        // events grow at their end only, so that shorter and longer ones can be read
        ensure!(
            (40..=4096).contains(&header.event_bytes),
            "its events have {} bytes, which no version wrote",
            header.event_bytes
        );
        Ok(header)
    }

    /// For a person: what was recorded, where and when.
    #[must_use]
    pub fn describe(&self) -> String {
        let (release, made_by) = (printable(&self.release), printable(&self.made_by));
        format!("kernel {release}, recorded by scx_proxy {made_by}")
    }
}

/// What a chunk's header says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChunkHeader {
    /// Chunks are numbered from 1 on.
    pub seq: u64,
    /// Bytes of the body.
    pub body_bytes: u32,
    /// CRC-32 of the body.
    pub body_sum: u32,
    /// Events that were recorded before those of this chunk.
    pub events_before: u64,
    /// Events that were lost since the last chunk.
    pub lost: u64,
    /// Earliest and latest time of what happened in it.
    pub begin_ns: u64,
    /// See `begin_ns`.
    pub end_ns: u64,
    /// Events.
    pub nr_events: u32,
    /// Waits that go on when the chunk begins.
    pub nr_waits: u16,
    /// Whether the scheduler donates at its end.
    pub donating: bool,
    /// Whether a wait that is not among those that it begins with is over.
    pub snapshot: bool,
}

impl ChunkHeader {
    /// The header's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; CHUNK_HEADER_BYTES] {
        let mut bytes = [0; CHUNK_HEADER_BYTES];
        bytes[..4].copy_from_slice(&CHUNK_MAGIC);
        bytes[8..16].copy_from_slice(&self.seq.to_ne_bytes());
        bytes[16..20].copy_from_slice(&self.body_bytes.to_ne_bytes());
        bytes[20..24].copy_from_slice(&self.body_sum.to_ne_bytes());
        bytes[24..32].copy_from_slice(&self.events_before.to_ne_bytes());
        bytes[32..40].copy_from_slice(&self.lost.to_ne_bytes());
        bytes[40..48].copy_from_slice(&self.begin_ns.to_ne_bytes());
        bytes[48..56].copy_from_slice(&self.end_ns.to_ne_bytes());
        bytes[56..60].copy_from_slice(&self.nr_events.to_ne_bytes());
        bytes[60..62].copy_from_slice(&self.nr_waits.to_ne_bytes());
        let flags =
            u16::from(self.donating) * FLAG_DONATING + u16::from(self.snapshot) * FLAG_SNAPSHOT;
        bytes[62..64].copy_from_slice(&flags.to_ne_bytes());
        let sum = crc32fast::hash(&bytes[8..]);
        bytes[4..8].copy_from_slice(&sum.to_ne_bytes());
        bytes
    }

    /// The header that these bytes begin with, if they do and it is whole.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..CHUNK_HEADER_BYTES)?;
        let whole = bytes[..4] == CHUNK_MAGIC && crc32fast::hash(&bytes[8..]) == u32_at(bytes, 4);
        let header = Self {
            seq: u64_at(bytes, 8),
            body_bytes: u32_at(bytes, 16),
            body_sum: u32_at(bytes, 20),
            events_before: u64_at(bytes, 24),
            lost: u64_at(bytes, 32),
            begin_ns: u64_at(bytes, 40),
            end_ns: u64_at(bytes, 48),
            nr_events: u32_at(bytes, 56),
            nr_waits: u16_at(bytes, 60),
            donating: u16_at(bytes, 62) & FLAG_DONATING != 0,
            snapshot: u16_at(bytes, 62) & FLAG_SNAPSHOT != 0,
        };
        (whole && header.body_bytes as usize <= BODY_MAX).then_some(header)
    }

    /// From this chunk's beginning to where the next one may begin.
    #[must_use]
    pub fn stride(&self) -> u64 {
        let bytes = CHUNK_HEADER_BYTES as u64 + u64::from(self.body_bytes);
        bytes.next_multiple_of(CHUNK_HEADER_BYTES as u64)
    }
}

/// What a chunk holds.
#[derive(Clone, Debug, Default)]
pub struct Body {
    /// Waits that go on when it begins, as [`What::Snapshot`](crate::events::What::Snapshot).
    pub waits: Vec<Event>,
    /// What happened.
    pub events: Vec<Event>,
    /// The names of what is in both, as far as they are known.
    pub names: Names,
}

impl Body {
    /// The body's bytes: waits, events, the names as JSON.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity((self.waits.len() + self.events.len()) * EVENT_BYTES);
        Event::write_all(self.waits.iter().chain(&self.events), &mut bytes);
        serde_json::to_writer(&mut bytes, &self.names).context("names")?;
        Ok(bytes)
    }

    /// Reads the body of a chunk, whose events have `event_bytes` each.
    ///
    /// # Errors
    /// It is not what `header` says.
    pub fn from_bytes(bytes: &[u8], header: &ChunkHeader, event_bytes: usize) -> Result<Self> {
        ensure!(
            crc32fast::hash(bytes) == header.body_sum,
            "its checksum is wrong"
        );
        let waits = usize::from(header.nr_waits) * event_bytes;
        let events = (header.nr_events as usize).saturating_mul(event_bytes);
        ensure!(
            waits.saturating_add(events) <= bytes.len(),
            "it has no room for its events"
        );
        let names = &bytes[waits + events..];
        Ok(Self {
            waits: Event::read_all(&bytes[..waits], event_bytes),
            events: Event::read_all(&bytes[waits..waits + events], event_bytes),
            names: serde_json::from_slice(names).context("its names")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::What;
    use crate::events::event::tests::block;

    fn header() -> Header {
        Header {
            event_bytes: EVENT_BYTES as u32,
            size_max: 1 << 26,
            began_wall_ns: 3,
            began_ns: 2,
            began_boot_ns: 4,
            release: "7.3.4".into(),
            made_by: "0.1.0".into(),
        }
    }

    fn refusal(change: impl Fn(&mut [u8])) -> String {
        let mut bytes = header().to_bytes();
        change(&mut bytes);
        let why = Header::from_bytes(&bytes).expect_err("refused");
        why.to_string()
    }

    #[test]
    fn a_header_comes_back_as_it_was() {
        let bytes = header().to_bytes();
        assert_eq!(Header::from_bytes(&bytes).expect("a header"), header());
        let long = Header {
            release: "é".repeat(200),
            ..header()
        };
        let back = Header::from_bytes(&long.to_bytes()).expect("a header");
        assert_eq!(back.release, "é".repeat(63));
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_the_reason() {
        assert!(refusal(|bytes| bytes[0] = 0).contains("no recording"));
        let newer = refusal(|bytes| bytes[12..16].copy_from_slice(&2_u32.to_ne_bytes()));
        assert!(newer.contains("version 2"), "{newer}");
        assert!(refusal(|bytes| bytes[8..12].reverse()).contains("byte order"));
        assert!(refusal(|bytes| bytes[70] ^= 1).contains("damaged"));
        let why = Header::from_bytes(&header().to_bytes()[..100]).expect_err("cut");
        assert!(why.to_string().contains("cut"), "{why}");
    }

    #[test]
    fn a_chunk_of_longer_or_shorter_events_is_read() {
        let mut event = block(9, 1, 8, 0, 1);
        if let What::Block(begun) = &mut event.what {
            begun.about.tgid = 7;
        }
        for event_bytes in [EVENT_BYTES + 16, 40] {
            let mut bytes = event.to_bytes().to_vec();
            bytes.resize(event_bytes, 0xff);
            bytes.extend_from_slice(br#"{"tasks":[],"sites":[],"locks":[],"cgroups":[]}"#);
            let header = ChunkHeader {
                body_sum: crc32fast::hash(&bytes),
                nr_events: 1,
                ..Default::default()
            };
            let body = Body::from_bytes(&bytes, &header, event_bytes).expect("a body");
            let tgid = if event_bytes > EVENT_BYTES { 7 } else { 0 };
            let back = body.events[0];
            assert_eq!((back.time_ns, back.about().tgid), (9, tgid));
        }
    }
}
