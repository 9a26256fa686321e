// SPDX-License-Identifier: GPL-2.0-only
//! What is to be seen of a scheduler: who waits for what, for how long, and at whose expense.
//!
//! Data flow: events, in batches with the names of what is in them (`batch`) → [`Watch`], which
//! sums them up in bounded tables → a [`View`]. A running scheduler and a recording go the same
//! way. `wire` is how both travel over the stats socket. Pure: no I/O, no clock.

mod aggregate;
pub mod batch;
mod chains;
pub mod client;
mod history;
pub mod label;
mod ledger;
pub mod names;
mod show;
pub mod stream;
mod table;
pub mod view;
mod waits;
pub mod wire;

pub use aggregate::Watch;
pub use batch::Batch;
pub use client::Client;
pub use label::Labels;
pub use names::{NameTable, Names, Site};
pub use view::View;

#[cfg(test)]
mod bounds;
#[cfg(test)]
mod tests;
