// SPDX-License-Identifier: GPL-2.0-only
//! What the programs print: the layout of text tables, and a standard output whose reader may go away.

use std::io::{self, Write};

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

    /// The text, a line a row.
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
