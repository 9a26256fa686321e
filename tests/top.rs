// SPDX-License-Identifier: GPL-2.0-only
//! `scx_proxy top` as a user meets it: the program in a terminal (tmux), a made-up scheduler at the
//! other end of the socket. Runs on any host, without a kernel that could load anything.

#[path = "top/connection.rs"]
mod connection;
#[path = "top/fake.rs"]
mod fake;
#[path = "top/lifecycle.rs"]
mod lifecycle;
#[path = "top/once.rs"]
mod once;
#[path = "top/tmux.rs"]
mod tmux;

use fake::{Fake, Folder, a_few, many};
use scx_proxy::watch::View;
use scx_proxy::watch::view::HistoryLine;
use tmux::{Tmux, wait_until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_scx_proxy");

/// The program in a terminal, and the scheduler that it looks at. The folder goes last.
struct Stage {
    tmux: Tmux,
    fake: Option<Fake>,
    folder: Folder,
}

impl Stage {
    /// At 80x24, with two looks a second.
    fn new(view: View) -> Stage {
        Stage::with(view, "")
    }

    /// `before`: what stands before the command, such as `NAME=value`.
    fn with(view: View, before: &str) -> Stage {
        let folder = Folder::new();
        let fake = Some(Fake::new(folder.path(), view));
        let tmux = Tmux::new(folder.path(), 80, 24);
        let stage = Stage { tmux, fake, folder };
        stage.start(before);
        stage.tmux.wait_for("watched ");
        stage
    }

    fn start(&self, before: &str) {
        let folder = self.folder.path().display();
        // a shell of its own, so that the process is known
        self.tmux.command(&format!(
            "clear; {before} sh -c 'echo $$ >{folder}/pid; exec {PROGRAM} top --interval 0.5 --socket {folder}/stats'; echo end=$?"
        ));
    }

    fn fake(&self) -> &Fake {
        self.fake.as_ref().expect("there is a scheduler")
    }

    fn pid(&self) -> i32 {
        let text = std::fs::read_to_string(self.folder.path().join("pid")).expect("it started");
        text.trim().parse().expect("a pid")
    }

    fn signal(&self, signal: i32) {
        // SAFETY: no memory is passed; the process is one that we started.
        assert_eq!(unsafe { libc::kill(self.pid(), signal) }, 0);
    }

    /// It has ended well, and the terminal is as it was.
    fn ended(&self) {
        self.ended_with(0);
    }

    fn ended_with(&self, status: i32) {
        self.tmux.wait_for(&format!("end={status}"));
        assert_eq!(
            self.tmux.property("alternate_on"),
            "0",
            "the shell's screen is back"
        );
        assert_eq!(self.tmux.property("cursor_flag"), "1", "the cursor is back");
        self.tmux.command("stty -a; echo still-$((40 + 2))");
        let screen = self.tmux.wait_for("still-42");
        for mode in ["icanon", "echo", "isig", "opost"] {
            let set = screen.split_whitespace().any(|word| word == mode);
            assert!(set, "no {mode}:\n{screen}");
        }
    }
}

#[test]
fn each_screen_has_its_key() {
    let stage = Stage::new(a_few());
    let tmux = &stage.tmux;
    let locks = tmux.wait_for("INVERTED▼");
    assert!(
        locks.contains("donating") && locks.contains("DEADLOCKS 1"),
        "{locks}"
    );
    let row = locks
        .lines()
        .find(|line| line.starts_with("fdget_pos"))
        .expect("a row");
    assert!(row.contains("4.2s") && row.contains("tar 907"), "{locks}");
    tmux.press(&["2"]);
    tmux.wait_for("firefox 812 -> mutex fdget_pos -> tar 907 -> ");
    tmux.wait_for("DEADLOCK mysqld 2201 -> pthread mysqld+0x99");
    tmux.press(&["3"]);
    tmux.wait_for("OWNED:INV");
    tmux.press(&["Tab"]);
    tmux.wait_for("OWNER'S CGROUP");
    tmux.press(&["5"]);
    tmux.wait_for("PER SEC");
    tmux.wait_until("donations per second", |screen| {
        let row = screen.lines().find(|line| line.contains(" donations  "));
        row.is_some_and(|row| row.contains('█'))
    });
    tmux.press(&["BTab"]);
    tmux.wait_for("OWNER'S CGROUP");
    tmux.press(&["1", "c"]);
    tmux.wait_for("rwsem mmap_lock of firefox");
    tmux.press(&["?"]);
    tmux.wait_for("Keys (any key: back)");
    tmux.press(&["x"]);
    tmux.wait_for("mutex fdget_pos");
}

#[test]
fn rows_are_sorted_and_filtered() {
    let stage = Stage::new(a_few());
    let tmux = &stage.tmux;
    let first = |text: &'static str| {
        move |screen: &str| {
            screen
                .lines()
                .nth(4)
                .is_some_and(|line| line.starts_with(text))
        }
    };
    tmux.wait_until("the most inverted first", first("fdget_pos"));
    tmux.press(&["S"]);
    tmux.wait_until("the least inverted first", first("cgroup_mutex"));
    tmux.press(&["s", "s"]);
    tmux.wait_for("WAITS▼");
    tmux.wait_until("the most waits first", first("mysqld+0x1a2b"));
    tmux.type_in("/RWSEM");
    tmux.wait_for("filter: RWSEM_");
    tmux.press(&["Enter"]);
    let screen = tmux.wait_for("with 'RWSEM'");
    assert!(
        screen.contains("i_rwsem") && !screen.contains("cgroup_mutex"),
        "{screen}"
    );
    tmux.press(&["Escape"]);
    tmux.wait_for("cgroup_mutex");
}

