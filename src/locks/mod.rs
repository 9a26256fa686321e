// SPDX-License-Identifier: GPL-2.0-only
//! Which types of locks are followed on a kernel, how, and if not, why.
//!
//! `lock_type` is the list of all types. `set` is what the user asks for (`--locks`), `facts` what a kernel has that bears on locks, as
//! text that can be frozen, and `plan` what follows from the two: a `row` a type,
//! and what the programs in it attach to, a `probe` each. None of these does I/O or knows
//! libbpf; only `live` looks at the kernel that runs.

mod facts;
mod live;
mod lock_type;
mod plan;
mod probe;
mod row;
mod set;

pub use facts::{KFUNCS_NEEDED, KernelFacts, ParseError};
pub use live::FactsError;
pub use lock_type::LockType;
pub use plan::Plan;
pub use probe::{Kind as ProbeKind, Probe};
pub use row::{Row, State};
pub use set::{LockSet, LockSetError};

#[cfg(test)]
mod tests;
