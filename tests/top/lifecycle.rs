// SPDX-License-Identifier: GPL-2.0-only
//! How it ends, whoever ends it, and what it leaves behind.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};

use super::fake::{Fake, Folder, a_few, socket};
use super::tmux::{poll, wait_until};
use super::{PROGRAM, Stage};

#[test]
fn q_and_ctrl_c_leave_the_terminal_as_it_was() {
    for key in ["q", "C-c"] {
        let stage = Stage::new(a_few());
        assert_eq!(stage.tmux.property("alternate_on"), "1");
        stage.tmux.press(&[key]);
        stage.ended();
    }
}

#[test]
fn signals_leave_the_terminal_as_it_was() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        let stage = Stage::new(a_few());
        stage.signal(signal);
        stage.ended();
    }
}

/// As when there is no more memory.
#[test]
fn an_abort_leaves_the_terminal_as_it_was() {
    let stage = Stage::new(a_few());
    stage.signal(libc::SIGABRT);
    stage.ended_with(128 + libc::SIGABRT);
}

#[test]
fn ctrl_z_stops_it_and_fg_goes_on() {
    let stage = Stage::new(a_few());
    let tmux = &stage.tmux;
    tmux.press(&["C-z"]);
    tmux.wait_until("the shell's screen", |screen| {
        screen.contains("Stopped") && screen.contains("READY>")
    });
    tmux.command("fg");
    tmux.wait_for("cgroup_mutex");
    tmux.press(&["q"]);
    wait_until("the shell's screen is back", || {
        tmux.property("alternate_on") == "0"
    });
}

#[test]
fn it_ends_when_the_terminal_goes_away() {
    let stage = Stage::new(a_few());
    let stat = format!("/proc/{}/stat", stage.pid());
    assert!(std::fs::exists(&stat).expect("/proc"));
    stage.tmux.kill();
    wait_until("the process has ended", || {
        // whoever inherits it may leave it a zombie
        std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "))
    });
}

/// Nobody sends SIGHUP here: the terminal is not the controlling one.
#[test]
fn it_ends_when_a_terminal_goes_away_without_a_word() {
    let folder = Folder::new();
    let _fake = Fake::new(folder.path(), a_few());
    let (mut master, slave) = pty();
    let end = || Stdio::from(slave.try_clone().expect("a descriptor"));
    let mut child = Command::new(PROGRAM)
        .args(["top", "--socket"])
        .arg(socket(folder.path()))
        .env("TERM", "xterm")
        .stdin(end())
        .stdout(end())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    drop(slave);
    let mut shown = Vec::new();
    while !String::from_utf8_lossy(&shown).contains("cgroup_mutex") {
        let mut bytes = [0; 4096];
        let got = master.read(&mut bytes).expect("it draws");
        shown.extend_from_slice(&bytes[..got]);
    }
    drop(master);
    let mut end = None;
    let ended = poll(|| {
        end = child.try_wait().expect("a child");
        end.is_some()
    });
    let _ = child.kill();
    assert!(ended, "it goes on without a terminal");
    assert_eq!(end.and_then(|end| end.code()), Some(0));
}

/// Both ends; nothing that is started inherits them.
fn pty() -> (File, File) {
    let open = |path: &str| {
        let mut options = File::options();
        let options = options.read(true).write(true);
        options.custom_flags(libc::O_NOCTTY).open(path)
    };
    let master = open("/dev/ptmx").expect("a pty");
    let (fd, mut unlock, mut number) = (master.as_raw_fd(), 0, 0);
    let mut size = libc::winsize {
        ws_row: 24,
        ws_col: 80,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: each request has what it wants, which lives across the call.
    let done = unsafe {
        libc::ioctl(fd, libc::TIOCSPTLCK, &raw mut unlock)
            | libc::ioctl(fd, libc::TIOCGPTN, &raw mut number)
            | libc::ioctl(fd, libc::TIOCSWINSZ, &raw mut size)
    };
    assert_eq!(done, 0, "a pty");
    let slave = open(&format!("/dev/pts/{number}")).expect("its other end");
    (master, slave)
}
