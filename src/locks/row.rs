// SPDX-License-Identifier: GPL-2.0-only
//! What becomes of one lock type: the row of a plan.

use serde::Serialize;

use super::LockType;

/// Whether waits for a lock type lead to donations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// They do.
    On,
    /// They could on another kernel, or by another `--locks`.
    Off,
    /// There is no owner to donate to.
    Never,
}

impl State {
    /// The word for reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Never => "never",
        }
    }
}

/// What becomes of one lock type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The type.
    pub lock: LockType,
    /// Whether it is followed.
    pub state: State,
    /// How waiters are seen, or would be.
    pub seen: &'static str,
    /// How the owner is read, or would be.
    pub owner: &'static str,
    /// Why it is not followed, or not as well as it could be.
    pub why: Option<String>,
    /// What would help.
    pub help: Option<String>,
    /// The optional BPF programs that it needs.
    pub programs: Vec<&'static str>,
}

impl Row {
    pub(super) fn on(
        lock: LockType,
        seen: &'static str,
        owner: &'static str,
        programs: &[&'static str],
    ) -> Self {
        Self {
            lock,
            state: State::On,
            seen,
            owner,
            why: None,
            help: None,
            programs: programs.to_vec(),
        }
    }

    pub(super) fn never(lock: LockType, seen: &'static str, why: &str) -> Self {
        Self {
            state: State::Never,
            ..Self::on(lock, seen, "none", &[]).because(why)
        }
    }

    /// A remark that leaves the state as it is.
    pub(super) fn because(self, why: impl Into<String>) -> Self {
        Self {
            why: Some(why.into()),
            ..self
        }
    }

    pub(super) fn helped_by(self, help: impl Into<String>) -> Self {
        Self {
            help: Some(help.into()),
            ..self
        }
    }

    pub(super) fn off(self, why: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            state: State::Off,
            programs: Vec::new(),
            ..self.because(why).helped_by(help)
        }
    }

    /// Off if the kernel lacks something.
    pub(super) fn needs(self, missing: &[String], help: &str) -> Self {
        if missing.is_empty() || self.state == State::Off {
            return self;
        }
        self.off(
            format!("this kernel has no {}", missing.join(", no ")),
            help,
        )
    }
}
