// SPDX-License-Identifier: GPL-2.0-only
//! What a fuzzer calls (`fuzz/`, `scripts/fuzz`), and a test with the inputs that are kept
//! (`tests/fuzz.rs`): one function for each kind of bytes that somebody else wrote. It gives them to the
//! code that reads them, and panics if what comes of them breaks a rule. No part of the programs.

mod answers;
mod batch;
mod config;
mod elf;
mod proc;
mod recording;
mod stats;

use std::cell::RefCell;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// A kind of input.
pub struct Target {
    /// Its name: of the fuzzer, and of the folder of its seeds.
    pub name: &'static str,
    /// Reads one.
    pub run: fn(&[u8]),
}

/// All kinds.
pub const TARGETS: [Target; 8] = [
    Target {
        name: "recording",
        run: recording::run,
    },
    Target {
        name: "batch",
        run: batch::run,
    },
    Target {
        name: "elf",
        run: elf::file,
    },
    Target {
        name: "symbol",
        run: elf::symbol,
    },
    Target {
        name: "proc",
        run: proc::run,
    },
    Target {
        name: "stats",
        run: stats::run,
    },
    Target {
        name: "answers",
        run: answers::run,
    },
    Target {
        name: "config",
        run: config::run,
    },
];

/// Reads `input` as the target `name` does.
///
/// # Panics
/// There is no such target, or a rule is broken.
pub fn run(name: &str, input: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    let target = target.unwrap_or_else(|| panic!("no fuzzer is called {name}"));
    (target.run)(input);
}

/// A file in memory that holds `bytes`, and its path while it is open. One for each thread: it is written anew.
fn with_file<T>(bytes: &[u8], read: impl FnOnce(&File, PathBuf) -> T) -> T {
    thread_local! {
        static FILE: RefCell<Option<File>> = const { RefCell::new(None) };
    }
    FILE.with_borrow_mut(|file| {
        let file = file.get_or_insert_with(memory);
        let written = file.set_len(0).and_then(|()| file.write_all_at(bytes, 0));
        assert!(written.is_ok(), "a file in memory takes no bytes");
        let path = format!("/proc/self/fd/{}", file.as_raw_fd()).into();
        read(file, path)
    })
}

fn memory() -> File {
    // SAFETY: a name that lives as long as the call.
    let fd = unsafe { libc::memfd_create(c"input".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(fd >= 0, "no file in memory");
    // SAFETY: just made, and ours alone.
    unsafe { File::from_raw_fd(fd) }
}

/// The first byte, which chooses, and the rest.
fn chosen(input: &[u8]) -> Option<(u8, &[u8])> {
    input.split_first().map(|(choice, rest)| (*choice, rest))
}

/// Rule: what is printed moves no cursor, and begins no line of its own.
fn assert_printable(text: &str) {
    let moves = |c: char| c.is_control() && c != '\n';
    assert!(!text.contains(moves), "moves the cursor: {text:?}");
}
