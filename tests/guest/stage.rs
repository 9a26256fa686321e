// SPDX-License-Identifier: GPL-2.0-only
//! Stages a scenario of `tests/scenarios` on the real kernel: a task is a thread, a
//! lock is the mutex `f_pos_lock` of a file in memory, or, of other kinds than `mutex`, one
//! of user space (`userlock.rs`).
//!
//! `lock a, run 10, unlock a` is a read() of that file long enough to take 10 ms of CPU;
//! a critical section of up to 1 ms is an lseek(). Times are multiplied by a scale, since
//! an emulated CPU knows no milliseconds; and when its host is busy it stands still for longer than lies
//! between two starts, so a task starts when those before it are where they should be by then.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use scx_proxy::model::program::{Class, CpuMask, External, LockSpec, Op, Setup, TaskSpec};

use crate::cgroup::Cgroup;
use crate::load::cpu_time_ns;
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

pub fn set_nice(tid: u32, nice: i32) -> Result<(), Failed> {
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

/// CPU time by which a thread is surely inside the system call that it made for a lock.
const INSIDE_NS: u64 = 1_000_000;

/// How far the thread of a task has come.
struct Progress {
    start_ns: u64,
    /// CPU time from its start until it has its lock; 0 of a task that takes none.
    inside_after_ns: u64,
    tid: AtomicU32,
    /// Its CPU time at its start; `u64::MAX` before.
    began_cpu_ns: AtomicU64,
    ended: AtomicBool,
}

impl Progress {
    fn of(task: &TaskSpec, scale: u64) -> Self {
        let is_lock = |op: &Op| matches!(op, Op::Lock(_));
        let before = task.program.iter().take_while(|op| !is_lock(op));
        let runs = before.map(|op| match op {
            Op::Run(ns) => ns * scale,
            _ => 0,
        });
        let inside_after_ns = match task.program.iter().any(is_lock) {
            true => runs.sum::<u64>() + INSIDE_NS,
            false => 0,
        };
        Self {
            start_ns: task.start_ns * scale,
            inside_after_ns,
            tid: AtomicU32::new(0),
            began_cpu_ns: AtomicU64::new(u64::MAX),
            ended: AtomicBool::new(false),
        }
    }

    /// It has its lock, or sleeps for it, or has done all.
    fn is_on_its_way(&self) -> bool {
        let began = self.began_cpu_ns.load(Ordering::Acquire);
        if began == u64::MAX {
            return false;
        }
        let tid = self.tid.load(Ordering::Acquire);
        self.inside_after_ns == 0
            || self.ended.load(Ordering::Acquire)
            || cpu_time_ns(format_args!("self/task/{tid}"))
                .is_ok_and(|ns| ns >= began + self.inside_after_ns)
            || sleeps(tid)
    }
}

fn sleeps(tid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{tid}/stat"));
    let state = stat.ok().and_then(|stat| {
        let (_, rest) = stat.rsplit_once(") ")?;
        rest.chars().next()
    });
    matches!(state, Some('S' | 'D'))
}

/// The thread of a task.
struct Actor {
    tid: u32,
    repeats: bool,
    thread: JoinHandle<std::io::Result<()>>,
}

impl Actor {
    fn start(
        nr: usize,
        task: &TaskSpec,
        mut steps: Vec<Step>,
        files: Vec<File>,
        gate: &Arc<Gate>,
    ) -> Result<Self, Failed> {
        let repeats = task.repeat;
        let inside = gate.clone();
        let thread = std::thread::spawn(move || {
            let (gate, own) = (&inside, &inside.tasks[nr]);
            // SAFETY: no preconditions.
            let tid = unsafe { libc::gettid() };
            own.tid.store(tid as u32, Ordering::Release);
            gate.pass();
            gate.wait_until(own.start_ns);
            own.began_cpu_ns.store(own_cpu_ns(), Ordering::Release);
            loop {
                for step in &mut steps {
                    act(step, &files, &gate.stop)?;
                }
                if !repeats || gate.stop.load(Ordering::Relaxed) {
                    own.ended.store(true, Ordering::Release);
                    return Ok(());
                }
            }
        });
        let tid = &gate.tasks[nr].tid;
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
struct Gate {
    open: AtomicBool,
    began: Instant,
    /// By how much everything comes later than planned, so far.
    late_ns: AtomicU64,
    stop: AtomicBool,
    tasks: Vec<Progress>,
}

impl Gate {
    fn pass(&self) {
        while !self.open.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn now_ns(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    /// Sleeps until `at_ns` from the beginning, and on until all tasks that start before are on their way.
    fn wait_until(&self, at_ns: u64) {
        let mut before = self.tasks.iter().filter(|task| task.start_ns < at_ns);
        loop {
            let due_ns = at_ns + self.late_ns.load(Ordering::Acquire);
            let left_ns = due_ns.saturating_sub(self.now_ns());
            if left_ns == 0 {
                break;
            }
            std::thread::sleep(Duration::from_nanos(left_ns));
        }
        let patience = Instant::now() + AT_MOST / 2;
        while !before.clone().all(Progress::is_on_its_way)
            && !self.stop.load(Ordering::Relaxed)
            && Instant::now() < patience
        {
            std::thread::sleep(Duration::from_millis(1));
        }
        if before.next().is_some() {
            let late_ns = self.now_ns().saturating_sub(at_ns);
            self.late_ns.fetch_max(late_ns, Ordering::AcqRel);
        }
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
    let tasks = setup.tasks.iter();
    let gate = Arc::new(Gate {
        open: AtomicBool::new(false),
        began: Instant::now(),
        late_ns: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        tasks: tasks.map(|task| Progress::of(task, scale)).collect(),
    });
    let mut actors = Vec::new();
    for (nr, task) in setup.tasks.iter().enumerate() {
        // each thread has its own descriptor of the same open file
        let files = locks.files.iter().map(File::try_clone);
        let files = files.collect::<Result<_, _>>()?;
        let steps = locks.steps(task, scale)?;
        let actor = Actor::start(nr, task, steps, files, &gate)?;
        if task.group > 0 {
            groups[task.group as usize - 1].enter_thread(actor.tid)?;
        }
        actors.push(actor);
    }
    let tids = actors.iter().map(|actor| actor.tid).collect::<Vec<_>>();
    gate.late_ns.store(gate.now_ns(), Ordering::Release);
    gate.open.store(true, Ordering::Release);
    let result = promptly(|| direct(setup, scale, &gate, &actors, &groups));
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
    gate: &Gate,
    actors: &[Actor],
    groups: &[Cgroup],
) -> Result<(), Failed> {
    let mut events = setup.externals.clone();
    events.sort_by_key(|(at_ns, _)| *at_ns);
    for (at_ns, event) in events {
        gate.wait_until(at_ns * scale);
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
