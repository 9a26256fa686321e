// SPDX-License-Identifier: GPL-2.0-only
//! Puts an [`App`] onto a screen of any size: header, tabs, table, panel, footer. Every text is cut
//! to the place that it has.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::app::App;
use super::header;
use super::keys::HELP;
use super::table::{self, Column};
use super::text;
use super::theme::Theme;

/// The smallest screen that says anything.
pub const LEAST: (u16, u16) = (30, 8);
/// Lines above the table: two of the header, the tabs.
const ABOVE: u16 = 3;
/// The smallest panel, and the smallest table beside it.
const PANEL_MIN: u16 = 4;
const TABLE_MIN: u16 = 3;

/// A piece of a line and its style.
pub type Piece = (String, Style);

/// Draws everything.
pub fn draw(app: &mut App, theme: Theme, area: Rect, buffer: &mut Buffer) {
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let says = format!(
            "too small: {}x{}, {}x{} needed",
            area.width, area.height, LEAST.0, LEAST.1
        );
        line(buffer, area, 0, &[(says, theme.strong())]);
        return;
    }
    let width = usize::from(area.width);
    line(buffer, area, 0, &header::state(app, theme));
    line(buffer, area, 1, &header::pace(app, theme));
    line(buffer, area, 2, &header::tabs(app, theme, width));
    line(
        buffer,
        area,
        area.height - 1,
        &header::footer(app, theme, width),
    );

    let body = Rect {
        y: area.y + ABOVE,
        height: area.height - ABOVE - 1,
        ..area
    };
    let (table, panel) = split(body, app.frozen.is_some());
    draw_table(app, theme, table, buffer);
    draw_panel(app, theme, panel, buffer);
    if app.help {
        draw_help(theme, body, buffer);
    }
}

/// The table's place and the panel's; where there is no room for both, the panel has it all.
fn split(body: Rect, panel: bool) -> (Rect, Rect) {
    let height = match body.height {
        _ if !panel => 0,
        all if all < TABLE_MIN + PANEL_MIN => all,
        all => (all / 2).max(PANEL_MIN),
    };
    let table = Rect {
        height: body.height - height,
        ..body
    };
    let panel = Rect {
        y: body.y + table.height,
        height,
        ..body
    };
    (table, panel)
}

/// Puts pieces side by side onto line `nr` of `area`; what does not fit is cut off.
fn line(buffer: &mut Buffer, area: Rect, nr: u16, pieces: &[Piece]) {
    if nr >= area.height {
        return;
    }
    let mut x = area.x;
    for (words, style) in pieces {
        let room = area.right() - x;
        if room == 0 {
            return;
        }
        let words = text::cut(words, usize::from(room));
        let width = text::width(&words).min(usize::from(room));
        buffer.set_stringn(x, area.y + nr, &words, usize::from(room), *style);
        x += u16::try_from(width).unwrap_or(room);
    }
}

fn draw_table(app: &mut App, theme: Theme, area: Rect, buffer: &mut Buffer) {
    app.page = usize::from(area.height.saturating_sub(1));
    app.keep_in_sight();
    if area.height == 0 {
        return;
    }
    let (width, stale) = (usize::from(area.width), app.data().missing.is_some());
    let columns = app.screen().columns(app.classes);
    let layout = table::layout(columns, app.rows(), width);
    let heads = heads(columns, app);
    let text = table::line(columns, &layout, |nr| &heads[nr]);
    let text = text::fit(&text, width, false);
    line(buffer, area, 0, &[(text, theme.reversed())]);

    if app.rows().is_empty() {
        let says = if app.filter.is_empty() {
            app.screen().nothing(app.data()).to_owned()
        } else {
            format!("nothing here holds '{}'", text::clean(&app.filter))
        };
        line(buffer, area, 1, &[(says, theme.text(stale))]);
        return;
    }
    let chosen = app.chosen();
    let page = app.rows().iter().enumerate().skip(chosen.offset);
    for (nr, (index, row)) in (1..area.height).zip(page) {
        let text = table::line(columns, &layout, |nr| &row.cells[nr].text);
        let mut style = if row.alarm && !stale {
            theme.alarm()
        } else {
            theme.text(stale)
        };
        if index == chosen.at {
            style = style.patch(theme.reversed());
        }
        line(buffer, area, nr, &[(text::fit(&text, width, false), style)]);
    }
}

