// SPDX-License-Identifier: GPL-2.0-only
//! `observe --beside` where it is hard: owners that exit, cgroups far down, two that start at once, and what the
//! exporter says meanwhile.

use std::process::{Command, Stdio};
use std::time::Duration;

use libbpf_rs::query::MapInfoIter;
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use libtest_mimic::Failed;
use scx_proxy::client::Client;
use scx_proxy::events::{Begun, Ended, What, edge};

use crate::Test;
use crate::beside::Beside;
use crate::cgroup::Cgroup;
use crate::load::Load;
use crate::machine::{ensure, wait_for};
use crate::sched::SCX_PROXY;
use crate::watch::scrape;

/// On the machine's own scheduler.
pub const TESTS: &[Test] = &[
    ("beside::owner_that_exits", owner_that_exits),
    ("beside::cgroups_far_down", cgroups_far_down),
    ("beside::two_at_once", two_at_once),
    ("beside::metrics_say_who_answers", metrics_say_who_answers),
];

const PATIENCE: Duration = Duration::from_secs(90);

/// A mutex of the C library, for programs in Python.
const MUTEX: &str = r#"
import ctypes, os, sys, threading, time
libc = ctypes.CDLL("libc.so.6")
mutex = ctypes.create_string_buffer(64)
"#;

fn python(program: &str, args: &[&str]) -> Result<std::process::Child, Failed> {
    Ok(Command::new("/usr/bin/python3")
        .args(["-c", &(MUTEX.to_owned() + program)])
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()?)
}

/// What the next event says that `wanted` takes.
fn next<T>(client: &mut Client, wanted: impl Fn(What) -> Option<T>) -> Result<T, Failed> {
    let mut found = None;
    wait_for("an event", PATIENCE, || {
        let events = client.batch().map(|batch| batch.events);
        let mut events = events.unwrap_or_default().into_iter();
        found = events.find_map(|event| wanted(event.what));
        found.is_some()
    })?;
    found.ok_or_else(|| "no event".into())
}

/// The main thread exits and owns a mutex: it stays a zombie as long as its process lives.
const EXITS: &str = r#"
def wait():
    time.sleep(1)
    end = (ctypes.c_long * 2)(int(time.time()) + 2, 0)
    libc.pthread_mutex_timedlock(mutex, end)
    os._exit(0)
threading.Thread(target=wait).start()
libc.pthread_mutex_lock(mutex)
libc.syscall(60, 0)
"#;

/// Nothing is kept of a task that has exited: what comes at its address, or gets its number, is another one.
fn owner_that_exits() -> Result<(), Failed> {
    let beside = Beside::start(&[])?;
    let mut client = beside.client()?;
    client.batch().map_err(|e| format!("{e:#}"))?;
    let mut child = python(EXITS, &[])?;
    let owner = child.id();
    let waiter = next(&mut client, |what| match what {
        What::Block(Begun { about, .. }) if about.tgid == owner && about.owner == owner => {
            Some(about.pid)
        }
        _ => None,
    })?;
    println!("{waiter} waits for {owner}, which has exited");
    child.wait()?;
    let maps = MapInfoIter::default();
    let tasks: Vec<_> = maps
        .filter(|map| map.name.to_string_lossy() == "task_ctxs")
        .map(|map| MapHandle::from_map_id(map.id))
        .collect::<Result<_, _>>()?;
    ensure(!tasks.is_empty(), || "no table of tasks".into())?;
    for map in tasks {
        let kept = map.lookup(&owner.to_ne_bytes(), MapFlags::ANY)?;
        ensure(kept.is_none(), || format!("{owner} is kept: {kept:?}"))?;
    }
    beside.end().map(drop)
}

/// The owner takes the mutex and computes, beside a hog; the waiter comes. Each in its cgroup.
const HELD: &str = r#"
os.sched_setaffinity(0, {1})
def enter(cgroup):
    with open(cgroup + "/cgroup.threads", "w") as file:
        file.write(str(threading.get_native_id()))
def own():
    enter(sys.argv[1])
    libc.pthread_mutex_lock(mutex)
    taken.set()
    begun = time.thread_time()
    while time.thread_time() - begun < 0.5:
        pass
    libc.pthread_mutex_unlock(mutex)
def wait():
    enter(sys.argv[2])
    os.sched_setaffinity(0, {0})
    taken.wait()
    libc.pthread_mutex_lock(mutex)
