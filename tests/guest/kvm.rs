// SPDX-License-Identifier: GPL-2.0-only
//! A machine of KVM, as small as one can be: one page of memory for programs of real mode, and virtual CPUs that
//! run them. Numbers and layouts are those of include/uapi/linux/kvm.h.

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

const KVM_CREATE_VM: u64 = 0xae01;
const KVM_GET_VCPU_MMAP_SIZE: u64 = 0xae04;
const KVM_CREATE_VCPU: u64 = 0xae41;
const KVM_SET_USER_MEMORY_REGION: u64 = 0x4020_ae46;
const KVM_CREATE_IRQCHIP: u64 = 0xae60;
const KVM_RUN: u64 = 0xae80;
const KVM_SET_REGS: u64 = 0x4090_ae82;
const KVM_GET_SREGS: u64 = 0x8138_ae83;
const KVM_SET_SREGS: u64 = 0x4138_ae84;
const KVM_GET_LAPIC: u64 = 0x8400_ae8e;
const KVM_SET_LAPIC: u64 = 0x4400_ae8f;
const KVM_SET_MP_STATE: u64 = 0x4004_ae99;
const KVM_MP_STATE_RUNNABLE: u32 = 0;
const KVM_EXIT_IO: u32 = 2;
/// struct kvm_run: exit_reason
const EXIT_REASON: usize = 8;
/// struct kvm_regs, in words
const REGS: usize = 18;
const RIP: usize = 16;
const RFLAGS: usize = 17;
/// struct kvm_lapic_state
const LAPIC: usize = 1024;
/// struct kvm_sregs, which begins with that of CS
const SREGS: usize = 312;
const CS_BASE: std::ops::Range<usize> = 0..8;
const CS_SELECTOR: std::ops::Range<usize> = 12..14;

const PAGE: usize = 4096;
/// Where the page is for the machine.
const BASE: u16 = 0x1000;
/// In it: not 0 once the virtual CPUs shall end.
const STOP: usize = 0xff0;
/// In it: for each virtual CPU, not 0 once it runs its program.
const HAS_RUN: usize = 0xfe0;
/// Room for one program.
const PROGRAM: usize = 0x100;

/// Of these the one that is made for the CPU loads.
pub const MODULES: [&str; 2] = ["kvm-amd", "kvm-intel"];

pub fn is_there() -> bool {
    std::fs::metadata("/dev/kvm").is_ok()
}

/// A program of rounds; it ends itself by a write to a port, if it shall end.
fn rounds(nr: usize, body: &[u8]) -> Vec<u8> {
    let [low, high] = (BASE + (HAS_RUN + nr) as u16).to_le_bytes();
    // mov byte [HAS_RUN + nr], 1
    let mut code = vec![0xc6, 0x06, low, high, 1];
    let [low, high] = (BASE + STOP as u16).to_le_bytes();
    // cmp byte [STOP], 0; je +2; out 0x10, al
    code.extend([0x80, 0x3e, low, high, 0, 0x74, 2, 0xe6, 0x10]);
    code.extend(body);
    // jmp to the beginning
    let back = -(code.len() as i8 + 2);
    code.extend([0xeb, back as u8]);
    code
}

/// It only spins.
pub const SPINS: &[u8] = &[];

/// It spins, and calls for the second virtual CPU now and then.
pub const CALLS_FOR_SECOND: &[u8] = &[
    0x66, 0xb9, 0x00, 0x20, 0, 0, // mov ecx, 0x2000
    0x66, 0x49, // dec ecx
    0x75, 0xfc, // jne -4
    0x66, 0xb8, 11, 0, 0, 0, // mov eax, KVM_HC_SCHED_YIELD
    0x66, 0xbb, 1, 0, 0, 0, // mov ebx, the APIC id
    0x0f, 0x01, 0xd9, // vmmcall; KVM replaces it where it is vmcall
];

fn ioctl(fd: RawFd, request: u64, arg: u64, what: &str) -> Result<i32, String> {
    // SAFETY: arg is a number, or points at what the request asks for, which lives through the call.
    let ret = unsafe { libc::ioctl(fd, request as _, arg) };
    if ret < 0 {
        return Err(format!("{what}: {}", std::io::Error::last_os_error()));
    }
    Ok(ret)
}

fn owned(fd: i32) -> File {
    // SAFETY: the kernel has just made it for us.
    unsafe { File::from_raw_fd(fd) }
}

/// A shared mapping.
struct Mapping {
    at: *mut u8,
    len: usize,
}

// SAFETY: memory that is written before other threads exist, and through atomics or the kernel since.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(len: usize, fd: RawFd) -> Result<Self, String> {
        let flags = libc::MAP_SHARED | if fd < 0 { libc::MAP_ANONYMOUS } else { 0 };
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping.
        let at = unsafe { libc::mmap(null_mut(), len, rights, flags, fd, 0) };
        if at == libc::MAP_FAILED {
            return Err(format!("mmap: {}", std::io::Error::last_os_error()));
        }
        Ok(Self { at: at.cast(), len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: our own mapping, which nobody refers to any more.
        unsafe { libc::munmap(self.at.cast(), self.len) };
    }
}

pub struct Machine {
    kvm: File,
    vm: Arc<File>,
    memory: Arc<Mapping>,
    nr_vcpus: std::cell::Cell<usize>,
}