#[test]
fn a_pause_holds_the_screen() {
    let stage = Stage::new(a_few());
    let tmux = &stage.tmux;
    let row = |screen: &str| {
        let row = screen.lines().find(|line| line.starts_with("cgroup_mutex"));
        row.map(str::to_owned)
    };
    let before = row(&tmux.wait_for("cgroup_mutex")).expect("a row");
    tmux.press(&["p"]);
    tmux.wait_for("PAUSED");
    stage.fake().state().grows = true;
    let total = stage.fake().state().view.total.waits;
    wait_until("three more looks", || {
        stage.fake().state().view.total.waits >= total + 15
    });
    assert_eq!(row(&tmux.screen()), Some(before.clone()));
    tmux.press(&["Space"]);
    tmux.wait_until("new numbers", |screen| {
        row(screen).is_some_and(|row| row != before)
    });
    tmux.press(&["i"]);
    let screen = tmux.wait_for("in the last");
    // 5 waits in each look
    tmux.wait_until("what was added in the interval", |screen| {
        let row = row(screen).unwrap_or_default();
        row.split_whitespace().any(|word| word == "4.0ms")
    });
    assert!(!screen.contains("waits -/s"), "{screen}");
    tmux.press(&["r"]);
    tmux.wait_for("since r");
}

#[test]
fn what_is_frozen_stays_after_the_wait() {
    let stage = Stage::new(a_few());
    let tmux = &stage.tmux;
    let line = |time_ns, text: &str| HistoryLine {
        time_ns,
        text: text.into(),
    };
    stage.fake().state().history = vec![line(5, "firefox 812 waits for tar 907")];
    tmux.press(&["2"]);
    tmux.wait_for("firefox 812 ->");
    tmux.press(&["Down", "f"]);
    tmux.wait_for("frozen: firefox 812 ->");
    tmux.wait_for("firefox 812 waits for tar 907");
    stage.fake().state().view.chains.clear();
    stage.fake().state().history = vec![line(9, "firefox 812 is awake")];
    tmux.wait_for("firefox 812 is awake");
    let screen = tmux.wait_for("frozen (ended)");
    assert!(screen.contains("firefox 812 waits for tar 907"), "{screen}");
    assert!(screen.contains("nothing waits"), "{screen}");
    tmux.press(&["f"]);
    tmux.wait_until("no panel", |screen| !screen.contains("frozen"));
}

