// SPDX-License-Identifier: GPL-2.0-only
//! What the programs print: streams whose readers may go away, when there may be colors, and the
//! layout of text tables.
//!
//! `println!` and `eprintln!` panic without a reader. The programs use what is here instead.

use std::env;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsRawFd;

use unicode_width::UnicodeWidthStr;

/// Prints to the standard output; a reader that has gone away is no error.
///
/// # Errors
/// Whatever else keeps the text from being written.
pub fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// Prints to the standard error. Errors of that are ignored: there is no other place to report them.
pub fn print_error(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Prints what the parser of the command line has to say: help to the standard output, what is
/// wrong to the standard error.
///
/// # Errors
/// Help that cannot be written, though there is a reader.
pub fn answer(said: &clap::Error) -> io::Result<()> {
    let text = said.render();
    if said.use_stderr() {
        print_error(&match has_colors(&io::stderr()) {
            true => text.ansi().to_string(),
            false => text.to_string(),
        });
        return Ok(());
    }
    print(&match has_colors(&io::stdout()) {
        true => text.ansi().to_string(),
        false => text.to_string(),
    })
}

/// Whether colors may be written there: to terminals that know them, unless the user has set
/// `NO_COLOR`.
#[must_use]
pub fn has_colors(stream: &impl IsTerminal) -> bool {
    let var = |name| env::var_os(name);
    stream.is_terminal() && wants_colors(var("NO_COLOR").as_deref(), var("TERM").as_deref())
}

/// What <https://no-color.org> says: an empty `NO_COLOR` is none.
fn wants_colors(no_color: Option<&OsStr>, term: Option<&OsStr>) -> bool {
    no_color.is_none_or(OsStr::is_empty) && term.is_some_and(|term| term != "dumb")
}

/// Files and sockets that `make` makes are this user's only, at no moment another's, whatever the umask was.
/// The umask is the whole process's: no other thread may make files meanwhile.
pub fn private_umask<T>(make: impl FnOnce() -> T) -> T {
    // SAFETY: no memory is involved.
    let umask = unsafe { libc::umask(0o177) };
    let made = make();
    // SAFETY: as above.
    unsafe { libc::umask(umask) };
    made
}

/// Lets the standard error lead nowhere if its reader has gone away, for code of others that panics
/// then.
pub fn mute_unread_stderr() {
    let stderr = io::stderr().as_raw_fd();
    let mut asked = libc::pollfd {
        fd: stderr,
        events: 0,
        revents: 0,
    };
    // SAFETY: one live pollfd, and no waiting.
    let found = unsafe { libc::poll(&mut asked, 1, 0) };
    if found != 1 || asked.revents & libc::POLLERR == 0 {
        return;
    }
    if let Ok(nowhere) = File::options().write(true).open("/dev/null") {
        // SAFETY: two open files; the standard error stays open, as another one.
        unsafe { libc::dup2(nowhere.as_raw_fd(), stderr) };
    }
}

/// What a program or a file is called, as it may stand in a terminal, a log or a label: whoever chose the
/// name may have put characters there that move the cursor, or begin a line.
#[must_use]
pub fn printable(name: &str) -> String {
    let unprintable = |c: &char| c.is_control() || is_format(*c);
    if !name.chars().any(|c| unprintable(&c)) {
        return name.to_owned();
    }
    let mut text = String::with_capacity(name.len() + 8);
    for c in name.chars() {
        if unprintable(&c) {
            text.extend(c.escape_default());
        } else {
            text.push(c);
        }
    }
    text
}

/// Characters that show nothing and change how others are shown: direction, line and paragraph.
fn is_format(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// A text table: words to the left, numbers to the right, columns as wide as needed.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these heads, and no rows yet.
    #[must_use]
    pub fn new(heads: &[&str]) -> Table {
        Table {
            rows: vec![heads.iter().map(ToString::to_string).collect()],
        }
    }

    /// Adds a row; it has as many cells as there are heads.
    pub fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.rows[0].len());
        self.rows.push(cells);
    }

    /// The text, a line per row.
    #[must_use]
    pub fn render(&self) -> String {
        let columns = 0..self.rows[0].len();
        let layout: Vec<(usize, bool)> = columns
            .map(|column| {
                let cells = self.rows.iter().map(|row| row[column].as_str());
                let width = cells.clone().map(UnicodeWidthStr::width).max().unwrap_or(0);
                (width, cells.skip(1).all(is_number))
            })
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            let cells = row.iter().zip(&layout).map(|(cell, (width, right))| {
                let fill = " ".repeat(width.saturating_sub(cell.width()));
                if *right {
                    fill + cell
                } else {
                    format!("{cell}{fill}")
                }
            });
            let line = cells.collect::<Vec<_>>().join("  ");
            text += line.trim_end();
            text.push('\n');
        }
        text
    }
}

fn is_number(cell: &str) -> bool {
    cell.starts_with(|first: char| first.is_ascii_digit()) || cell == "-"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colors_are_for_terminals_that_know_them_and_users_that_want_them() {
        for (no_color, term, wanted) in [
            (None, Some("xterm"), true),
            (Some(""), Some("xterm"), true),
            (Some("1"), Some("xterm"), false),
            (Some("0"), Some("xterm"), false),
            (None, Some("dumb"), false),
            (None, None, false),
        ] {
            let got = wants_colors(no_color.map(OsStr::new), term.map(OsStr::new));
            assert_eq!(got, wanted, "NO_COLOR {no_color:?} TERM {term:?}");
        }
    }

    #[test]
    fn names_cannot_move_the_cursor() {
        for (name, expected) in [
            ("tar", "tar"),
            ("日本語 ä", "日本語 ä"),
            ("a\nb", r"a\nb"),
            ("\x1b]0;x\x07", r"\u{1b}]0;x\u{7}"),
            ("\u{9b}2J", r"\u{9b}2J"),
            ("\u{202e}gpj", r"\u{202e}gpj"),
        ] {
            assert_eq!(printable(name), expected);
        }
    }

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["name", "value"]);
        table.row(vec!["a".into(), "1.5".into()]);
        table.row(vec!["longer".into(), "-".into()]);
        assert_eq!(
            table.render(),
            "name    value\na         1.5\nlonger      -\n"
        );
    }

    #[test]
    fn wide_characters_take_two_columns() {
        let mut table = Table::new(&["name", "value"]);
        table.row(vec!["日本語".into(), "1".into()]);
        assert_eq!(table.render(), "name    value\n日本語      1\n");
    }
}
