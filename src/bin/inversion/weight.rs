// SPDX-License-Identifier: GPL-2.0-only
//! Owns the relation between nice values, scheduler weights and the fair ideal.
//!
//! The weights are the kernel's own table for fair tasks, so that the ideal printed beside a factor
//! is the one a scheduler with exact weights and perfect donation would reach.

/// Weight of each nice value, from -20 to 19, as the kernel defines them.
const NICE_WEIGHT: [u32; 40] = [
    88761, 71755, 56483, 46273, 36291, 29154, 23254, 18705, 14949, 11916, // -20 ..= -11
    9548, 7620, 6100, 4904, 3906, 3121, 2501, 1991, 1586, 1277, // -10 ..= -1
    1024, 820, 655, 526, 423, 335, 272, 215, 172, 137, // 0 ..= 9
    110, 87, 70, 56, 45, 36, 29, 23, 18, 15, // 10 ..= 19
];

pub const NICE_MIN: i32 = -20;
pub const NICE_MAX: i32 = 19;

/// The weight of a nice value; values outside the range count as its nearest end.
pub fn weight(nice: i32) -> u32 {
    let index = nice.clamp(NICE_MIN, NICE_MAX) - NICE_MIN;
    NICE_WEIGHT[index as usize]
}

/// The factor a waiter would see had it run the critical section itself, in competition with `hogs`
/// tasks on its CPU: 1 + competing weight / own weight.
pub fn fair_ideal(hogs: u32, hog_nice: i32, waiter_nice: i32) -> f64 {
    let competing = f64::from(hogs) * f64::from(weight(hog_nice));
    1.0 + competing / f64::from(weight(waiter_nice))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_at_the_known_points() {
        assert_eq!(weight(-20), 88761);
        assert_eq!(weight(-10), 9548);
        assert_eq!(weight(0), 1024);
        assert_eq!(weight(19), 15);
        assert_eq!(weight(99), 15);
        assert_eq!(weight(-99), 88761);
    }

    #[test]
    fn weights_fall_by_about_a_quarter_a_step() {
        for nice in NICE_MIN..NICE_MAX {
            let ratio = f64::from(weight(nice)) / f64::from(weight(nice + 1));
            assert!((1.15..1.35).contains(&ratio), "nice {nice}: ratio {ratio}");
        }
    }

    #[test]
    fn fair_ideal_of_the_standard_scenarios() {
        assert!((fair_ideal(2, 0, -10) - 1.2145).abs() < 1e-4);
        assert!((fair_ideal(1, 0, -10) - 1.1072).abs() < 1e-4);
        assert!((fair_ideal(1, 0, 0) - 2.0).abs() < 1e-12);
        assert!((fair_ideal(0, 0, 0) - 1.0).abs() < 1e-12);
    }
}
