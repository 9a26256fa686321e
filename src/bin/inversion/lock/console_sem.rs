// SPDX-License-Identifier: GPL-2.0-only
//! Owns the recipe for a `struct semaphore` of the kernel, `console_sem`, which guards the consoles:
//! the owner scrolls a virtual console many times in one write, the waiter asks which console is free.
//! Another task than the one that took a semaphore may release it, so there is no owner.
//!
//! The console is one that nobody uses, with a screen as large as its driver allows: a machine that
//! scrolls fast, with a driver that allows little, may not be kept busy long enough.

use super::{Recipe, Setup};
use crate::spawn::WorkerKind;
use anyhow::{Context, Result};
use std::fs::File;
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

pub static RECIPE: Recipe = Recipe {
    name: "console_sem",
    summary: "semaphore of the kernel: owner scrolls an unused virtual console, waiter asks for a free one",
    default_hogs: 1,
    by_default: false,
    donates: false,
    workers: WorkerKind::Processes,
    links: 1,
    pages_max: || LINES_MAX,
    unavailable,
    build: |lines| Ok(Box::new(Console::new(lines)?)),
};

/// Cells in a row. A screen has 4 MiB at most, and two bytes per cell.
const COLUMNS: u16 = 64;
const ROWS_MAX: u16 = 32_000;

/// "Go to the last line": from there on, each new line scrolls the whole screen.
const BOTTOM: &[u8] = b"\x1b[32767H";
/// What the terminal layer passes on at once is 2048 bytes.
const LINES_MAX: usize = 2048 - BOTTOM.len();

// Numbers from include/uapi/linux/vt.h.
const VT_OPENQRY: libc::Ioctl = 0x5600;
const VT_DISALLOCATE: libc::Ioctl = 0x5608;

const GIVE_BACK_TRIES: u32 = 100;
const GIVE_BACK_STEP: Duration = Duration::from_millis(5);

fn unavailable() -> Option<String> {
    let error = Console::new(1).err()?;
    Some(format!(
        "cannot use a virtual console (it takes root): {error:#}"
    ))
}

/// Allocated, and open in owners only: forked children of the parent keep open whatever it has.
struct Console {
    /// Any console, by which the others are managed.
    manager: File,
    number: libc::c_int,
    text: Vec<u8>,
}

impl Console {
    fn new(lines: usize) -> Result<Console> {
        let manager = open_terminal("/dev/tty0").context("cannot open /dev/tty0")?;
        let number = first_free(&manager).context("cannot find a free console")?;
        let console = Console {
            manager,
            number,
            text: [BOTTOM, &vec![b'\n'; lines.min(LINES_MAX)]].concat(),
        };
        let terminal = console.open();
        enlarge(&terminal.with_context(|| format!("cannot open /dev/tty{number}"))?);
        Ok(console)
    }

    fn open(&self) -> io::Result<File> {
        open_terminal(&format!("/dev/tty{}", self.number))
    }
}

/// Gives it the largest screen that it may have. If none is taken, what it has must do.
fn enlarge(terminal: &File) {
    let mut rows = ROWS_MAX;
    while rows > 1 {
        let size = libc::winsize {
            ws_row: rows,
            ws_col: COLUMNS,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // SAFETY: `size` is valid for reading.
        let result =
            unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        if check(result).is_ok() {
            break;
        }
        rows /= 2;
    }
}

/// Its output is not to be looked at on the way, so that it arrives in one piece.
fn pass_on_all(terminal: &File) -> io::Result<()> {
    let fd = terminal.as_raw_fd();
    let mut modes = MaybeUninit::uninit();
    // SAFETY: `modes` is valid for writing.
    check(unsafe { libc::tcgetattr(fd, modes.as_mut_ptr()) })?;
    // SAFETY: the call above has filled it in.
    let mut modes = unsafe { modes.assume_init() };
    modes.c_oflag &= !libc::OPOST;
    // SAFETY: `modes` is valid for reading.
    check(unsafe { libc::tcsetattr(fd, libc::TCSANOW, &modes) })
}

impl Drop for Console {
    fn drop(&mut self) {
        // Gives its screen back, which the kernel refuses until a moment after the console was closed.
        for _ in 0..GIVE_BACK_TRIES {
            // SAFETY: takes a number.
            let result =
                unsafe { libc::ioctl(self.manager.as_raw_fd(), VT_DISALLOCATE, self.number) };
            if check(result).is_ok() {
                break;
            }
            std::thread::sleep(GIVE_BACK_STEP);
        }
    }
}

fn open_terminal(path: &str) -> io::Result<File> {
    let mut options = File::options();
    let options = options.read(true).write(true);
    options.custom_flags(libc::O_NOCTTY).open(path)
}

/// Asked of any console; waits for console_sem.
fn first_free(console: &File) -> io::Result<libc::c_int> {
    let mut number = 0;
    // SAFETY: `number` is valid for writing.
    check(unsafe { libc::ioctl(console.as_raw_fd(), VT_OPENQRY, &raw mut number) })?;
    if number < 1 {
        return Err(io::Error::from(io::ErrorKind::NotFound));
    }
    Ok(number)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

impl Setup for Console {
    fn reset(&mut self) -> Result<()> {
        Ok(())
    }

    fn hold(&self, _link: usize) -> io::Result<()> {
        // Modes do not outlast the last close.
        let mut terminal = self.open()?;
        pass_on_all(&terminal)?;
        terminal.write_all(&self.text)
    }

    fn wait(&self) -> io::Result<()> {
        first_free(&self.manager).map(drop)
    }
}
