// SPDX-License-Identifier: GPL-2.0-only
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| scx_proxy::fuzz::run("symbol", input));
