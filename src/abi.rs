//! What BPF and Rust share, bound from `include/abi.h` by `build.rs`.
#![allow(non_camel_case_types, non_upper_case_globals, non_snake_case)] // C names
#![allow(missing_docs)] // the C header documents each item
#![allow(clippy::all, clippy::unwrap_used, clippy::undocumented_unsafe_blocks)] // generated
#![allow(dead_code)] // constants that only BPF uses

include!(concat!(env!("OUT_DIR"), "/abi.rs"));
