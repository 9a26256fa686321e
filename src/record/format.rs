// SPDX-License-Identifier: GPL-2.0-only
//! The bytes of a recording, `docs/recording.md`: the header of the file, the header of a chunk,
//! and a chunk's body. Says what is valid; reads and writes no file.

use anyhow::{Context, Result, bail, ensure};
use zerocopy::{FromBytes, Immutable, IntoBytes};

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

/// What a chunk begins with.
pub const CHUNK_MAGIC: [u8; 4] = *b"CHNK";
/// Size of a chunk's header; also, each chunk begins at a multiple of this.
pub const CHUNK_HEADER_BYTES: usize = 64;
/// Most bytes of a chunk's body.
pub const BODY_MAX: usize = 4 << 20;
/// In a chunk's flags: the scheduler donates at its end.
pub const FLAG_DONATING: u16 = 1;
/// Likewise: a wait that is not among those that it begins with is over.
pub const FLAG_SNAPSHOT: u16 = 2;

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

/// It as it is in the file; `docs/recording.md` says what each field is.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct RawHeader {
    magic: [u8; 8],
    order: u32,
    version: u32,
    header_bytes: u32,
    event_bytes: u32,
    size_max: u64,
    clock: u32,
    sum: u32,
    began_wall_ns: u64,
    began_ns: u64,
    began_boot_ns: u64,
    release: [u8; 128],
    made_by: [u8; 64],
    rest: [u8; 256],
}

fn text(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next();
    String::from_utf8_lossy(text.unwrap_or_default()).into_owned()
}

/// The longest beginning of `text` that fits, with a 0 behind it.
fn text_bytes<const ROOM: usize>(text: &str) -> [u8; ROOM] {
    let mut bytes = [0; ROOM];
    let end = text.floor_char_boundary(ROOM - 1);
    bytes[..end].copy_from_slice(&text.as_bytes()[..end]);
    bytes
}

impl Header {
    /// The header's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let mut raw = RawHeader {
            magic: MAGIC,
            order: ORDER_MARK,
            version: VERSION,
            header_bytes: HEADER_BYTES as u32,
            event_bytes: self.event_bytes,
            size_max: self.size_max,
            clock: CLOCK_MONOTONIC,
            sum: 0,
            began_wall_ns: self.began_wall_ns,
            began_ns: self.began_ns,
            began_boot_ns: self.began_boot_ns,
            release: text_bytes(&self.release),
            made_by: text_bytes(&self.made_by),
            rest: [0; 256],
        };
        raw.sum = crc32fast::hash(raw.as_bytes());
        zerocopy::transmute!(raw)
    }

    /// Reads a header.
    ///
    /// # Errors
    /// It is none, or one that this version or this machine cannot read.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        ensure!(
            bytes.starts_with(&MAGIC),
            "this is no recording of scx_proxy"
        );
        let Ok((mut raw, _)) = RawHeader::read_from_prefix(bytes) else {
            bail!("the recording is cut inside its header: nothing is left of it");
        };
        ensure!(
            raw.order != ORDER_MARK.swap_bytes(),
            "it was recorded on a machine of the other byte order"
        );
        let version = raw.version;
        ensure!(
            raw.order != ORDER_MARK || version <= VERSION,
            "its format is version {version}, and this scx_proxy reads up to version {VERSION}: use a newer one"
        );
        let sum = std::mem::take(&mut raw.sum);
        ensure!(
            raw.order == ORDER_MARK && crc32fast::hash(raw.as_bytes()) == sum,
            "its header is damaged"
        );
        // events grow at their end only, so that shorter and longer ones can be read
        ensure!(
            (40..=4096).contains(&raw.event_bytes),
            "its events have {} bytes, which no version wrote",
            raw.event_bytes
        );
        Ok(Self {
            event_bytes: raw.event_bytes,
            size_max: raw.size_max,
            began_wall_ns: raw.began_wall_ns,
            began_ns: raw.began_ns,
            began_boot_ns: raw.began_boot_ns,
            release: text(&raw.release),
            made_by: text(&raw.made_by),
        })
    }

    /// For a person: what was recorded, where and when.
    #[must_use]
    pub fn describe(&self) -> String {
        let (release, made_by) = (printable(&self.release), printable(&self.made_by));
        format!("kernel {release}, recorded by scx_proxy {made_by}")
    }
}

/// What a chunk's header says, as it is in the file behind `CHUNK_MAGIC` and its own CRC-32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
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
    /// [`FLAG_DONATING`], [`FLAG_SNAPSHOT`].
    pub flags: u16,
}

impl ChunkHeader {
    /// The header's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; CHUNK_HEADER_BYTES] {
        let mut bytes = [0; CHUNK_HEADER_BYTES];
        bytes[..4].copy_from_slice(&CHUNK_MAGIC);
        bytes[4..8].copy_from_slice(&crc32fast::hash(self.as_bytes()).to_ne_bytes());
        bytes[8..].copy_from_slice(self.as_bytes());
        bytes
    }

    /// The header that these bytes begin with, if they do and it is whole.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.strip_prefix(&CHUNK_MAGIC)?;
        let (sum, bytes) = u32::read_from_prefix(bytes).ok()?;
        let (header, _) = Self::read_from_prefix(bytes).ok()?;
        let whole = crc32fast::hash(header.as_bytes()) == sum;
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
        let parts = bytes.split_at_checked(waits);
        let parts = parts.and_then(|(waits, rest)| Some((waits, rest.split_at_checked(events)?)));
        let (waits, (events, names)) = parts.context("it has no room for its events")?;
        Ok(Self {
            waits: Event::read_all(waits, event_bytes),
            events: Event::read_all(events, event_bytes),
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

    /// Offsets as in docs/recording.md.
    #[test]
    fn headers_have_the_bytes_that_they_always_had() {
        let mut expected = [0; HEADER_BYTES];
        expected[..24].copy_from_slice(b"SCXPROXY\x0d\x0c\x0b\x0a\x01\0\0\0\0\x02\0\0\x58\0\0\0");
        expected[24..40].copy_from_slice(b"\0\0\0\x04\0\0\0\0\x01\0\0\0\x5a\x34\xdd\xed");
        (expected[40], expected[48], expected[56]) = (3, 2, 4);
        expected[64..69].copy_from_slice(b"7.3.4");
        expected[192..197].copy_from_slice(b"0.1.0");
        let header = Header {
            event_bytes: 88,
            ..header()
        };
        assert_eq!(header.to_bytes(), expected);
        let expected =
            *b"CHNK\x47\xe7\x88\x4a\x01\0\0\0\0\0\0\0\x02\0\0\0\x03\0\0\0\x04\0\0\0\0\0\0\0\
            \x05\0\0\0\0\0\0\0\x06\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\x08\0\0\0\x09\0\x02\0";
        let chunk = ChunkHeader::from_bytes(&expected).expect("a chunk");
        assert_eq!(chunk.to_bytes(), expected);
        let sums = (chunk.seq, chunk.body_bytes, chunk.body_sum);
        assert_eq!((sums, chunk.events_before, chunk.lost), ((1, 2, 3), 4, 5));
        let times = (chunk.begin_ns, chunk.end_ns);
        let rest = (chunk.nr_events, chunk.nr_waits, chunk.flags);
        assert_eq!((times, rest), ((6, 7), (8, 9, FLAG_SNAPSHOT)));
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
