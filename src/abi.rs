// SPDX-License-Identifier: GPL-2.0-only
//! What BPF and Rust share, bound from `include/abi.h` by `build.rs`.
#![allow(non_camel_case_types, non_upper_case_globals, non_snake_case)] // C names
#![allow(missing_docs)] // the C header documents each item
#![allow(clippy::all, clippy::unwrap_used, clippy::undocumented_unsafe_blocks)] // generated
#![allow(dead_code)] // constants that only BPF uses

include!(concat!(env!("OUT_DIR"), "/abi.rs"));

/// Bytes of an event, in the ring, in recordings, and on the stats socket. Only `crate::events` takes them apart.
pub const EVENT_BYTES: usize = std::mem::size_of::<proxy_event>();

// integers without padding between or after them
const _: () = assert!(EVENT_BYTES == 7 * 8 + 6 * 4);

impl From<[u8; EVENT_BYTES]> for proxy_event {
    fn from(bytes: [u8; EVENT_BYTES]) -> Self {
        // SAFETY: see above.
        unsafe { std::mem::transmute(bytes) }
    }
}

impl From<proxy_event> for [u8; EVENT_BYTES] {
    fn from(event: proxy_event) -> Self {
        // SAFETY: see above.
        unsafe { std::mem::transmute(event) }
    }
}

impl Default for proxy_event {
    fn default() -> Self {
        Self::from([0; EVENT_BYTES])
    }
}

impl PartialEq for proxy_event {
    fn eq(&self, other: &Self) -> bool {
        <[u8; EVENT_BYTES]>::from(*self) == <[u8; EVENT_BYTES]>::from(*other)
    }
}

impl Eq for proxy_event {}
