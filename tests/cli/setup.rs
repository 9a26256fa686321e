// SPDX-License-Identifier: GPL-2.0-only
//! `scripts/setup` on a machine that is no Debian: simulated by a PATH without apt and dpkg.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder with all programs of this machine but those whose names begin so.
fn programs_without(hidden: &[&str]) -> PathBuf {
    let name = format!("path-without-{}", hidden.join("-"));
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).expect("made");
    let path = std::env::var_os("PATH").expect("PATH");
    for folder in std::env::split_paths(&path) {
        let Ok(entries) = fs::read_dir(folder) else {
            continue;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let is_hidden = |prefix: &&str| name.to_string_lossy().starts_with(*prefix);
            if !hidden.iter().any(is_hidden) {
                // the first folder of PATH counts
                let _ = symlink(entry.path(), dir.join(name));
            }
        }
    }
    dir
}

fn setup(path: &Path, args: &[&str]) -> Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    Command::new(root.join("scripts/setup"))
        .args(args)
        .env("PATH", path)
        .env_remove("BPF_CLANG")
        .output()
        .expect("runs")
}

fn missing(said: &str) -> BTreeSet<&str> {
    let lines = said.lines().filter(|line| line.contains("looked for: "));
    let lines = lines.map(|line| line.trim_start_matches("setup:").trim_start());
    let lines = lines.map(|line| line.trim_start_matches("missing").trim_start());
    lines.filter_map(|line| line.split(' ').next()).collect()
}

#[test]
fn without_apt_it_names_what_to_install_by_hand_and_changes_nothing() {
    let path = programs_without(&["apt", "dpkg", "clang", "tmux"]);
    let out = setup(&path, &["--check"]);
    let said = crate::text(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{said}");
    let named = missing(&said);
    assert!(named.is_superset(&["clang-19", "tmux"].into()), "{said}");
    // what is there is not asked for: this test was built by it
    assert!(!named.contains("gcc") && !named.contains("make"), "{said}");
    assert!(said.contains("clang of 18 or newer"), "{said}");

    let out = setup(&path, &[]);
    let said = crate::text(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(
        said.contains("no apt-get") && said.contains("by hand"),
        "{said}"
    );
    assert_eq!(missing(&said), named, "{said}");

    // the demo does without a terminal
    let out = setup(&path, &["--demo", "--check"]);
    let said = crate::text(&out.stderr);
    assert!(!missing(&said).contains("tmux"), "{said}");
}

#[test]
fn virtual_machines_and_debian_keys_are_asked_for_only_where_they_are_used() {
    let path = programs_without(&["apt", "dpkg", "qemu", "busybox", "gcc"]);
    let named = |args: &[&str]| {
        let out = setup(&path, &[args, &["--check"]].concat());
        let said = crate::text(&out.stderr);
        let named: BTreeSet<String> = missing(&said).into_iter().map(str::to_owned).collect();
        assert!(named.contains("gcc"), "{said}");
        (named, said)
    };
    let (all, said) = named(&["--demo"]);
    assert!(all.contains("qemu-system-x86"), "{said}");
    let (own, said) = named(&["--own-kernel"]);
    assert!(own.contains("qemu-system-x86"), "{said}");
    assert!(!own.contains("debian-archive-keyring"), "{said}");
    let (build, said) = named(&["--build"]);
    assert!(!build.contains("qemu-system-x86"), "{said}");
    assert!(!said.contains("virtiofsd"), "{said}");
}

/// A package that it does not know how to look for would end it.
#[test]
fn each_package_can_be_looked_for() {
    let path = programs_without(&["apt", "dpkg"]);
    let out = setup(&path, &["--packages", "--check"]);
    let said = crate::text(&out.stderr);
    assert!(
        !said.contains("unbound variable") && said.contains("cache "),
        "{said}"
    );
    assert!(said.contains("dpkg-dev"), "{said}");
}
