// SPDX-License-Identifier: GPL-2.0-only
//! Batches of events on their two ways: frames from the scheduler to the watcher, JSON from the watcher to its
//! clients. Then the tables that are made of them, and the classes of the exporter.

use std::time::Duration;

use super::recording::check;
use crate::events::Batch;
use crate::metrics::Classes;
use crate::watch::{Watch, wire};
use crate::watcher::feed::read_frame;

const ROWS: usize = 50;

pub fn run(input: &[u8]) {
    let Some((choice, bytes)) = super::chosen(input) else {
        return;
    };
    let mut watch = Watch::new(0);
    let mut classes = [false, true].map(Classes::new);
    let mut take = |batch: &Batch| {
        watch.learn(batch);
        for classes in &mut classes {
            classes.learn(batch, Duration::ZERO);
            for settled in classes.settled(Duration::from_secs(60)) {
                super::assert_printable(&settled.class);
            }
        }
        let now_ns = batch.events.last().map_or(0, |event| event.time_ns);
        check(&watch.view(now_ns, ROWS));
        for event in batch.events.iter().take(8) {
            for line in watch.history(event.about().pid) {
                super::assert_printable(&line.text);
            }
        }
        let json = wire::to_json(batch).and_then(|json| wire::from_json(&json));
        let back = json.unwrap_or_else(|error| panic!("{batch:?} does not come back: {error:#}"));
        assert_eq!(back.events, batch.events);
        assert_eq!(back.names, batch.names);
        assert_eq!((back.lost, back.snapshot), (batch.lost, batch.snapshot));
    };
    if choice & 1 == 0 {
        let mut frames = bytes;
        while let Ok(Some(batch)) = read_frame(&mut frames) {
            take(&batch);
        }
    } else {
        for line in bytes.split(|byte| *byte == b'\n') {
            let batch = serde_json::from_slice(line).ok();
            if let Some(batch) = batch.and_then(|value| wire::from_json(&value).ok()) {
                take(&batch);
            }
        }
    }
}
