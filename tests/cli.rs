// SPDX-License-Identifier: GPL-2.0-only
//! The command line as a user meets it, without a kernel that could load anything.

#[path = "cli/bench.rs"]
mod bench;
#[path = "cli/bugreport.rs"]
mod bugreport;
#[path = "cli/documents.rs"]
mod documents;
#[path = "cli/manual.rs"]
mod manual;
#[path = "cli/modules.rs"]
mod modules;
#[path = "cli/schedload.rs"]
mod schedload;
#[path = "cli/setup.rs"]
mod setup;
#[path = "cli/streams.rs"]
mod streams;

use std::process::{Command, Output};

fn scx_proxy(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_scx_proxy"))
        .args(args)
        .output()
        .expect("runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn help_version_and_help_stats_exit_0() {
    for (args, shows) in [
        (["--help"], "--slice-us"),
        (["--version"], env!("CARGO_PKG_VERSION")),
        (["--help-stats"], "donated_ns"),
    ] {
        let out = scx_proxy(&args);
        assert_eq!(out.status.code(), Some(0), "{args:?}");
        assert!(
            text(&out.stdout).contains(shows),
            "{args:?}: {}",
            text(&out.stdout)
        );
        assert!(out.stderr.is_empty(), "{args:?}: {}", text(&out.stderr));
    }
}

#[test]
fn a_wrong_flag_exits_1_and_says_what_is_wrong() {
    for (args, says) in [
        (["--slice-us", "0"], "--slice-us"),
        (["--hops-max", "99"], "1..=16"),
        (["--stats", "soon"], "not a number of seconds"),
        (["--no-such-flag", ""], "--no-such-flag"),
    ] {
        let out = scx_proxy(&args);
        assert_eq!(out.status.code(), Some(1), "{args:?}");
        assert!(
            text(&out.stderr).contains(says),
            "{args:?}: {}",
            text(&out.stderr)
        );
        assert!(out.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn settings_are_printed_and_can_be_fed_back() {
    let dir = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let file = dir.join("settings.toml");
    std::fs::write(&file, "lag-us = 1234\n").expect("written");
    let path = file.to_str().expect("UTF-8");
    let print = |more: &[&str]| {
        let args = [&["--config", path, "--print-config"], more].concat();
        let out = scx_proxy(&args);
        assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
        text(&out.stdout)
    };
    let first = print(&["-s", "4321", "--return", "home"]);
    assert!(first.contains("\nlag-us = 1234\n") && first.contains("\nslice-us = 4321\n"));
    std::fs::write(&file, &first).expect("written");
    assert_eq!(print(&[]), first);
}

#[test]
fn a_wrong_file_exits_1_and_is_told_in_one_line() {
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("wrong.toml");
    let path = file.to_str().expect("UTF-8");
    for (content, says) in [
        ("slice-us = 1", "slice-us = 1: must be in 100..=100000"),
        (
            "slices = 1",
            "slices: no such key; known are slice-us, lag-us,",
        ),
    ] {
        std::fs::write(&file, content).expect("written");
        for args in [
            &["--config", path][..],
            &["--config", path, "--print-config"],
        ] {
            let out = scx_proxy(args);
            let said = text(&out.stderr);
            assert_eq!(out.status.code(), Some(1), "{content}: {said}");
            assert!(
                said.starts_with(&format!("error: {path}: {says}")),
                "{said}"
            );
            assert_eq!(said.lines().count(), 1, "{said}");
            assert!(out.stdout.is_empty());
        }
    }
}

/// Where there is sched_ext nothing may be loaded here (tests/guest does that),
/// but the check must not say that there is none.
#[test]
fn a_kernel_without_sched_ext_is_refused_in_two_lines() {
    if std::path::Path::new("/sys/kernel/sched_ext").exists() {
        let why = scx_proxy::doctor::preflight::check()
            .map_or_else(|refusal| refusal.why, |()| "ok".into());
        assert!(!why.contains("no sched_ext"), "{why}");
        return;
    }
    let out = scx_proxy(&[]);
    let said = text(&out.stderr);
    assert_eq!(out.status.code(), Some(1));
    assert!(
        said.starts_with("error: this kernel has no sched_ext"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 2, "{said}");
}

/// True for whatever kernel runs this, and without root.
#[test]
fn doctor_says_what_this_kernel_can_do_and_loads_nothing() {
    let out = scx_proxy(&["doctor", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
    let rows = report["locks"].as_array().expect("rows");
    let well = report["loads"]["ok"] == true && rows.iter().any(|row| row["state"] == "on");
    assert_eq!(out.status.code(), Some(i32::from(!well)));

    let out = scx_proxy(&["doctor"]);
    let said = text(&out.stdout);
    assert_eq!(out.status.code(), Some(i32::from(!well)));
    assert!(said.starts_with("kernel: "), "{said}");
    for row in rows {
        let name = row["lock"].as_str().expect("name");
        assert!(said.contains(&format!("\n{name} ")), "no {name} in {said}");
    }
}

#[test]
fn doctor_follows_no_lock_if_none_is_asked_for() {
    let out = scx_proxy(&["doctor", "--locks", "none", "--json"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(!text(&out.stdout).contains(r#""state": "on""#));
    let out = scx_proxy(&["doctor", "--locks", "spinlock"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(text(&out.stderr).contains("no lock type 'spinlock'; known are mutex,"));
}

#[test]
fn doctor_ends_quietly_when_nobody_reads() {
    let (reader, writer) = std::io::pipe().expect("pipe");
    drop(reader);
    let out = Command::new(env!("CARGO_BIN_EXE_scx_proxy"))
        .args(["doctor", "--json"])
        .stdout(writer)
        .output()
        .expect("runs");
    assert!(out.stderr.is_empty(), "{}", text(&out.stderr));
}
