// SPDX-License-Identifier: GPL-2.0-only
//! What is followed on a kernel: a row per lock type, from what the kernel has and what was asked for.
//!
//! A fact that is missing turns off the locks that need it, with the reason, and nothing else. The
//! loader asks a plan which optional BPF programs to load; `scx_proxy doctor` prints it.

use super::row::{Row, State};
use super::{KernelFacts, LockSet, LockType};

const CONTENTION: [&str; 3] = ["proxy_cont_begin", "proxy_cont_end", "proxy_cont_over"];
const FUTEX: [&str; 3] = ["proxy_futex_wait", "proxy_futex_done", "proxy_futex_over"];
const BINDER: [&str; 1] = ["proxy_binder_transaction"];
const NTSYNC: [&str; 1] = ["proxy_ntsync_wait"];
const NTSYNC_ISRA: [&str; 1] = ["proxy_ntsync_isra"];

const BY_BLOCKED_ON: &str = "task->blocked_on";
const BY_CONTENTION: &str = "tracepoint lock:contention_begin";
const BY_PI_BLOCKED_ON: &str = "task->pi_blocked_on";
const BY_FUTEX: &str = "futex() in user registers";
const BY_TRANSACTION: &str = "tracepoint binder_transaction";
const BY_NTSYNC: &str = "kprobe ntsync_schedule";
const RT_OWNER: &str = "rt_mutex_base.owner";

const KNOWN_KERNEL: &str = "boot a kernel of the table in docs/install.md, Kernels";

/// What is followed, how, and by which programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    rows: Vec<Row>,
}

impl Plan {
    /// Decide for a kernel with these facts.
    #[must_use]
    pub fn new(facts: &KernelFacts, wanted: &LockSet) -> Self {
        let rtmutex = asked_for(rtmutex(facts), *wanted);
        let rows = LockType::ALL.into_iter().map(|lock| match lock {
            LockType::Rtmutex => rtmutex.clone(),
            LockType::Mutex | LockType::Rwsem if facts.preempt_rt() => as_rtmutex(lock, &rtmutex),
            LockType::Mutex => asked_for(mutex(facts), *wanted),
            LockType::Rwsem => asked_for(rwsem(facts), *wanted),
            LockType::Pthread => asked_for(pthread(facts), *wanted),
            LockType::Binder => asked_for(binder(facts), *wanted),
            LockType::Ntsync => asked_for(ntsync(facts), *wanted),
            LockType::Futex => asked_for(futex(facts), *wanted),
            LockType::PercpuRwsem => Row::never(
                lock,
                BY_CONTENTION,
                "no owner word: readers are counted per CPU",
            ),
            LockType::Semaphore => Row::never(
                lock,
                BY_CONTENTION,
                "last_holder is only a hint: anybody may release it",
            ),
        });
        Self {
            rows: rows.collect(),
        }
    }

    /// All rows, in the order of `LockType::ALL`.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Whether waits for the type lead to donations.
    #[must_use]
    pub fn is_on(&self, lock: LockType) -> bool {
        let mut rows = self.rows.iter();
        rows.any(|row| row.lock == lock && row.state == State::On)
    }

    /// Whether anything at all is followed.
    #[must_use]
    pub fn follows_any(&self) -> bool {
        self.rows.iter().any(|row| row.state == State::On)
    }

    /// The optional BPF programs to load, each once.
    #[must_use]
    pub fn programs(&self) -> Vec<&'static str> {
        let mut programs: Vec<_> = self
            .rows
            .iter()
            .flat_map(|row| row.programs.clone())
            .collect();
        programs.sort_unstable();
        programs.dedup();
        programs
    }
}

/// A row that could be on is off if it was not asked for.
fn asked_for(row: Row, wanted: LockSet) -> Row {
    if wanted.contains(row.lock) || row.state != State::On {
        return row;
    }
    let help = format!("--locks +{}", row.lock.name());
    row.off("not asked for", help)
}

