// SPDX-License-Identifier: GPL-2.0-only
//! Owns the summary of a list of samples: mean, percentiles and maximum.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub mean: f64,
    pub median: f64,
    /// What nine of ten are not above; reports of older versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p90: Option<f64>,
    /// What 99 of a hundred are not above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99: Option<f64>,
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
        let percentile = |percent| nearest_rank(&sorted, percent).map(round3);
        Some(Summary {
            mean: round3(mean),
            median: round3(median),
            p90: percentile(90),
            p99: percentile(99),
            max: round3(max),
        })
    }
}

/// The least sample that `percent` of all are not above.
fn nearest_rank(sorted: &[f64], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.checked_sub(1)?).copied()
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
                p90: Some(9.0),
                p99: Some(9.0),
                max: 9.0
            })
        );
        let even = Summary::of(&[4.0, 1.0, 2.0, 3.0]);
        assert_eq!(
            even,
            Some(Summary {
                mean: 2.5,
                median: 2.5,
                p90: Some(4.0),
                p99: Some(4.0),
                max: 4.0
            })
        );
        let one = Summary::of(&[1.23456]);
        assert_eq!(
            one,
            Some(Summary {
                mean: 1.235,
                median: 1.235,
                p90: Some(1.235),
                p99: Some(1.235),
                max: 1.235
            })
        );
    }

    #[test]
    fn percentiles_are_samples() {
        let samples: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        let summary = Summary::of(&samples).expect("samples");
        assert_eq!((summary.p90, summary.p99), (Some(180.0), Some(198.0)));
        assert_eq!(summary.max, 200.0);
    }
}
