// SPDX-License-Identifier: GPL-2.0-only
//! The specification of the donor engine, in Rust: what it must decide, and a
//! small machine to decide it on.
//!
//! - `policy`: the border. [`policy::Policy`] is what a scheduler is, the
//!   callbacks of sched_ext; [`policy::Kernel`] is what it may ask and do.
//! - `key`: arithmetic of keys, written anew from its definition.
//! - `reference`: the donor engine, said in the most obvious way.
//! - `program`, `kernel`, `sim` (and `ports`, `cpu`, `lock`, `change`): a seeded,
//!   deterministic simulator of what sched_ext and the locking code do.
//! - `invariants`: what must hold after each step, whatever the policy.
//! - `observe`, `scenario`, `verdict`: what a run amounts to, and what it should.
//!
//! Nothing here does I/O or knows the real kernel; everything is a function of
//! its input and of one seed.

mod change;
mod cpu;
pub mod invariants;
pub mod kernel;
pub mod key;
mod lock;
pub mod observe;
pub mod policy;
mod ports;
pub mod program;
pub mod reference;
pub mod rng;
pub mod scenario;
pub mod sim;
pub mod verdict;