fn missing_fields(facts: &KernelFacts, fields: &[(&str, &str)]) -> Vec<String> {
    let missing = fields
        .iter()
        .filter(|(record, member)| !facts.field(record, member));
    missing
        .map(|(record, member)| format!("{record}.{member}"))
        .collect()
}

fn missing_tracepoints(facts: &KernelFacts) -> Vec<String> {
    let needed = ["contention_begin", "contention_end"].into_iter();
    let missing = needed.filter(|tracepoint| !facts.tracepoint(tracepoint));
    missing
        .map(|tracepoint| format!("tracepoint lock:{tracepoint}"))
        .collect()
}

/// Fair waiters are seen by `task->blocked_on` where there is one, by the tracepoint elsewhere.
/// Real-time waiters pass no callback of sched_ext's: they are seen by the tracepoint everywhere.
fn mutex(facts: &KernelFacts) -> Row {
    const HELP: &str = "boot Linux 6.17 or later";
    let tracepoints = missing_tracepoints(facts);
    let row = |seen, programs| Row::on(LockType::Mutex, seen, "mutex.owner", programs);
    let row = if !facts.field("task_struct", "blocked_on") {
        row(BY_CONTENTION, &CONTENTION)
            .because(
                "this kernel has no task->blocked_on; what the tracepoint saw last stands in for it",
            )
            .helped_by(HELP)
            .needs(&tracepoints, HELP)
    } else if let Some(tracepoint) = tracepoints.first() {
        row(BY_BLOCKED_ON, &[]).because(format!(
            "real-time waiters are not seen: this kernel has no {tracepoint}"
        ))
    } else {
        row(BY_BLOCKED_ON, &CONTENTION)
    };
    row.needs(&missing_fields(facts, &[("mutex", "owner")]), KNOWN_KERNEL)
}

fn rwsem(facts: &KernelFacts) -> Row {
    let mut missing = missing_tracepoints(facts);
    missing.extend(missing_fields(
        facts,
        &[("rw_semaphore", "owner"), ("rw_semaphore", "count")],
    ));
    let row = Row::on(
        LockType::Rwsem,
        BY_CONTENTION,
        "rw_semaphore.owner",
        &CONTENTION,
    );
    let row = match facts.func("is_rwsem_reader_owned") {
        true => row,
        false => row
            .because("no donation to readers: this kernel keeps naming readers that have gone")
            .helped_by("boot Linux 6.18 or later with CONFIG_DETECT_HUNG_TASK_BLOCKER=y"),
    };
    row.needs(&missing, KNOWN_KERNEL)
}

/// No program is needed to see waiters. Of real-time ones none need be seen: the kernel itself makes their owner real-time.
fn rtmutex(facts: &KernelFacts) -> Row {
    let fields = [
        ("task_struct", "pi_blocked_on"),
        ("rt_mutex_waiter", "lock"),
        ("rt_mutex_base", "owner"),
    ];
    let mut programs = Vec::new();
    // where PREEMPT_RT's are asked for, for their names: nothing hangs on it
    if facts.preempt_rt() && facts.tracepoint("contention_begin") {
        programs.push(CONTENTION[0]);
    }
    Row::on(LockType::Rtmutex, BY_PI_BLOCKED_ON, RT_OWNER, &programs).needs(
        &missing_fields(facts, &fields),
        "boot a kernel with CONFIG_RT_MUTEXES=y",
    )
}

/// A mutex or rwsem of PREEMPT_RT: nothing tells it from other rt_mutexes, so what was asked for
/// about those decides.
fn as_rtmutex(lock: LockType, rtmutex: &Row) -> Row {
    let row = Row::on(lock, BY_PI_BLOCKED_ON, RT_OWNER, &[]);
    match (&rtmutex.why, &rtmutex.help) {
        (Some(why), Some(help)) if rtmutex.state != State::On => row.off(
            format!("an rt_mutex on PREEMPT_RT, and rtmutex is off: {why}"),
            help,
        ),
        _ => row.because("an rt_mutex on PREEMPT_RT, followed as such"),
    }
}

