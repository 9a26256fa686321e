// SPDX-License-Identifier: GPL-2.0-only
//! Whether this kernel can be watched by `observe --beside`: said by `doctor`, and before anything is loaded.

use std::path::Path;

use serde::Serialize;

use super::preflight::{Refusal, is_root};
use super::{Rights, Root};
use crate::locks::KernelFacts;

/// Whether it can; as JSON, these are the names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Observes {
    /// Whether nothing is in the way, root rights left aside.
    pub ok: bool,
    /// What is in the way.
    pub why: Option<String>,
    /// What would help.
    pub help: Option<String>,
}

/// The tracepoints that it cannot do without: those of contended locks came with 5.19, and
/// those of mutexes among them.
const TRACEPOINTS: [&str; 2] = ["contention_begin", "contention_end"];

impl Observes {
    /// By what the kernel has; `Err`: why that is not known.
    #[must_use]
    pub fn new(facts: Result<&KernelFacts, String>, rights: &Rights) -> Self {
        let refused = |why: String, help: &str| Self {
            ok: false,
            why: Some(why),
            help: Some(help.to_owned()),
        };
        let facts = match facts {
            Ok(facts) => facts,
            Err(why) => return refused(why, "a kernel with CONFIG_DEBUG_INFO_BTF=y"),
        };
        if rights.hides_from_root() {
            return refused(
                "kernel.kptr_restrict is 2: where the kernel keeps its tasks is hidden from root, too"
                    .into(),
                "sudo sysctl kernel.kptr_restrict=1",
            );
        }
        let missing = TRACEPOINTS.iter().find(|name| !facts.tracepoint(name));
        match missing {
            Some(name) => refused(
                format!("this kernel has no tracepoint lock:{name}"),
                "Linux 6.1 or newer, with BTF",
            ),
            None => Self {
                ok: true,
                ..Self::default()
            },
        }
    }
}

/// Checks it for this process.
///
/// # Errors
/// The reason for which it cannot watch.
pub fn check() -> Result<(), Refusal> {
    if !is_root() {
        return Err(Refusal {
            why: "to observe a machine needs root: BPF reads other tasks".into(),
            remedy: "sudo scx_proxy observe --beside".into(),
        });
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Err(Refusal {
            why: "this kernel does not describe its types: there is no /sys/kernel/btf/vmlinux"
                .into(),
            remedy: "a kernel with CONFIG_DEBUG_INFO_BTF=y, as Debian's and Fedora's are".into(),
        });
    }
    let facts = KernelFacts::live().map_err(|e| e.to_string());
    let rights = Root("/".into()).look().rights;
    let observes = Observes::new(facts.as_ref().map_err(Clone::clone), &rights);
    match observes.ok {
        true => Ok(()),
        false => Err(Refusal {
            why: observes.why.unwrap_or_default(),
            remedy: observes.help.unwrap_or_default(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_the_tracepoints_is_refused() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/fixtures/kernels/6.16.12+deb13-cloud-amd64.txt"
        );
        let facts = KernelFacts::parse(&std::fs::read_to_string(path).expect("a frozen kernel"));
        let facts = facts.expect("facts");
        let mut rights = Root("/nowhere".into()).look().rights;
        assert!(Observes::new(Ok(&facts), &rights).ok);
        let older = facts.without(&["tp contention_begin"]);
        let why = Observes::new(Ok(&older), &rights).why.expect("a reason");
        assert!(why.contains("lock:contention_begin"), "{why}");
        assert!(!Observes::new(Err("no BTF".into()), &rights).ok);
        rights.kptr_restrict = Some(2);
        let why = Observes::new(Ok(&facts), &rights).why.expect("a reason");
        assert!(why.contains("kptr_restrict"), "{why}");
    }
}
