// SPDX-License-Identifier: GPL-2.0-only
//! `observe --beside`: nothing of ours schedules. What it reports against what `inversion` measured from
//! outside in the same run, on kernels with and without sched_ext, and beside schedulers of sched_ext.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use libbpf_rs::query::ProgInfoIter;
use libtest_mimic::Failed;
use scx_proxy::cli::BESIDE;
use scx_proxy::client::Client;
use serde_json::Value;

use crate::Test;
use crate::machine::{ensure, has_mutex_owner, read, run, sched_ext_ops, wait_for};
use crate::sched::{self, SCX_PROXY};
use crate::watch::{has_class, stage};

/// On the machine's own scheduler: they come first.
pub const TESTS: &[Test] = &[
    ("beside::f_pos_lock", || {
        seen("f_pos_lock", &format!("mutex {}", fdget_pos()))
    }),
    ("beside::seq_file", || {
        seen("seq_file", "mutex seq_read_iter")
    }),
    ("beside::i_rwsem", || seen("i_rwsem", "rwsem do_truncate")),
    ("beside::pthread", || {
        seen("pthread", "pthread inversion+0x")
    }),
    ("beside::pi_mutex", || {
        seen("pi_mutex", "rtmutex inversion+0x")
    }),
    ("beside::chain", || seen("chain", "mutex ")),
    ("beside::says_who_held_up_whom", says_who_held_up_whom),
    ("beside::nothing_to_see", nothing_to_see),
    ("beside::refusals", refusals),
];

/// While our own scheduler runs.
pub const ON_DEFAULTS: &[Test] = &[("beside::beside_our_own", beside_our_own)];

/// While scx_lavd runs, which ends with them.
pub const UNDER_LAVD: &[Test] = &[("beside::under_lavd", under_lavd)];

/// Where scx_lavd is: `scripts/test` says, on machines whose clock the host has no part in.
const LAVD: &str = "SCX_PROXY_LAVD";

/// Why a test cannot run on this machine.
pub fn unfit(test: &str) -> Option<&'static str> {
    if UNDER_LAVD.iter().any(|(name, _)| *name == test) {
        return match std::env::var(LAVD) {
            Ok(path) if Path::new(&path).exists() => None,
            Ok(_) => Some("scx_lavd is not there: scripts/bench --peers installs it"),
            Err(_) => Some("takes an even clock: scripts/test --kernel 7.3-even"),
        };
    }
    let ours = ON_DEFAULTS.iter().any(|(name, _)| *name == test);
    (ours && !Path::new("/sys/kernel/sched_ext").exists()).then_some("this kernel has no sched_ext")
}

/// The function that takes f_pos_lock: before 6.13 another one.
fn fdget_pos() -> &'static str {
    let has_it = |line: &str| line.ends_with(" t fdget_pos") || line.ends_with(" T fdget_pos");
    match read("/proc/kallsyms").lines().any(has_it) {
        true => "fdget_pos",
        false => "__fdget_pos",
    }
}

/// What the report may be off, of the inversion time as measured from outside: emulated CPUs stand still for as
/// long as the host likes. In one of some stagings it has to be exact.
const OFF_MAX: f64 = 0.1;
const EXACT: f64 = 0.05;
const STAGINGS_MAX: usize = 6;
const LOG: &str = "/run/beside.log";
const OUT: &str = "/run/beside.out";
const PATIENCE: Duration = Duration::from_secs(90);

/// What observes, until it is ended.
pub struct Beside(Option<Child>);

impl Beside {
    pub fn start(flags: &[&str]) -> Result<Self, Failed> {
        let child = Command::new(SCX_PROXY)
            .args(["observe", "--beside"])
            .args(flags)
            .stdin(Stdio::null())
            .stdout(File::create(OUT)?)
            .stderr(File::create(LOG)?)
            .spawn()?;
        let mut beside = Self(Some(child));
        let mut ended = None;
        wait_for("observing to begin", PATIENCE, || {
            ended = beside
                .0
                .as_mut()
                .and_then(|child| child.try_wait().ok().flatten());
            ended.is_some() || read(LOG).contains("observing beside")
        })?;
        ensure(ended.is_none(), || format!("{ended:?}: {}", read(LOG)))?;
        Ok(beside)
    }