/// Fair waiters are seen as they go to sleep. Real-time waiters pass no callback of sched_ext's: a probe sees them.
fn pthread(facts: &KernelFacts) -> Row {
    const PROBED: &str = "__futex_wait";
    let row = |programs| {
        let owner = "pthread_mutex_t in user memory";
        Row::on(LockType::Pthread, BY_FUTEX, owner, programs)
    };
    let row = if facts.func(PROBED) {
        row(&FUTEX)
    } else {
        row(&[]).because(format!(
            "real-time waiters are not seen: this kernel has no function {PROBED} that fentry can attach to"
        ))
    };
    row.needs(&missing_map_of_memory(facts), KNOWN_KERNEL)
}

/// What words of user space are read by.
fn missing_map_of_memory(facts: &KernelFacts) -> Vec<String> {
    match facts.ksym("page_offset_base") {
        true => Vec::new(),
        false => vec!["symbol page_offset_base".to_owned()],
    }
}

/// Waiters and wakers are read from user registers: no program is needed.
fn futex(facts: &KernelFacts) -> Row {
    let owner = "none: its earlier users, in turn";
    let row = Row::on(LockType::Futex, BY_FUTEX, owner, &[]);
    row.because("real-time waiters do not lend here")
        .needs(&missing_map_of_memory(facts), KNOWN_KERNEL)
}

fn binder(facts: &KernelFacts) -> Row {
    const IN_C: &str = "use the binder driver in C (CONFIG_ANDROID_BINDER_IPC)";
    let row = Row::on(
        LockType::Binder,
        BY_TRANSACTION,
        "binder_transaction.to_thread",
        &BINDER,
    );
    if facts.tracepoint("binder_transaction") {
        let fields = [
            ("binder_transaction", "to_thread"),
            ("binder_thread", "pid"),
        ];
        return row.needs(&missing_fields(facts, &fields), IN_C);
    }
    let (why, help) = if facts.module_types("binder_linux") {
        (
            "module binder_linux has no tracepoint binder_transaction",
            "build it with CONFIG_TRACEPOINTS=y",
        )
    } else if facts.module("binder_linux") {
        (
            "module binder_linux is not loaded, or describes no types",
            "modprobe binder_linux before scx_proxy starts",
        )
    } else if facts.module("rust_binder") {
        ("the binder driver in Rust is not known to scx_proxy", IN_C)
    } else {
        (
            "this kernel has no binder",
            "boot a kernel with CONFIG_ANDROID_BINDER_IPC (Debian: not the cloud flavour)",
        )
    };
    row.off(why, help)
}

/// Real-time waiters are not seen: a kprobe may not touch the state of donors.
fn ntsync(facts: &KernelFacts) -> Row {
    let programs = if facts.ksym("ntsync_schedule") {
        Some(&NTSYNC)
    } else if facts.ksym("ntsync_schedule.isra.0") {
        Some(&NTSYNC_ISRA)
    } else {
        None
    };
    let row = Row::on(
        LockType::Ntsync,
        BY_NTSYNC,
        "ntsync_obj.u.mutex.owner, learned per process",
        programs.unwrap_or(&NTSYNC),
    );
    let (why, help) = if facts.module_types("ntsync") || facts.field("ntsync_q", "owner") {
        let mut missing = Vec::new();
        if programs.is_none() {
            missing.push("function ntsync_schedule that a kprobe can be set on".to_owned());
        }
        let fields = [
            ("ntsync_q", "task"),
            ("ntsync_q", "owner"),
            ("ntsync_q", "signaled"),
            ("ntsync_q", "entries"),
            ("ntsync_obj", "u"),
        ];
        missing.extend(missing_fields(facts, &fields));
        return row
            .because("real-time waiters are not seen")
            .needs(&missing, KNOWN_KERNEL);
    } else if facts.module("ntsync") {
        (
            "module ntsync is not loaded, or describes no types",
            "modprobe ntsync before scx_proxy starts",
        )
    } else {
        (
            "this kernel has no ntsync",
            "boot a kernel with CONFIG_NTSYNC",
        )
    };
    row.off(why, help)
}
