// SPDX-License-Identifier: GPL-2.0-only
//! Where output goes: terminals get colors unless NO_COLOR is set, nothing else does, and a reader
//! that goes away is no trouble.

use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read};
use std::os::fd::FromRawFd;
use std::process::{Child, Command, Output, Stdio};
use std::ptr;
use std::time::{Duration, Instant};

use crate::{scx_proxy, text};

const SCX_PROXY: &str = env!("CARGO_BIN_EXE_scx_proxy");
const INVERSION: &str = env!("CARGO_BIN_EXE_inversion");
const SCHEDLOAD: &str = env!("CARGO_BIN_EXE_schedload");
const ESCAPE: char = '\x1b';

/// What prints an answer, its exit code where that is no matter of the machine.
const ANSWERS: [(&str, &[&str], Option<i32>); 11] = [
    (SCX_PROXY, &["--help"], Some(0)),
    (SCX_PROXY, &["doctor", "--help"], Some(0)),
    (SCX_PROXY, &["--version"], Some(0)),
    (SCX_PROXY, &["--help-stats"], Some(0)),
    (SCX_PROXY, &["man"], Some(0)),
    (SCX_PROXY, &["completions", "bash"], Some(0)),
    (SCX_PROXY, &["doctor"], None),
    (SCX_PROXY, &["doctor", "--json"], None),
    (INVERSION, &["--help"], Some(0)),
    (INVERSION, &["--list"], Some(0)),
    (SCHEDLOAD, &["--help"], Some(0)),
];

/// What refuses something.
const REFUSALS: [(&str, &[&str]); 5] = [
    (SCX_PROXY, &["--no-such-flag"]),
    (SCX_PROXY, &["doctor", "--locks", "spinlock"]),
    (INVERSION, &["--no-such-flag"]),
    (INVERSION, &["--compare", "/absent/1", "/absent/2"]),
    (SCHEDLOAD, &["spin", "--spec", "none"]),
];

fn command(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).env("TERM", "xterm");
    command.env_remove("NO_COLOR").stdin(Stdio::null());
    command
}

/// A pseudo-terminal: the side that shows, the side that a program writes to.
fn terminal() -> (File, File) {
    let (mut shows, mut written) = (-1, -1);
    let (no_name, no_settings, no_size) = (ptr::null_mut(), ptr::null(), ptr::null());
    // SAFETY: two places for descriptors; nothing else is asked for.
    let failed = unsafe { libc::openpty(&mut shows, &mut written, no_name, no_settings, no_size) };
    assert_eq!(failed, 0, "a pseudo-terminal");
    // SAFETY: both were just opened, and nobody else has them.
    unsafe { (File::from_raw_fd(shows), File::from_raw_fd(written)) }
}

/// All that a terminal shows until the last program that writes to it ends.
fn shown(mut shows: File) -> String {
    let mut bytes = Vec::new();
    // a terminal that nobody has open any more reads as an error
    let _ = shows.read_to_end(&mut bytes);
    text(&bytes)
}

/// What the command shows on a terminal that is its stdout and its stderr.
fn on_terminal(mut command: Command) -> String {
    let (shows, written) = terminal();
    let also = written.try_clone().expect("the terminal");
    let mut child = command.stdout(written).stderr(also).spawn().expect("runs");
    // the command holds the terminal as well
    drop(command);
    let shown = shown(shows);
    child.wait().expect("ends");
    shown
}

fn unread() -> PipeWriter {
    let (_, writer) = std::io::pipe().expect("pipe");
    writer
}

#[test]
fn a_terminal_shows_help_and_refusals_in_color() {
    for (program, args) in [
        (SCX_PROXY, ["--help"]),
        (INVERSION, ["--help"]),
        (SCX_PROXY, ["--no-such-flag"]),
        (INVERSION, ["--no-such-flag"]),
    ] {
        let plain = |name, value| {
            let mut command = command(program, &args);
            command.env(name, value);
            on_terminal(command)
        };
        let colored = on_terminal(command(program, &args));
        assert!(colored.contains(ESCAPE), "{args:?}: {colored:?}");
        assert!(plain("NO_COLOR", "").contains(ESCAPE), "{args:?}");
        for shown in [plain("NO_COLOR", "1"), plain("TERM", "dumb")] {
            assert!(shown.len() > 20, "{args:?}: {shown:?}");
            assert!(!shown.contains(ESCAPE), "{args:?}: {shown:?}");
        }
    }
}

#[test]
fn what_is_no_terminal_gets_no_escape_codes() {
    let refusals = REFUSALS.iter().map(|(program, args)| (*program, *args));
    let answers = ANSWERS.iter().map(|(program, args, _)| (*program, *args));
    for (program, args) in answers.chain(refusals) {
        let mut command = command(program, args);
        // would have clap's own choice write colors into a pipe
        let Output { stdout, stderr, .. } =
            command.env("CLICOLOR_FORCE", "1").output().expect("runs");
        let all = text(&stdout) + &text(&stderr);
        assert!(
            !all.is_empty() && !all.contains(ESCAPE),
            "{args:?}: {all:?}"
        );
    }
}

