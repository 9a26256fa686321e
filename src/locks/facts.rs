// SPDX-License-Identifier: GPL-2.0-only
//! What a kernel has that bears on locks: a set of facts, one a line of text.
//!
//! | line | says |
//! |---|---|
//! | `release R` | what `uname -r` prints |
//! | `config PREEMPT_RT` | mutexes and rwsems are rt_mutexes |
//! | `module M` | module M can be loaded, is, or is built in |
//! | `types M` | module M is loaded and describes its types |
//! | `func F` | BTF has function F, and kallsyms its plain name: fentry can attach |
//! | `tp T` | BTF has tracepoint T: tp_btf can attach |
//! | `field S.M` | struct S has member M |
//! | `ksym K` | kallsyms has K, which is no `func` |
//!
//! Only names that have to do with locking are kept (`is_of_interest`), so that a kernel's facts are a
//! file that a test can carry. Asking about any other name is a mistake in this program.

use std::collections::BTreeSet;
use std::fmt;

/// Parts of the names that are kept.
const INTEREST: [&str; 25] = [
    "mutex",
    "rwsem",
    "rw_sem",
    "rwbase",
    "futex",
    "contention",
    "contended",
    "binder",
    "ntsync",
    "percpu_down",
    "percpu_up",
    "semaphore",
    "__down",
    "down_read",
    "down_write",
    "blocked_on",
    "blocker",
    "pi_blocked",
    "page_offset_base",
    "pgdir_shift",
    "sme_me_mask",
    "pgtable_l5",
    "scx_bpf_",
    "bpf_iter_scx",
    "bpf_task_from_pid",
];

/// Beginnings of names in Rust, and of what the build makes for each tracepoint, call and export.
const NOISE: [&str; 27] = [
    "_R",
    "__BTF_ID__",
    "__percpu_rwsem_rc_",
    "__start_runtime_",
    "__stop_runtime_",
    "security_hook_active_",
    "__UNIQUE_ID",
    "__flags_",
    "__p_syscall_meta_",
    "__syscall_meta_",
    "args__",
    "types__",
    "__ksymtab_",
    "__pfx_",
    "__bpf_trace_",
    "__tracepoint_",
    "__traceiter_",
    "__probestub_",
    "__SCT__",
    "__SCK__",
    "__tpstrtab_",
    "__event_",
    "event_",
    "perf_trace_",
    "trace_event_",
    "trace_raw_",
    "print_fmt_",
];

/// Whether facts about this function, tracepoint, symbol, struct or member are kept.
pub(super) fn is_of_interest(name: &str) -> bool {
    let plain = name.split('.').next().unwrap_or(name);
    INTEREST.iter().any(|part| name.contains(part))
        && !NOISE.iter().any(|prefix| name.starts_with(prefix))
        && !plain.ends_with("_mutex")
        && !plain.ends_with("_key")
        && !name.ends_with(".cold")
}

/// Whether facts about this member are kept: all of a struct of interest, few of tasks.
pub(super) fn is_field_of_interest(record: &str, member: &str) -> bool {
    is_of_interest(record) || record == "task_struct" && is_of_interest(member)
}

/// What a kernel has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelFacts {
    release: String,
    lines: BTreeSet<String>,
}

/// A list of facts that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// A line that is no fact.
    #[error("line {nr} is no fact: {line:?}")]
    NoFact {
        /// Counted from 1.
        nr: usize,
        /// What stands there.
        line: String,
    },
    /// There has to be one `release` line.
    #[error("no line says which release this is")]
    NoRelease,
}

const KINDS: [&str; 7] = ["config", "module", "types", "func", "tp", "field", "ksym"];

impl KernelFacts {
    pub(super) fn new(release: String, lines: BTreeSet<String>) -> Self {
        Self { release, lines }
    }

