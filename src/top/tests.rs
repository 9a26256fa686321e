// SPDX-License-Identifier: GPL-2.0-only
//! All of `top` but the terminal and the source: readings and keys in, a picture out.

mod keys;

use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::app::{App, Effect};
use super::draw;
use super::input::Key;
use super::source::Reading;
use super::text;
use super::theme::Theme;
use super::worker::Update;
use crate::stats::Metrics;
use crate::watch::View;
use crate::watch::view::{Chain, Link, LockRow, PairRow, Sums, Task, TaskRow};

const MS: u64 = 1_000_000;

fn sums(n: u64) -> Sums {
    Sums {
        waits: n,
        waited_ns: 3 * n * MS,
        inverted_ns: n * MS,
        longest_ns: 2 * MS,
        donations: 2 * n,
        lent_ns: 3_000_000 * n,
    }
}

fn task(pid: u32, comm: &str) -> Task {
    let comm = comm.to_owned();
    Task {
        pid,
        tgid: pid,
        comm,
    }
}

/// `locks` locks, the first with the most inversion time; one chain, one task, one pair.
fn view(time_s: u64, locks: u64) -> View {
    let lock = |nr: u64| LockRow {
        id: nr + 1,
        lock_type: "mutex".into(),
        class: "mutex fdget_pos".into(),
        name: format!("lock-{nr:04}"),
        sums: sums((locks - nr) * time_s),
        waiting_now: 1,
        owner: Some(task(907, "tar")),
    };
    let link = |pid, lock_name: &str| Link {
        task: task(pid, "firefox"),
        lock: 1,
        lock_name: lock_name.into(),
        waited_ns: 12 * MS,
    };
    let chain = Chain {
        links: vec![link(812, "mutex fdget_pos"), link(813, "rwsem i_rwsem")],
        end: Some(task(907, "tar")),
        cycle: false,
        donations: 3,
    };
    let row = TaskRow {
        task: task(812, "日本語の長い名前日本語の長い名前"),
        cgroup: "/user.slice".into(),
        waited: sums(time_s),
        owned: sums(0),
        waits_for: Some("mutex fdget_pos".into()),
    };
    let pair = PairRow {
        waiter: "/user.slice".into(),
        owner: "/system.slice/backup.service".into(),
        sums: sums(time_s),
    };
    View {
        time_ns: time_s * 1000 * MS,
        since_ns: 0,
        donating: true,
        total: sums(locks * time_s),
        waiting_now: 1,
        locks: (0..locks).map(lock).collect(),
        tasks: vec![row],
        pairs: vec![pair],
        chains: vec![chain],
        ..View::default()
    }
}

fn read(app: &mut App, view: View) -> Option<Effect> {
    let metrics = Some(Metrics {
        donations: 7,
        ..Metrics::default()
    });
    app.update(Update::Reading(
        Box::new(Reading {
            view,
            metrics,
            groups: Vec::new(),
        }),
        None,
    ))
}

fn with(view: View) -> App {
    let mut app = App::new();
    read(&mut app, view);
    app
}

fn picture(app: &mut App, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("no I/O");
    let theme = Theme::new(true);
    terminal
        .draw(|frame| draw::draw(app, theme, frame.area(), frame.buffer_mut()))
        .expect("no I/O");
    let buffer = terminal.backend().buffer();
    let lines = buffer.content().chunks(usize::from(width.max(1)));
    // the cell after a wide character is empty
    let line = |cells: &[ratatui::buffer::Cell]| {
        let mut text = String::new();
        let mut skip = 0;
        for cell in cells {
            if skip == 0 {
                text += cell.symbol();
                skip = text::width(cell.symbol()).max(1);
            }
            skip -= 1;
        }
        text.trim_end().to_owned()
    };
    lines.map(line).collect()
}

fn press(app: &mut App, keys: &str) {
    for key in keys.chars() {
        app.key(Key::Char(key));
    }
}

#[test]
fn at_80_columns_the_most_important_ones_stand() {
    let mut app = with(view(10, 3));
    read(&mut app, view(11, 3));
    let lines = picture(&mut app, 80, 24);
    assert!(
        lines[0].starts_with("scx_proxy donating  watched 11.0s  waiting now 1"),
        "{lines:#?}"
    );
    assert_eq!(
        lines[1],
        "waits 3.0/s  inverted 3.0 ms/s (summed over waiters)  donations 6.0/s"
    );
    assert!(
        lines[2].starts_with(" 1 Locks  2 Chains  3 Tasks"),
        "{lines:#?}"
    );
    assert!(lines[3].starts_with("LOCK"), "{lines:#?}");
    for head in ["INVERTED▼", "WAITED", "WAITS", "LONGEST", "NOW", "OWNER"] {
        assert!(lines[3].contains(head), "no {head}: {}", lines[3]);
    }
    assert!(!lines[3].contains("CLASS"), "{}", lines[3]);
    assert!(lines[4].starts_with("lock-0000"), "{lines:#?}");
    assert!(lines[4].contains("33.0ms"), "{}", lines[4]);
    assert!(lines[23].starts_with("q quit"), "{lines:#?}");
}

