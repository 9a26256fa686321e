// SPDX-License-Identifier: GPL-2.0-only
//! What a kernel has that bears on locks: a set of facts, one per line of text.
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
//! Only names that this program asks about are kept, so that a kernel's facts are a file that a test can carry.
//! Asking about any other name is a mistake in this program.

use std::collections::BTreeSet;
use std::fmt;

/// Kernel functions without which the scheduler cannot work at all.
pub const KFUNCS_NEEDED: [&str; 7] = [
    "scx_bpf_create_dsq",
    "scx_bpf_dsq_move",
    "scx_bpf_dsq_move_to_local",
    "scx_bpf_select_cpu_dfl",
    "scx_bpf_kick_cpu",
    "bpf_iter_scx_dsq_new",
    "bpf_task_from_pid",
];

/// Modules with locks of their own.
pub(super) const MODULES: [&str; 3] = ["binder_linux", "rust_binder", "ntsync"];

const TRACEPOINTS: [&str; 3] = ["contention_begin", "contention_end", "binder_transaction"];

/// Functions and other symbols; the kfuncs that loading needs come on top.
const SYMBOLS: [&str; 5] = [
    "__futex_wait",
    "is_rwsem_reader_owned",
    "ntsync_schedule",
    "ntsync_schedule.isra.0",
    "page_offset_base",
];

/// Structs and their members.
const FIELDS: [(&str, &str); 15] = [
    ("binder_thread", "pid"),
    ("binder_transaction", "to_thread"),
    ("mutex", "owner"),
    ("mutex", "rtmutex"),
    ("ntsync_obj", "u"),
    ("ntsync_q", "entries"),
    ("ntsync_q", "owner"),
    ("ntsync_q", "signaled"),
    ("ntsync_q", "task"),
    ("rt_mutex_base", "owner"),
    ("rt_mutex_waiter", "lock"),
    ("rw_semaphore", "count"),
    ("rw_semaphore", "owner"),
    ("task_struct", "blocked_on"),
    ("task_struct", "pi_blocked_on"),
];

/// Whether facts about this function or symbol are kept.
pub(super) fn is_symbol_kept(name: &str) -> bool {
    SYMBOLS.contains(&name) || KFUNCS_NEEDED.contains(&name)
}

/// Whether facts about this tracepoint are kept.
pub(super) fn is_tracepoint_kept(name: &str) -> bool {
    TRACEPOINTS.contains(&name)
}

/// Whether facts about members of this struct are kept.
pub(super) fn is_record_kept(record: &str) -> bool {
    FIELDS.iter().any(|(name, _)| *name == record)
}

/// Whether facts about this member are kept.
pub(super) fn is_field_kept(record: &str, member: &str) -> bool {
    FIELDS.contains(&(record, member))
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
        debug_assert!(MODULES.contains(&name), "facts about {name} are not kept");
        self.has("module", name) || self.module_types(name)
    }

    /// Whether the module is loaded and describes its types.
    #[must_use]
    pub fn module_types(&self, name: &str) -> bool {
        debug_assert!(MODULES.contains(&name), "facts about {name} are not kept");
        self.has("types", name)
    }

    /// Whether fentry and fexit can attach to the function.
    #[must_use]
    pub fn func(&self, name: &str) -> bool {
        debug_assert!(is_symbol_kept(name), "facts about {name} are not kept");
        self.has("func", name)
    }

    /// Whether tp_btf can attach to the tracepoint.
    #[must_use]
    pub fn tracepoint(&self, name: &str) -> bool {
        debug_assert!(is_tracepoint_kept(name), "facts about {name} are not kept");
        self.has("tp", name)
    }

    /// Whether the struct has the member.
    #[must_use]
    pub fn field(&self, record: &str, member: &str) -> bool {
        debug_assert!(
            is_field_kept(record, member),
            "facts about {record}.{member} are not kept"
        );
        self.has("field", &format!("{record}.{member}"))
    }

    /// Whether kallsyms has the symbol.
    #[must_use]
    pub fn ksym(&self, name: &str) -> bool {
        debug_assert!(is_symbol_kept(name), "facts about {name} are not kept");
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

    /// What is frozen and never asked about is only noise in a diff.
    #[test]
    fn every_name_that_is_kept_is_asked_about() {
        // of this file, what follows the lists
        let own = include_str!("facts.rs").split_once("impl KernelFacts");
        let own = own.map_or("", |(_, rest)| rest);
        let sources = [include_str!("plan.rs"), include_str!("probe.rs"), own];
        let is_asked = |name: &str| {
            let quoted = format!("\"{name}\"");
            sources.iter().any(|text| text.contains(&quoted))
        };
        let members = FIELDS.iter().flat_map(|(record, member)| [record, member]);
        let names = MODULES.iter().chain(&TRACEPOINTS).chain(&SYMBOLS);
        let idle: Vec<_> = names.chain(members).filter(|it| !is_asked(it)).collect();
        assert!(idle.is_empty(), "{idle:?}");
    }
}
