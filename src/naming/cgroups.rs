// SPDX-License-Identifier: GPL-2.0-only
//! Paths of cgroups. The id of a cgroup is the inode number of its folder, so the folders are
//! walked through for those that are wanted.

use std::collections::HashMap;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Most folders that one walk looks at.
const FOLDERS_MAX: usize = 65_536;
/// The path of a cgroup that was not found.
const UNKNOWN: &str = "?";

/// Where the unified hierarchy is mounted, by the text of `/proc/self/mountinfo`.
pub fn mount_point(mountinfo: &str) -> Option<PathBuf> {
    let is_cgroup2 = |line: &&str| {
        let after = line.split_once(" - ").map(|(_, after)| after);
        after.is_some_and(|after| after.split(' ').next() == Some("cgroup2"))
    };
    let line = mountinfo.lines().find(is_cgroup2)?;
    line.split(' ').nth(4).map(|path| unescape(path).into())
}

/// The kernel writes blanks, tabs, newlines and backslashes as `\040` and so on.
fn unescape(path: &str) -> String {
    let mut pieces = path.split('\\');
    let mut all = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let code = piece.get(..3).and_then(|c| u8::from_str_radix(c, 8).ok());
        match code {
            Some(code) => {
                all.push(char::from(code));
                all.push_str(&piece[3..]);
            }
            None => {
                all.push('\\');
                all.push_str(piece);
            }
        }
    }
    all
}

/// The paths of these cgroups below `root`, of those that exist.
pub fn walk(root: &Path, wanted: &[u64]) -> Vec<(u64, String)> {
    let mut found = Vec::new();
    if let Ok(folder) = std::fs::metadata(root)
        && wanted.contains(&folder.ino())
    {
        found.push((folder.ino(), "/".to_owned()));
    }
    let mut folders = vec![root.to_owned()];
    let mut seen = 0;
    while let Some(folder) = folders.pop()
        && found.len() < wanted.len()
    {
        // it may have gone meanwhile
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue;
        };
        let is_folder = |e: &std::fs::DirEntry| e.file_type().is_ok_and(|kind| kind.is_dir());
        for entry in entries.flatten().filter(is_folder) {
            seen += 1;
            if seen > FOLDERS_MAX {
                return found;
            }
            let path = entry.path();
            if wanted.contains(&entry.ino())
                && let Ok(below) = path.strip_prefix(root)
            {
                found.push((entry.ino(), format!("/{}", below.display())));
            }
            folders.push(path);
        }
    }
    found
}

/// Paths that were found, of cgroups of one machine.
#[derive(Debug, Default)]
pub struct Paths(HashMap<u64, String>);

impl Paths {
    /// Gives each of `rows` the path of its cgroup, or `?`. The folders are walked through if one is not
    /// known; what has gone is forgotten.
    pub fn name<T>(&mut self, rows: Vec<T>, id: impl Fn(&T) -> u64) -> Vec<(String, T)> {
        let ids: Vec<u64> = rows.iter().map(&id).collect();
        if ids.iter().any(|id| !self.0.contains_key(id)) {
            let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
            let found = mount_point(&mounts).map(|root| walk(&root, &ids));
            self.0 = ids.iter().map(|id| (*id, UNKNOWN.to_owned())).collect();
            self.0.extend(found.unwrap_or_default());
        }
        let path = |row: &T| self.0.get(&id(row)).cloned().unwrap_or_default();
        rows.into_iter().map(|row| (path(&row), row)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unified_hierarchy_is_found() {
        let mountinfo = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs cgroup2 rw,mode=755
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime shared:9 - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/uni\\040fied rw,relatime shared:10 - cgroup2 cgroup2 rw
";
        let expected = PathBuf::from("/sys/fs/cgroup/uni fied");
        assert_eq!(mount_point(mountinfo), Some(expected));
        assert_eq!(mount_point("31 23 0:28 / / rw - ext4 /dev/vda rw\n"), None);
        assert_eq!(unescape("a\\134b\\0"), "a\\b\\0");
    }

    #[test]
    fn folders_are_found_by_their_inode_numbers() {
        let root = std::env::temp_dir().join(format!("proxy-cgroups-{}", std::process::id()));
        let below = root.join("a/b");
        std::fs::create_dir_all(&below).expect("folders");
        let id = |path: &Path| std::fs::metadata(path).expect("folder").ino();
        let wanted = [id(&below), id(&root), 0];
        let mut found = walk(&root, &wanted);
        found.sort_unstable_by(|a, b| a.1.cmp(&b.1));
        std::fs::remove_dir_all(&root).expect("removed");
        let expected = [(wanted[1], "/".to_owned()), (wanted[0], "/a/b".to_owned())];
        assert_eq!(found, expected);
    }
}
