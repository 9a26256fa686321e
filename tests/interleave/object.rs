// SPDX-License-Identifier: GPL-2.0-only
//! The policy as a shared object, compiled when a test asks for it: as it stands, or with one
//! place changed. `explored.c` says how accesses of memory come to the explorer.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_ulong, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::engine::sys::{host_engine, host_ports, proxy_config};

/// A mistake to be made on purpose: in that file, this text is that one.
#[derive(Clone, Copy, Debug)]
pub struct Mistake {
    pub file: &'static str,
    pub from: &'static str,
    pub to: &'static str,
}

/// `struct explored_hooks`
#[repr(C)]
pub struct Hooks {
    pub access: extern "C" fn(*const c_void, c_ulong, c_int, *const c_void),
    pub lock: extern "C" fn(*const c_void, *const c_void),
    pub unlock: extern "C" fn(*const c_void),
}

/// `struct explored_range`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    pub at: usize,
    pub size: usize,
}

/// `struct explored_task`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct TaskState {
    pub token: u64,
    pub wait_lock: u64,
    pub place: u32,
    pub dsq_reach: u32,
    pub donor_pid: u32,
    pub counted: u32,
    pub dsq_cpu: i32,
    pub attached_to: u32,
    pub donates_true: u32,
    pub yields_to: u32,
}

macro_rules! api {
    ($($name:ident: fn($($ty:ty),*) $(-> $ret:ty)?;)*) => {
        /// Its functions, of `bpf/core/host.h` and of `explored.c`.
        pub struct Api {
            $(pub $name: unsafe extern "C" fn($($ty),*) $(-> $ret)?,)*
            /// Where it was loaded, for reports.
            pub base: usize,
            pub file: PathBuf,
        }

        impl Api {
            /// SAFETY: `handle` is a loaded object of `explored.c`.
            unsafe fn of(handle: *mut c_void, file: PathBuf) -> Self {
                Self {
                    $($name: {
                        // SAFETY: the type is that of its declaration in C.
                        let at = unsafe { symbol(handle, stringify!($name)) };
                        // SAFETY: as above.
                        unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($ty),*) $(-> $ret)?>(at) }
                    },)*
                    // SAFETY: as above.
                    base: base_of(unsafe { symbol(handle, "explored_hook") }),
                    file,
                }
            }
        }
    };
}

type Engine = *mut host_engine;
type Ports = *const host_ports;

api! {
    explored_hook: fn(*const Hooks);
    explored_memory: fn(Engine, *mut Memory);
    explored_task: fn(Engine, c_uint, *mut TaskState);
    explored_right: fn(Engine, *const u64, c_uint, c_uint, *mut c_char) -> c_int;
    explored_name: fn(Engine, *const c_void, *mut c_char);
    host_engine_new: fn(*const proxy_config, c_uint) -> Engine;
    host_engine_free: fn(Engine);
    host_place: fn(Engine, c_int, c_uint, c_uint, c_int);
    host_near: fn(Engine, c_uint, u64);
    host_group_begin: fn(Engine, c_uint, c_uint, c_uint);
    host_group_move: fn(Engine, Ports, c_uint, c_uint);
    host_enable: fn(Engine, Ports, c_uint);
    host_disable: fn(Engine, Ports, c_uint);
    host_select_cpu: fn(Engine, Ports, c_uint, c_int, c_int) -> c_int;
    host_update_idle: fn(Engine, Ports, c_int, c_int);
    host_enqueue: fn(Engine, Ports, c_uint, c_int, c_int, c_int, c_int);
    host_dispatch: fn(Engine, Ports, c_int, c_uint);
    host_running: fn(Engine, Ports, c_uint);
    host_stopping: fn(Engine, Ports, c_uint);
    host_quiescent: fn(Engine, Ports, c_uint, c_int);
    host_tick: fn(Engine, Ports, c_uint);
    host_yield_to: fn(Engine, Ports, c_uint, c_uint) -> c_int;
    host_timer: fn(Engine, Ports);
    host_contention_begin: fn(Engine, Ports, c_uint, c_int);
    host_contention_end: fn(Engine, Ports, c_uint);
    host_stat: fn(Engine, c_uint) -> u64;
}

