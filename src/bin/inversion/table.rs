// SPDX-License-Identifier: GPL-2.0-only
//! Owns the layout of text tables: words to the left, numbers to the right, columns as wide as needed.

#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
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

    pub fn render(&self) -> String {
        let columns = 0..self.rows[0].len();
        let layout: Vec<(usize, bool)> = columns
            .map(|column| {
                let cells = self.rows.iter().map(|row| row[column].as_str());
                let width = cells
                    .clone()
                    .map(|cell| cell.chars().count())
                    .max()
                    .unwrap_or(0);
                (width, cells.skip(1).all(is_number))
            })
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            let cells = row.iter().zip(&layout).map(|(cell, (width, right))| {
                if *right {
                    format!("{cell:>width$}")
                } else {
                    format!("{cell:<width$}")
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
}
