// SPDX-License-Identifier: GPL-2.0-only
//! A recording may be anybody's. As it is, and again with its checksums set right, which no fuzzer finds: then
//! everything that `replay` makes of it.

use crate::record::format::{CHUNK_HEADER_BYTES, CHUNK_MAGIC, HEADER_BYTES};
use crate::record::reader::{Recording, Span};
use crate::replay::summary::Summary;
use crate::replay::{self, Sink, Text, json::Json, perfetto::Trace};
use crate::watch::{View, Watch};

const ROWS: usize = 50;

pub fn run(input: &[u8]) {
    read(input);
    let whole = repaired(input);
    if whole != input {
        read(&whole);
    }
}

/// With the checksums of the file's header and of every chunk as they should be.
fn repaired(input: &[u8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    if bytes.len() >= HEADER_BYTES {
        bytes[36..40].fill(0);
        let sum = crc32fast::hash(&bytes[..HEADER_BYTES]);
        bytes[36..40].copy_from_slice(&sum.to_ne_bytes());
    }
    // from the last one on: one may lie in the body of another
    let headers = (HEADER_BYTES..bytes.len()).step_by(CHUNK_HEADER_BYTES);
    for at in headers.rev() {
        let Some(header) = bytes.get(at..at + CHUNK_HEADER_BYTES) else {
            continue;
        };
        if !header.starts_with(&CHUNK_MAGIC) {
            continue;
        }
        let body_bytes = header[16..20].first_chunk().copied();
        let body_bytes = u32::from_ne_bytes(body_bytes.unwrap_or_default()) as usize;
        let body = at + CHUNK_HEADER_BYTES;
        if let Some(body) = bytes.get(body..body.saturating_add(body_bytes)) {
            let sum = crc32fast::hash(body);
            bytes[at + 20..at + 24].copy_from_slice(&sum.to_ne_bytes());
        }
        let sum = crc32fast::hash(&bytes[at + 8..at + CHUNK_HEADER_BYTES]);
        bytes[at + 4..at + 8].copy_from_slice(&sum.to_ne_bytes());
    }
    bytes
}

fn read(bytes: &[u8]) {
    super::with_file(bytes, |_, path| {
        let Ok(recording) = Recording::open(&path) else {
            return;
        };
        let whole = Span::default();
        let part = Span {
            from: Some(0.01),
            to: Some(1.5),
        };
        for span in [whole, part] {
            let (begin_ns, end_ns) = recording.times(span);
            assert!(begin_ns <= end_ns, "it ends before it begins");
            let mut watch = Watch::new(begin_ns);
            let mut batches = recording.batches(span);
            let mut events = 0;
            for batch in batches.by_ref().map_while(Result::ok) {
                events += batch.events.len();
                watch.learn(&batch);
            }
            assert!(events <= 2 * bytes.len() / 40, "more events than bytes");
            let _ = batches.damage().describe();
            check(&watch.view(end_ns, ROWS));
        }
        sinks(&recording, whole);
        sinks(&recording, part);
    });
}

/// Rules that hold for whatever was recorded.
pub fn check(view: &View) {
    let rows = view.locks.iter().map(|row| &row.sums);
    let rows = rows.chain(view.classes.iter().map(|row| &row.sums));
    for sums in rows.chain([&view.total]) {
        assert!(
            sums.inverted_ns <= sums.waited_ns,
            "more inverted than waited: {sums:?}"
        );
        assert!(sums.longest_ns <= sums.waited_ns, "{sums:?}");
    }
    assert!(view.locks.len() <= ROWS + 1 && view.chains.len() <= ROWS);
}

fn sinks(recording: &Recording, span: Span) {
    let header = recording.header();
    let mut text = Vec::new();
    feed(recording, span, &mut Text(&mut text));
    super::assert_printable(&String::from_utf8_lossy(&text));
    let mut text = Vec::new();
    feed(recording, span, &mut Summary::new(header, &mut text));
    super::assert_printable(&String::from_utf8_lossy(&text));
    let mut text = Vec::new();
    feed(recording, span, &mut Json::new(&mut text));
    let text = String::from_utf8_lossy(&text);
    super::assert_printable(&text);
    for line in text.lines() {
        let line: Result<serde_json::Value, _> = serde_json::from_str(line);
        assert!(line.is_ok(), "no JSON: {line:?}");
    }
    if let Ok(mut trace) = Trace::new(Vec::new(), header) {
        feed(recording, span, &mut trace);
    }
}

fn feed(recording: &Recording, span: Span, sink: &mut dyn Sink) {
    // memory takes all that is written
    let fed = replay::feed(recording, span, sink);
    assert!(fed.is_ok(), "{fed:?}");
}
