// SPDX-License-Identifier: GPL-2.0-only
//! Owns the summary of a list of samples: mean, median and maximum.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub mean: f64,
    pub median: f64,
    pub max: f64,
}

impl Summary {
    /// None for an empty list: a summary of nothing is no number.
    pub fn of(samples: &[f64]) -> Option<Summary> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let max = *sorted.last()?;
        let middle = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            (sorted[middle - 1] + sorted[middle]) / 2.0
        } else {
            sorted[middle]
        };
        let mean = mean(samples)?;
        Some(Summary {
            mean: round3(mean),
            median: round3(median),
            max: round3(max),
        })
    }
}

pub fn mean(samples: &[f64]) -> Option<f64> {
    if samples.is_empty() {
        return None;
    }
    Some(samples.iter().sum::<f64>() / samples.len() as f64)
}

/// Three decimals are more than any of these measurements can carry.
pub fn round3(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_has_no_summary() {
        assert_eq!(Summary::of(&[]), None);
        assert_eq!(mean(&[]), None);
    }

    #[test]
    fn odd_and_even_lists() {
        let odd = Summary::of(&[9.0, 1.0, 2.0]);
        assert_eq!(
            odd,
            Some(Summary {
                mean: 4.0,
                median: 2.0,
                max: 9.0
            })
        );
        let even = Summary::of(&[4.0, 1.0, 2.0, 3.0]);
        assert_eq!(
            even,
            Some(Summary {
                mean: 2.5,
                median: 2.5,
                max: 4.0
            })
        );
        let one = Summary::of(&[1.23456]);
        assert_eq!(
            one,
            Some(Summary {
                mean: 1.235,
                median: 1.235,
                max: 1.235
            })
        );
    }
}
