// SPDX-License-Identifier: GPL-2.0-only
//! An end that userspace did not ask for: why the kernel ejected the scheduler, and the exit code
//! by which a service manager tells an overload, after which it may try again, from a fault.

use scx_utils::ScxExitKind;

/// Why the scheduler is no longer loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Tasks waited for too long, by the kernel's watchdogs: of sched_ext, of RCU, of lockups.
    Overload,
    /// The scheduler did what it may not, or failed in userspace.
    Fault,
    /// An administrator: Alt-SysRq-S.
    SysRq,
}

impl Cause {
    /// By the kernel's `enum scx_exit_kind`, and what it says. The watchdogs of RCU and of lockups
    /// report plain errors.
    #[must_use]
    pub fn new(kind: i32, said: &str) -> Self {
        const OTHER_WATCHDOGS: [&str; 3] = ["RCU CPU stall", "soft lockup", "hard lockup"];
        if kind == ScxExitKind::SysRq as i32 {
            Cause::SysRq
        } else if kind == ScxExitKind::ErrorStall as i32
            || OTHER_WATCHDOGS.iter().any(|name| said.contains(name))
        {
            Cause::Overload
        } else {
            Cause::Fault
        }
    }

    /// 1 is for refusals, see `scx_proxy man`.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Cause::Overload => 2,
            Cause::Fault => 3,
            Cause::SysRq => 4,
        }
    }
}

/// The scheduler was loaded, and is no longer.
#[derive(Debug, thiserror::Error)]
#[error("{said}")]
pub struct Ejected {
    /// By what.
    pub cause: Cause,
    /// The kernel's report, or what went wrong.
    pub said: String,
}

impl Ejected {
    /// An error after the load: a fault, unless the kernel's report came with its cause.
    #[must_use]
    pub fn or_fault(error: anyhow::Error) -> Self {
        let fault = |error: anyhow::Error| Self {
            cause: Cause::Fault,
            said: format!("{error:#}"),
        };
        error.downcast().unwrap_or_else(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overload_is_told_from_a_fault() {
        const STALL: i32 = ScxExitKind::ErrorStall as i32;
        const ERROR: i32 = ScxExitKind::Error as i32;
        for (kind, said, cause) in [
            (
                STALL,
                "EXIT: runnable task stall (cc1[1] failed to run for 30.1s)",
                Cause::Overload,
            ),
            (
                ERROR,
                "EXIT: runtime error (RCU CPU stall detected!)",
                Cause::Overload,
            ),
            (
                ERROR,
                "EXIT: runtime error (soft lockup - CPU 3 stuck for 22s)",
                Cause::Overload,
            ),
            (
                ERROR,
                "EXIT: runtime error (invalid DSQ ID 0x7)",
                Cause::Fault,
            ),
            (
                ScxExitKind::ErrorBPF as i32,
                "EXIT: scx_bpf_error (no group)",
                Cause::Fault,
            ),
            (
                ScxExitKind::SysRq as i32,
                "EXIT: disabled by sysrq-S",
                Cause::SysRq,
            ),
        ] {
            assert_eq!(Cause::new(kind, said), cause, "{said}");
        }
    }

    #[test]
    fn what_else_fails_after_the_load_is_a_fault() {
        let known = Ejected {
            cause: Cause::Overload,
            said: "stall".into(),
        };
        assert_eq!(Ejected::or_fault(known.into()).cause, Cause::Overload);
        let other = Ejected::or_fault(anyhow::anyhow!("closed").context("stats"));
        assert_eq!(
            (other.cause, other.said.as_str()),
            (Cause::Fault, "stats: closed")
        );
    }
}
