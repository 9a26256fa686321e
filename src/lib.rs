//! Userspace of `scx_proxy`, a sched_ext scheduler with proxy execution.
//!
//! `cli` says what can be asked for, `loader` brings the BPF scheduler into the
//! kernel and keeps it there, `agent` follows who waits for whom and gives it hints,
//! `stats` says what it did, `top` shows it live. `locks` decides which locks are followed on a
//! kernel, `doctor` reports that. `model` specifies the scheduler, for tests.

pub mod abi;
pub mod agent;
pub mod cli;
pub mod doctor;
pub mod loader;
pub mod locks;
pub mod model;
pub mod output;
pub mod stats;
pub mod top;
pub mod watch;
