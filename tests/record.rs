// SPDX-License-Identifier: GPL-2.0-only
//! Recordings and metrics as a user meets them, from a scheduler that is none: a stats server that
//! gives what a test wants.

#[path = "record/any.rs"]
mod any;
#[path = "record/fake.rs"]
mod fake;
#[path = "record/metrics.rs"]
mod metrics;
#[path = "record/recording.rs"]
mod recording;
#[path = "record/trace.rs"]
mod trace;
