// SPDX-License-Identifier: GPL-2.0-only
//! What groups of tasks are set to that this scheduler does not honour.

use std::fs;
use std::path::Path;

use serde::Serialize;

const AUTOGROUP: &str = "proc/sys/kernel/sched_autogroup_enabled";

/// Settings without effect.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct NotHonoured {
    /// Whether the kernel would group tasks of the root cgroup by session.
    pub autogroup: bool,
}

impl NotHonoured {
    /// Look below `root`: `/`, in tests another folder. What cannot be read counts as not set.
    #[must_use]
    pub fn look(root: &Path) -> Self {
        let autogroup = fs::read_to_string(root.join(AUTOGROUP));
        Self {
            autogroup: autogroup.is_ok_and(|text| text.trim() == "1"),
        }
    }

    /// A sentence for each.
    #[must_use]
    pub fn sentences(&self) -> Vec<&'static str> {
        let mut sentences = Vec::new();
        if self.autogroup {
            sentences.push(
                "autogroups (kernel.sched_autogroup_enabled) have no effect on this scheduler",
            );
        }
        sentences
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn autogroups_are_said() {
        let root = std::env::temp_dir().join(format!("scx_proxy-cgroups-{}", std::process::id()));
        let file = root.join(AUTOGROUP);
        assert!(NotHonoured::look(&root).sentences().is_empty());
        fs::create_dir_all(file.parent().expect("has a parent")).expect("create");
        fs::write(&file, "0\n").expect("write");
        assert_eq!(NotHonoured::look(&root), NotHonoured::default());
        fs::write(&file, "1\n").expect("write");
        let sentences = NotHonoured::look(&root).sentences();
        assert!(sentences[0].starts_with("autogroups"), "{sentences:?}");
        fs::remove_dir_all(&root).expect("remove");
    }
}