#[test]
fn answers_that_nobody_reads_end_quietly() {
    for (program, args, code) in ANSWERS {
        let out = command(program, args)
            .stdout(unread())
            .output()
            .expect("runs");
        assert!(out.stderr.is_empty(), "{args:?}: {}", text(&out.stderr));
        let ended = out.status.code();
        match code {
            Some(_) => assert_eq!(ended, code, "{args:?}"),
            None => assert!(matches!(ended, Some(0 | 1)), "{args:?}: {ended:?}"),
        }
    }
}

#[test]
fn refusals_that_nobody_reads_are_refusals_still() {
    for (program, args) in REFUSALS {
        let mut command = command(program, args);
        let out = command.stderr(unread()).output().expect("runs");
        assert_eq!(out.status.code(), Some(1), "{args:?}");
        assert!(out.stdout.is_empty(), "{args:?}: {}", text(&out.stdout));
    }
}

/// As `head -1` does it: one line is read, then nobody is there.
#[test]
fn a_reader_may_stop_after_the_first_line() {
    for (program, args, _) in ANSWERS {
        let mut child = command(program, args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("runs");
        let mut first = [0; 1];
        let mut stdout = child.stdout.take().expect("a pipe");
        stdout.read_exact(&mut first).expect("a line");
        drop(stdout);
        let out = child.wait_with_output().expect("ends");
        assert!(out.stderr.is_empty(), "{args:?}: {}", text(&out.stderr));
        assert!(matches!(out.status.code(), Some(0 | 1)), "{args:?}");
    }
}

#[test]
fn an_answer_that_cannot_be_written_is_an_error() {
    for args in [["--help"], ["--version"], ["--help-stats"]] {
        let full = File::options().write(true).open("/dev/full").expect("full");
        let out = command(SCX_PROXY, &args).stdout(full).output();
        let out = out.expect("runs");
        assert_eq!(out.status.code(), Some(1), "{args:?}");
        let said = text(&out.stderr);
        assert!(
            said.starts_with("error: ") && said.lines().count() == 1,
            "{said}"
        );
    }
}

/// Ends it as Ctrl-C does.
fn interrupt(child: &mut Child) -> Option<i32> {
    let pid = i32::try_from(child.id()).expect("a pid");
    // SAFETY: our own child, which has not been waited for.
    unsafe { libc::kill(pid, libc::SIGINT) };
    child.wait().expect("ends").code()
}

/// What the log has to say until a line is whole.
fn first_line(mut log: impl Read) -> String {
    let (mut line, mut byte) = (Vec::new(), [0; 1]);
    while line.last() != Some(&b'\n') && log.read(&mut byte).is_ok_and(|count| count == 1) {
        line.push(byte[0]);
    }
    text(&line)
}

/// The monitor logs that nobody serves stats: on a machine where somebody does, there is nothing to
/// see here.
#[test]
fn the_log_is_colored_on_terminals_only() {
    if std::path::Path::new("/var/run/scx/root/stats").exists() {
        return;
    }
    let monitor = |no_color| {
        let mut command = command(SCX_PROXY, &["--monitor", "1"]);
        command.env("NO_COLOR", no_color).stdout(Stdio::null());
        command
    };
    for (no_color, is_colored) in [("", true), ("1", false)] {
        let (shows, written) = terminal();
        let mut child = monitor(no_color).stderr(written).spawn().expect("runs");
        let line = first_line(shows);
        assert_eq!(interrupt(&mut child), Some(0), "{line}");
        assert!(line.contains("INFO"), "{line:?}");
        assert_eq!(line.contains(ESCAPE), is_colored, "{no_color:?}: {line:?}");
    }
    let (reader, writer): (PipeReader, PipeWriter) = std::io::pipe().expect("pipe");
    let mut child = monitor("").stderr(writer).spawn().expect("runs");
    let line = first_line(reader);
    assert_eq!(interrupt(&mut child), Some(0), "{line}");
    assert!(line.contains("INFO") && !line.contains(ESCAPE), "{line:?}");
}

/// A log that nobody reads keeps nobody from working.
#[test]
fn the_monitor_goes_on_without_a_reader_of_its_log() {
    if std::path::Path::new("/var/run/scx/root/stats").exists() {
        return;
    }
    let mut command = command(SCX_PROXY, &["--monitor", "1"]);
    let mut child = command
        .stdout(Stdio::null())
        .stderr(unread())
        .spawn()
        .expect("runs");
    let until = Instant::now() + Duration::from_millis(1500);
    while Instant::now() < until {
        assert!(child.try_wait().expect("asked").is_none(), "it ended");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(interrupt(&mut child), Some(0));
}

#[test]
fn the_version_is_a_line() {
    let said = text(&scx_proxy(&["--version"]).stdout);
    assert!(said.ends_with('\n') && said.lines().count() == 1, "{said}");
}
