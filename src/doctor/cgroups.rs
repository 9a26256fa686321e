// SPDX-License-Identifier: GPL-2.0-only
//! What cgroups are set to that this scheduler does not honour: `cpu.max`, and autogroups.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// Where the hierarchy is mounted.
const MOUNT: &str = "sys/fs/cgroup";
const AUTOGROUP: &str = "proc/sys/kernel/sched_autogroup_enabled";

/// Cgroups that are looked at, and names that are said.
const LOOKS_MAX: usize = 20_000;
const NAMED_MAX: usize = 5;

/// Settings without effect.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct NotHonoured {
    /// Cgroups, below the mount, whose `cpu.max` is a limit.
    pub cpu_max: Vec<PathBuf>,
    /// Whether the kernel would group tasks by session.
    pub autogroup: bool,
}

impl NotHonoured {
    /// Look below `root`: `/`, in tests another folder. What cannot be read counts as not set.
    #[must_use]
    pub fn look(root: &Path) -> Self {
        let autogroup = fs::read_to_string(root.join(AUTOGROUP));
        Self {
            cpu_max: limited(&root.join(MOUNT)),
            autogroup: autogroup.is_ok_and(|text| text.trim() == "1"),
        }
    }

    /// A sentence for each kind that there is.
    #[must_use]
    pub fn sentences(&self) -> Vec<String> {
        let mut sentences = Vec::new();
        if !self.cpu_max.is_empty() {
            let mut names: Vec<_> = self
                .cpu_max
                .iter()
                .take(NAMED_MAX)
                .map(|path| name(path))
                .collect();
            if let Some(more) = self.cpu_max.len().checked_sub(NAMED_MAX + 1) {
                names.push(format!("{} more", more + 1));
            }
            sentences.push(format!(
                "cpu.max is not enforced by this scheduler; it is set for {}",
                names.join(", ")
            ));
        }
        if self.autogroup {
            sentences.push(
                "autogroups (kernel.sched_autogroup_enabled) have no effect on this scheduler"
                    .to_owned(),
            );
        }
        sentences
    }
}

/// Whoever made a cgroup chose its name: no control characters reach a terminal.
fn name(path: &Path) -> String {
    path.to_string_lossy().escape_debug().to_string()
}

/// The cgroups of the hierarchy at `mount` whose `cpu.max` does not say `max`.
fn limited(mount: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![mount.to_owned()];
    let mut looks = 0;
    while let Some(folder) = todo.pop() {
        looks += 1;
        if looks > LOOKS_MAX {
            break;
        }
        let limit = fs::read_to_string(folder.join("cpu.max"));
        if limit.is_ok_and(|limit| !limit.starts_with("max")) {
            found.push(folder.strip_prefix(mount).unwrap_or(&folder).to_owned());
        }
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        let folders = entries.flatten();
        // no links: the file type is that of the entry itself
        todo.extend(
            folders
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path()),
        );
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_named_and_counted() {
        let root = std::env::temp_dir().join(format!("scx_proxy-cgroups-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("has a parent")).expect("create");
            fs::write(path, text).expect("write");
        };
        write("sys/fs/cgroup/free/cpu.max", "max 100000\n");
        assert_eq!(NotHonoured::look(&root), NotHonoured::default());
        assert!(NotHonoured::look(&root).sentences().is_empty());

        write("sys/fs/cgroup/a/b\x1b/cpu.max", "5000 100000\n");
        for nr in 0..6 {
            write(&format!("sys/fs/cgroup/z/{nr}/cpu.max"), "250000 100000\n");
        }
        write("proc/sys/kernel/sched_autogroup_enabled", "1\n");
        let found = NotHonoured::look(&root);
        assert_eq!(found.cpu_max.len(), 7);
        assert_eq!(
            found.sentences()[0],
            "cpu.max is not enforced by this scheduler; it is set for \
             a/b\\u{1b}, z/0, z/1, z/2, z/3, 2 more"
        );
        assert!(found.sentences()[1].starts_with("autogroups"));
        fs::remove_dir_all(&root).expect("remove");
    }
}
