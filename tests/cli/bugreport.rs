// SPDX-License-Identifier: GPL-2.0-only
//! `scx_proxy bugreport` where no scheduler runs: a report all the same, and nothing is overwritten.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use crate::{scx_proxy, text};

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
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
    let file = folder.0.join("report.tar.gz");
    let path = file.to_str().expect("UTF-8");
    let socket = folder.0.join("none");
    let args = [
        "bugreport",
        path,
        "--seconds",
        "0.1",
        "--socket",
        socket.to_str().expect("UTF-8"),
    ];
    let out = scx_proxy(&args);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let mode = std::fs::metadata(&file).expect("made").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let left = std::fs::read_dir(&folder.0).expect("read").count();
    assert_eq!(left, 1, "something is left beside the report");
    let unpack = Command::new("tar")
        .args(["xzf", path, "-C"])
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
    let file = folder.0.join("report.tar.gz");
    std::fs::write(&file, "mine").expect("written");
    let path = file.to_str().expect("UTF-8");
    let socket = folder.0.join("none");
    let args = [
        "bugreport",
        path,
        "--socket",
        socket.to_str().expect("UTF-8"),
    ];
    let out = scx_proxy(&args);
    assert_eq!(out.status.code(), Some(1));
    assert!(
        text(&out.stderr).contains("(--force overwrites it)"),
        "{}",
        text(&out.stderr)
    );
    assert_eq!(std::fs::read(&file).expect("there"), b"mine");
    assert!(
        scx_proxy(&[&args[..], &["--force"]].concat())
            .status
            .success()
    );
    assert_ne!(std::fs::read(&file).expect("there"), b"mine");
}
