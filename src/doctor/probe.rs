// SPDX-License-Identifier: GPL-2.0-only
//! Two BPF programs of a few instructions each, shown to the kernel and closed again: what this process
//! may do with bpf(), whatever keeps it from that (capabilities, seccomp, LSMs, lockdown), and what its
//! pid is in the initial pid namespace. Nothing is attached.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use libbpf_rs::libbpf_sys as sys;

/// What the kernel did with the programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probed {
    /// Whether it compiled them, which kernel functions in BPF programs need.
    pub jited: bool,
    /// Whether BPF programs may read the kernel's memory.
    pub reads_kernel: bool,
    /// Our process id in the initial pid namespace.
    pub tgid: u32,
}

/// One instruction, as the kernel reads it on little-endian machines.
const fn insn(code: u8, dst: u8, src: u8, imm: i32) -> u64 {
    code as u64 | (dst as u64) << 8 | (src as u64) << 12 | (imm as u32 as u64) << 32
}

// linux/bpf.h and linux/bpf_common.h
const CALL: u8 = 0x85;
const EXIT: u64 = insn(0x95, 0, 0, 0);
const MOV_REG: u8 = 0xbf;
const MOV: u8 = 0xb7;
const ADD: u8 = 0x07;
const SHIFT_RIGHT: u8 = 0x77;
const GET_CURRENT_PID_TGID: i32 = 14;
const PROBE_READ_KERNEL: i32 = 113;

/// return bpf_get_current_pid_tgid() >> 32
const WHO: [u64; 3] = [
    insn(CALL, 0, 0, GET_CURRENT_PID_TGID),
    insn(SHIFT_RIGHT, 0, 0, 32),
    EXIT,
];

/// bpf_probe_read_kernel(stack, 8, NULL); return 0
const READ: [u64; 7] = [
    insn(MOV_REG, 1, 10, 0),
    insn(ADD, 1, 0, -8),
    insn(MOV, 2, 0, 8),
    insn(MOV, 3, 0, 0),
    insn(CALL, 0, 0, PROBE_READ_KERNEL),
    insn(MOV, 0, 0, 0),
    EXIT,
];

/// Show both programs to the kernel.
///
/// # Errors
/// Why it does not take even the first.
pub fn probe() -> io::Result<Probed> {
    let who = load(c"proxy_who", &WHO)?;
    Ok(Probed {
        jited: is_jited(&who)?,
        reads_kernel: load(c"proxy_read", &READ).is_ok(),
        tgid: run(&who)?,
    })
}

fn load(name: &CStr, insns: &[u64]) -> io::Result<OwnedFd> {
    let mut opts = sys::bpf_prog_load_opts {
        sz: size_of::<sys::bpf_prog_load_opts>() as sys::size_t,
        prog_flags: sys::BPF_F_SLEEPABLE,
        ..Default::default()
    };
    // SAFETY: terminated strings; as many instructions as said, of 8 bytes each, aligned to 8.
    let fd = unsafe {
        sys::bpf_prog_load(
            sys::BPF_PROG_TYPE_SYSCALL,
            name.as_ptr(),
            c"GPL".as_ptr(),
            insns.as_ptr().cast(),
            insns.len() as sys::size_t,
            &mut opts,
        )
    };
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: a new file descriptor, which is ours.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn is_jited(program: &OwnedFd) -> io::Result<bool> {
    let mut info = sys::bpf_prog_info::default();
    let mut len = size_of_val(&info) as u32;
    let into: *mut sys::bpf_prog_info = &mut info;
    // SAFETY: an open program, and `len` bytes that the kernel may write.
    match unsafe { sys::bpf_obj_get_info_by_fd(program.as_raw_fd(), into.cast(), &mut len) } {
        0 => Ok(info.jited_prog_len > 0),
        _ => Err(io::Error::last_os_error()),
    }
}

fn run(program: &OwnedFd) -> io::Result<u32> {
    let mut opts = sys::bpf_test_run_opts {
        sz: size_of::<sys::bpf_test_run_opts>() as sys::size_t,
        ..Default::default()
    };
    // SAFETY: an open program, and options without buffers.
    match unsafe { sys::bpf_prog_test_run_opts(program.as_raw_fd(), &mut opts) } {
        0 => Ok(opts.retval),
        _ => Err(io::Error::last_os_error()),
    }
}