    /// Read what `Display` wrote; `#` begins a comment line.
    ///
    /// # Errors
    /// The first line that is no fact.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut release = None;
        let mut lines = BTreeSet::new();
        for (nr, line) in text.lines().enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match line.split_once(' ') {
                Some(("release", name)) => release = Some(name.to_owned()),
                Some((kind, name)) if KINDS.contains(&kind) && !name.contains(' ') => {
                    lines.insert(line.to_owned());
                }
                _ => {
                    return Err(ParseError::NoFact {
                        nr: nr + 1,
                        line: line.to_owned(),
                    });
                }
            }
        }
        let release = release.ok_or(ParseError::NoRelease)?;
        Ok(Self { release, lines })
    }

    /// The same kernel without some of its facts, to see what depends on them.
    #[must_use]
    pub fn without(&self, lines: &[&str]) -> Self {
        let mut less = self.clone();
        less.lines.retain(|line| !lines.contains(&line.as_str()));
        less
    }

    fn has(&self, kind: &str, name: &str) -> bool {
        self.lines.contains(&format!("{kind} {name}"))
    }

    /// What `uname -r` prints.
    #[must_use]
    pub fn release(&self) -> &str {
        &self.release
    }

    /// Whether the kernel is PREEMPT_RT, whose mutexes and rwsems are rt_mutexes.
    #[must_use]
    pub fn preempt_rt(&self) -> bool {
        self.has("config", "PREEMPT_RT") || self.field("mutex", "rtmutex")
    }

    /// Whether the module is loaded, or could be.
    #[must_use]
    pub fn module(&self, name: &str) -> bool {
        debug_assert!(is_of_interest(name), "facts about {name} are not kept");
        self.has("module", name) || self.module_types(name)
    }

    /// Whether the module is loaded and describes its types.
    #[must_use]
    pub fn module_types(&self, name: &str) -> bool {
        debug_assert!(is_of_interest(name), "facts about {name} are not kept");
        self.has("types", name)
    }

    /// Whether fentry and fexit can attach to the function.
    #[must_use]
    pub fn func(&self, name: &str) -> bool {
        debug_assert!(is_of_interest(name), "facts about {name} are not kept");
        self.has("func", name)
    }

    /// Whether tp_btf can attach to the tracepoint.
    #[must_use]
    pub fn tracepoint(&self, name: &str) -> bool {
        debug_assert!(is_of_interest(name), "facts about {name} are not kept");
        self.has("tp", name)
    }

    /// Whether the struct has the member.
    #[must_use]
    pub fn field(&self, record: &str, member: &str) -> bool {
        debug_assert!(
            is_field_of_interest(record, member),
            "facts about {record}.{member} are not kept"
        );
        self.has("field", &format!("{record}.{member}"))
    }

    /// Whether kallsyms has the symbol.
    #[must_use]
    pub fn ksym(&self, name: &str) -> bool {
        debug_assert!(is_of_interest(name), "facts about {name} are not kept");
        self.has("ksym", name) || self.has("func", name)
    }
}

impl fmt::Display for KernelFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "release {}", self.release)?;
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let text = "release 6.18.15\nconfig PREEMPT_RT\nfield mutex.owner\nfunc __futex_wait\n";
        let facts = KernelFacts::parse(text).expect("facts");
        assert_eq!(facts.to_string(), text);
        assert!(facts.preempt_rt() && facts.field("mutex", "owner"));
        assert!(facts.func("__futex_wait") && facts.ksym("__futex_wait"));
        assert!(!facts.without(&["func __futex_wait"]).func("__futex_wait"));
    }

    #[test]
    fn a_line_that_is_no_fact_is_named() {
        let error = KernelFacts::parse("# kernel\nrelease 1\nfunction mutex_lock\n");
        assert_eq!(
            error.expect_err("refused").to_string(),
            "line 3 is no fact: \"function mutex_lock\""
        );
        assert_eq!(
            KernelFacts::parse("func mutex_lock"),
            Err(ParseError::NoRelease)
        );
    }

    #[test]
    fn other_locks_and_the_leavings_of_the_build_are_not_kept() {
        for (name, kept) in [
            ("mutex_lock", true),
            ("__mutex_lock.constprop.0", true),
            ("scx_bpf_dsq_move", true),
            ("cgroup_mutex", false),
            ("text_mutex.12", false),
            ("mutex_lock.cold", false),
            ("__pfx_mutex_lock", false),
            ("schedule", false),
        ] {
            assert_eq!(is_of_interest(name), kept, "{name}");
        }
        assert!(is_field_of_interest("mutex", "osq"));
        assert!(is_field_of_interest("task_struct", "blocked_on"));
        assert!(!is_field_of_interest("inode", "i_rwsem"));
    }
}
