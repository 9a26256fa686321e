// SPDX-License-Identifier: GPL-2.0-only
//! Cgroups that end with the test.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use libtest_mimic::Failed;

use crate::machine::{run, wait_for};

const ROOT: &str = "/sys/fs/cgroup";
static MADE: AtomicU32 = AtomicU32::new(0);

/// A cgroup with the cpu controller; removed when dropped, when its tasks have gone.
pub struct Cgroup(PathBuf);

fn write(path: &Path, text: &str) -> Result<(), Failed> {
    Ok(fs::write(path, text).map_err(|e| format!("{text} to {}: {e}", path.display()))?)
}

impl Cgroup {
    /// Below `parent`, or below the root.
    pub fn new(parent: Option<&Cgroup>) -> Result<Self, Failed> {
        let root = Path::new(ROOT);
        if !root.join("cgroup.controllers").exists() {
            run(&["mount", "-t", "cgroup2", "none", ROOT])?;
        }
        let parent = parent.map_or(root, |parent| &parent.0);
        write(&parent.join("cgroup.subtree_control"), "+cpu")?;
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("scx_proxy_test_{number}"));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    /// For threads of this process, one by one.
    pub fn threaded(parent: Option<&Cgroup>) -> Result<Self, Failed> {
        let group = Self::new(parent)?;
        group.set("cgroup.type", "threaded")?;
        Ok(group)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// By which the kernel knows it: the inode's number (fs/kernfs/dir.c, kernfs_ino()).
    pub fn id(&self) -> Result<u64, Failed> {
        Ok(fs::metadata(&self.0)?.ino())
    }

    pub fn set(&self, file: &str, value: impl ToString) -> Result<(), Failed> {
        write(&self.0.join(file), &value.to_string())
    }

    pub fn enter(&self, pid: u32) -> Result<(), Failed> {
        self.set("cgroup.procs", pid)
    }

    pub fn enter_thread(&self, tid: u32) -> Result<(), Failed> {
        self.set("cgroup.threads", tid)
    }

    /// Back to the root.
    pub fn leave(pid: u32) -> Result<(), Failed> {
        write(&Path::new(ROOT).join("cgroup.procs"), &pid.to_string())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let gone = || fs::remove_dir(&self.0).is_ok();
        let _ = wait_for("a cgroup's tasks to go", Duration::from_secs(5), gone);
    }
}