taken = threading.Event()
threads = [threading.Thread(target=target) for target in (own, wait)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"#;

/// How deep the cgroups of the two are: more than what is kept of their paths.
const DEPTH: usize = 11;

/// A branch of cgroups, from the topmost one down.
struct Branch(Vec<Cgroup>);

impl Branch {
    /// The topmost weighs `first`, those further down `other`.
    fn new(first: u32, other: u32) -> Result<Self, Failed> {
        let mut all = Self(Vec::new());
        for level in 0..DEPTH {
            let group = Cgroup::threaded(all.0.last())?;
            group.set("cpu.weight", if level == 0 { first } else { other })?;
            all.0.push(group);
        }
        Ok(all)
    }

    fn lowest(&self) -> &Cgroup {
        &self.0[DEPTH - 1]
    }
}

impl Drop for Branch {
    /// One that has children cannot be removed.
    fn drop(&mut self) {
        while self.0.pop().is_some() {}
    }
}

/// Whether a mutex was waited for in cgroup `waiter` that somebody in cgroup `owner` had, and for long: the
/// interpreter has a lock of its own, which the two take in turn.
fn is_it(ended: &Ended, owner: u64, waiter: u64) -> bool {
    let about = &ended.about;
    let is_mutex = edge::type_name(about.lock) == "pthread" && about.owner != 0;
    is_mutex
        && (about.owner_cgroup, about.cgroup) == (owner, waiter)
        && ended.waited_ns > 50_000_000
}

/// Where their branches part counts, however far up that is.
fn cgroups_far_down() -> Result<(), Failed> {
    let beside = Beside::start(&[])?;
    let mut client = beside.client()?;
    client.batch().map_err(|e| format!("{e:#}"))?;
    for (owner_weight, waiter_weight, inverts) in [(20, 500, true), (500, 20, false)] {
        // further down it is the other way round
        let owner = Branch::new(owner_weight, waiter_weight)?;
        let waiter = Branch::new(waiter_weight, owner_weight)?;
        let (owner_id, waiter_id) = (owner.lowest().id()?, waiter.lowest().id()?);
        let mut load = Load::default();
        load.hog(1, 0)?;
        let path = |branch: &Branch| branch.lowest().path().display().to_string();
        let mut child = python(HELD, &[&path(&owner), &path(&waiter)])?;
        // taking the GIL is a wait for a mutex of the C library, too
        let wait = next(&mut client, |what| match what {
            What::Wake(ended) if is_it(&ended, owner_id, waiter_id) => Some(ended),
            _ => None,
        })?;
        child.wait()?;
        drop(load);
        println!(
            "weights {owner_weight} and {waiter_weight}, {DEPTH} levels up: waited {:.1} ms, inverted {:.1} ms",
            wait.waited_ns as f64 / 1e6,
            wait.inverted_ns as f64 / 1e6
        );
        ensure((wait.inverted_ns > 0) == inverts, || format!("{wait:?}"))?;
    }
    beside.end().map(drop)
}

/// Of two that are started at the same moment one observes, and the other says why not.
fn two_at_once() -> Result<(), Failed> {
    for _ in 0..2 {
        let start = || {
            Command::new(SCX_PROXY)
                .args(["observe", "--beside", "--seconds", "3"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
        };
        let both = [start()?, start()?];
        let mut outs = Vec::new();
        for child in both {
            outs.push(child.wait_with_output()?);
        }
        let refused = |out: &std::process::Output| {
            let said = String::from_utf8_lossy(&out.stderr);
            out.status.code() == Some(1) && said.contains("observed already")
        };
        let nr_refused = outs.iter().filter(|out| refused(out)).count();
        let nr_well = outs.iter().filter(|out| out.status.success()).count();
        ensure((nr_refused, nr_well) == (1, 1), || format!("{outs:?}"))?;
    }
    Ok(())
}

/// Nothing of ours schedules: the exporter does not say that.
fn metrics_say_who_answers() -> Result<(), Failed> {
    let beside = Beside::start(&[])?;
    let mut load = Load::default();
    load.start(&[SCX_PROXY, "metrics", "127.0.0.1:9839"])?;
    let mut page = String::new();
    wait_for("the exporter", PATIENCE, || {
        page = scrape().unwrap_or_default();
        page.contains("scx_proxy_beside 1")
    })
    .map_err(|_| page.clone())?;
    ensure(page.contains("scx_proxy_up 0"), || page.clone())?;
    // there is no scheduler that could keep quiet
    ensure(page.contains("scx_proxy_agent_watched_now 1"), || {
        page.clone()
    })?;
    drop(load);
    beside.end().map(drop)
}