#[test]
fn at_200_columns_everything_stands() {
    let mut app = with(view(10, 3));
    let lines = picture(&mut app, 200, 50);
    for head in ["TYPE", "DONATED", "CLASS"] {
        assert!(lines[3].contains(head), "no {head}: {}", lines[3]);
    }
    assert!(lines[4].contains("mutex fdget_pos"), "{}", lines[4]);
    press(&mut app, "3");
    let lines = picture(&mut app, 200, 50);
    for head in ["GAVE", "OWNED:INV", "WAITS FOR", "CGROUP"] {
        assert!(lines[3].contains(head), "no {head}: {}", lines[3]);
    }
}

#[test]
fn no_size_panics_and_small_ones_say_so() {
    for frozen in [false, true] {
        let mut app = with(view(10, 40));
        if frozen {
            app.key(Key::Enter);
        }
        assert_eq!(picture(&mut app, 20, 5)[0], "too small: 20x5, 30…");
        for width in (0..120).step_by(7) {
            for height in 0..30 {
                for keys in ["1", "2", "3", "4", "5", "?"] {
                    press(&mut app, keys);
                    picture(&mut app, width, height);
                }
                press(&mut app, "x"); // closes the help
            }
        }
    }
}

#[test]
fn an_empty_system_says_that_nothing_waits() {
    let mut app = App::new();
    assert!(picture(&mut app, 80, 24)[4].contains("no data yet"));
    let mut app = with(View::default());
    assert_eq!(
        picture(&mut app, 80, 24)[4],
        "nothing waits, and nothing has waited"
    );
    press(&mut app, "2");
    assert_eq!(picture(&mut app, 80, 24)[4], "nothing waits");
    press(&mut app, "5");
    assert_eq!(picture(&mut app, 80, 24)[4], "nothing counted yet");
}

#[test]
fn long_and_wide_names_are_cut() {
    let mut app = with(view(10, 3));
    press(&mut app, "3");
    let lines = picture(&mut app, 30, 8);
    assert!(lines[4].starts_with("    812 日本語の"), "{lines:#?}");
    assert!(lines[4].contains('…'), "{lines:#?}");
    press(&mut app, "2");
    for (width, cut) in [(60, true), (120, false)] {
        let lines = picture(&mut app, width, 24);
        assert!(lines[4].contains("firefox 812 -> mutex"), "{lines:#?}");
        assert_eq!(lines[4].contains('…'), cut, "{lines:#?}");
    }
}

#[test]
fn the_last_of_a_thousand_is_one_key_away() {
    let mut app = with(view(10, 1000));
    picture(&mut app, 80, 24);
    app.key(Key::End);
    let lines = picture(&mut app, 80, 24);
    assert!(lines[22].starts_with("lock-0999"), "{lines:#?}");
    app.key(Key::PageUp);
    assert!(picture(&mut app, 80, 24)[4].starts_with("lock-0980"));
    app.key(Key::Home);
    assert!(picture(&mut app, 80, 24)[4].starts_with("lock-0000"));
}

#[test]
fn what_is_missing_is_said_and_the_last_data_stay() {
    let mut app = with(view(10, 1));
    app.update(Update::Missing("waiting for the scheduler at X ...".into()));
    let lines = picture(&mut app, 80, 24);
    assert_eq!(lines[1], "waiting for the scheduler at X ...");
    assert!(lines[4].starts_with("lock-0000"), "{lines:#?}");
    press(&mut app, "d");
    assert_eq!(app.prompt, None, "nothing to switch");
    read(&mut app, view(11, 1));
    assert!(picture(&mut app, 80, 24)[1].starts_with("waits 1.0/s"));
}

#[test]
fn a_deadlock_is_seen_first() {
    let mut deadlock = view(10, 1);
    deadlock.chains[0].cycle = true;
    deadlock.chains[0].end = None;
    let mut app = with(deadlock);
    press(&mut app, "2");
    let lines = picture(&mut app, 80, 24);
    assert!(lines[0].contains("DEADLOCKS 1"), "{lines:#?}");
    assert!(lines[4].contains("DEADLOCK firefox 812"), "{lines:#?}");
}

#[test]
fn actions_are_per_second() {
    let mut app = with(view(10, 1));
    read(&mut app, view(12, 1));
    press(&mut app, "5");
    let lines = picture(&mut app, 80, 24);
    let donations = lines
        .iter()
        .find(|line| line.contains("donations  "))
        .expect("a row");
    assert!(
        donations.contains(" 3.5 ") && donations.ends_with('█'),
        "{donations}"
    );
}

#[test]
fn without_colours_there_are_none() {
    let mut app = with(view(10, 3));
    app.update(Update::Missing("gone".into()));
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).expect("no I/O");
    let theme = Theme::new(false);
    terminal
        .draw(|frame| draw::draw(&mut app, theme, frame.area(), frame.buffer_mut()))
        .expect("no I/O");
    let reset = ratatui::style::Color::Reset;
    let plain = |cell: &ratatui::buffer::Cell| cell.fg == reset && cell.bg == reset;
    assert!(terminal.backend().buffer().content().iter().all(plain));
}
