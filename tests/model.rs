// SPDX-License-Identifier: GPL-2.0-only
//! The model: every scenario, and random programs, on every policy; and policies
//! against each other, step by step.
//!
//! `SCX_PROXY_SEED=<number>` repeats a random run; `SCX_PROXY_STEPS=<number>` sets
//! how many steps it has at the least.

mod engine;
#[path = "model/files.rs"]
mod files;
#[path = "model/generate.rs"]
mod generate;
#[path = "model/given.rs"]
mod given;
#[path = "model/inversion.rs"]
mod inversion;
#[path = "model/lockstep.rs"]
mod lockstep;
#[path = "model/machine.rs"]
mod machine;
#[path = "model/policies.rs"]
mod policies;
#[path = "model/random.rs"]
mod random;
#[path = "model/scenarios.rs"]
mod scenarios;
