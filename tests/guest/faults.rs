// SPDX-License-Identifier: GPL-2.0-only
//! What can happen to a donor and to an owner in the middle of a donation: they are stopped, traced, frozen,
//! killed, moved between CPUs, classes and cgroups, their process becomes another program. Each time the
//! scheduler stays, the wait ends as it would by default, and nothing of it is left.
//!
//! A `Victim` is a process of this program, with a thread that holds a robust mutex and one that waits for it.

use std::ffi::CString;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use libtest_mimic::Failed;

use crate::Test;
use crate::cgroup::Cgroup;
use crate::load::{Load, cpu_time_ns};
use crate::machine::{ensure, read, sched_ext_state, signal, wait_for};
use crate::sched::{self, Running, Stats};
use crate::stage::{promptly, set_affinity};

pub const TESTS: &[Test] = &[
    ("faults::stopped", stopped),
    ("faults::frozen", frozen),
    ("faults::traced", traced),
    ("faults::affinities_change", affinities_change),
    ("faults::classes_change", classes_change),
    ("faults::signals_end_waits", signals_end_waits),
    ("faults::killed", killed),
    ("faults::owner_exits", owner_exits),
    ("faults::exec_by_another_thread", exec_by_another_thread),
    ("faults::vfork_inside", vfork_inside),
    ("faults::namespace_changes", namespace_changes),
    ("faults::cgroups_change_and_go", cgroups_change_and_go),
];

/// Starts a scheduler of its own.
pub const ANOTHER_LOAD: &[Test] = &[(
    "faults::loaded_in_a_wait_and_out_of_memory",
    loaded_in_a_wait_and_out_of_memory,
)];

/// What the owner does when it is told to go on; a Victim is a process that has this set.
const PART: &str = "SCX_PROXY_FAULT_PART";
const OWNER_CPU: usize = 1;
const WAITER_CPU: usize = 2;
const FREE_CPU: usize = 3;
const OWNER_NICE: i32 = 19;
const WAITER_NICE: i32 = -10;
const HOGS: usize = 2;
const AT_MOST: Duration = Duration::from_secs(60);
/// Long enough for a donation to begin.
const WHILE: Duration = Duration::from_millis(300);
/// What a waiter says that has the mutex of an owner that is gone.
const OWNER_DEAD: i32 = 42;

// ---- the victim ----

struct Mutex(MaybeUninit<libc::pthread_mutex_t>);

// SAFETY: the C library's mutex is made to be used by several threads; it is leaked, and so stays where it is.
unsafe impl Sync for Mutex {}
// SAFETY: as above.
unsafe impl Send for Mutex {}

impl Mutex {
    fn robust() -> &'static Self {
        let mut attributes = MaybeUninit::uninit();
        let mut mutex = Box::new(Mutex(MaybeUninit::uninit()));
        // SAFETY: valid for writing, and initialised by the first call before they are used.
        let errors = unsafe {
            libc::pthread_mutexattr_init(attributes.as_mut_ptr())
                | libc::pthread_mutexattr_setrobust(
                    attributes.as_mut_ptr(),
                    libc::PTHREAD_MUTEX_ROBUST,
                )
                | libc::pthread_mutex_init(mutex.0.as_mut_ptr(), attributes.as_ptr())
        };
        assert_eq!(errors, 0);
        Box::leak(mutex)
    }

    fn lock(&self) -> i32 {
        // SAFETY: initialised, and never moved.
        unsafe { libc::pthread_mutex_lock(self.0.as_ptr().cast_mut()) }
    }

    fn unlock(&self) {
        // SAFETY: as above; the calling thread has it.
        unsafe { libc::pthread_mutex_unlock(self.0.as_ptr().cast_mut()) };
    }
}

fn own_tid() -> u32 {
    // SAFETY: no preconditions.
    unsafe { libc::gettid() as u32 }
}

fn settle(cpu: usize, nice: i32) {
    set_affinity(own_tid(), 1 << cpu).expect("a CPU to be pinned to");
    // SAFETY: numbers only; 0 is the calling thread.
    assert_eq!(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) }, 0);
}

extern "C" fn nothing(_signal: libc::c_int) {}

