// SPDX-License-Identifier: GPL-2.0-only
//! A [`Batch`] as JSON, for the stats socket: events are bytes in base64, since there may be very
//! many. Both ends are of one build on one machine.

use anyhow::{Context, Result, ensure};
use base64::prelude::{BASE64_STANDARD, Engine};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::abi::EVENT_BYTES;
use crate::events::{Batch, Event, Names};

#[derive(Serialize, Deserialize)]
struct Wire {
    /// `EVENT_BYTES` of who sent it.
    event_bytes: usize,
    events: String,
    snapshot: bool,
    lost: u64,
    /// JSON as text: as values, full tables of names would not fit into the sender's heap.
    names: String,
    donating: bool,
}

/// Packs a batch.
///
/// # Errors
/// Those of the serializer.
pub fn to_json(batch: &Batch) -> Result<Value> {
    let mut bytes = Vec::with_capacity(batch.events.len() * EVENT_BYTES);
    Event::write_all(&batch.events, &mut bytes);
    let wire = Wire {
        event_bytes: EVENT_BYTES,
        events: BASE64_STANDARD.encode(bytes),
        snapshot: batch.snapshot,
        lost: batch.lost,
        names: serde_json::to_string(&batch.names)?,
        donating: batch.donating,
    };
    Ok(serde_json::to_value(wire)?)
}

/// Unpacks a batch.
///
/// # Errors
/// It is none, or of another build with other events.
pub fn from_json(value: &Value) -> Result<Batch> {
    let wire = Wire::deserialize(value).context("not a batch of events")?;
    ensure!(
        wire.event_bytes == EVENT_BYTES,
        "the scheduler that runs is of another version: its events have {} bytes, ours {}",
        wire.event_bytes,
        EVENT_BYTES
    );
    let bytes = BASE64_STANDARD
        .decode(wire.events)
        .context("events that are no base64")?;
    ensure!(
        bytes.len().is_multiple_of(EVENT_BYTES),
        "events are cut short"
    );
    Ok(Batch {
        events: Event::read_all(&bytes, EVENT_BYTES),
        snapshot: wire.snapshot,
        restated: false,
        lost: wire.lost,
        names: serde_json::from_str::<Names>(&wire.names).context("names that are none")?,
        donating: wire.donating,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi;
    use crate::events::Site;

    #[test]
    fn a_batch_survives_the_wire() {
        let event = abi::proxy_event {
            time_ns: u64::MAX,
            lock: 0xffff_8880_0000_1234,
            kind: abi::proxy_event_kind_EVENT_WAKE,
            inverted_ns: 7,
            ..Default::default()
        };
        let site = Site {
            kind: 1,
            tgid: 0,
            at: 5,
        };
        let batch = Batch {
            events: vec![event.into(), abi::proxy_event::default().into()],
            snapshot: true,
            restated: false,
            lost: 3,
            names: Names {
                sites: vec![(site, "fdget_pos".into())],
                ..Names::default()
            },
            donating: true,
        };
        let back = from_json(&to_json(&batch).expect("JSON")).expect("a batch");
        assert_eq!(back.events, batch.events);
        assert_eq!(
            (back.lost, back.names, back.donating, back.snapshot),
            (3, batch.names, true, true)
        );
    }

    #[test]
    fn what_is_no_batch_is_refused() {
        let batch = to_json(&Batch::default()).expect("JSON");
        let mut other = batch.clone();
        other["event_bytes"] = 40.into();
        let why = from_json(&other).expect_err("another version").to_string();
        assert!(why.contains("another version"), "{why}");
        let mut cut = batch.clone();
        cut["events"] = BASE64_STANDARD.encode([0_u8; 3]).into();
        assert!(from_json(&cut).is_err());
        assert!(from_json(&Value::Null).is_err());
    }
}
