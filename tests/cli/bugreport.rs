// SPDX-License-Identifier: GPL-2.0-only
//! `scx_proxy bugreport` where no scheduler runs: a report all the same, and nothing is overwritten.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::{scx_proxy, text};

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    /// Where reports of these tests go.
    fn file(&self) -> PathBuf {
        self.0.join("report.tar.gz")
    }

    /// A report into `file()`, where no scheduler listens.
    fn report(&self, flags: &[&str]) -> Output {
        let (file, socket) = (self.file(), self.0.join("none"));
        let path = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        let (file, socket) = (path(&file), path(&socket));
        scx_proxy(&[&["bugreport", &file, "--socket", &socket], flags].concat())
    }

    fn new(name: &str) -> Self {
        let name = format!("scx_proxy-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("a new folder");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn what_is_not_there_is_said_in_the_report() {
    let folder = Folder::new("bugreport");
    let out = folder.report(&["--seconds", "0.1"]);
    let file = folder.file();
    assert!(out.status.success(), "{}", text(&out.stderr));
    let mode = std::fs::metadata(&file).expect("made").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let left = std::fs::read_dir(&folder.0).expect("read").count();
    assert_eq!(left, 1, "something is left beside the report");
    let unpack = Command::new("tar")
        .arg("xzf")
        .arg(&file)
        .arg("-C")
        .arg(&folder.0)
        .status();
    assert!(unpack.expect("runs").success());
    let part = |name: &str| {
        let path = folder.0.join("scx_proxy-bugreport").join(name);
        std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{name}: {e}"))
    };
    assert!(part("about.txt").starts_with("scx_proxy "));
    assert!(part("doctor.txt").lines().count() > 10);
    for name in ["counters.json", "recording"] {
        let said = part(name);
        assert!(
            said.starts_with("not available: cannot connect"),
            "{name}: {said}"
        );
    }
    for name in ["doctor.json", "flags.txt", "service.log", "kernel.log"] {
        assert!(!part(name).is_empty(), "{name}");
    }
}

#[test]
fn a_file_that_exists_is_kept_unless_forced() {
    let folder = Folder::new("bugreport-kept");
    let file = folder.file();
    std::fs::write(&file, "mine").expect("written");
    let out = folder.report(&[]);
    assert_eq!(out.status.code(), Some(1));
    assert!(
        text(&out.stderr).contains("(--force overwrites it)"),
        "{}",
        text(&out.stderr)
    );
    assert_eq!(std::fs::read(&file).expect("there"), b"mine");
    assert!(folder.report(&["--force"]).status.success());
    assert_ne!(std::fs::read(&file).expect("there"), b"mine");
}