/// The part of a Victim's owner, if this process is one. Does not return then.
pub fn run_if_asked() {
    let Ok(part) = std::env::var(PART) else {
        return;
    };
    // without SA_RESTART: a system call ends
    // SAFETY: all zeroes is a valid structure, and the handler does nothing.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
        libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut());
    }
    let mutex = Mutex::robust();
    let go_on = Arc::new(AtomicBool::new(false));
    let owner = Arc::new(AtomicU32::new(0));
    let (told, tell) = (go_on.clone(), owner.clone());
    std::thread::spawn(move || own(&part, mutex, &told, &tell));
    while owner.load(Ordering::Acquire) == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let owner = owner.load(Ordering::Acquire);
    std::thread::spawn(move || {
        settle(WAITER_CPU, WAITER_NICE);
        println!("{owner} {}", own_tid());
        let error = mutex.lock();
        std::process::exit(match error {
            0 => 0,
            libc::EOWNERDEAD => OWNER_DEAD,
            _ => 1,
        });
    });
    let _ = std::io::stdin().read_line(&mut String::new());
    go_on.store(true, Ordering::Release);
    loop {
        std::thread::park();
    }
}

/// Has the mutex, computes until it is told to go on, and ends in the way asked for.
fn own(part: &str, mutex: &Mutex, go_on: &AtomicBool, tell: &AtomicU32) {
    assert_eq!(mutex.lock(), 0);
    settle(OWNER_CPU, OWNER_NICE);
    tell.store(own_tid(), Ordering::Release);
    while !go_on.load(Ordering::Acquire) {
        std::hint::spin_loop();
    }
    // what is a program's own beginning is not to take minutes
    settle(FREE_CPU, OWNER_NICE);
    match part {
        "exit" => return,
        "exec" => {
            let path = CString::new("/bin/true").expect("no zero inside");
            let arguments = [path.as_ptr(), std::ptr::null()];
            // SAFETY: strings and lists end with zero.
            unsafe { libc::execv(path.as_ptr(), arguments.as_ptr()) };
            std::process::abort();
        }
        // the calling thread sleeps until the child is another program (CLONE_VFORK)
        "vfork" => assert!(Command::new("/bin/true").status().is_ok()),
        "setns" => {
            // SAFETY: flags only; host names are not shared with anything here.
            let left = unsafe { libc::unshare(libc::CLONE_NEWUTS) };
            assert_eq!(left, 0);
            let first = fs::File::open("/proc/1/ns/uts").expect("a namespace");
            // SAFETY: the descriptor is open.
            let joined = unsafe { libc::setns(first.as_raw_fd(), libc::CLONE_NEWUTS) };
            assert_eq!(joined, 0);
        }
        _ => {}
    }
    mutex.unlock();
    loop {
        std::thread::park();
    }
}

/// A process in the middle of a donation. Killed and reaped when this is dropped.
struct Victim {
    child: Child,
    /// For as long as the process writes to it.
    _said: BufReader<ChildStdout>,
    owner: u32,
    waiter: u32,
}

impl Victim {
    fn start(part: &str) -> Result<Self, Failed> {
        let mut child = Command::new(std::env::current_exe()?)
            .env(PART, part)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut said = BufReader::new(child.stdout.take().ok_or("no stdout")?);
        let mut line = String::new();
        said.read_line(&mut line)?;
        let tids: Vec<u32> = line
            .split_whitespace()
            .filter_map(|tid| tid.parse().ok())
            .collect();
        let [owner, waiter] = tids[..] else {
            let _ = child.kill();
            return Err(format!("the victim said {line:?}").into());
        };
        Ok(Self {
            child,
            _said: said,
            owner,
            waiter,
        })
    }

    fn go_on(&mut self) -> Result<(), Failed> {
        let stdin = self.child.stdin.as_mut().ok_or("no stdin")?;
        Ok(stdin.write_all(b"\n")?)
    }

