// SPDX-License-Identifier: GPL-2.0-only
//! Sums samples up. No I/O.

use serde::Serialize;

/// Of samples in ns, in us. All 0 if there are none.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Micros {
    pub samples: usize,
    pub mean_us: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub max_us: f64,
}

impl Micros {
    pub fn of(mut samples_ns: Vec<u64>) -> Micros {
        samples_ns.sort_unstable();
        let samples = samples_ns.len();
        // the smallest sample that so many per cent of all do not exceed
        let percentile = |percent: usize| {
            let rank = (samples * percent).div_ceil(100).max(1);
            samples_ns.get(rank - 1).map_or(0.0, |ns| *ns as f64 / 1e3)
        };
        let sum: f64 = samples_ns.iter().map(|ns| *ns as f64).sum();
        Micros {
            samples,
            // an empty sum is -0
            mean_us: round(sum / 1e3 / samples.max(1) as f64) + 0.0,
            p50_us: percentile(50),
            p99_us: percentile(99),
            max_us: percentile(100),
        }
    }
}

/// Smallest, mean and largest of some values. All 0 if there are none.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Range {
    pub min: f64,
    pub mean: f64,
    pub max: f64,
}

impl Range {
    pub fn of(values: &[f64]) -> Range {
        if values.is_empty() {
            return Range::default();
        }
        Range {
            min: values.iter().copied().fold(f64::INFINITY, f64::min),
            mean: round(values.iter().sum::<f64>() / values.len() as f64),
            max: values.iter().copied().fold(0.0, f64::max),
        }
    }
}

/// To six digits behind the point: more are noise, and make the output long.
pub fn round(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let micros = Micros::of((1..=200).rev().map(|us| us * 1000).collect());
        assert_eq!(micros.samples, 200);
        assert_eq!(micros.mean_us, 100.5);
        assert_eq!(micros.p50_us, 100.0);
        assert_eq!(micros.p99_us, 198.0);
        assert_eq!(micros.max_us, 200.0);
    }

    #[test]
    fn no_samples_are_no_trouble() {
        assert_eq!(Micros::of(Vec::new()), Micros::default());
        assert_eq!(Range::of(&[]), Range::default());
    }

    #[test]
    fn a_range_has_its_ends() {
        let range = Range::of(&[0.5, 0.25, 0.75]);
        assert_eq!((range.min, range.mean, range.max), (0.25, 0.5, 0.75));
    }
}
