// SPDX-License-Identifier: GPL-2.0-only
//! The messages of a Perfetto trace, as far as they are needed. Field numbers are those of
//! protos/perfetto/trace/ in Perfetto's sources: trace.proto, trace_packet.proto,
//! clock_snapshot.proto, and in track_event/ track_descriptor.proto, process_descriptor.proto,
//! thread_descriptor.proto, track_event.proto, debug_annotation.proto.

use micropb::{PbEncoder, Tag};

/// Wire types.
const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const BYTES: u8 = 2;

/// `BuiltinClock`, builtin_clock.proto.
pub const CLOCK_REALTIME: u32 = 1;
/// The clock of the events.
pub const CLOCK_MONOTONIC: u32 = 3;
/// See above.
pub const CLOCK_BOOTTIME: u32 = 6;

/// A message that is being written. Writing to memory cannot fail.
#[derive(Default)]
pub struct Message(Vec<u8>);

impl Message {
    fn with<E>(
        mut self,
        field: u32,
        wire: u8,
        value: impl FnOnce(&mut PbEncoder<&mut Vec<u8>>) -> Result<(), E>,
    ) -> Self {
        let mut encoder = PbEncoder::new(&mut self.0);
        let _ = encoder.encode_tag(Tag::from_parts(field, wire));
        let _ = value(&mut encoder);
        self
    }

    /// A field that is a number.
    #[must_use]
    pub fn number(self, field: u32, value: u64) -> Self {
        self.with(field, VARINT, |to| to.encode_varint64(value))
    }

    /// A field that is a number of 8 bytes.
    #[must_use]
    pub fn fixed64(self, field: u32, value: u64) -> Self {
        self.with(field, FIXED64, |to| to.encode_fixed64(value))
    }

    /// A field that is text.
    #[must_use]
    pub fn text(self, field: u32, value: &str) -> Self {
        self.with(field, BYTES, |to| to.encode_string(value))
    }

    /// A field that is a message.
    #[must_use]
    pub fn message(self, field: u32, value: &Self) -> Self {
        self.with(field, BYTES, |to| to.encode_bytes(&value.0))
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A `TracePacket` as a field of `Trace`, which is what a trace consists of. All are of one
/// sequence.
fn packet(field: u32, content: &Message) -> Message {
    let packet = Message::default().number(10, 1).message(field, content); // trusted_packet_sequence_id
    Message::default().message(1, &packet)
}

/// What the clocks showed at one moment; the trace's time is that of the events.
#[must_use]
pub fn clocks(clocks: &[(u32, u64)]) -> Message {
    let mut snapshot = Message::default();
    for (clock, time_ns) in clocks {
        let clock = Message::default()
            .number(1, (*clock).into()) // clock_id
            .number(2, *time_ns); // timestamp
        snapshot = snapshot.message(1, &clock); // clocks
    }
    let snapshot = snapshot.number(2, CLOCK_MONOTONIC.into()); // primary_trace_clock
    packet(6, &snapshot) // clock_snapshot
}

/// A track of this name, in the track `parent` if that is not 0.
#[must_use]
pub fn track(uuid: u64, parent: u64, name: &str) -> Message {
    let mut track = Message::default().number(1, uuid).text(2, name); // uuid, name
    if parent != 0 {
        track = track.number(5, parent); // parent_uuid
    }
    packet(60, &track) // track_descriptor
}

/// The track of a process.
#[must_use]
pub fn process(uuid: u64, tgid: u32, name: Option<&str>) -> Message {
    let mut process = Message::default().number(1, tgid.into()); // pid
    if let Some(name) = name {
        process = process.text(6, name); // process_name
    }
    let track = Message::default().number(1, uuid).message(3, &process); // uuid, process
    packet(60, &track)
}

/// The track of a thread.
#[must_use]
pub fn thread(uuid: u64, parent: u64, tgid: u32, pid: u32, name: Option<&str>) -> Message {
    let mut thread = Message::default()
        .number(1, tgid.into()) // pid
        .number(2, pid.into()); // tid
    if let Some(name) = name {
        thread = thread.text(5, name); // thread_name
    }
    let track = Message::default()
        .number(1, uuid)
        .number(5, parent) // parent_uuid
        .message(4, &thread); // thread
    packet(60, &track)
}

/// `TrackEvent.Type`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A slice begins.
    Begin = 1,
    /// The latest slice on this track that has not ended does.
    End = 2,
    /// A slice without length.
    Instant = 3,
}

/// A `TrackEvent` that is being written.
pub struct Event {
    /// What it is.
    pub kind: Kind,
    /// The track that it is on.
    pub track: u64,
    fields: Message,
}

impl Event {
    /// On the track `uuid`.
    #[must_use]
    pub fn new(kind: Kind, track: u64) -> Self {
        let fields = Message::default()
            .number(9, kind as u64) // type
            .number(11, track); // track_uuid
        Self {
            kind,
            track,
            fields,
        }
    }

    fn with(mut self, add: impl FnOnce(Message) -> Message) -> Self {
        self.fields = add(self.fields);
        self
    }

    /// What is written on the slice.
    #[must_use]
    pub fn name(self, name: &str) -> Self {
        self.with(|event| event.text(22, "lock").text(23, name)) // categories, name
    }

    /// The arrow `id` begins here.
    #[must_use]
    pub fn flow(self, id: u64) -> Self {
        self.with(|event| event.fixed64(47, id)) // flow_ids
    }

    /// The arrow `id` ends here.
    #[must_use]
    pub fn flow_end(self, id: u64) -> Self {
        self.with(|event| event.fixed64(48, id)) // terminating_flow_ids
    }

    /// An argument that is a number.
    #[must_use]
    pub fn number(self, name: &str, value: u64) -> Self {
        let argument = Message::default().text(10, name).number(3, value); // name, uint_value
        self.with(|event| event.message(4, &argument)) // debug_annotations
    }

    /// An argument that is text.
    #[must_use]
    pub fn text(self, name: &str, value: &str) -> Self {
        let argument = Message::default().text(10, name).text(6, value); // name, string_value
        self.with(|event| event.message(4, &argument))
    }

    /// The packet, with a time of the clock of the events.
    #[must_use]
    pub fn at(&self, time_ns: u64) -> Message {
        let packet = Message::default()
            .number(8, time_ns) // timestamp
            .number(10, 1) // trusted_packet_sequence_id
            .number(58, CLOCK_MONOTONIC.into()) // timestamp_clock_id
            .message(11, &self.fields); // track_event
        Message::default().message(1, &packet)
    }
}
