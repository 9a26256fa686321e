// SPDX-License-Identifier: GPL-2.0-only
//! Stages a scenario of `tests/scenarios` on the real kernel: a task is a thread, a
//! lock is the mutex `f_pos_lock` of a file in memory, or, of other kinds than `mutex`, one
//! of user space (`userlock.rs`).
//!
//! `lock a, run 10, unlock a` is a read() of that file long enough to take 10 ms of CPU;
//! a critical section of up to 1 ms is an lseek(). Times are multiplied by a scale, since
//! an emulated CPU knows no milliseconds.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use scx_proxy::model::program::{Class, CpuMask, External, LockSpec, Op, Setup, TaskSpec};

use crate::cgroup::Cgroup;
use crate::machine::{ensure, wait_for};
use crate::userlock::UserLock;

/// Longest critical section that is staged by an lseek().
const SHORT_NS: u64 = 1_000_000;
/// Longer than any run of a scenario takes.
const AT_MOST: Duration = Duration::from_secs(60);
const FILE: &str = "/run/scenario";
const FILE_BYTES: u64 = 1 << 30;

/// What a scenario's run is made of.
pub struct Staged {
    /// The thread of each task, in the order of the scenario.
    pub tids: Vec<u32>,
}

/// CPU time of the calling thread.
fn own_cpu_ns() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: time is valid for the write.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn check(ret: libc::c_int, what: &str) -> Result<(), Failed> {
    ensure(ret == 0, || {
        format!("{what}: {}", std::io::Error::last_os_error())
    })
}

/// Where `tid` may run.
pub fn set_affinity(tid: u32, mask: CpuMask) -> Result<(), Failed> {
    // SAFETY: the kernel reads as many bytes as it is told; all zeroes is an empty set.
    check(
        unsafe {
            libc::sched_setaffinity(
                tid as libc::pid_t,
                size_of_val(&mask),
                std::ptr::from_ref(&mask).cast(),
            )
        },
        "sched_setaffinity",
    )
}

fn set_nice(tid: u32, nice: i32) -> Result<(), Failed> {
    // SAFETY: numbers only.
    let ret = unsafe { libc::setpriority(libc::PRIO_PROCESS, tid, nice) };
    check(ret, "setpriority")
}

/// Does what must not wait for the load that it directs. What is started meanwhile inherits the nice value.
pub fn promptly<T>(direct: impl FnOnce() -> Result<T, Failed>) -> Result<T, Failed> {
    set_nice(0, -20)?;
    let result = direct();
    set_nice(0, 0)?;
    result
}

fn set_class(tid: u32, class: Class) -> Result<(), Failed> {
    match class {
        Class::Fair { nice } => set_nice(tid, nice),
        Class::Rt { prio } => {
            let param = libc::sched_param {
                sched_priority: prio as libc::c_int,
            };
            // SAFETY: param is valid for the call.
            let ret =
                unsafe { libc::sched_setscheduler(tid as libc::pid_t, libc::SCHED_FIFO, &param) };
            check(ret, "sched_setscheduler")
        }
    }
}

/// One thing that a thread does.
enum Step {
    Spin { ns: u64 },
    Read { file: usize, buffer: Vec<u8> },
    Seek { file: usize },
    Inside { lock: Arc<UserLock>, ns: u64 },
    Sleep { ns: u64 },
}

/// The file of each lock, and how fast it is read.
struct Locks {
    files: Vec<File>,
    user: Vec<Option<Arc<UserLock>>>,
    bytes_per_ms: f64,
}

impl Locks {
    fn new(locks: &[LockSpec]) -> Result<Self, Failed> {
        let mut files = Vec::new();
        let mut user = Vec::new();
        for (nr, lock) in locks.iter().enumerate() {
            user.push(UserLock::new(lock.kind)?.map(Arc::new));
            let path = format!("{FILE}.{nr}");
            // all holes: it needs no memory
            File::create(&path)?.set_len(FILE_BYTES)?;
            files.push(File::open(&path)?);
        }
        let mut locks = Self {
            files,
            user,
            bytes_per_ms: 1.0,
        };
        if let Some(file) = locks.files.first() {
            let mut buffer = vec![1; 64 << 20];
            let before = own_cpu_ns();
            read_all(file, &mut buffer)?;
            locks.bytes_per_ms = buffer.len() as f64 * 1e6 / (own_cpu_ns() - before) as f64;
        }
        Ok(locks)
    }

