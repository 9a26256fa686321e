// SPDX-License-Identifier: GPL-2.0-only
//! What BPF and Rust share, bound from `include/abi.h` by `build.rs`.
#![allow(non_camel_case_types, non_upper_case_globals, non_snake_case)] // C names
#![allow(missing_docs)] // the C header documents each item
#![allow(clippy::all, clippy::unwrap_used, clippy::undocumented_unsafe_blocks)] // generated
#![allow(dead_code)] // constants that only BPF uses

include!(concat!(env!("OUT_DIR"), "/abi.rs"));

/// Bytes of an event, in the ring, in recordings, and on the stats socket.
pub const EVENT_BYTES: usize = std::mem::size_of::<proxy_event>();

impl proxy_event {
    /// The event that begins these bytes, in the machine's byte order; `None` if they are too few.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        (bytes.len() >= EVENT_BYTES).then(|| {
            // SAFETY: long enough, all fields are integers, and the copy need not be aligned.
            unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast()) }
        })
    }

    /// Its bytes, in the machine's byte order.
    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: all fields are integers, and there is no padding between or after them.
        unsafe { std::slice::from_raw_parts(std::ptr::from_ref(self).cast(), EVENT_BYTES) }
    }
}

// no padding, see as_bytes()
const _: () = assert!(EVENT_BYTES == 7 * 8 + 6 * 4);

impl Default for proxy_event {
    fn default() -> Self {
        // SAFETY: all fields are integers.
        unsafe { std::mem::zeroed() }
    }
}

impl PartialEq for proxy_event {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}
