// SPDX-License-Identifier: GPL-2.0-only
//! One view, for scripts and where there is no terminal.

use std::process::{Command, Output};

use scx_proxy::watch::View;

use super::PROGRAM;
use super::fake::{Fake, Folder, a_few, socket};
use super::tmux::Tmux;

fn top(folder: &Folder, args: &[&str]) -> Output {
    Command::new(PROGRAM)
        .args(["top", "--socket"])
        .arg(socket(folder.path()))
        .args(args)
        .output()
        .expect("runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn one_view_as_text_and_as_json() {
    let folder = Folder::new();
    let _fake = Fake::new(folder.path(), a_few());
    let out = top(&folder, &["--once"]);
    let said = text(&out.stdout);
    assert_eq!(out.status.code(), Some(0));
    assert!(out.stderr.is_empty(), "{}", text(&out.stderr));
    for words in [
        "donating, watched ",
        "Locks:",
        "cgroup_mutex",
        "Chains:",
        "tar 907",
        "Cgroups:",
    ] {
        assert!(said.contains(words), "no {words}: {said}");
    }
    assert!(!said.contains('\u{1b}'), "{said}");
    let out = top(&folder, &["--once", "--json"]);
    let view: View = serde_json::from_slice(&out.stdout).expect("a view");
    assert_eq!(view.locks, a_few().locks);
}

#[test]
fn without_a_terminal_there_is_one_view_and_a_hint() {
    let folder = Folder::new();
    let _fake = Fake::new(folder.path(), a_few());
    let out = top(&folder, &[]);
    assert_eq!(out.status.code(), Some(0));
    assert!(text(&out.stdout).contains("cgroup_mutex"));
    let hint = text(&out.stderr);
    assert!(
        hint.contains("no terminal") && hint.contains("--once"),
        "{hint}"
    );

    let tmux = Tmux::new(folder.path(), 200, 50);
    let socket = socket(folder.path());
    tmux.command(&format!(
        "TERM=dumb {PROGRAM} top --socket {}",
        socket.display()
    ));
    let screen = tmux.wait_for("Cgroups:");
    assert!(screen.contains("TERM is dumb"), "{screen}");
}

#[test]
fn without_a_scheduler_once_fails_and_says_why() {
    let folder = Folder::new();
    let out = top(&folder, &["--once"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(out.stdout.is_empty());
    let said = text(&out.stderr);
    assert!(
        said.starts_with("error: cannot connect to a scheduler at "),
        "{said}"
    );
}