    fn steps(&self, task: &TaskSpec, scale: u64) -> Result<Vec<Step>, Failed> {
        let mut steps = Vec::new();
        let mut held = None;
        for op in &task.program {
            match (op.clone(), held) {
                (Op::Lock(lock), None) => held = Some((lock, 0)),
                (Op::Run(ns), Some((lock, so_far))) => held = Some((lock, so_far + ns)),
                (Op::Unlock(_), Some((file, ns))) => {
                    held = None;
                    steps.push(if let Some(lock) = self.user[file].clone() {
                        Step::Inside {
                            lock,
                            ns: ns * scale,
                        }
                    } else if ns <= SHORT_NS {
                        Step::Seek { file }
                    } else {
                        let bytes = (ns * scale) as f64 / 1e6 * self.bytes_per_ms;
                        // touched, so that reading into it takes no page fault
                        let buffer = vec![1; (bytes as usize).min(FILE_BYTES as usize)];
                        Step::Read { file, buffer }
                    });
                }
                (Op::Run(ns), None) => steps.push(Step::Spin { ns: ns * scale }),
                (Op::Sleep(ns), None) => steps.push(Step::Sleep { ns: ns * scale }),
                (op, _) => return Err(format!("cannot be staged here: {op:?}").into()),
            }
        }
        Ok(steps)
    }
}

fn read_all(mut file: &File, buffer: &mut [u8]) -> std::io::Result<()> {
    let got = file.read(buffer)?;
    file.seek(SeekFrom::Start(0))?;
    if got == buffer.len() {
        Ok(())
    } else {
        Err(std::io::Error::other("read less than the file holds"))
    }
}

fn spin(ns: u64, stop: &AtomicBool) {
    let until = own_cpu_ns() + ns;
    while own_cpu_ns() < until && !stop.load(Ordering::Relaxed) {
        std::hint::spin_loop();
    }
}

/// The thread of a task.
struct Actor {
    tid: u32,
    repeats: bool,
    thread: JoinHandle<std::io::Result<()>>,
}

impl Actor {
    fn start(
        task: &TaskSpec,
        mut steps: Vec<Step>,
        files: Vec<File>,
        scale: u64,
        gate: &Arc<Gate>,
    ) -> Result<Self, Failed> {
        let tid = Arc::new(AtomicU32::new(0));
        let (tell, gate) = (tid.clone(), gate.clone());
        let start = Duration::from_nanos(task.start_ns * scale);
        let repeats = task.repeat;
        let thread = std::thread::spawn(move || {
            // SAFETY: no preconditions.
            let tid = unsafe { libc::gettid() };
            tell.store(tid as u32, Ordering::Release);
            let began = gate.pass();
            std::thread::sleep((began + start).saturating_duration_since(Instant::now()));
            loop {
                for step in &mut steps {
                    act(step, &files, &gate.stop)?;
                }
                if !repeats || gate.stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
            }
        });
        wait_for("a thread's id", AT_MOST, || {
            tid.load(Ordering::Acquire) != 0
        })?;
        let tid = tid.load(Ordering::Acquire);
        set_affinity(tid, task.cpus)?;
        set_class(tid, task.class)?;
        Ok(Self {
            tid,
            repeats,
            thread,
        })
    }
}

fn act(step: &mut Step, files: &[File], stop: &AtomicBool) -> std::io::Result<()> {
    match step {
        Step::Spin { ns } => spin(*ns, stop),
        Step::Read { file, buffer } => (&files[*file]).read(buffer).map(drop)?,
        Step::Inside { lock, ns } => lock.with(|| spin(*ns, stop))?,
        Step::Seek { file } => (&files[*file]).stream_position().map(drop)?,
        Step::Sleep { ns } => std::thread::sleep(Duration::from_nanos(*ns)),
    }
    Ok(())
}

