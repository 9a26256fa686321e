// SPDX-License-Identifier: GPL-2.0-only
//! Arithmetic of keys: weighted virtual time, in u64 that wraps. The integer
//! steps and their order are part of the specification, since a key that is off
//! by one decides differently.

/// Weight of a task at nice 0: its key runs as fast as the CPU's time.
pub const WEIGHT_NICE_0: u32 = 1024 << WEIGHT_SHIFT;

/// Bits of a weight below those of the kernel's table.
const WEIGHT_SHIFT: u32 = 10;

/// The least weight.
pub const WEIGHT_MIN: u32 = 16;

/// No key is further from its clock.
const SPAN_MAX: u64 = 1 << 60;

/// Weights by nice value from -20 on: about 10 % of CPU a step.
const NICE_TO_WEIGHT: [u32; 40] = [
    88761, 71755, 56483, 46273, 36291, 29154, 23254, 18705, 14949, 11916, 9548, 7620, 6100, 4904,
    3906, 3121, 2501, 1991, 1586, 1277, 1024, 820, 655, 526, 423, 335, 272, 215, 172, 137, 110, 87,
    70, 56, 45, 36, 29, 23, 18, 15,
];

/// How far before the clock the keys of urgent donors begin.
pub const URGENT_SPAN: u64 = 1 << 61;

/// What one step of urgency is worth.
pub const URGENCY_STEP: u64 = 1 << 32;

/// Weight of a task of that nice value; nice 0 if there is no such value.
pub fn weight_of_nice(nice: i32) -> u32 {
    usize::try_from(nice + 20)
        .ok()
        .and_then(|i| NICE_TO_WEIGHT.get(i))
        .map_or(WEIGHT_NICE_0, |weight| weight << WEIGHT_SHIFT)
}

/// Whether `a` is the earlier key. Keys wrap, so only their distance counts.
pub fn before(a: u64, b: u64) -> bool {
    (a.wrapping_sub(b) as i64) < 0
}

/// The earlier of two keys, either of which may be missing; the first of equals.
pub fn earlier(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) if before(b, a) => Some(b),
        (None, b) => b,
        (a, _) => a,
    }
}

/// The later of two keys.
pub fn later(a: u64, b: u64) -> u64 {
    if before(a, b) { b } else { a }
}

/// What `ns` of CPU time cost in virtual time at `weight`.
pub fn cost(ns: u64, weight: impl Into<u64>) -> u64 {
    let weight = weight.into();
    if weight == 0 {
        return ns;
    }
    ns.wrapping_mul(u64::from(WEIGHT_NICE_0)) / weight
}

/// `key` of one clock in terms of another: its distance to the clock stays.
pub fn rebase(key: u64, from_clock: u64, to_clock: u64) -> u64 {
    to_clock.wrapping_add(key.wrapping_sub(from_clock))
}

/// `key`, but no earlier than `lag` before the clock: sleep saves up no more.
pub fn floor(key: u64, clock: u64, lag: u64) -> u64 {
    let least = clock.wrapping_sub(lag);
    if before(key, least) { least } else { key }
}

/// `key`, but no later than what `starve_ns` of waiting pay for under `load`.
pub fn ceiling(key: u64, clock: u64, starve_ns: u64, load: u64) -> u64 {
    let load = if load == 0 {
        u64::from(WEIGHT_NICE_0)
    } else {
        load
    };
    let span = starve_ns.wrapping_mul(u64::from(WEIGHT_NICE_0)) / load;
    let most = clock.wrapping_add(span);
    if before(most, key) { most } else { key }
}

/// Key of a donor that goes before all fair ones; the more urgent the earlier.
pub fn urgent(clock: u64, urgency: u32) -> u64 {
    clock
        .wrapping_sub(URGENT_SPAN)
        .wrapping_sub(u64::from(urgency).wrapping_mul(URGENCY_STEP))
}

/// Virtual time `span` at weight `from` in terms of weight `to`: as much CPU time.
pub fn reweight(span: u64, from: u32, to: u32) -> u64 {
    let (from, to) = (u64::from(from), u64::from(to));
    if from == 0 || to == 0 {
        return span;
    }
    let most = SPAN_MAX / from;
    if span <= most {
        span * from / to
    } else if span / to > most {
        SPAN_MAX
    } else {
        span / to * from
    }
}

/// `key`, ahead of `clock` or behind, when its weight changes: as much CPU time.
pub fn rescale(key: u64, clock: u64, from: u32, to: u32) -> u64 {
    if before(clock, key) {
        clock.wrapping_add(reweight(key.wrapping_sub(clock), from, to))
    } else {
        clock.wrapping_sub(reweight(clock.wrapping_sub(key), from, to))
    }
}
