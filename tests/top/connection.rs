// SPDX-License-Identifier: GPL-2.0-only
//! A scheduler that comes, goes, refuses, or takes its time.

use std::time::Duration;

use super::Stage;
use super::fake::{Fake, Folder, a_few};
use super::tmux::Tmux;

#[test]
fn the_scheduler_may_go_and_come_back() {
    let mut stage = Stage::new(a_few());
    stage.tmux.wait_for("cgroup_mutex");
    stage.fake = None;
    let screen = stage.tmux.wait_for("waiting for the scheduler at ");
    assert!(
        screen.contains("cgroup_mutex"),
        "the last data stay:\n{screen}"
    );
    // keys work meanwhile
    stage.tmux.press(&["2"]);
    stage.tmux.wait_for("DEADLOCK mysqld");
    stage.tmux.press(&["d"]);
    stage.tmux.wait_for("no scheduler to switch");
    stage.tmux.press(&["1", "i"]);

    let mut anew = a_few();
    anew.since_ns += 1_000_000_000_000;
    anew.locks.truncate(1);
    anew.locks[0].name = "a_new_life".into();
    anew.total = anew.locks[0].sums;
    anew.total.waits = 9;
    stage.fake = Some(Fake::new(stage.folder.path(), anew));
    let screen = stage.tmux.wait_for("a_new_life");
    assert!(!screen.contains("waiting for the scheduler"), "{screen}");
    assert!(!screen.contains("/s  inverted --"), "{screen}");
    stage.fake().state().grows = true;
    stage
        .tmux
        .wait_until("it goes on", |screen| screen.contains("4.0ms"));
}

#[test]
fn it_may_be_started_first() {
    let folder = Folder::new();
    let tmux = Tmux::new(folder.path(), 80, 24);
    let mut stage = Stage {
        tmux,
        fake: None,
        folder,
    };
    stage.start("");
    stage.tmux.wait_for("waiting for the scheduler at ");
    stage.tmux.wait_for("no data yet");
    stage.fake = Some(Fake::new(stage.folder.path(), a_few()));
    stage.tmux.wait_for("cgroup_mutex");
}

#[test]
fn a_scheduler_that_refuses_is_quoted() {
    let stage = Stage::new(a_few());
    stage.fake().state().refuses = true;
    stage.tmux.wait_for("refuses: ");
    stage.tmux.press(&["q"]);
    stage.ended();
}

#[test]
fn keys_do_not_wait_for_a_slow_scheduler() {
    let stage = Stage::new(a_few());
    stage.tmux.wait_for("cgroup_mutex");
    stage.fake().state().slow = Duration::from_secs(60);
    stage.tmux.press(&["2"]);
    stage.tmux.wait_for("DEADLOCK mysqld");
    // an answer that does not come is no connection
    stage.tmux.wait_for("waiting for the scheduler at ");
    stage.tmux.press(&["q"]);
    stage.ended();
}
