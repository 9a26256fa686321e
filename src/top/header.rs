// SPDX-License-Identifier: GPL-2.0-only
//! The lines around the table: what the scheduler does as a whole, which screen this is, and what
//! the keys do or ask.

use super::app::{App, Prompt};
use super::draw::Piece;
use super::screens::SCREENS;
use super::sums::Span;
use super::text;
use super::theme::Theme;

/// Width from which on all screens have their name.
const WIDE: usize = 60;

fn plain(words: impl Into<String>, theme: Theme) -> Piece {
    (words.into(), theme.text(false))
}

/// The first line: whether it donates, for how long, how many wait.
#[must_use]
pub fn state(app: &App, theme: Theme) -> Vec<Piece> {
    let data = app.data();
    let mut pieces = vec![("scx_proxy ".to_owned(), theme.strong())];
    if data.is_paused() {
        pieces.push(("PAUSED ".into(), theme.notice()));
    }
    let Some(view) = &data.view else {
        pieces.push(plain("no data yet", theme));
        return pieces;
    };
    pieces.push(if view.donating {
        ("donating".into(), theme.good())
    } else {
        ("observing".into(), theme.notice())
    });
    let watched = text::time(view.time_ns.saturating_sub(view.since_ns));
    pieces.push(plain(format!("  watched {watched}"), theme));
    pieces.push(plain(format!("  waiting now {}", view.waiting_now), theme));
    let deadlocks = view.chains.iter().filter(|chain| chain.cycle).count();
    if deadlocks > 0 {
        pieces.push((format!("  DEADLOCKS {deadlocks}"), theme.alarm()));
    }
    let lost = format!("  events lost {}", view.lost_events);
    let style = if view.lost_events > 0 {
        theme.notice()
    } else {
        theme.text(false)
    };
    pieces.push((lost, style));
    if let Some((done, of)) = data.position {
        let percent = done.saturating_mul(100) / of.max(1);
        pieces.push(plain(format!("  {percent}% of the recording"), theme));
    }
    pieces
}

/// The second line: what happens per second; or why nobody knows.
#[must_use]
pub fn pace(app: &App, theme: Theme) -> Vec<Piece> {
    if let Some(why) = &app.data().missing {
        return vec![(text::clean(why), theme.notice())];
    }
    let Some((sums, secs)) = app.data().pace() else {
        return vec![plain("waits -/s  inverted -/s  donations -/s", theme)];
    };
    let per_sec = |n: u64| text::rate(n as f64 / secs);
    let inverted_secs = sums.inverted_ns as f64 / 1e9 / secs;
    vec![plain(
        format!(
            "waits {}/s  inverted {} ms/s (summed over waiters)  donations {}/s",
            per_sec(sums.waits),
            text::rate(inverted_secs * 1e3),
            per_sec(sums.donations),
        ),
        theme,
    )]
}

/// The third line: the screens, and what their sums are over.
#[must_use]
pub fn tabs(app: &App, theme: Theme, width: usize) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for (nr, screen) in (1..).zip(SCREENS) {
        let shown = screen == app.screen();
        let style = if shown {
            theme.reversed()
        } else {
            theme.text(false)
        };
        if width >= WIDE {
            pieces.push((format!(" {nr} {} ", screen.name()), style));
        } else if shown {
            pieces.push((format!(" {nr}/5 {} ", screen.name()), style));
        }
    }
    let length = text::time(app.data().length_ns(app.span));
    let span = match app.span {
        Span::Total => " total".into(),
        Span::Interval => format!(" in the last {length}"),
        Span::Marked => format!(" since r, {length}"),
    };
    pieces.push(plain(span, theme));
    if !app.filter.is_empty() {
        let words = format!(" with '{}'", text::clean(&app.filter));
        pieces.push((words, theme.notice()));
    }
    pieces
}

/// The last line: a question, a message, or the keys.
#[must_use]
pub fn footer(app: &App, theme: Theme, width: usize) -> Vec<Piece> {
    match &app.prompt {
        Some(Prompt::Filter) => {
            let filter = text::clean(&app.filter);
            return vec![
                ("filter: ".into(), theme.strong()),
                plain(format!("{filter}_  (Enter: keep, Esc: none)"), theme),
            ];
        }
        Some(Prompt::Donate(on)) => {
            let word = if *on { "on" } else { "off" };
            return vec![(format!("switch donation {word}? y/n"), theme.notice())];
        }
        None => {}
    }
    if let Some(message) = &app.message {
        return vec![(text::clean(message), theme.notice())];
    }
    let all = [
        ("q", "quit"),
        ("?", "help"),
        ("s", "sort"),
        ("/", "filter"),
        ("f", "freeze"),
        ("p", "pause"),
        ("i", "span"),
        ("d", "donation"),
        ("r", "reset"),
    ];
    let mut left = width;
    let mut pieces = Vec::new();
    for (key, what) in all {
        let what = format!(" {what}  ");
        let Some(rest) = left.checked_sub(key.len() + what.len()) else {
            break;
        };
        left = rest;
        pieces.push((key.to_owned(), theme.key()));
        pieces.push(plain(what, theme));
    }
    pieces
}
