// SPDX-License-Identifier: GPL-2.0-only
//! A table whose columns are given up by rank where there is no room, sorted by one of them and
//! filtered by the text of its rows. Knows nothing of what it shows.

use super::sums::RowId;
use super::text;

/// Columns between two cells.
const GAP: usize = 1;

/// How a cell stands in its column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Words; the end is cut off.
    Left,
    /// Words; the beginning is cut off.
    Path,
    /// Numbers.
    Right,
    /// A curve; the beginning is cut off.
    Tail,
}

impl Side {
    /// Whether such a column holds numbers, which are of interest if they are large.
    #[must_use]
    pub fn is_of_numbers(self) -> bool {
        matches!(self, Self::Right | Self::Tail)
    }
}

/// A column.
#[derive(Debug)]
pub struct Column {
    /// What stands above it.
    pub head: &'static str,
    /// How cells stand in it.
    pub side: Side,
    /// Least width worth having, at least that of the head and a character.
    pub min: usize,
    /// The larger, the sooner it is given up; 0 never is, and takes up what is left over.
    pub rank: u8,
}

/// What a cell is sorted by.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub enum Weight {
    /// Its text.
    Text,
    /// A number.
    Number(f64),
}

/// A cell.
#[derive(Clone, Debug)]
pub struct Cell {
    /// What is shown.
    pub text: String,
    /// What it is sorted by.
    pub weight: Weight,
}

impl Cell {
    /// Words.
    #[must_use]
    pub fn words(words: &str) -> Self {
        let (text, weight) = (text::clean(words), Weight::Text);
        Self { text, weight }
    }

    /// A number, and how it is written.
    #[must_use]
    pub fn number(value: f64, text: String) -> Self {
        let weight = Weight::Number(value);
        Self { text, weight }
    }

    /// A count.
    #[must_use]
    pub fn count(n: u64) -> Self {
        Self::number(n as f64, text::count(n))
    }

    /// A length of time.
    #[must_use]
    pub fn time(ns: u64) -> Self {
        Self::number(ns as f64, text::time(ns))
    }
}

/// A row, with a cell for each column.
#[derive(Clone, Debug)]
pub struct Row {
    /// What it is about.
    pub id: RowId,
    /// Its cells.
    pub cells: Vec<Cell>,
    /// It wants attention.
    pub alarm: bool,
}

/// Sorts by a column; rows that are equal there keep their order.
pub fn sort(rows: &mut [Row], column: usize, descending: bool) {
    rows.sort_by(|a, b| {
        let (a, b) = (&a.cells[column], &b.cells[column]);
        let order = match (a.weight, b.weight) {
            (Weight::Number(a), Weight::Number(b)) => a.total_cmp(&b),
            _ => a.text.cmp(&b.text),
        };
        if descending { order.reverse() } else { order }
    });
}

/// Keeps the rows in whose text `needle` is found; case does not matter.
pub fn filter(rows: &mut Vec<Row>, needle: &str) {
    let needle = needle.to_lowercase();
    if needle.is_empty() {
        return;
    }
    rows.retain(|row| {
        let cells = row.cells.iter().map(|cell| cell.text.as_str());
        let text = cells.collect::<Vec<_>>().join(" ");
        text.to_lowercase().contains(&needle)
    });
}

/// The columns that fit into `room`, by index, and how wide each is.
#[must_use]
pub fn layout(columns: &[Column], rows: &[Row], room: usize) -> Vec<(usize, usize)> {
    let mut by_rank: Vec<usize> = (0..columns.len()).collect();
    by_rank.sort_by_key(|&nr| columns[nr].rank);
    let mut kept = Vec::new();
    let mut used = 0;
    for nr in by_rank {
        let need = columns[nr].min + if kept.is_empty() { 0 } else { GAP };
        if !kept.is_empty() && used + need > room {
            break; // also the rest: what is more important must not come and go
        }
        used += need;
        kept.push((nr, columns[nr].min));
    }
    let mut left = room.saturating_sub(used);
    for (nr, width) in &mut kept {
        let cells = rows.iter().map(|row| text::width(&row.cells[*nr].text));
        let wish = cells.max().unwrap_or(0).max(*width);
        let more = left.min(wish - *width);
        *width += more;
        left -= more;
    }
    if let Some((nr, width)) = kept.first_mut()
        && columns[*nr].rank == 0
    {
        *width = (*width + left).min(room.max(1));
    }
    kept.sort_unstable();
    kept
}

