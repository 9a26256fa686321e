// SPDX-License-Identifier: GPL-2.0-only
//! A scheduler that is none: a stats server on a socket of its own, with the targets that `top`
//! asks for, and made-up answers that a test can change.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::bail;
use scx_proxy::stats::Metrics;
use scx_proxy::watch::View;
use scx_proxy::watch::view::{
    Chain, ClassRow, HistoryLine, Link, LockRow, PairRow, Sums, Task, TaskRow,
};
use scx_stats::prelude::*;

const MS: u64 = 1_000_000;

/// A folder of a test, removed with it; its path is short enough for sockets.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let nr = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("scxtop-{}-{nr}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        Folder(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What the scheduler answers with.
pub struct State {
    /// Its tables, but for the time.
    pub view: View,
    /// Added to all sums of locks at each look.
    pub grows: bool,
    /// Of whomever is asked about.
    pub history: Vec<HistoryLine>,
    /// Values of `donate` that were asked for.
    pub switched: Vec<String>,
    /// Answers take so long.
    pub slow: Duration,
    /// It is of a kind that has no view.
    pub refuses: bool,
    loaded: Instant,
}

/// The scheduler; it goes when it is dropped.
pub struct Fake {
    state: Arc<Mutex<State>>,
    _server: StatsServer<(), ()>,
}

impl Fake {
    /// Listens on `stats` in `folder`.
    pub fn new(folder: &Path, view: View) -> Fake {
        let state = Arc::new(Mutex::new(State {
            view,
            grows: false,
            history: Vec::new(),
            switched: Vec::new(),
            slow: Duration::ZERO,
            refuses: false,
            loaded: Instant::now(),
        }));
        // its own watcher
        let own = serde_json::json!({ "socket": socket(folder) });
        let data = StatsServerData::new()
            .add_meta(Metrics::meta())
            .add_stats("watcher", Box::new(move |_, _| Ok(own.clone())))
            .add_stats("top", reader(&state, metrics))
            .add_stats("watch", reader(&state, watch))
            .add_stats("history", reader(&state, history))
            .add_stats("cgroups", reader(&state, cgroups))
            .add_stats("control", reader(&state, control));
        let server = StatsServer::new(data).set_path(socket(folder));
        let _server = server.launch().expect("a stats server");
        Fake { state, _server }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no reader panics")
    }
}

pub fn socket(folder: &Path) -> PathBuf {
    folder.join("stats")
}

type Args = std::collections::BTreeMap<String, String>;
type Answer = anyhow::Result<serde_json::Value>;

fn reader(
    state: &Arc<Mutex<State>>,
    answer: fn(&mut State, &Args) -> Answer,
) -> Box<dyn StatsReaderSend<(), ()>> {
    let state = state.clone();
    Box::new(move |args, _| {
        let slow = state.lock().expect("no reader panics").slow;
        std::thread::sleep(slow);
        answer(&mut state.lock().expect("no reader panics"), args)
    })
}

fn metrics(_: &mut State, _: &Args) -> Answer {
    let metrics = Metrics {
        edges: 50,
        donations: 20,
        donated_ns: 3 * MS,
        owner_running: 7,
        return_home: 30,
        stale: 2,
        ..Metrics::default()
    };
    Ok(serde_json::to_value(metrics)?)
}

fn cgroups(_: &mut State, _: &Args) -> Answer {
    Ok(serde_json::json!([]))
}

fn watch(state: &mut State, args: &Args) -> Answer {
    if state.refuses {
        bail!("no such target here");
    }
    let rows: usize = args["rows"].parse()?;
    if state.grows {
        let locks = state.view.locks.iter_mut().map(|row| &mut row.sums);
        for sums in locks.chain([&mut state.view.total]) {
            sums.waits += 5;
            sums.waited_ns += 10 * MS;
            sums.inverted_ns += 4 * MS;
            sums.donations += 3;
        }
    }
    let mut view = state.view.clone();
    view.time_ns = view.since_ns + u64::try_from(state.loaded.elapsed().as_nanos())?;
    view.locks.truncate(rows);
    view.tasks.truncate(rows);
    Ok(serde_json::to_value(view)?)
}

fn history(state: &mut State, args: &Args) -> Answer {
    let _: u32 = args["pid"].parse()?;
    Ok(serde_json::to_value(&state.history)?)
}

fn control(state: &mut State, args: &Args) -> Answer {
    let value = args["donate"].clone();
    state.view.donating = value == "on";
    state.switched.push(value);
    Ok(state.view.donating.into())
}

fn sums(waits: u64, inverted_ms: u64) -> Sums {
    Sums {
        waits,
        waited_ns: inverted_ms * 5 * MS / 4,
        inverted_ns: inverted_ms * MS,
        longest_ns: inverted_ms * MS / 10,
        donations: waits / 2,
        lent_ns: inverted_ms * MS / 3,
    }
}

fn task(pid: u32, comm: &str) -> Task {
    let comm = comm.to_owned();
    Task {
        pid,
        tgid: pid,
        comm,
    }
}

fn link(task: Task, lock: u64, lock_name: &str, waited_ms: u64) -> Link {
    Link {
        task,
        lock,
        lock_name: lock_name.into(),
        waited_ns: waited_ms * MS,
    }
}