/// SAFETY: `handle` is of dlopen().
unsafe fn symbol(handle: *mut c_void, name: &str) -> *mut c_void {
    let c_name = CString::new(name).expect("a name");
    // SAFETY: both are valid for the call.
    let at = unsafe { libc::dlsym(handle, c_name.as_ptr()) };
    assert!(!at.is_null(), "{name} is not in the object");
    at
}

fn base_of(at: *mut c_void) -> usize {
    let mut info = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: at is an address in a loaded object, info is valid for the write.
    let found = unsafe { libc::dladdr(at, info.as_mut_ptr()) };
    // SAFETY: zeroed at the least.
    let info = unsafe { info.assume_init() };
    if found == 0 {
        0
    } else {
        info.dli_fbase as usize
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        let name = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &name);
        } else {
            std::fs::copy(&path, &name).expect("a copy");
        }
    }
}

/// Compiles and loads the policy. It stays loaded, and in its folder until the next run.
pub fn load(mistake: Option<Mistake>) -> Api {
    static NR: AtomicU32 = AtomicU32::new(0);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let nr = NR.fetch_add(1, Ordering::Relaxed);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = folder.join(format!("interleave-{nr}"));
    copy(&root.join("bpf"), &folder.join("bpf"));
    if let Some(Mistake { file, from, to }) = mistake {
        let path = folder.join("bpf").join(file);
        let text = std::fs::read_to_string(&path).expect("a file of the policy");
        let times = text.matches(from).count();
        assert_eq!(times, 1, "{file} has {from:?} {times} times");
        std::fs::write(&path, text.replace(from, to)).expect("written");
    }
    let object = folder.join("explored.so");
    // that of BPF, so that the compiler merges and orders accesses as it does there
    let clang = std::env::var("BPF_CLANG")
        .unwrap_or_else(|_| option_env!("BPF_CLANG").unwrap_or("clang").to_owned());
    let out = Command::new(&clang)
        .args([
            "-O2",
            "-g",
            "-fPIC",
            "-shared",
            "-Wl,-Bsymbolic",
            "-nostdlib",
        ])
        .args([
            "-fsanitize=thread",
            "-Wno-unused-function",
            "-Wno-unknown-pragmas",
        ])
        .args(["-mllvm", "-tsan-instrument-func-entry-exit=0"])
        .args(["-mllvm", "-tsan-instrument-read-before-write=1"])
        .arg("-fno-sanitize-link-runtime")
        .arg("-I")
        .arg(folder.join("bpf"))
        .arg("-I")
        .arg(root.join("include"))
        .arg("-o")
        .arg(&object)
        .arg(root.join("tests/interleave/explored.c"))
        .output()
        .unwrap_or_else(|e| panic!("{clang}: {e}"));
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{clang}: {errors}");
    let path = CString::new(object.to_str().expect("UTF-8 path")).expect("a path");
    // SAFETY: path is valid for the call; the object has no constructors but one that does nothing.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    if handle.is_null() {
        // SAFETY: dlerror() gives a string after a failure.
        let why = unsafe { CStr::from_ptr(libc::dlerror()) };
        panic!("{}: {}", object.display(), why.to_string_lossy());
    }
    // SAFETY: it was compiled from explored.c.
    let api = unsafe { Api::of(handle, object) };
    let hooks = Hooks {
        access: crate::hooks::hook_access,
        lock: crate::hooks::hook_lock,
        unlock: crate::hooks::hook_unlock,
    };
    // SAFETY: it copies them.
    unsafe { (api.explored_hook)(&hooks) };
    api
}
