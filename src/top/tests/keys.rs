// SPDX-License-Identifier: GPL-2.0-only
//! What keys do to the picture.

use super::*;
use crate::top::worker::Ask;

#[test]
fn sorting_goes_from_column_to_column() {
    let mut app = with(view(10, 3));
    press(&mut app, "S");
    let lines = picture(&mut app, 80, 24);
    assert!(
        lines[3].contains("INVERTED▲") && lines[4].starts_with("lock-0002"),
        "{lines:#?}"
    );
    press(&mut app, "s");
    let lines = picture(&mut app, 80, 24);
    assert!(
        lines[3].contains("WAITED▼") && lines[4].starts_with("lock-0000"),
        "{lines:#?}"
    );
    for _ in 0..30 {
        press(&mut app, "s");
        picture(&mut app, 80, 24);
    }
    press(&mut app, "c"); // fewer columns
    picture(&mut app, 80, 24);
}

#[test]
fn a_filter_is_typed_kept_and_cleared() {
    let mut app = with(view(10, 30));
    press(&mut app, "/0007q");
    assert!(picture(&mut app, 80, 24)[4].contains("nothing here holds '0007q'"));
    assert!(picture(&mut app, 80, 24)[23].starts_with("filter: 0007q_"));
    app.key(Key::Backspace);
    app.key(Key::Enter);
    let lines = picture(&mut app, 80, 24);
    assert!(
        lines[4].starts_with("lock-0007") && lines[5].is_empty(),
        "{lines:#?}"
    );
    assert!(lines[2].contains("with '0007'"), "{}", lines[2]);
    app.key(Key::Esc);
    assert!(picture(&mut app, 80, 24)[4].starts_with("lock-0000"));
}

#[test]
fn the_selection_stays_with_its_row() {
    let mut app = with(view(10, 5));
    picture(&mut app, 80, 24);
    app.key(Key::Down);
    press(&mut app, "S");
    assert_eq!(app.rows()[app.chosen().at].cells[0].text, "lock-0001");
    app.key(Key::Home);
    press(&mut app, "S");
    assert_eq!(
        app.rows()[app.chosen().at].cells[0].text,
        "lock-0000",
        "the first is a place"
    );
}

#[test]
fn spans_are_total_interval_and_since_a_mark() {
    let inverted = |app: &mut App| app.rows()[0].cells[2].text.clone();
    let mut app = with(view(10, 1));
    read(&mut app, view(12, 1));
    assert_eq!(inverted(&mut app), "12.0ms");
    press(&mut app, "i");
    assert_eq!(inverted(&mut app), "2.0ms");
    assert!(picture(&mut app, 80, 24)[2].contains("in the last 2.0s"));
    press(&mut app, "i");
    assert_eq!(inverted(&mut app), "12.0ms", "there is no mark yet");
    press(&mut app, "r");
    assert_eq!(inverted(&mut app), "-");
    read(&mut app, view(15, 1));
    read(&mut app, view(16, 1));
    assert_eq!(inverted(&mut app), "4.0ms");
    assert!(picture(&mut app, 80, 24)[2].contains("since r, 4.0s"));
    // the scheduler was loaded anew
    let mut anew = view(1, 1);
    anew.since_ns = 17_000 * MS;
    anew.time_ns = 18_000 * MS;
    read(&mut app, anew);
    assert_eq!(inverted(&mut app), "1.0ms");
    assert!(picture(&mut app, 80, 24)[1].starts_with("waits 1.0/s  inverted 1.0 ms/s"));
}

#[test]
fn a_pause_holds_the_screen_and_not_the_data() {
    let mut app = with(view(10, 1));
    press(&mut app, "p");
    read(&mut app, view(20, 2));
    let lines = picture(&mut app, 80, 24);
    assert!(
        lines[0].contains("PAUSED") && lines[4].contains("10.0ms"),
        "{lines:#?}"
    );
    assert!(lines[5].is_empty(), "{lines:#?}");
    assert_eq!(app.key(Key::Char(' ')), Some(Effect::Ask(Ask::Read)));
    read(&mut app, view(20, 2));
    let lines = picture(&mut app, 80, 24);
    assert!(
        !lines[0].contains("PAUSED") && lines[4].contains("40.0ms"),
        "{lines:#?}"
    );
}

#[test]
fn donation_is_switched_after_a_yes_only() {
    let mut app = with(view(10, 1));
    press(&mut app, "d");
    assert!(picture(&mut app, 80, 24)[23].starts_with("switch donation off? y/n"));
    assert_eq!(app.key(Key::Char('n')), None);
    assert_eq!(app.key(Key::Char('y')), None, "the question is over");
    press(&mut app, "d");
    let effect = app.key(Key::Char('y'));
    assert_eq!(effect, Some(Effect::Ask(Ask::SetDonating(false))));
}

#[test]
fn a_frozen_chain_is_asked_about_until_it_is_let_go() {
    let ask = Some(Effect::Ask(Ask::History(vec![812, 813, 907])));
    let mut app = with(view(10, 1));
    press(&mut app, "2");
    assert_eq!(app.key(Key::Enter), ask);
    let line = crate::watch::view::HistoryLine {
        time_ns: 1_500 * MS,
        text: "firefox 812 waits".into(),
    };
    app.update(Update::History(vec![line]));
    let mut ended = view(11, 1);
    ended.chains.clear();
    assert_eq!(read(&mut app, ended), ask, "also when it has ended");
    let lines = picture(&mut app, 80, 24);
    let text = lines.join("\n");
    assert!(
        text.contains("frozen (ended): firefox 812 -> mutex fdget_pos"),
        "{text}"
    );
    assert!(text.contains("1.500000 firefox 812 waits"), "{text}");
    assert_eq!(app.key(Key::Char('f')), None);
    assert_eq!(read(&mut app, view(12, 1)), None);
    assert!(!picture(&mut app, 80, 24).join("\n").contains("frozen"));
}