/// A busy afternoon on a small machine.
pub fn a_few() -> View {
    let lock = |id, lock_type: &str, site: &str, sums, waiting_now, owner: Option<Task>| LockRow {
        id,
        lock_type: lock_type.into(),
        class: format!("{lock_type} {site}"),
        name: format!("{site} {:x}", 0xffff_8881_0000_1000_u64 + id * 0x40),
        sums,
        waiting_now,
        owner,
    };
    let (firefox, tar, dd) = (task(812, "firefox"), task(907, "tar"), task(33, "dd"));
    let (mysqld, httpd) = (task(2201, "mysqld"), task(2315, "httpd"));
    let locks = vec![
        lock(
            1,
            "mutex",
            "fdget_pos",
            sums(812, 4210),
            1,
            Some(tar.clone()),
        ),
        lock(2, "rwsem", "i_rwsem", sums(77, 1930), 1, Some(dd.clone())),
        lock(
            3,
            "pthread",
            "mysqld+0x1a2b",
            sums(30_551, 611),
            0,
            Some(mysqld.clone()),
        ),
        lock(4, "rwsem", "mmap_lock of firefox", sums(1204, 88), 0, None),
        lock(5, "mutex", "cgroup_mutex", sums(9, 3), 0, None),
    ];
    let class = |row: &LockRow| ClassRow {
        class: row.class.clone(),
        sums: row.sums,
        waiting_now: row.waiting_now,
    };
    let row = |task: &Task, cgroup: &str, waited, owned, waits_for: Option<&str>| TaskRow {
        task: task.clone(),
        cgroup: cgroup.into(),
        waited,
        owned,
        waits_for: waits_for.map(Into::into),
    };
    let pair = |waiter: &str, owner: &str, sums| PairRow {
        waiter: waiter.into(),
        owner: owner.into(),
        sums,
    };
    let (user, backup) = (
        "/user.slice/user-1000.slice",
        "/system.slice/backup.service",
    );
    let chain = Chain {
        links: vec![
            link(firefox.clone(), 1, "mutex fdget_pos", 48),
            link(tar.clone(), 2, "rwsem i_rwsem", 61),
        ],
        end: Some(dd.clone()),
        cycle: false,
        donations: 14,
    };
    let deadlock = Chain {
        links: vec![
            link(mysqld.clone(), 6, "pthread mysqld+0x99", 9100),
            link(task(2202, "mysqld"), 7, "pthread mysqld+0xa4", 9099),
        ],
        end: None,
        cycle: true,
        donations: 0,
    };
    View {
        time_ns: 0,
        since_ns: 3_600_000 * MS,
        donating: true,
        lost_events: 0,
        total: sums(32_653, 6842),
        waiting_now: 4,
        classes: locks.iter().map(class).collect(),
        locks,
        tasks: vec![
            row(
                &firefox,
                user,
                sums(790, 4150),
                sums(0, 0),
                Some("mutex fdget_pos"),
            ),
            row(
                &tar,
                backup,
                sums(76, 1925),
                sums(812, 4210),
                Some("rwsem i_rwsem"),
            ),
            row(
                &httpd,
                "/system.slice/httpd.service",
                sums(30_551, 611),
                sums(0, 0),
                None,
            ),
            row(&dd, backup, sums(0, 0), sums(77, 1930), None),
        ],
        pairs: vec![
            pair(user, backup, sums(790, 4150)),
            pair(backup, backup, sums(76, 1925)),
        ],
        held: Vec::new(),
        chains: vec![deadlock, chain],
    }
}

/// So many of everything, with long names.
pub fn many(count: u64) -> View {
    let lock = |nr: u64| LockRow {
        id: nr + 1,
        lock_type: "pthread".into(),
        class: format!("pthread some_program_with_a_long_name+0x{nr:x}"),
        name: format!("lock-{nr:04} of some_program_with_a_long_name+0x{nr:x}"),
        sums: sums(count - nr, 2 * (count - nr)),
        waiting_now: 1,
        owner: Some(task(100_000, "some_program_wi")),
    };
    let pid = |nr: u64| u32::try_from(nr).expect("small") + 1000;
    let row = |nr: u64| TaskRow {
        task: task(pid(nr), "some_program_wi"),
        cgroup: format!("/kubepods.slice/kubepods-burstable.slice/pod-{nr}/container"),
        waited: sums(count - nr, count - nr),
        owned: sums(1, 1),
        waits_for: Some(lock(nr).name),
    };
    let pair = |nr: u64| PairRow {
        waiter: format!("/kubepods.slice/kubepods-burstable.slice/pod-{nr}"),
        owner: "/kubepods.slice/kubepods-burstable.slice/pod-0".into(),
        sums: sums(count - nr, count - nr),
    };
    let chain = |nr: u64| Chain {
        links: vec![link(
            task(pid(nr), "some_program_wi"),
            nr + 1,
            &lock(nr).name,
            nr,
        )],
        end: Some(task(100_000, "some_program_wi")),
        cycle: false,
        donations: nr,
    };
    let locks: Vec<LockRow> = (0..count).map(lock).collect();
    let class = |row: &LockRow| ClassRow {
        class: row.class.clone(),
        sums: row.sums,
        waiting_now: 1,
    };
    View {
        donating: true,
        total: sums(count * count, count * count),
        classes: locks.iter().map(class).collect(),
        locks,
        tasks: (0..count).map(row).collect(),
        pairs: (0..count).map(pair).collect(),
        chains: (0..count).map(chain).collect(),
        ..View::default()
    }
}
