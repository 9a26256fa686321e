// SPDX-License-Identifier: GPL-2.0-only
//! The policy of `bpf/core`, compiled for the host (`bpf/core/host.c`).
#![allow(dead_code)] // each test program uses a part

pub mod policy;

/// Bound by `build.rs`.
#[allow(non_camel_case_types, non_upper_case_globals, non_snake_case)] // C names
#[allow(missing_docs)] // the C header documents each item
#[allow(clippy::all, clippy::unwrap_used, clippy::undocumented_unsafe_blocks)] // generated
pub mod sys {
    include!(concat!(env!("OUT_DIR"), "/host.rs"));
}

// what cc has built is linked to the library of the package, not by itself to its tests
#[link(name = "proxy_core", kind = "static")]
unsafe extern "C" {}

/// Functions of numbers only: safe to call with any.
macro_rules! pure {
    ($($name:ident = $c:ident($($arg:ident: $ty:ty),*) -> $ret:ty;)*) => {
        $(pub fn $name($($arg: $ty),*) -> $ret {
            // SAFETY: arithmetic on its arguments, no pointers, no state.
            unsafe { sys::$c($($arg),*) }
        })*
    };
}

pure! {
    key_cost = host_key_cost(ns: u64, weight: u32) -> u64;
    perf_after = host_perf_after(perf: u32, busy: u64, elapsed: u64, cur: u32) -> u32;
    key_floor = host_key_floor(key: u64, clock: u64, lag: u64) -> u64;
    key_ceiling = host_key_ceiling(key: u64, clock: u64, starve_ns: u64, load: u64) -> u64;
    key_min = host_key_min(a: u64, b: u64) -> u64;
    weight_of_nice = host_weight_of_nice(nice: i32) -> u32;
    token_make = host_token_make(seq: u64, kind: u32, place: u32) -> u64;
    token_kind = host_token_kind(token: u64) -> u32;
    donated_before_wake = host_donated_before_wake(delta: u64, charged_at: u64, woke_at: u64) -> u64;
}
