// SPDX-License-Identifier: GPL-2.0-only
//! The vocabulary of all that deals with events: events themselves, lock words, what asked for a lock, names,
//! and batches of all that on their way. It knows nobody who makes or reads them.

pub mod batch;
pub mod edge;
pub mod event;
pub mod label;
pub mod line;
pub mod names;
pub mod stream;

pub use batch::Batch;
pub use event::{About, Begun, Ended, Event, Gave, Return, What};
pub use label::{Class, Labels, Task};
pub use names::{NameTable, Names, Site, TaskName};