    pub fn client(&self) -> Result<Client, Failed> {
        Client::connect(Path::new(BESIDE)).map_err(|e| format!("{e:#}").into())
    }

    /// Ends it as Ctrl-C does: what it printed. Nothing of it may be left.
    pub fn end(mut self) -> Result<String, Failed> {
        let mut child = self.0.take().ok_or("ended already")?;
        run(&["kill", "-INT", &child.id().to_string()])?;
        let mut status = None;
        wait_for("observing to end", PATIENCE, || {
            status = child.try_wait().ok().flatten();
            status.is_some()
        })?;
        ensure(status.is_some_and(|status| status.success()), || {
            format!("{status:?}: {}", read(LOG))
        })?;
        let left = || {
            let programs = ProgInfoIter::default();
            let names = programs.map(|program| program.name.to_string_lossy().into_owned());
            names
                .filter(|name| name.starts_with("beside_"))
                .collect::<Vec<_>>()
        };
        // the kernel frees programs behind the last reference
        wait_for("the programs to go", PATIENCE, || left().is_empty())
            .map_err(|_| format!("{:?} are left", left()))?;
        ensure(!Path::new(BESIDE).exists(), || "its socket is left".into())?;
        Ok(read(OUT))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
            let _ = std::fs::remove_file(BESIDE);
        }
    }
}

/// Stages `lock`: the wait has its class, its owner, and the inversion time that was measured from outside. That
/// is too small by what the owner ran before the waiter slept: a trial with little of that is looked for.
fn watched(beside: &Beside, lock: &str, class: &str, critical_ms: &str) -> Result<(), Failed> {
    let mut client = beside.client()?;
    for _ in 0..STAGINGS_MAX {
        for (trial, event) in stage(&mut client, lock, critical_ms, 1)? {
            ensure(event.about.owner != 0, || format!("no owner: {event:?}"))?;
            let off = trial.off(&event).abs() / trial.inverted_ns.max(1.0);
            println!(
                "{lock} beside: factor {:.1}, inverted {:.1} ms by what observes, {} from outside",
                trial.factor,
                event.inverted_ns as f64 / 1e6,
                trial.inverted(),
            );
            ensure(off <= OFF_MAX, || format!("{trial:?}, {event:?}"))?;
            if off <= EXACT && trial.awake_ns <= trial.inverted_ns * EXACT {
                return has_class(&mut client, class);
            }
        }
    }
    Err(format!("{lock}: of {STAGINGS_MAX} waits none was known, and right, within {EXACT}").into())
}

fn seen(lock: &str, class: &str) -> Result<(), Failed> {
    let beside = Beside::start(&[])?;
    watched(&beside, lock, class, "20")?;
    beside.end().map(drop)
}

/// The summary names the lock and both tasks, and what is less important.
fn says_who_held_up_whom() -> Result<(), Failed> {
    let beside = Beside::start(&["--json"])?;
    stage(&mut beside.client()?, "f_pos_lock", "100", 1)?;
    let out = beside.end()?;
    let json: Value = serde_json::from_str(&out).map_err(|e| format!("{e}: {out}"))?;
    let lock_type = if has_mutex_owner() {
        "mutex"
    } else {
        "rtmutex"
    };
    let class = format!("{lock_type} {}", fdget_pos());
    let rows = json["held"].as_array().cloned().unwrap_or_default();
    let row = rows.iter().find(|row| row["class"] == class.as_str());
    let row = row.ok_or(format!("no {class}: {out}"))?;
    println!("{row}");
    ensure(
        row["owner"] == "inversion" && row["waiter"] == "inversion",
        || format!("other names: {row}"),
    )?;
    ensure(row["owner_nice"] == 19, || {
        format!("another nice value: {row}")
    })?;
    let inverted_ns = row["sums"]["inverted_ns"].as_u64().unwrap_or(0);
    ensure(inverted_ns > 100_000_000, || {
        format!("hardly inverted: {row}")
    })
}

