// SPDX-License-Identifier: GPL-2.0-only
//! The trace for Perfetto: what must hold of its packets. scripts/check-trace opens one in
//! Perfetto's own parser.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use proptest::prelude::*;
use scx_proxy::abi;
use scx_proxy::events::{Batch, Event, NameTable};
use scx_proxy::record::header;
use scx_proxy::replay::{Sink, perfetto};

use super::fake::{self, Folder, event, scx_proxy, story, wait};

/// The fields of a message: number, wire type, number or place of its bytes.
fn fields(bytes: &[u8]) -> Vec<(u64, u64, u64, &[u8])> {
    fn varint(bytes: &[u8], at: &mut usize) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = bytes[*at];
            *at += 1;
            value |= u64::from(byte & 127) << shift;
            if byte < 128 {
                break;
            }
        }
        value
    }
    let (mut at, mut fields) = (0, Vec::new());
    while at < bytes.len() {
        let key = varint(bytes, &mut at);
        let (mut number, mut inside): (u64, &[u8]) = (0, &[]);
        match key & 7 {
            0 => number = varint(bytes, &mut at),
            1 => {
                number = u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
                at += 8;
            }
            2 => {
                let len = varint(bytes, &mut at) as usize;
                inside = &bytes[at..at + len];
                at += len;
            }
            wire => panic!("wire type {wire}"),
        }
        fields.push((key >> 3, key & 7, number, inside));
    }
    fields
}

fn number(message: &[u8], field: u64) -> Option<u64> {
    let fields = fields(message).into_iter();
    fields
        .filter(|(number, ..)| *number == field)
        .map(|(_, _, number, _)| number)
        .next()
}

fn inside(message: &[u8], field: u64) -> Option<&[u8]> {
    let fields = fields(message).into_iter();
    fields
        .filter(|(number, ..)| *number == field)
        .map(|(.., inside)| inside)
        .next()
}

/// What was found in a trace.
#[derive(Debug, Default, PartialEq)]
struct Found {
    tracks: usize,
    slices: usize,
    marks: usize,
    flows: usize,
}

/// Looks at every packet: tracks are described once and before they are used, times of a track
/// do not go back, slices nest and end, arrows have two ends.
fn check(trace: &[u8]) -> Found {
    let mut found = Found::default();
    let mut tracks = HashSet::new();
    let mut open: HashMap<u64, (u64, u64)> = HashMap::new();
    let (mut begun, mut ended) = (HashMap::new(), HashMap::new());
    for (nr, (field, _, _, packet)) in fields(trace).into_iter().enumerate() {
        assert_eq!(field, 1, "a Trace has packets only");
        assert_eq!(number(packet, 10), Some(1), "one sequence");
        if nr == 0 {
            let clocks = inside(packet, 6).expect("a snapshot of the clocks first");
            assert_eq!(number(clocks, 2), Some(3), "the trace's time is monotonic");
        }
        if let Some(track) = inside(packet, 60) {
            let uuid = number(track, 1).expect("uuid");
            assert!(tracks.insert(uuid), "track {uuid:x} is described twice");
            if let Some(parent) = number(track, 5) {
                assert!(tracks.contains(&parent), "no parent of {uuid:x}");
            }
        }
        let Some(event) = inside(packet, 11) else {
            continue;
        };
        let time_ns = number(packet, 8).expect("a time");
        assert_eq!(number(packet, 58), Some(3), "monotonic");
        let uuid = number(event, 11).expect("a track");
        assert!(tracks.contains(&uuid), "track {uuid:x} is not described");
        let (depth, last_ns) = open.entry(uuid).or_default();
        assert!(*last_ns <= time_ns, "time goes back on {uuid:x}");
        *last_ns = time_ns;
        match number(event, 9) {
            Some(1) => {
                *depth += 1;
                found.slices += 1;
            }
            Some(2) => *depth = depth.checked_sub(1).expect("an end needs a beginning"),
            Some(3) => found.marks += 1,
            other => panic!("type {other:?}"),
        }
        for (field, wire, ..) in fields(event) {
            // flow_ids and terminating_flow_ids are fixed64, which parsers do not insist on
            assert!(!matches!(field, 47 | 48) || wire == 1, "field {field}");
        }
        if let Some(flow) = number(event, 47) {
            assert!(
                begun.insert(flow, time_ns).is_none(),
                "flow {flow} begins twice"
            );
        }
        if let Some(flow) = number(event, 48) {
            assert!(
                ended.insert(flow, time_ns).is_none(),
                "flow {flow} ends twice"
            );
            assert!(begun[&flow] <= time_ns, "flow {flow} leads back");
        }
    }
    assert!(
        open.values().all(|(depth, _)| *depth == 0),
        "all slices end"
    );
    let both = (begun.keys().collect::<HashSet<_>>(), ended.keys().collect());
    assert_eq!(both.0, both.1, "arrows have two ends");
    found.tracks = tracks.len();
    found.flows = begun.len();
    found
}

