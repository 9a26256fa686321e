// SPDX-License-Identifier: GPL-2.0-only
//! What the kernel says of the programs that it took.

use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Context, Result};
use libbpf_rs::libbpf_sys::{self, bpf_prog_info};
use libbpf_rs::skel::Skel;

use super::skel::BpfSkel;

/// What it says of one.
pub(crate) fn info(program: &libbpf_rs::Program<'_>) -> Result<bpf_prog_info> {
    let mut info = bpf_prog_info::default();
    let mut len = u32::try_from(size_of_val(&info))?;
    let into: *mut bpf_prog_info = &mut info;
    // SAFETY: an open program, and `len` bytes that the kernel may write.
    let failed = unsafe {
        libbpf_sys::bpf_obj_get_info_by_fd(program.as_fd().as_raw_fd(), into.cast(), &mut len)
    };
    if failed != 0 {
        Err(std::io::Error::last_os_error()).context("the kernel does not describe the program")?;
    }
    Ok(info)
}

/// How often the kernel left one of our programs out, since it was at work on that CPU already.
pub(super) fn recursion_misses(skel: &BpfSkel<'_>) -> Result<u64> {
    let loaded = skel.object().progs().filter(|program| program.autoload());
    loaded
        .map(|program| Ok(info(&program)?.recursion_misses))
        .sum()
}
