// SPDX-License-Identifier: GPL-2.0-only
//! Where the optional BPF programs attach: what a plan's program is called, and what of the kernel's
//! it is called by.

use serde::Serialize;

use super::{KernelFacts, LockType, Plan};

/// Each program, how it attaches, and to what; as in `SEC()` in bpf/lock/.
const PROGRAMS: [(&str, Kind, &str); 9] = [
    ("proxy_cont_begin", Kind::Tracepoint, "contention_begin"),
    ("proxy_cont_end", Kind::Tracepoint, "contention_end"),
    ("proxy_cont_over", Kind::Tracepoint, "contention_end"),
    ("proxy_futex_wait", Kind::Fentry, "__futex_wait"),
    ("proxy_futex_done", Kind::Fexit, "__futex_wait"),
    ("proxy_futex_over", Kind::Fexit, "__futex_wait"),
    (
        "proxy_binder_transaction",
        Kind::Tracepoint,
        "binder_transaction",
    ),
    ("proxy_ntsync_wait", Kind::Kprobe, "ntsync_schedule"),
    ("proxy_ntsync_isra", Kind::Kprobe, "ntsync_schedule.isra.0"),
];

/// How a program attaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// To a tracepoint.
    Tracepoint,
    /// To the beginning of a function.
    Fentry,
    /// To the end of a function.
    Fexit,
    /// To an instruction.
    Kprobe,
}

impl Kind {
    /// The word for reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tracepoint => "tracepoint",
            Self::Fentry => "fentry",
            Self::Fexit => "fexit",
            Self::Kprobe => "kprobe",
        }
    }
}

/// An optional program on a kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Probe {
    /// The program's name in the BPF object.
    pub program: &'static str,
    /// How it attaches.
    pub kind: Kind,
    /// The tracepoint or function.
    pub target: &'static str,
    /// Whether the kernel has that.
    pub exists: bool,
    /// Whether the plan has the program loaded.
    pub attached: bool,
    /// The lock types that want it.
    pub locks: Vec<LockType>,
    /// How often the kernel left it out, of a scheduler that is loaded now; if that is known.
    pub skipped: Option<u64>,
}

impl Probe {
    /// All optional programs, with what becomes of them by a plan for a kernel.
    #[must_use]
    pub fn all(facts: &KernelFacts, plan: &Plan) -> Vec<Self> {
        let probe = |(program, kind, target)| {
            let rows = plan.rows().iter();
            let wanting = rows.filter(|row| row.programs.contains(&program));
            let locks: Vec<_> = wanting.map(|row| row.lock).collect();
            Self {
                program,
                kind,
                target,
                exists: match kind {
                    Kind::Tracepoint => facts.tracepoint(target),
                    Kind::Fentry | Kind::Fexit => facts.func(target),
                    Kind::Kprobe => facts.ksym(target),
                },
                attached: !locks.is_empty(),
                locks,
                skipped: None,
            }
        };
        PROGRAMS.into_iter().map(probe).collect()
    }

    /// Whether a program of that name, as the kernel has it, is this one: it keeps 15 bytes.
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        const KEPT: usize = libbpf_rs::libbpf_sys::BPF_OBJ_NAME_LEN as usize - 1;
        name == &self.program[..self.program.len().min(KEPT)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stands in the BPF sources: `SEC("?KIND/TARGET")`, and in the next line the name.
    #[test]
    fn the_table_is_that_of_the_sources() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/lock");
        let mut found = Vec::new();
        for file in std::fs::read_dir(folder).expect("folder") {
            let text = std::fs::read_to_string(file.expect("entry").path()).expect("text");
            let lines: Vec<_> = text.lines().collect();
            for pair in lines.windows(2) {
                let Some(section) = pair[0].strip_prefix("SEC(\"?") else {
                    continue;
                };
                let (kind, target) = section.split_once('/').expect("a target");
                let target = target.trim_end_matches("\")").to_owned();
                let name = pair[1].split(['(', ',', ')']).nth(1).expect("a name");
                found.push((name.to_owned(), kind.to_owned(), target));
            }
        }
        found.sort();
        let kept: std::collections::BTreeSet<_> = found
            .iter()
            .map(|(name, ..)| &name[..name.len().min(15)])
            .collect();
        assert_eq!(
            kept.len(),
            found.len(),
            "told apart by what the kernel keeps"
        );
        let kind = |kind| match kind {
            Kind::Tracepoint => "tp_btf",
            other => other.name(),
        };
        let mut table: Vec<_> = PROGRAMS
            .into_iter()
            .map(|(name, how, target)| (name.to_owned(), kind(how).to_owned(), target.to_owned()))
            .collect();
        table.sort();
        assert_eq!(found, table);
    }
}
