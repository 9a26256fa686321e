// SPDX-License-Identifier: GPL-2.0-only
//! Userspace of `scx_proxy`, a sched_ext scheduler with proxy execution.
//!
//! `cli` says what can be asked for, `config` also in a file; `loader` brings the BPF scheduler into the
//! kernel and keeps it there. `events` is what is said of waits, in types and with names, and `waits` keeps account of
//! those that go on. `agent` follows all of them and gives the scheduler hints,
//! `beside` watches without scheduling. `stats` says what it did; `client` asks. `locks` decides which locks are followed on a kernel, `doctor`
//! reports that. `watcher` is a process beside it, which follows the agent's events: there `watch` sums
//! them up, and `naming` finds out what is in them; `top`
//! shows it live, `record` and `replay` keep it, `bugreport` sends it, `metrics` hands it on. `manual` makes man pages and
//! completions of `cli`. `model` specifies the scheduler, for tests; `fuzz` is what a fuzzer calls. `clock` and `output` are for all
//! programs.

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
compile_error!(
    "scx_proxy runs on Linux on x86-64 only: it reads registers and locks of other tasks as they are there"
);

pub mod abi;
pub mod agent;
pub mod beside;
pub mod bugreport;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod doctor;
pub mod events;
#[cfg(feature = "fuzzed")]
#[doc(hidden)]
pub mod fuzz;
pub mod loader;
pub mod locks;
pub mod manual;
pub mod memory;
pub mod metrics;
#[cfg(feature = "model")]
pub mod model;
pub mod naming;
pub mod output;
pub mod record;
pub mod replay;
pub mod service;
pub mod stats;
pub mod top;
pub mod waits;
pub mod watch;
pub mod watcher;
