//! Userspace of `scx_proxy`, a sched_ext scheduler with proxy execution.
//!
//! `cli` says what can be asked for, `loader` brings the BPF scheduler into the
//! kernel and keeps it there, `agent` follows who waits for whom and gives it hints,
//! `stats` says what it did. `locks` decides which locks are followed on a kernel, `doctor`
//! reports that. `watcher` is a process beside it, which follows the agent's events: there `watch` sums
//! them up, and `naming` finds out what is in them; `top`
//! shows it live, `record` and `replay` keep it, `metrics` hands it on. `manual` makes man pages and
//! completions of `cli`. `model` specifies the scheduler, for tests. `clock` and `output` are for all
//! programs.

pub mod abi;
pub mod agent;
pub mod cli;
pub mod clock;
pub mod doctor;
pub mod loader;
pub mod locks;
pub mod manual;
pub mod memory;
pub mod metrics;
pub mod model;
pub mod naming;
pub mod output;
pub mod record;
pub mod replay;
pub mod stats;
pub mod top;
pub mod watch;
pub mod watcher;
