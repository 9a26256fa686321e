// SPDX-License-Identifier: GPL-2.0-only
//! Random recordings, whole and damaged.

use std::fs;

use proptest::prelude::*;
use scx_proxy::abi::proxy_event;
use scx_proxy::events::{Batch, Event};
use scx_proxy::record::format::HEADER_BYTES;
use scx_proxy::record::reader::{Damage, Span};

use super::fake::{Folder, event};
use super::recording::{events, read, write};

fn any_event() -> impl Strategy<Value = Event> {
    (1_u32..=14, any::<[u64; 4]>(), 1_u32..20, 0_u32..20).prop_map(|(kind, words, pid, other)| {
        proxy_event {
            time_ns: words[0] >> 8,
            lock: words[1],
            value: words[2],
            site: words[3],
            ..event(kind, 0, pid, other)
        }
        .into()
    })
}

fn any_batch() -> impl Strategy<Value = Batch> {
    let events = prop::collection::vec(any_event(), 0..60);
    (events, 0_u64..3, any::<bool>()).prop_map(|(mut events, lost, donating)| {
        // snapshots have their place in a batch that is one
        events.retain(|event| !event.is_snapshot());
        Batch {
            events,
            lost,
            donating,
            ..Batch::default()
        }
    })
}

proptest! {
    // no files beside the sources
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn a_file_gives_back_what_it_was_given(batches in prop::collection::vec(any_batch(), 0..12)) {
        let folder = Folder::new();
        let path = folder.path("r");
        write(&path, 0, &batches);
        let (back, damage) = read(&path, Span::default());
        prop_assert_eq!(damage, Damage::default());
        prop_assert_eq!(events(&back), events(&batches));
        let lost = |batches: &[Batch]| batches.iter().map(|batch| batch.lost).sum::<u64>();
        prop_assert_eq!(lost(&back[..]), lost(&batches));
    }

    #[test]
    fn whatever_happens_to_a_file_it_is_read_to_its_end(
        batches in prop::collection::vec(any_batch(), 1..8),
        holes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        ring in any::<bool>(),
    ) {
        let folder = Folder::new();
        let path = folder.path("r");
        write(&path, if ring { 20_000 } else { 0 }, &batches);
        let mut bytes = fs::read(&path).expect("a file");
        for (at, byte) in &holes {
            let at = HEADER_BYTES + at.index(bytes.len() - HEADER_BYTES + 1);
            if let Some(hole) = bytes.get_mut(at) {
                *hole = *byte;
            }
        }
        bytes.truncate(HEADER_BYTES + cut.index(bytes.len() - HEADER_BYTES + 1));
        fs::write(&path, &bytes).expect("damaged");
        let (back, _) = read(&path, Span::default());
        let given = events(&batches);
        let back = events(&back);
        prop_assert!(back.len() <= given.len() + 20 * batches.len());
        for event in back {
            prop_assert!(event.is_snapshot() || given.contains(&event));
        }
    }
}
