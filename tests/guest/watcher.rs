// SPDX-License-Identifier: GPL-2.0-only
//! The watcher is a process of its own: it comes when somebody watches, may be killed or stopped, and the
//! scheduler does not notice. And what the scheduler itself keeps: little memory, and no files of others.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use scx_proxy::cli::SOCKET;
use scx_proxy::client::Client;
use scx_proxy::watcher;

use crate::Test;
use crate::donation;
use crate::load::Load;
use crate::locks;
use crate::machine::{ensure, run, wait_for};
use crate::opened::Opened;
use crate::sched::{self, SCX_PROXY, Stats};
use crate::watch::{has_class, producers, replay, scrape};

pub const TESTS: &[Test] = &[
    (
        "watcher::is_there_while_somebody_watches",
        is_there_while_somebody_watches,
    ),
    ("watcher::killed_it_comes_back", killed_it_comes_back),
    ("watcher::stopped_it_is_replaced", stopped_it_is_replaced),
    (
        "watcher::hostile_programs_name_nothing",
        hostile_programs_name_nothing,
    ),
    (
        "watcher::scheduler_opens_no_files_of_others",
        scheduler_opens_no_files_of_others,
    ),
    ("watcher::scheduler_is_small", scheduler_is_small),
];

/// On the flags of `switches::only_those_chosen`: with `--print-events` there is always one who reads them.
pub const UNREAD: &[Test] = &[(
    "watcher::nothing_is_told_while_nobody_watches",
    nothing_is_told_while_nobody_watches,
)];

const PATIENCE: Duration = Duration::from_secs(60);
const CLIENTS: usize = 20;
/// The scheduler's whole resident memory.
const RSS_MAX_KIB: u64 = 24 << 10;

/// Children of the scheduler, and what they are called.
pub fn children() -> Vec<(u32, String)> {
    let parent = sched::pid();
    let out = Command::new("pgrep")
        .args(["-P", &parent.to_string()])
        .output();
    let text = out.map_or_else(|_| Vec::new(), |out| out.stdout);
    let pids = String::from_utf8_lossy(&text).into_owned();
    let pids = pids.split_whitespace().filter_map(|pid| pid.parse().ok());
    let named = pids.filter_map(|pid: u32| {
        let comm = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        Some((pid, comm.trim().to_owned()))
    });
    named.collect()
}

/// The process of the watcher, if there is one.
pub fn pid() -> Option<u32> {
    let mut all = children().into_iter();
    all.find_map(|(pid, comm)| (comm == "proxy_watcher").then_some(pid))
}

fn connect() -> Result<Client, Failed> {
    Client::connect(Path::new(SOCKET)).map_err(|e| format!("{e:#}").into())
}

/// `top --once`, as a user types it.
pub fn top() -> Result<String, Failed> {
    let out = Command::new(SCX_PROXY).args(["top", "--once"]).output()?;
    let why = String::from_utf8_lossy(&out.stderr).into_owned();
    ensure(out.status.success(), || format!("top: {why}"))?;
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

fn signal(signal: &str, pid: u32) -> Result<(), Failed> {
    run(&["kill", signal, &pid.to_string()])
}

/// A figure of `/proc/PID/status`, in KiB.
fn status_kib(pid: u32, name: &str) -> Result<u64, Failed> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let figure = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    figure.ok_or_else(|| format!("no {name} in {text}").into())
}

fn threads(pid: u32) -> Result<Vec<String>, Failed> {
    let mut names = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let comm = fs::read_to_string(entry?.path().join("comm"));
        names.push(comm.unwrap_or_default().trim().to_owned());
    }
    names.sort_unstable();
    Ok(names)
}

