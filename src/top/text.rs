// SPDX-License-Identifier: GPL-2.0-only
//! Text that fits: widths in columns of a terminal, names cut with an ellipsis, times and counts
//! in few characters.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Columns that `text` takes up.
#[must_use]
pub fn width(text: &str) -> usize {
    UnicodeWidthStr::width(text)
}

/// `text` without control sequences: a task may have any name.
#[must_use]
pub fn clean(text: &str) -> String {
    let harmless = |c: char| !c.is_control() && c.width().is_some();
    text.chars()
        .map(|c| if harmless(c) { c } else { '?' })
        .collect()
}

/// The beginning of `text` in at most `columns` columns; what is cut off leaves a `…`.
#[must_use]
pub fn cut(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let Some(room) = columns.checked_sub(1) else {
        return String::new();
    };
    let mut used = 0;
    let mut kept: String = text
        .chars()
        .take_while(|c| {
            used += c.width().unwrap_or(0);
            used <= room
        })
        .collect();
    kept.push('…');
    kept
}

/// The end of `text` in at most `columns` columns, likewise: paths differ there.
#[must_use]
pub fn cut_front(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let backwards: String = text.chars().rev().collect();
    cut(&backwards, columns).chars().rev().collect()
}

/// The end of `text` in at most `columns` characters, each a column wide.
#[must_use]
pub fn tail(text: &str, columns: usize) -> String {
    let skip = text.chars().count().saturating_sub(columns);
    text.chars().skip(skip).collect()
}

/// `text` cut or filled up to `columns` columns.
#[must_use]
pub fn fit(text: &str, columns: usize, right: bool) -> String {
    let text = cut(text, columns);
    let fill = " ".repeat(columns.saturating_sub(width(&text)));
    if right { fill + &text } else { text + &fill }
}

/// Three digits or so, and the unit.
fn short(value: f64, unit: &str) -> String {
    let digits = usize::from(value < 99.95);
    format!("{value:.digits$}{unit}")
}

/// A length of time, in at most 6 columns; none is `-`.
#[must_use]
pub fn time(ns: u64) -> String {
    let secs = ns / 1_000_000_000;
    match ns {
        0 => "-".into(),
        1..1_000 => format!("{ns}ns"),
        1_000..999_500 => short(ns as f64 / 1e3, "us"),
        999_500..999_500_000 => short(ns as f64 / 1e6, "ms"),
        999_500_000..60_000_000_000 => short(ns as f64 / 1e9, "s"),
        _ if secs < 3600 => format!("{}m{:02}s", secs / 60, secs % 60),
        _ if secs < 360_000 => format!("{}h{:02}m", secs / 3600, secs / 60 % 60),
        _ => format!("{}d", secs / 86_400),
    }
}

/// A count, in at most 6 columns; none is `-`.
#[must_use]
pub fn count(n: u64) -> String {
    match n {
        0 => "-".into(),
        1..100_000 => n.to_string(),
        100_000..999_500 => short(n as f64 / 1e3, "k"),
        999_500..999_500_000 => short(n as f64 / 1e6, "M"),
        _ => short(n as f64 / 1e9, "G"),
    }
}

/// Something per second; none is `-`.
#[must_use]
pub fn rate(per_sec: f64) -> String {
    if per_sec <= 0.0 {
        "-".into()
    } else if per_sec < 99_999.5 {
        short(per_sec, "")
    } else {
        count(per_sec as u64)
    }
}

/// A weight, or an average number: with what digits tell something; none is `-`.
#[must_use]
pub fn weight(weight: f64) -> String {
    if weight <= 0.0 {
        "-".into()
    } else if weight >= 99.95 {
        format!("{weight:.0}")
    } else {
        short(weight, "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_by_columns_not_by_bytes() {
        assert_eq!(cut("firefox", 7), "firefox");
        assert_eq!(cut("firefox-bin", 7), "firefo…");
        assert_eq!(cut("日本語", 6), "日本語");
        assert_eq!(cut("日本語", 5), "日本…");
        assert_eq!(cut("日本語", 4), "日…");
        assert_eq!((cut("ab", 1), cut("ab", 0)), ("…".into(), String::new()));
        assert_eq!(cut_front("/system.slice/a.service", 10), "…a.service");
        assert_eq!(cut_front("/a", 2), "/a");
        assert_eq!(fit("日", 4, false), "日  ");
        assert_eq!(fit("日本語", 4, true), " 日…");
        assert_eq!(tail("▁▂▃", 2), "▂▃");
    }

    #[test]
    fn what_a_terminal_would_obey_is_taken_out() {
        assert_eq!(clean("a\x1b[2Jb\nc\u{9b}é"), "a?[2Jb?c?é");
    }

    #[test]
    fn times_and_counts_are_short() {
        for (ns, text) in [
            (0, "-"),
            (950, "950ns"),
            (12_340, "12.3us"),
            (999_499, "999us"),
            (999_500, "1.0ms"),
            (45_600_000, "45.6ms"),
            (1_234_000_000, "1.2s"),
            (725_000_000_000, "12m05s"),
            (7_380_000_000_000, "2h03m"),
            (864_000_000_000_000, "10d"),
        ] {
            assert_eq!(time(ns), text);
        }
        for exponent in 0..64 {
            for n in [1_u64 << exponent, (1 << exponent) - 1] {
                assert!(width(&time(n)) <= 7, "{}", time(n));
                assert!(n > 1 << 40 || width(&count(n)) <= 7, "{}", count(n));
            }
        }
        assert_eq!(
            (count(99_999), count(1_234_567)),
            ("99999".into(), "1.2M".into())
        );
        assert_eq!(
            (rate(0.0), rate(12.34), rate(1234.5)),
            ("-".into(), "12.3".into(), "1234".into())
        );
    }
}