impl Machine {
    pub fn new() -> Result<Self, String> {
        let kvm = File::options().read(true).write(true).open("/dev/kvm");
        let kvm = kvm.map_err(|e| format!("/dev/kvm: {e}"))?;
        let vm = owned(ioctl(kvm.as_raw_fd(), KVM_CREATE_VM, 0, "KVM_CREATE_VM")?);
        let memory = Mapping::new(PAGE, -1)?;
        // struct kvm_userspace_memory_region: slot, flags; guest_phys_addr; memory_size; userspace_addr
        let region = [0, u64::from(BASE), PAGE as u64, memory.at as u64];
        let arg = region.as_ptr() as u64;
        ioctl(vm.as_raw_fd(), KVM_SET_USER_MEMORY_REGION, arg, "memory")?;
        // local APICs, by whose numbers a virtual CPU calls for another one
        ioctl(vm.as_raw_fd(), KVM_CREATE_IRQCHIP, 0, "KVM_CREATE_IRQCHIP")?;
        Ok(Self {
            kvm,
            vm: Arc::new(vm),
            memory: Arc::new(memory),
            nr_vcpus: 0.into(),
        })
    }

    pub fn nr_vcpus(&self) -> usize {
        self.nr_vcpus.get()
    }

    /// The next virtual CPU, whose program is rounds of `body`.
    pub fn vcpu(&self, body: &[u8]) -> Result<Vcpu, String> {
        let nr = self.nr_vcpus.replace(self.nr_vcpus.get() + 1);
        let (at, code) = (nr * PROGRAM, rounds(nr, body));
        if code.len() > PROGRAM || at + PROGRAM > HAS_RUN {
            return Err("no room for the program".to_owned());
        }
        // SAFETY: within the page, and no virtual CPU runs there yet.
        unsafe { std::ptr::copy(code.as_ptr(), self.memory.at.add(at), code.len()) };
        let what = "KVM_CREATE_VCPU";
        let fd = owned(ioctl(
            self.vm.as_raw_fd(),
            KVM_CREATE_VCPU,
            nr as u64,
            what,
        )?);
        let what = "KVM_GET_VCPU_MMAP_SIZE";
        let size = ioctl(self.kvm.as_raw_fd(), KVM_GET_VCPU_MMAP_SIZE, 0, what)?;
        let run = Mapping::new(size as usize, fd.as_raw_fd())?;
        let mut sregs = [0u8; SREGS];
        ioctl(
            fd.as_raw_fd(),
            KVM_GET_SREGS,
            sregs.as_mut_ptr() as u64,
            "KVM_GET_SREGS",
        )?;
        sregs[CS_BASE].fill(0);
        sregs[CS_SELECTOR].fill(0);
        ioctl(
            fd.as_raw_fd(),
            KVM_SET_SREGS,
            sregs.as_ptr() as u64,
            "KVM_SET_SREGS",
        )?;
        let mut regs = [0u64; REGS];
        regs[RIP] = u64::from(BASE) + at as u64;
        regs[RFLAGS] = 2;
        ioctl(
            fd.as_raw_fd(),
            KVM_SET_REGS,
            regs.as_ptr() as u64,
            "KVM_SET_REGS",
        )?;
        // its number is known from a change on only (kvm_recalculate_apic_map())
        let mut lapic = [0u8; LAPIC];
        for request in [KVM_GET_LAPIC, KVM_SET_LAPIC] {
            ioctl(
                fd.as_raw_fd(),
                request,
                lapic.as_mut_ptr() as u64,
                "local APIC",
            )?;
        }
        // all but the first would wait to be started by it
        let state = KVM_MP_STATE_RUNNABLE;
        ioctl(
            fd.as_raw_fd(),
            KVM_SET_MP_STATE,
            &raw const state as u64,
            "KVM_SET_MP_STATE",
        )?;
        Ok(Vcpu {
            fd,
            run,
            _vm: self.vm.clone(),
            _memory: self.memory.clone(),
        })
    }

    /// Whether virtual CPU `nr` runs its program.
    pub fn has_run(&self, nr: usize) -> bool {
        self.byte(HAS_RUN + nr).load(Ordering::SeqCst) != 0
    }

    /// All virtual CPUs end, each when it comes to its next round.
    pub fn stop(&self) {
        self.byte(STOP).store(1, Ordering::SeqCst);
    }

    fn byte(&self, at: usize) -> &AtomicU8 {
        assert!(at < PAGE);
        // SAFETY: within the page, which lives as long as we do.
        unsafe { AtomicU8::from_ptr(self.memory.at.add(at)) }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stop();
    }
}

pub struct Vcpu {
    fd: File,
    run: Mapping,
    _vm: Arc<File>,
    _memory: Arc<Mapping>,
}

impl Vcpu {
    /// Runs until its program ends.
    pub fn run(&mut self) -> Result<(), String> {
        loop {
            let ret = ioctl(self.fd.as_raw_fd(), KVM_RUN, 0, "KVM_RUN");
            let interrupted =
                std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted;
            if ret.is_err() && interrupted {
                continue;
            }
            ret?;
            // SAFETY: within the mapping, and aligned.
            let reason = unsafe { self.run.at.add(EXIT_REASON).cast::<u32>().read_volatile() };
            return match reason {
                KVM_EXIT_IO => Ok(()),
                reason => Err(format!("KVM_RUN ended for reason {reason}")),
            };
        }
    }
}