/// Where nobody waits for locks there is no inversion, whatever else the machine does.
fn nothing_to_see() -> Result<(), Failed> {
    let mut hogs = Vec::new();
    for nice in ["19", "0", "-10"] {
        hogs.push(
            Command::new("nice")
                .args([
                    "-n",
                    nice,
                    "timeout",
                    "3",
                    "sh",
                    "-c",
                    "while :; do :; done",
                ])
                .spawn()?,
        );
    }
    let beside = Beside::start(&["--sample", "2"])?;
    for hog in &mut hogs {
        hog.wait()?;
    }
    let out = beside.end()?;
    ensure(
        out.contains("no inversion was seen") && out.contains("about one in 2 waits"),
        || format!("{out}: {}", read(LOG)),
    )?;
    let left = std::fs::read_dir("/run/scx/root")?.collect::<Result<Vec<_>, _>>()?;
    ensure(left.is_empty(), || format!("left behind: {left:?}"))
}

/// What cannot be done is said in words, and ends with an error.
fn refusals() -> Result<(), Failed> {
    let refused = |argv: &[&str], why: &str| {
        let out = Command::new(argv[0])
            .args(&argv[1..])
            .args([SCX_PROXY, "observe", "--beside", "--seconds", "1"])
            .output()?;
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        ensure(out.status.code() == Some(1) && said.contains(why), || {
            format!("{argv:?}: {:?}: {said}", out.status)
        })
    };
    refused(&["setpriv", "--reuid=65534", "--"], "needs root")?;
    let no_types = r#"mount -t tmpfs tmpfs /sys/kernel/btf && exec "$@""#;
    refused(
        &["unshare", "-m", "sh", "-c", no_types, "sh"],
        "does not describe its types",
    )?;
    let beside = Beside::start(&[])?;
    refused(&["env"], "observed already")?;
    beside.end().map(drop)
}

/// Our own scheduler, which only observes: both see the same.
fn beside_our_own() -> Result<(), Failed> {
    sched::with(&[], || {
        let mut client = crate::watch::client()?;
        client.set_donating(false).map_err(|e| format!("{e:#}"))?;
        let result = seen("f_pos_lock", &format!("mutex {}", fdget_pos()));
        client.set_donating(true).map_err(|e| format!("{e:#}"))?;
        result
    })
}

/// Another scheduler of sched_ext is watched as the kernel's own is. It lets low priorities run more, so
/// that there is less inversion: critical sections are longer here, and a host that stops an emulated CPU for a
/// moment would be a good part of it.
fn under_lavd() -> Result<(), Failed> {
    let mut lavd = Command::new(std::env::var(LAVD)?)
        .stdin(Stdio::null())
        .stdout(File::create("/run/lavd.log")?)
        .stderr(Stdio::null())
        .spawn()?;
    let loaded = || sched_ext_ops().starts_with("lavd");
    let seen_all = || {
        wait_for("scx_lavd to load", sched::LOAD, loaded)?;
        let beside = Beside::start(&[])?;
        let f_pos_lock = format!("mutex {}", fdget_pos());
        watched(&beside, "f_pos_lock", &f_pos_lock, "150")?;
        watched(&beside, "seq_file", "mutex seq_read_iter", "150")?;
        watched(&beside, "i_rwsem", "rwsem do_truncate", "150")?;
        watched(&beside, "pthread", "pthread inversion+0x", "150")?;
        beside.end()?;
        ensure(loaded(), || "scx_lavd is gone".into())
    };
    let result = seen_all();
    let ended = run(&["kill", "-INT", &lavd.id().to_string()]).and_then(|_| {
        wait_for("scx_lavd to end", sched::UNLOAD, || {
            lavd.try_wait().is_ok_and(|status| status.is_some())
        })
    });
    let _ = (lavd.kill(), lavd.wait());
    result.and(ended)
}