    fn ends(&mut self) -> Result<ExitStatus, Failed> {
        let mut status = None;
        wait_for("the victim to end", AT_MOST, || {
            status = self.child.try_wait().ok().flatten();
            status.is_some()
        })?;
        status.ok_or_else(|| "no exit status".into())
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether the victim's owner is lent to now: nearly a CPU, where others lend each other moments.
fn is_lending(stats: &mut Stats) -> Result<bool, Failed> {
    stats.delta()?;
    std::thread::sleep(WHILE);
    Ok(stats.delta()?.donated_ns >= WHILE.as_nanos() as u64 / 10)
}

fn wait_for_lending(stats: &mut Stats, when: &str) -> Result<(), Failed> {
    wait_for(when, AT_MOST, || is_lending(stats).unwrap_or(false))
}

/// A donation begins, `fault` strikes, the owner goes on with its part, the victim ends with `status`: an exit
/// status, or minus a signal.
fn strike(
    part: &str,
    status: i32,
    fault: impl FnOnce(&Victim, &mut Stats) -> Result<(), Failed>,
) -> Result<(), Failed> {
    sched::with(&[], || {
        let mut load = Load::default();
        for _ in 0..HOGS {
            load.hog(OWNER_CPU, 0)?;
        }
        let mut stats = Stats::open()?;
        promptly(|| {
            let mut victim = Victim::start(part)?;
            wait_for_lending(&mut stats, "a donation to begin")?;
            fault(&victim, &mut stats)?;
            let _ = victim.go_on();
            let ended = victim.ends()?;
            let is = ended.code().or(ended.signal().map(|signal| -signal));
            ensure(is == Some(status), || format!("{ended}, not {status}"))?;
            wait_for("the donor to be gone", AT_MOST, || {
                stats
                    .delta()
                    .is_ok_and(|now| now.donors_waiting_now + now.donors_queued_now == 0)
            })
        })
    })
}

/// Nothing is lent while the owner cannot run, and again when it can.
fn holds_up(
    stats: &mut Stats,
    stop: impl FnOnce() -> Result<(), Failed>,
    resume: impl FnOnce() -> Result<(), Failed>,
) -> Result<(), Failed> {
    stop()?;
    wait_for("lending to end", AT_MOST, || {
        is_lending(stats).is_ok_and(|lends| !lends)
    })?;
    resume()?;
    wait_for_lending(stats, "lending to begin again")
}

// ---- the faults ----

fn stopped() -> Result<(), Failed> {
    strike("", 0, |victim, stats| {
        let pid = victim.child.id();
        let send = |nr| {
            signal(pid, nr);
            Ok(())
        };
        holds_up(stats, || send(libc::SIGSTOP), || send(libc::SIGCONT))
    })
}

fn frozen() -> Result<(), Failed> {
    let group = Cgroup::new(None)?;
    strike("", 0, |victim, stats| {
        group.enter(victim.child.id())?;
        holds_up(
            stats,
            || group.set("cgroup.freeze", 1),
            || group.set("cgroup.freeze", 0),
        )?;
        Cgroup::leave(victim.child.id())
    })
}

fn ptrace(request: libc::c_uint, tid: u32) -> Result<(), Failed> {
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: these requests take no memory.
    let ret = unsafe { libc::ptrace(request, tid as libc::pid_t, none, none) };
    ensure(ret == 0, || {
        format!("ptrace {request}: {}", std::io::Error::last_os_error())
    })
}

/// Only the owner is: its waiter waits on.
fn traced() -> Result<(), Failed> {
    strike("", 0, |victim, stats| {
        let owner = victim.owner;
        holds_up(
            stats,
            || {
                ptrace(libc::PTRACE_SEIZE, owner)?;
                ptrace(libc::PTRACE_INTERRUPT, owner)?;
                // SAFETY: no status is asked for.
                let got = unsafe {
                    libc::waitpid(owner as libc::pid_t, std::ptr::null_mut(), libc::__WALL)
                };
                ensure(got == owner as libc::pid_t, || {
                    format!("waitpid: {}", std::io::Error::last_os_error())
                })
            },
            || ptrace(libc::PTRACE_DETACH, owner),
        )
    })
}

const CHANGES: usize = 60;
const BETWEEN: Duration = Duration::from_millis(5);

fn affinities_change() -> Result<(), Failed> {
    strike("", 0, |victim, stats| {
        for nr in 0..CHANGES {
            // the hogs are on the owner's CPU only: it comes back to them in the end
            set_affinity(victim.owner, 1 << ((OWNER_CPU + nr + 1) % 4))?;
            set_affinity(victim.waiter, 1 << ((WAITER_CPU + nr / 3) % 4))?;
            std::thread::sleep(BETWEEN);
        }
        set_affinity(victim.owner, 1 << OWNER_CPU)?;
        wait_for_lending(stats, "lending to begin again")
    })
}

fn set_policy(tid: u32, policy: libc::c_int) -> Result<(), Failed> {
    let param = libc::sched_param {
        sched_priority: i32::from(policy == libc::SCHED_FIFO),
    };
    // SAFETY: the parameters are valid for the call.
    let ret = unsafe { libc::sched_setscheduler(tid as libc::pid_t, policy, &raw const param) };
    ensure(ret == 0, || {
        format!("policy {policy}: {}", std::io::Error::last_os_error())
    })
}

fn classes_change() -> Result<(), Failed> {
    const POLICIES: [libc::c_int; 4] = [
        libc::SCHED_FIFO,
        libc::SCHED_BATCH,
        libc::SCHED_IDLE,
        libc::SCHED_OTHER,
    ];
    strike("", 0, |victim, stats| {
        for nr in 0..CHANGES {
            set_policy(victim.owner, POLICIES[nr % 4])?;
            set_policy(victim.waiter, POLICIES[nr / 3 % 4])?;
            std::thread::sleep(BETWEEN);
        }
        set_policy(victim.owner, libc::SCHED_OTHER)?;
        set_policy(victim.waiter, libc::SCHED_OTHER)?;
        wait_for_lending(stats, "lending to begin again")
    })
}

fn signals_end_waits() -> Result<(), Failed> {
    strike("", 0, |victim, stats| {
        let waits = |stats: &mut Stats| Ok::<_, Failed>(stats.delta()?.edges_woken);
        waits(stats)?;
        for _ in 0..CHANGES {
            // SAFETY: numbers only.
            unsafe {
                libc::syscall(
                    libc::SYS_tgkill,
                    victim.child.id(),
                    victim.waiter,
                    libc::SIGUSR1,
                )
            };
            std::thread::sleep(BETWEEN);
        }
        let ended = waits(stats)?;
        ensure(ended > 0, || "no signal ended a wait".into())?;
        wait_for_lending(stats, "lending to begin again")
    })
}

fn killed() -> Result<(), Failed> {
    strike("", -libc::SIGKILL, |victim, _| {
        signal(victim.child.id(), libc::SIGKILL);
        Ok(())
    })
}

fn owner_exits() -> Result<(), Failed> {
    strike("exit", OWNER_DEAD, |_, _| Ok(()))
}

fn exec_by_another_thread() -> Result<(), Failed> {
    strike("exec", 0, |_, _| Ok(()))
}

fn vfork_inside() -> Result<(), Failed> {
    strike("vfork", 0, |_, _| Ok(()))
}

fn namespace_changes() -> Result<(), Failed> {
    strike("setns", 0, |_, _| Ok(()))
}

/// They are removed right behind the victim.
fn cgroups_change_and_go() -> Result<(), Failed> {
    strike("", 0, |victim, stats| {
        let pid = victim.child.id();
        let mut before = None;
        for nr in 0..10_u32 {
            let group = Cgroup::new(None)?;
            group.set("cpu.weight", 10 + 90 * (nr % 2))?;
            if nr % 3 == 0 {
                group.set("cpu.max", "20000 100000")?;
            }
            group.enter(pid)?;
            before = Some(group);
            std::thread::sleep(4 * BETWEEN);
        }
        Cgroup::leave(pid)?;
        drop(before);
        wait_for_lending(stats, "lending to begin again")
    })
}

/// Loaded in the middle of a wait, and into a cgroup that then is at its memory.max: one load for both.
fn loaded_in_a_wait_and_out_of_memory() -> Result<(), Failed> {
    sched::stop();
    fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory")?;
    let group = Cgroup::new(None)?;
    let mut load = Load::default();
    for _ in 0..HOGS {
        load.hog(OWNER_CPU, 0)?;
    }
    let mut victim = promptly(|| Victim::start(""))?;
    let pid = std::process::id();
    group.enter(pid)?;
    let running = Running::start(&[]);
    Cgroup::leave(pid)?;
    let running = running?;
    // what it allocated stays charged to the group, and so do the states of tasks; what the process itself needs from
    // here on does not: it is not to be killed for want of a page
    Cgroup::leave(running.child.id())?;
    let mut stats = Stats::open()?;
    promptly(|| {
        wait_for_lending(&mut stats, "lending for a wait that began before")?;
        victim.go_on()?;
        let ended = victim.ends()?;
        ensure(ended.success(), || ended.to_string())
    })?;
    drop(load);
    forks_without_memory(&group, &mut stats)?;
    sched::end(running)
}

/// A thread that sleeps, or computes on the hogs' CPU, until it is told to end.
struct Forked {
    tid: Arc<AtomicU32>,
    /// 0: sleep; 1: compute; 2: end.
    part: Arc<AtomicU32>,
    thread: JoinHandle<()>,
}

impl Forked {
    /// None: the fork failed.
    fn start() -> Option<Self> {
        let (tid, part) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let (tell, told) = (tid.clone(), part.clone());
        let builder = std::thread::Builder::new().stack_size(64 << 10);
        let body = move || {
            tell.store(own_tid(), Ordering::Release);
            while told.load(Ordering::Acquire) == 0 {
                std::thread::park();
            }
            // else it would wait for its turn among those that compute, as would all after it
            if told.load(Ordering::Acquire) == 1 {
                settle(OWNER_CPU, 0);
            }
            while told.load(Ordering::Acquire) == 1 {
                std::hint::spin_loop();
            }
        };
        let thread = builder.spawn(body).ok()?;
        Some(Self { tid, part, thread })
    }

    fn tell(&self, part: u32) {
        self.part.store(part, Ordering::Release);
        self.thread.thread().unpark();
    }
}

/// Forks do not fail where the kernel then has no memory for the state of a task (7.3, not 6.18), and what is forked runs,
/// and does not keep others from running.
fn forks_without_memory(group: &Cgroup, stats: &mut Stats) -> Result<(), Failed> {
    // CPUs have room charged in advance, for some hundreds of states each
    const THREADS_MAX: usize = 6000;
    const AT_ONCE: usize = 250;
    const WITHOUT: u64 = 100;
    const COMPUTE: usize = 16;
    let mut load = Load::default();
    let served = load.hog(OWNER_CPU, 0)?;
    let file = |name: &str| read(&format!("{}/{name}", group.path().display()));
    group.set("memory.max", file("memory.current"))?;
    let (mut forked, mut failed, mut without) = (Vec::new(), false, 0);
    while !failed && without < WITHOUT && forked.len() < THREADS_MAX {
        let more = (0..AT_ONCE).map_while(|_| Forked::start());
        let forks = forked.len();
        forked.extend(more);
        failed = forked.len() - forks < AT_ONCE;
        without += stats.delta()?.tasks_unserved;
    }
    // the last ones are those without, but for some that found memory on their CPU
    let last = forked.len().saturating_sub(COMPUTE);
    let mut ran = Vec::new();
    for one in &forked[last..] {
        wait_for("a thread to begin", AT_MOST, || {
            one.tid.load(Ordering::Acquire) != 0
        })?;
        one.tell(1);
    }
    let threads = forked[last..].iter();
    let tasks: Vec<_> = threads
        .map(|one| format!("self/task/{}", one.tid.load(Ordering::Acquire)))
        .chain([served.to_string()])
        .collect();
    let before = tasks.iter().map(cpu_time_ns);
    let before = before.collect::<Result<Vec<_>, _>>()?;
    std::thread::sleep(Duration::from_secs(4));
    for (task, before) in tasks.iter().zip(before) {
        ran.push((cpu_time_ns(task)? - before) / 1_000_000);
    }
    group.set("memory.max", "max")?;
    let forks = forked.len();
    println!(
        "{forks} forks, {without} without state; in ms the last of them and a task with state ran {ran:?}"
    );
    for one in &forked {
        one.tell(2);
    }
    for one in forked {
        one.thread.join().map_err(|_| "a thread panicked")?;
    }
    drop(load);
    ensure(sched_ext_state() == "enabled", sched::log)?;
    ensure(!failed, || format!("fork {forks} failed"))?;
    ensure(without >= WITHOUT, || "there was memory for all".into())?;
    // one slice at least
    ensure(ran.iter().all(|ms| *ms >= 3), || {
        "one was kept from running".into()
    })
}
