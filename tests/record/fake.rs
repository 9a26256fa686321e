// SPDX-License-Identifier: GPL-2.0-only
//! A scheduler that is none: it serves the targets `top` and `events` on a socket of its own.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use scx_proxy::abi::{self, proxy_event};
use scx_proxy::events::TaskName;
use scx_proxy::events::{Batch, Event, Names, Site};
use scx_proxy::stats::{self, Answer, Metrics, Request};
use scx_proxy::watch::wire;
use scx_stats::prelude::*;

/// Two waiters for a mutex, one for an rwsem.
pub const MUTEX: u64 = 0xffff_8880_0000_1000;
pub const RWSEM: u64 = 0xffff_8880_0000_2000 | abi::lock_type_LOCK_RWSEM as u64;
pub const SITE: u64 = 0xffff_ffff_8123_4567;

/// A folder that goes with the test.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let nr = NEXT.fetch_add(1, Ordering::Relaxed);
        // a socket's path must be short
        let path = std::env::temp_dir().join(format!("scxp-{}-{nr}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("UTF-8").to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The scheduler. What is put into `batches` goes to whoever asks next.
pub struct Fake {
    pub batches: Arc<Mutex<Vec<Batch>>>,
    pub metrics: Arc<Mutex<Metrics>>,
    pub socket: PathBuf,
    server: Option<StatsServer<Request, Answer>>,
    answers: Option<std::thread::JoinHandle<()>>,
}

impl Fake {
    pub fn new(folder: &Folder, batches: Vec<Batch>) -> Self {
        let socket = folder.path("stats");
        let batches = Arc::new(Mutex::new(batches));
        let metrics = Arc::new(Mutex::new(Metrics::default()));
        let queue = batches.clone();
        let next: Box<dyn StatsReaderSend<Request, Answer>> = Box::new(move |_, _| {
            let mut queue = queue.lock().expect("a lock");
            let batch = (!queue.is_empty()).then(|| queue.remove(0));
            wire::to_json(&batch.unwrap_or_default())
        });
        let own = serde_json::json!({ "socket": socket });
        let watcher: Box<dyn StatsReaderSend<Request, Answer>> =
            Box::new(move |_, _| Ok(own.clone()));
        let data = stats::server_data(None, std::thread::current())
            .add_stats("watcher", watcher)
            .add_stats("events", next);
        let server = StatsServer::new(data).set_path(&socket);
        let server = server.launch().expect("a server");
        let (answer, asked) = server.channels();
        let totals = metrics.clone();
        let answers = std::thread::spawn(move || {
            for request in asked {
                let totals = totals.lock().expect("a lock").clone();
                let _ = answer.send(match request {
                    Request::Groups => Answer::Groups(Vec::new()),
                    _ => Answer::Metrics(Box::new(totals)),
                });
            }
        });
        Self {
            batches,
            metrics,
            socket,
            server: Some(server),
            answers: Some(answers),
        }
    }

    pub fn give(&self, batch: Batch) {
        self.batches.lock().expect("a lock").push(batch);
    }

    /// Until all batches were fetched.
    pub fn wait_taken(&self) {
        until("batches are fetched", || {
            self.batches.lock().expect("a lock").is_empty()
        });
    }

    pub fn socket(&self) -> &str {
        self.socket.to_str().expect("UTF-8")
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        drop(self.server.take());
        drop(self.answers.take());
    }
}

pub fn until(what: &str, ready: impl Fn() -> bool) {
    let began = Instant::now();
    while !ready() {
        assert!(began.elapsed() < Duration::from_secs(20), "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn scx_proxy(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_scx_proxy"))
        .args(args)
        .output()
        .expect("runs")
}

/// Runs until the test ends it.
pub struct Running(pub Child);

impl Running {
    pub fn new(args: &[&str]) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_scx_proxy"))
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("runs");
        Self(child)
    }

    pub fn terminate(self) -> Output {
        let pid = self.0.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(sent.expect("kill").success());
        self.end()
    }

    /// Waits until it ends by itself.
    pub fn end(mut self) -> Output {
        let mut out = Output {
            status: self.0.wait().expect("ends"),
            stdout: Vec::new(),
            stderr: Vec::new(),
        };
        use std::io::Read;
        if let Some(mut stderr) = self.0.stderr.take() {
            stderr.read_to_end(&mut out.stderr).expect("text");
        }
        out
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn event(kind: u32, time_ns: u64, pid: u32, other: u32) -> proxy_event {
    proxy_event {
        time_ns,
        kind,
        pid,
        other,
        cpu: 1,
        tgid: pid,
        ..Default::default()
    }
}

/// As events are, once they are read.
pub fn typed(raw: Vec<proxy_event>) -> Vec<Event> {
    raw.into_iter().map(Event::from).collect()
}

/// A wait for a lock that was asked for at `SITE`.
pub fn wait(kind: u32, time_ns: u64, pid: u32, other: u32, lock: u64) -> proxy_event {
    proxy_event {
        lock,
        value: 1,
        site: SITE,
        site_kind: abi::proxy_site_kind_SITE_KERNEL,
        cgroup: 11,
        other_cgroup: 12,
        ..event(kind, time_ns, pid, other)
    }
}

pub fn names() -> Names {
    let task = |pid: u32, comm: &str| {
        let comm = comm.to_owned();
        (pid, TaskName { tgid: pid, comm })
    };
    let site = Site {
        kind: abi::proxy_site_kind_SITE_KERNEL,
        tgid: 0,
        at: SITE,
    };
    Names {
        tasks: vec![task(101, "firefox"), task(102, "tar"), task(103, "make")],
        sites: vec![(site, "fdget_pos".into())],
        locks: vec![(RWSEM, "uts_sem".into())],
        cgroups: vec![(11, "/user.slice".into()), (12, "/batch.slice".into())],
    }
}

/// What the tests mostly record: firefox waits for tar's mutex, and so does make, whose wait does
/// not end; firefox donates to tar; make's earlier wait for an rwsem was there at the beginning.
pub fn story(began_ns: u64) -> Batch {
    let at = |ms: u64| began_ns + ms * 1_000_000;
    let wake = |time_ns, pid, lock, value, inverted_ns| proxy_event {
        value,
        inverted_ns,
        ..wait(abi::proxy_event_kind_EVENT_WAKE, time_ns, pid, 102, lock)
    };
    Batch {
        events: typed(vec![
            wait(abi::proxy_event_kind_EVENT_SNAPSHOT, at(0), 103, 102, RWSEM),
            wait(abi::proxy_event_kind_EVENT_BLOCK, at(10), 101, 102, MUTEX),
            proxy_event {
                value: 1,
                ..event(abi::proxy_event_kind_EVENT_DONATE, at(12), 101, 102)
            },
            event(abi::proxy_event_kind_EVENT_MIGRATE, at(13), 101, 102),
            event(abi::proxy_event_kind_EVENT_PARK, at(14), 101, 102),
            wake(at(20), 103, RWSEM, 20_000_000, 5_000_000),
            proxy_event {
                value: 2,
                ..wait(abi::proxy_event_kind_EVENT_BLOCK, at(25), 103, 102, MUTEX)
            },
            wake(at(30), 101, MUTEX, 20_000_000, 4_000_000),
            proxy_event {
                other: abi::return_choice_RETURN_HOME | abi::RETURN_MOVED,
                value: 1000,
                ..event(abi::proxy_event_kind_EVENT_RETURN, at(31), 101, 0)
            },
            proxy_event {
                value: 1,
                ..event(abi::proxy_event_kind_EVENT_SWITCH, at(40), 0, 0)
            },
        ]),
        snapshot: true,
        names: names(),
        donating: true,
        ..Batch::default()
    }
}

/// Records what `fake` gives, and returns the file's path.
pub fn record(folder: &Folder, fake: &Fake, name: &str, more: &[&str]) -> PathBuf {
    let path = folder.text(name);
    let mut args = vec!["record", &path, "--socket", fake.socket()];
    args.extend(more);
    let running = Running::new(&args);
    fake.wait_taken();
    // the last batch may be on its way
    std::thread::sleep(Duration::from_millis(300));
    let out = running.terminate();
    assert_eq!(out.status.code(), Some(0), "{out:?}");
    assert!(out.stderr.is_empty(), "{out:?}");
    // what it says of other users is for whoever recorded it
    let mode = std::fs::metadata(&path).expect("the recording").mode();
    assert_eq!(mode & 0o777, 0o600);
    Path::new(&path).to_owned()
}