/// The heads; the column that the rows are sorted by has an arrow.
fn heads(columns: &[Column], app: &App) -> Vec<String> {
    let chosen = app.chosen();
    let arrow = if chosen.descending { '▼' } else { '▲' };
    let head = |(nr, column): (usize, &Column)| {
        let mut head = column.head.to_owned();
        if chosen.sort == Some(nr) {
            head.push(arrow);
        }
        head
    };
    columns.iter().enumerate().map(head).collect()
}

/// What is frozen: its name, then the newest lines of its history.
fn draw_panel(app: &App, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let Some(frozen) = app.frozen.as_ref().filter(|_| area.height > 0) else {
        return;
    };
    let width = usize::from(area.width);
    let state = if frozen.ended { " (ended)" } else { "" };
    let title = format!("frozen{state}: {}", frozen.title);
    // the whole of it, as far as there is room: a chain may be long
    let title = wrap(&title, width, usize::from(area.height / 3).max(1));
    let mut nr = 0;
    for words in title {
        line(
            buffer,
            area,
            nr,
            &[(text::fit(&words, width, false), theme.reversed())],
        );
        nr += 1;
    }
    if let Some(why) = &frozen.error {
        line(buffer, area, nr, &[(text::clean(why), theme.notice())]);
        nr += 1;
    } else if frozen.lines.is_empty() {
        line(
            buffer,
            area,
            nr,
            &[("nothing has happened yet".into(), theme.text(true))],
        );
        return;
    }
    let room = usize::from(area.height.saturating_sub(nr));
    let skip = frozen.lines.len().saturating_sub(room);
    for event in &frozen.lines[skip..] {
        let secs = event.time_ns as f64 / 1e9;
        let time = format!("{secs:.6} ");
        let words = text::clean(&event.text);
        line(
            buffer,
            area,
            nr,
            &[(time, theme.key()), (words, Style::default())],
        );
        nr += 1;
    }
}

/// `words` in lines of `width` columns, at most so many; what is left over is cut off.
fn wrap(words: &str, width: usize, lines: usize) -> Vec<String> {
    let mut wrapped = vec![String::new()];
    for word in words.split(' ') {
        let full = wrapped.len() == lines;
        let fits = |last: &&mut String| {
            last.is_empty() || full || text::width(last) + 1 + text::width(word) <= width
        };
        if let Some(last) = wrapped.last_mut().filter(fits) {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(word);
            continue;
        }
        wrapped.push(word.to_owned());
    }
    wrapped
}

fn draw_help(theme: Theme, area: Rect, buffer: &mut Buffer) {
    let width = usize::from(area.width);
    let mut put = |nr: u16, words: String, style: Style| {
        line(
            buffer,
            area,
            nr,
            &[(text::fit(&words, width, false), style)],
        );
    };
    put(0, "Keys (any key: back)".into(), theme.reversed());
    let shown = usize::from(area.height.saturating_sub(1));
    for (nr, (keys, what)) in (1..).zip(HELP.iter().take(shown)) {
        let keys = if width < 60 {
            text::fit(keys, 10, false)
        } else {
            format!("{keys:<28}")
        };
        put(nr, format!("{keys} {what}"), Style::default());
    }
    for nr in HELP.len() + 1..usize::from(area.height) {
        put(
            u16::try_from(nr).unwrap_or(u16::MAX),
            String::new(),
            Style::default(),
        );
    }
}