/// A line of cells as wide as `layout` says.
pub fn line<'a>(
    columns: &[Column],
    layout: &[(usize, usize)],
    cell: impl Fn(usize) -> &'a str,
) -> String {
    let cells = layout.iter().map(|&(nr, width)| match columns[nr].side {
        Side::Left => text::fit(cell(nr), width, false),
        Side::Path => text::fit(&text::cut_front(cell(nr), width), width, false),
        Side::Right => text::fit(cell(nr), width, true),
        Side::Tail => text::fit(&text::tail(cell(nr), width), width, true),
    });
    cells.collect::<Vec<_>>().join(&" ".repeat(GAP))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] = [
        Column {
            head: "NAME",
            side: Side::Left,
            min: 8,
            rank: 0,
        },
        Column {
            head: "TYPE",
            side: Side::Left,
            min: 6,
            rank: 2,
        },
        Column {
            head: "N",
            side: Side::Right,
            min: 5,
            rank: 1,
        },
    ];

    fn rows() -> Vec<Row> {
        let row = |nr: u64, name: &str, n| Row {
            id: RowId::Lock(nr),
            cells: vec![Cell::words(name), Cell::words("mutex"), Cell::count(n)],
            alarm: false,
        };
        vec![
            row(1, "Beta", 2),
            row(2, "alpha", 10),
            row(3, "gamma-with-a-name", 2),
        ]
    }

    fn ids(rows: &[Row]) -> Vec<u64> {
        let id = |row: &Row| match row.id {
            RowId::Lock(id) => id,
            _ => 0,
        };
        rows.iter().map(id).collect()
    }

    #[test]
    fn numbers_sort_as_numbers_and_words_as_words() {
        let mut rows = rows();
        sort(&mut rows, 2, true);
        assert_eq!(ids(&rows), [2, 1, 3]);
        sort(&mut rows, 2, false);
        assert_eq!(ids(&rows), [1, 3, 2]);
        sort(&mut rows, 0, false);
        assert_eq!(ids(&rows), [1, 2, 3]);
    }

    #[test]
    fn a_filter_looks_at_all_of_a_row() {
        let kept = |needle: &str| {
            let mut rows = rows();
            filter(&mut rows, needle);
            ids(&rows)
        };
        assert_eq!(kept(""), [1, 2, 3]);
        assert_eq!(kept("BETA"), [1]);
        assert_eq!(kept("mutex 10"), [2]);
        assert!(kept("nothing").is_empty());
    }

    #[test]
    fn columns_are_given_up_by_rank_and_lines_fit() {
        let rows = rows();
        let names = |room| -> Vec<usize> {
            layout(&COLUMNS, &rows, room)
                .iter()
                .map(|(nr, _)| *nr)
                .collect()
        };
        assert_eq!(names(40), [0, 1, 2]);
        assert_eq!(names(20), [0, 2]);
        assert_eq!(names(13), [0]);
        for room in 1..60 {
            let layout = layout(&COLUMNS, &rows, room);
            let line = line(&COLUMNS, &layout, |nr| &rows[2].cells[nr].text);
            assert!(text::width(&line) <= room.max(8), "{room}: {line}");
            assert!(room < 8 || text::width(&line) == room, "{room}: {line}");
        }
        let layout = layout(&COLUMNS, &rows, 22);
        let line = line(&COLUMNS, &layout, |nr| &rows[2].cells[nr].text);
        assert_eq!(line, "gamma-wi… mutex      2");
    }
}
