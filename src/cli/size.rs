// SPDX-License-Identifier: GPL-2.0-only
//! Sizes on the command line.

use anyhow::{Context, Result, bail};

/// A size in bytes, from a number with K, M, G or T behind it.
///
/// # Errors
/// It is none, or too small to hold a few chunks.
pub fn parse_size(text: &str) -> Result<u64> {
    const MIN: u64 = 8 << 20;
    let (digits, shift) = match text.trim_end_matches(|c: char| c.is_ascii_alphabetic()) {
        digits if digits.len() == text.len() => (digits, 0),
        digits => match text[digits.len()..].to_ascii_uppercase().as_str() {
            "K" | "KIB" => (digits, 10),
            "M" | "MIB" => (digits, 20),
            "G" | "GIB" => (digits, 30),
            "T" | "TIB" => (digits, 40),
            _ => bail!("not a size: 64M, 1G"),
        },
    };
    let number: u64 = digits.parse().context("not a size: 64M, 1G")?;
    match number.checked_mul(1 << shift) {
        Some(bytes) if (MIN..=1 << 40).contains(&bytes) => Ok(bytes),
        _ => bail!("not in 8M..=1T"),
    }
}