#[test]
fn the_trace_of_a_recording_has_tracks_slices_and_arrows() {
    let folder = Folder::new();
    let out = folder.text("trace");
    let recording = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/recordings/version-1.rec"
    );
    let ran = scx_proxy(&["replay", recording, "--perfetto", &out]);
    assert!(ran.status.success() && ran.stdout.is_empty(), "{ran:?}");
    let trace = std::fs::read(Path::new(&out)).expect("a trace");
    let expected = Found {
        tracks: 1 + 2 + 2 * 3, // locks and each of two, three processes with a thread each
        slices: 3 + 3 + 1,     // waits; held by tar twice, by firefox once; runs for firefox
        marks: 4,
        flows: 1,
    };
    assert_eq!(check(&trace), expected);

    let ran = scx_proxy(&["replay", recording, "--perfetto", "/dev/full"]);
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(said.contains("/dev/full: No space left"), "{said}");
}

fn trace(batches: &[Batch]) -> Vec<u8> {
    let mut names = NameTable::default();
    let mut bytes = Vec::new();
    let mut trace = perfetto::Trace::new(&mut bytes, &header(0)).expect("begins");
    for batch in batches {
        names.learn(&batch.names);
        trace.batch(batch, &names).expect("goes on");
    }
    trace.end(&names).expect("ends");
    drop(trace);
    bytes
}

#[test]
fn a_wait_whose_beginning_was_lost_is_shown() {
    let wake = abi::proxy_event {
        value: 500,
        ..wait(
            abi::proxy_event_kind_EVENT_WAKE,
            1000,
            101,
            102,
            fake::MUTEX,
        )
    };
    let batch = Batch {
        events: vec![wake.into()],
        ..story(0)
    };
    assert_eq!(check(&trace(&[batch])).slices, 2);
}

proptest! {
    // no files beside the sources
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4096) })]

    /// Events may be lost, so that anything may follow on anything.
    #[test]
    fn traces_are_well_formed_whatever_happens(
        events in prop::collection::vec(
            (1_u32..=11, 0_u64..50, 1_u32..6, 0_u32..6, 0_u64..4, 0_u64..3), 0..80),
        parts in 1_usize..4,
        snapshots in any::<bool>(),
    ) {
        let events: Vec<Event> = events
            .into_iter()
            .map(|(kind, time_ns, pid, other, lock, value)| Event::from(abi::proxy_event {
                lock: lock << 8,
                value,
                cpu: other,
                tgid: if pid % 2 == 0 { 0 } else { pid },
                ..event(kind, time_ns, pid, other)
            }))
            .collect();
        let batches: Vec<Batch> = events
            .chunks(events.len() / parts + 1)
            .map(|events| Batch {
                events: events.to_vec(),
                snapshot: snapshots,
                names: if snapshots { fake::names() } else { Default::default() },
                ..Batch::default()
            })
            .collect();
        check(&trace(&batches));
    }
}