/// It starts with the first client, and ends a minute after the last.
fn is_there_while_somebody_watches() -> Result<(), Failed> {
    sched::with(&[], || {
        let gone = || pid().is_none() && !Path::new(watcher::SOCKET).exists();
        wait_for(
            "the watcher to go, since nobody watches",
            PATIENCE * 2,
            gone,
        )?;
        let nobody = threads(sched::pid())?;
        // counters alone need none
        let mut stats = Stats::open()?;
        let metrics = stats.delta()?;
        ensure(gone(), || "a watcher for counters".into())?;
        let text = top()?;
        ensure(pid().is_some(), || "top has no watcher".into())?;
        println!("{}", text.lines().next().unwrap_or_default());
        println!(
            "threads of the scheduler: {nobody:?}; {} events lost",
            metrics.events_lost
        );
        let strangers = ["proxy_names", "proxy_scrape", "proxy_metrics"];
        ensure(
            !nobody.iter().any(|name| strangers.contains(&name.as_str())),
            || format!("{nobody:?}"),
        )?;
        let mode = Command::new("stat")
            .args(["-c", "%a", watcher::SOCKET])
            .output()?;
        let mode = String::from_utf8_lossy(&mode.stdout).trim().to_owned();
        ensure(mode == "600", || {
            format!("the watcher's socket has mode {mode}")
        })
    })
}

/// Waits and donations are told from the first who watches to the last.
fn nothing_is_told_while_nobody_watches() -> Result<(), Failed> {
    sched::with(locks::ONLY_MUTEX, || {
        let mut stats = Stats::open()?;
        let mut told = |wanted: u64| {
            let is = || stats.delta().is_ok_and(|m| m.agent_watched_now == wanted);
            wait_for(&format!("agent_watched_now {wanted}"), PATIENCE, is)
        };
        told(0)?;
        let (_, metrics) = donation::staged("f_pos_lock", "same", &["20"])?;
        ensure(metrics.edges > 0 && metrics.donations > 0, || {
            "no donation was staged".into()
        })?;
        ensure(metrics.agent_waits_now == 0, || {
            format!("the agent knows of waits: {metrics:?}")
        })?;
        let mut load = Load::default();
        load.start(&[SCX_PROXY, "record", "--force", "/run/told.rec"])?;
        told(1)?;
        drop(load);
        // it would stay for a minute
        if let Some(watcher) = pid() {
            signal("-KILL", watcher)?;
        }
        told(0)
    })
}