/// Where all threads wait for the beginning, and learn of the end.
#[derive(Default)]
struct Gate {
    open: AtomicBool,
    began: std::sync::OnceLock<Instant>,
    stop: AtomicBool,
}

impl Gate {
    fn pass(&self) -> Instant {
        while !self.open.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(1));
        }
        *self.began.get_or_init(Instant::now)
    }
}

/// The cgroups of `setup`, of which its tasks become members thread by thread.
fn groups(setup: &Setup, scale: u64) -> Result<Vec<Cgroup>, Failed> {
    let mut groups: Vec<Cgroup> = Vec::new();
    for spec in &setup.groups {
        let parent = spec.parent.checked_sub(1).map(|nr| &groups[nr as usize]);
        let group = Cgroup::threaded(parent)?;
        group.set("cpu.weight", spec.weight)?;
        if let Some(limit) = spec.limit {
            let us = |ns: u64| ns * scale / 1000;
            let max = format!("{} {}", us(limit.quota_ns), us(limit.period_ns));
            group.set("cpu.max", max)?;
            group.set("cpu.max.burst", us(limit.burst_ns))?;
        }
        groups.push(group);
    }
    Ok(groups)
}

/// Runs `setup` until all tasks that do not repeat are at their end.
pub fn run(setup: &Setup, scale: u64) -> Result<Staged, Failed> {
    let locks = Locks::new(&setup.locks)?;
    let groups = groups(setup, scale)?;
    let gate = Arc::new(Gate::default());
    let mut actors = Vec::new();
    for task in &setup.tasks {
        // each thread has its own descriptor of the same open file
        let files = locks.files.iter().map(File::try_clone);
        let files = files.collect::<Result<_, _>>()?;
        let steps = locks.steps(task, scale)?;
        let actor = Actor::start(task, steps, files, scale, &gate)?;
        if task.group > 0 {
            groups[task.group as usize - 1].enter_thread(actor.tid)?;
        }
        actors.push(actor);
    }
    let tids = actors.iter().map(|actor| actor.tid).collect::<Vec<_>>();
    let began = *gate.began.get_or_init(Instant::now);
    gate.open.store(true, Ordering::Release);
    let result = promptly(|| direct(setup, scale, began, &actors, &groups));
    gate.stop.store(true, Ordering::Relaxed);
    for actor in actors {
        let ended = actor.thread.join().map_err(|_| "a thread panicked")?;
        ended.map_err(|e| format!("a thread: {e}"))?;
    }
    result?;
    Ok(Staged { tids })
}

/// The events from outside, in their time, and the wait for the end.
fn direct(
    setup: &Setup,
    scale: u64,
    began: Instant,
    actors: &[Actor],
    groups: &[Cgroup],
) -> Result<(), Failed> {
    let mut events = setup.externals.clone();
    events.sort_by_key(|(at_ns, _)| *at_ns);
    for (at_ns, event) in events {
        let at = began + Duration::from_nanos(at_ns * scale);
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        let tid = |pid: u32| actors[pid as usize - 1].tid;
        match event {
            External::Affinity(pid, mask) => set_affinity(tid(pid), mask)?,
            External::Nice(pid, nice) => set_nice(tid(pid), nice)?,
            External::Move(pid, group) if group > 0 => {
                groups[group as usize - 1].enter_thread(tid(pid))?;
            }
            External::Weight(group, weight) => {
                groups[group as usize - 1].set("cpu.weight", weight)?;
            }
            other => return Err(format!("cannot be staged here: {other:?}").into()),
        }
    }
    wait_for("the tasks to come to their end", AT_MOST, || {
        actors
            .iter()
            .all(|actor| actor.repeats || actor.thread.is_finished())
    })
}
