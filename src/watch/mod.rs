// SPDX-License-Identifier: GPL-2.0-only
//! What is to be seen of a scheduler: who waits for what, for how long, and at whose expense.
//!
//! Data flow: events, in batches with the names of what is in them → [`Watch`], which
//! sums them up in bounded tables → a [`View`]. A running scheduler and a recording go the same
//! way. `wire` is how both travel over the stats socket. Pure: no I/O, no clock.

mod aggregate;
mod chains;
mod history;
mod ledger;
mod show;
mod table;
pub mod view;
pub mod wire;

pub use aggregate::Watch;
pub use view::View;

#[cfg(test)]
mod bounds;
#[cfg(test)]
mod tests;