/// What watches goes on after the watcher was killed, and the scheduler never stops.
fn killed_it_comes_back() -> Result<(), Failed> {
    sched::with(&[], || {
        let file = "/run/killed.rec";
        let mut load = Load::default();
        load.start(&[SCX_PROXY, "metrics", "127.0.0.1:9839"])?;
        let recorder = load.start(&[SCX_PROXY, "record", "--force", file])?;
        wait_for("the recording", PATIENCE, || Path::new(file).exists())?;
        top()?;
        let first = pid().ok_or("no watcher")?;
        let mut stats = Stats::open()?;
        signal("-KILL", first)?;
        wait_for("another watcher", PATIENCE, || {
            pid().is_some_and(|pid| pid != first)
        })?;
        top()?;
        let metrics = stats.delta()?;
        ensure(
            metrics.agent_restarts == 0 && metrics.agent_rounds > 0,
            || format!("{metrics:?}"),
        )?;
        wait_for("the metrics to follow again", PATIENCE, || {
            // a wait whose lock gets its name too late is counted without: then the next one counts
            let staged = staged();
            let page = scrape().unwrap_or_default();
            staged.is_ok()
                && page.contains("scx_proxy_up 1")
                && page.contains(r#"scx_proxy_wait_seconds_count{class="mutex fdget_pos"}"#)
        })?;
        // a second later whatever it keeps back is in the file
        std::thread::sleep(Duration::from_millis(1500));
        signal("-INT", recorder)?;
        wait_for("the recorder to end", PATIENCE, || {
            fs::read_to_string(format!("/proc/{recorder}/stat"))
                .map_or(true, |stat| stat.contains(") Z "))
        })?;
        let json = replay(&[file, "--json"])?;
        let after = json.split(r#""restart""#).nth(1);
        ensure(
            after.is_some_and(|text| text.contains("mutex fdget_pos")),
            || {
                format!(
                    "nothing after the restart in {} lines",
                    json.lines().count()
                )
            },
        )
    })
}

fn staged() -> Result<(), Failed> {
    let out = Command::new(env!("CARGO_BIN_EXE_inversion"))
        .args(["--lock", "f_pos_lock", "--topology", "cross"])
        .args(["--trials", "1", "--critical-ms", "40"])
        .stdout(Stdio::null())
        .output()?;
    ensure(out.status.code().is_some(), || format!("{out:?}"))
}

/// A watcher that is stopped while waits come and go: the agent and the scheduler go on, and it is ended
/// and replaced. So is one that is stopped while nothing happens.
fn stopped_it_is_replaced() -> Result<(), Failed> {
    sched::with(&[], || {
        let mut client = connect()?;
        client.batch().map_err(|e| format!("{e:#}"))?;
        let first = pid().ok_or("no watcher")?;
        let mut stats = Stats::open()?;
        signal("-STOP", first)?;
        let stopped = Instant::now();
        let load = producers(&[0, 2])?;
        std::thread::sleep(Duration::from_secs(3));
        drop(load);
        let metrics = stats.delta()?;
        println!(
            "beside a stopped watcher: {} looks of the agent, {} events, {} lost",
            metrics.agent_rounds, metrics.agent_events, metrics.events_lost
        );
        ensure(
            metrics.agent_rounds > 20 && metrics.agent_restarts == 0,
            || format!("{metrics:?}"),
        )?;
        wait_for("the stopped watcher to be ended", PATIENCE, || {
            pid() != Some(first)
        })?;
        println!(
            "ended {:.1} s after it was stopped",
            stopped.elapsed().as_secs_f64()
        );
        top()?;
        ensure(pid().is_some_and(|pid| pid != first), || {
            "no other watcher".into()
        })?;
        // one that is told nothing meanwhile: its socket takes in all that it is asked
        let mut client = connect()?;
        client.batch().map_err(|e| format!("{e:#}"))?;
        let second = pid().ok_or("no watcher")?;
        signal("-STOP", second)?;
        wait_for("a quiet one to be ended", PATIENCE, || {
            pid() != Some(second)
        })?;
        let said = sched::log()
            .matches("does not answer, and is ended")
            .count();
        ensure(said == 2, sched::log)
    })
}

/// Its threads have control sequences for names, and contend for a mutex; at the path of their
/// program there is a FIFO by then.
const HOSTILE: &str = r#"
import ctypes, os, sys, threading, time
os.remove(sys.executable)
os.mkfifo(sys.executable)
libc = ctypes.CDLL("libc.so.6")
mutex = ctypes.create_string_buffer(64)
def work():
    libc.prctl(15, b"\x1b[2J\nevil")
    while True:
        libc.pthread_mutex_lock(mutex)
        libc.usleep(20000)
        libc.pthread_mutex_unlock(mutex)
        libc.usleep(1000)
for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
time.sleep(600)
"#;
const HOSTILE_PROGRAM: &str = "/run/hostile";

/// The watcher stays as it was, names go on, and nothing that is shown moves a cursor.
fn hostile_programs_name_nothing() -> Result<(), Failed> {
    sched::with(&[], || {
        top()?;
        let watcher = pid().ok_or("no watcher")?;
        let mut load = Load::default();
        fs::copy("/usr/bin/python3", HOSTILE_PROGRAM)?;
        load.start(&["env", "PYTHONHOME=/usr", HOSTILE_PROGRAM, "-c", HOSTILE])?;
        let mut text = String::new();
        wait_for("the hostile program to be seen", PATIENCE, || {
            text = top().unwrap_or_default();
            text.contains(r"\u{1b}[2J\nevil")
        })
        .map_err(|_| text.clone())?;
        let moves = |c: char| c.is_control() && c != '\n';
        ensure(!text.contains(moves), || format!("{text:?}"))?;
        // what it has mapped is named, or not; the thread that names goes on
        staged()?;
        let mut client = connect()?;
        has_class(&mut client, "mutex fdget_pos")?;
        ensure(pid() == Some(watcher), || {
            "the watcher did not survive it".into()
        })?;
        let status = fs::read_to_string(format!("/proc/{watcher}/status"))?;
        let confined = ["NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000010400080004"];
        ensure(confined.iter().all(|line| status.contains(line)), || {
            status.clone()
        })
    })
}

/// How long the scheduler's files are looked at.
const MINUTE: Duration = Duration::from_secs(60);

/// For a minute, beside threads that contend for mutexes of programs, while there are clients and the watcher is
/// ended and started again.
fn scheduler_opens_no_files_of_others() -> Result<(), Failed> {
    sched::with(&[], || {
        // it does see what a thread of a process opens
        let mut own = Opened::by(std::process::id())?;
        fs::read("/etc/passwd")?;
        let seen = own
            .files()?
            .iter()
            .any(|file| file.ends_with("/etc/passwd"));
        ensure(seen, || "our own opening of /etc/passwd was missed".into())?;
        drop(own);
        let scheduler = sched::pid();
        let mut opened = Opened::by(scheduler)?;
        let begun = Instant::now();
        if let Some(watcher) = pid() {
            signal("-KILL", watcher)?;
        }
        let mut load = Load::default();
        load.start(&[SCX_PROXY, "record", "--force", "/run/opened.rec"])?;
        let mut rounds = 0;
        while begun.elapsed() < MINUTE || rounds < 2 {
            let out = Command::new(env!("CARGO_BIN_EXE_inversion"))
                .args(["--lock", "pthread", "--topology", "cross"])
                .args(["--trials", "1", "--critical-ms", "20"])
                .output()?;
            ensure(out.status.code().is_some(), || format!("{out:?}"))?;
            top()?;
            rounds += 1;
            opened.files()?;
        }
        let mut client = connect()?;
        has_class(&mut client, "pthread inversion+0x")?;
        Stats::open()?.delta()?;
        drop(load);
        let files: Vec<_> = opened.files()?.iter().cloned().collect();
        println!(
            "{rounds} rounds in {:.0} s: outside /proc and /sys the scheduler opened {files:?}, others {} files",
            begun.elapsed().as_secs_f64(),
            opened.others
        );
        // each round starts programs
        ensure(opened.others > rounds, || "it sees no files at all".into())?;
        ensure(files.is_empty(), || format!("{files:?}"))?;
        // nor does it keep any
        for entry in fs::read_dir(format!("/proc/{scheduler}/fd"))? {
            let target = fs::read_link(entry?.path()).unwrap_or_default();
            let target = target.to_string_lossy().into_owned();
            let is_file = target.starts_with('/');
            let known = ["/run/scx_proxy.", "/dev/", "/sys/", "/proc/"];
            ensure(
                !is_file || known.iter().any(|known| target.starts_with(known)),
                || target,
            )?;
        }
        Ok(())
    })
}

/// Also with many clients, whose threads have stacks.
fn scheduler_is_small() -> Result<(), Failed> {
    sched::with(&[], || {
        top()?;
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            clients.push(Stats::open()?);
        }
        let scheduler = sched::pid();
        let (resident, locked) = (
            status_kib(scheduler, "VmRSS:")?,
            status_kib(scheduler, "VmLck:")?,
        );
        let watcher = pid().map_or(Ok(0), |pid| status_kib(pid, "VmRSS:"))?;
        println!("scheduler: {resident} KiB resident, {locked} KiB locked; watcher: {watcher} KiB");
        ensure(locked > 0, || "its memory is not locked".into())?;
        ensure(resident < RSS_MAX_KIB, || format!("{resident} KiB"))
    })
}