#[test]
fn donation_is_switched_over_the_socket() {
    let stage = Stage::new(a_few());
    let tmux = &stage.tmux;
    tmux.press(&["d"]);
    tmux.wait_for("switch donation off? y/n");
    tmux.press(&["n"]);
    tmux.wait_for("q quit");
    tmux.press(&["d"]);
    tmux.wait_for("switch donation off? y/n");
    tmux.press(&["y"]);
    tmux.wait_for("donation switched off");
    tmux.wait_for("scx_proxy observing");
    assert_eq!(stage.fake().state().switched, ["off"]);
    tmux.press(&["d"]);
    tmux.wait_for("switch donation on? y/n");
    tmux.press(&["y"]);
    tmux.wait_for("scx_proxy donating");
    assert_eq!(stage.fake().state().switched, ["off", "on"]);
}

#[test]
fn it_follows_the_size_of_the_terminal() {
    let stage = Stage::new(a_few());
    let tmux = &stage.tmux;
    tmux.wait_for("1 Locks  2 Chains");
    tmux.resize(40, 10);
    let screen = tmux.wait_for("1/5 Locks");
    assert!(
        screen.contains("fdget_pos") && !screen.contains("OWNER"),
        "{screen}"
    );
    tmux.resize(200, 50);
    let screen = tmux.wait_for("CLASS");
    assert!(
        screen.contains("mutex fdget_pos") && screen.contains("DONATED"),
        "{screen}"
    );
    tmux.resize(20, 5);
    tmux.wait_for("too small");
    tmux.resize(80, 24);
    tmux.wait_for("1 Locks  2 Chains");
}

#[test]
fn an_empty_system_says_that_nothing_waits() {
    let stage = Stage::new(View::default());
    let tmux = &stage.tmux;
    tmux.wait_for("nothing waits, and nothing has waited");
    tmux.wait_for("observing");
    tmux.press(&["2"]);
    tmux.wait_for("nothing waits");
    tmux.press(&["Enter"]);
    tmux.wait_for("can be frozen");
}

/// Within a heap of a fixed size.
#[test]
fn a_thousand_of_everything() {
    let stage = Stage::new(many(1000));
    let tmux = &stage.tmux;
    stage.fake().state().grows = true;
    tmux.wait_for("lock-0000");
    tmux.press(&["End"]);
    tmux.wait_for("lock-0999");
    for _ in 0..10 {
        tmux.press(&["PPage"]);
    }
    tmux.press(&["Home"]);
    tmux.wait_for("lock-0000");
    for (key, shows) in [
        ("3", "   1000 some_program"),
        ("4", "pod-0"),
        ("2", "lock-0999"),
    ] {
        tmux.press(&[key]);
        tmux.wait_for(shows);
    }
    tmux.press(&["p", "1"]);
    let total = stage.fake().state().view.total.waits;
    wait_until("20 more looks", || {
        stage.fake().state().view.total.waits >= total + 100
    });
    tmux.press(&["p", "q"]);
    stage.ended();
}

#[test]
fn no_color_is_obeyed() {
    let coloured = |stage: &Stage| {
        let screen = stage.tmux.screen_with_colours();
        // an escape sequence that sets a colour, 30 to 37 or 90 to 97
        screen.split("\u{1b}[").skip(1).any(|rest| {
            let codes = rest.split('m').next().unwrap_or("").split(';');
            codes
                .filter_map(|code| code.parse::<u32>().ok())
                .any(|code| (30..=38).contains(&code) || (90..=97).contains(&code))
        })
    };
    let stage = Stage::new(a_few());
    assert!(coloured(&stage));
    let stage = Stage::with(a_few(), "NO_COLOR=1");
    assert!(!coloured(&stage), "{}", stage.tmux.screen_with_colours());
    let stage = Stage::with(a_few(), "NO_COLOR=");
    assert!(coloured(&stage), "empty is not set");
}

/// A recording is played on the same screens, ten times as fast, to its end.
#[test]
fn a_recording_is_played_to_its_end() {
    let folder = Folder::new();
    let tmux = Tmux::new(folder.path(), 80, 24);
    let recording = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/recordings/version-1.rec"
    );
    tmux.command(&format!(
        "clear; {PROGRAM} replay --top --speed 1000 {recording}; echo end=$?"
    ));
    let screen = tmux.wait_for("100% of");
    assert!(screen.contains("mutex"), "{screen}");
    tmux.press(&["q"]);
    tmux.wait_for("end=0");
}
