// SPDX-License-Identifier: GPL-2.0-only
//! Every type of lock: donation through those whose owner is known, none through the
//! others. Staged by `inversion`, judged as in `donation.rs`.

use std::process::Command;

use libtest_mimic::Failed;
use scx_proxy::stats::Metrics;
use serde_json::Value;

use crate::Test;
use crate::donation::{NOT_DONATED_MIN, donated_max, staged};
use crate::machine::{clears_readers, ensure, has_mutex_owner};
use crate::sched::{self, SCX_PROXY};

/// Locks with an owner, one test a type at least.
pub const TESTS: &[Test] = &[
    ("locks::f_pos_lock", || {
        donates("f_pos_lock", "cross", MUTEX)
    }),
    ("locks::i_rwsem", || donates("i_rwsem", "cross", RWSEM)),
    ("locks::mmap_lock", || donates("mmap_lock", "cross", RWSEM)),
    ("locks::pi_mutex", || donates("pi_mutex", "cross", RTMUTEX)),
    ("locks::pthread_same", || {
        donates("pthread", "same", PTHREAD)
    }),
    ("locks::pthread_cross", || {
        donates("pthread", "cross", PTHREAD)
    }),
    ("locks::mutex_then_rwsem", || {
        donates("mutex_rwsem", "cross", MUTEX)
    }),
    ("locks::pthread_then_mutex", || {
        donates("pthread_then_mutex", "cross", PTHREAD)
    }),
];

/// Other kinds of the same, and other waiters.
pub const MORE: &[Test] = &[
    ("kinds::mmap_lock_reader_waits", || {
        donates("mmap_lock_read", "cross", RWSEM)
    }),
    ("kinds::pthread_unpinned", || {
        donates("pthread", "unpinned", PTHREAD)
    }),
    ("kinds::pthread_recursive", || {
        donates("pthread_recursive", "cross", PTHREAD)
    }),
    ("kinds::pthread_errorcheck", || {
        donates("pthread_errorcheck", "cross", PTHREAD)
    }),
    ("kinds::pthread_adaptive", || {
        donates("pthread_adaptive", "cross", PTHREAD)
    }),
    ("kinds::pthread_robust", || {
        donates("pthread_robust", "cross", PTHREAD)
    }),
    ("kinds::pthread_of_two_processes", || {
        donates("pthread_shared", "cross", PTHREAD)
    }),
    ("kinds::pthread_of_32_bits", pthread_of_32_bits),
    // an owner that is preempted between its release and the wakeup is still lent to
    ("kinds::musl_slow_wake", || {
        donates("musl_slow_wake", "same", PTHREAD)
    }),
    ("kinds::musl_mutex", || {
        donates("musl_mutex", "cross", PTHREAD)
    }),
    ("kinds::rwlock_writer", || {
        donates("rwlock_writer", "cross", PTHREAD)
    }),
    ("kinds::shared_mutex", || donates_unnamed("shared_mutex")),
    ("kinds::rust_mutex", || donates_unnamed("rust_mutex")),
    ("kinds::rust_mutex_siblings", || {
        donates_unnamed("rust_mutex_siblings")
    }),
    ("kinds::go_like_sema", || donates_unnamed("go_like_sema")),
    ("kinds::musl_normal", || donates_unnamed("musl_normal")),
    ("kinds::rwsem_reader", rwsem_reader),
    ("kinds::rt_waiter_rwsem", || rt_waiter("i_rwsem")),
    ("kinds::rt_waiter_pthread", || rt_waiter("pthread")),
];

/// no task is lent to.
pub const NEVER: &[Test] = &[
    ("unowned::percpu_rwsem", || {
        never("percpu_rwsem", |m| m.waits_percpu_rwsem)
    }),
    ("unowned::kernel_semaphore", || {
        never("console_sem", |m| m.waits_semaphore)
    }),
    ("unowned::condvar", || never("condvar", |m| m.waits_futex)),
    ("unowned::semaphore", || {
        never("semaphore", |m| m.waits_futex)
    }),
    ("unowned::barrier", || never("barrier", |m| m.waits_futex)),
];

/// Locks of modules: where the kernel has them, they are loaded before the scheduler.
pub const MODULES: &[Test] = &[
    ("modules::binder", || donates("binder", "cross", BINDER)),
    ("modules::ww_mutex", || donates("ww_mutex", "cross", MUTEX)),
];

/// As above, on flags of their own.
pub const ASKED_FOR: &[Test] = &[("modules::ntsync", ntsync_if_asked_for)];

/// The module and the device that a test of `MODULES` needs.
pub const DEVICES: [(&str, &str, &str); 3] = [
    ("modules::binder", "binder_linux", "/dev/binder"),
    ("modules::ww_mutex", "vgem", "/dev/dri/card0"),
    ("modules::ntsync", "ntsync", "/dev/ntsync"),
];

/// Flags that choose one type.
pub const ONLY_MUTEX: &[&str] = &["--locks", "mutex"];

/// On these.
pub const CHOSEN: &[Test] = &[("switches::only_those_chosen", only_those_chosen)];

/// A type of lock, and what is counted of it.
struct Type {
    name: &'static str,
    edges: fn(&Metrics) -> u64,
    donations: fn(&Metrics) -> u64,
}

const MUTEX: &Type = &Type {
    name: "mutex",
    edges: |m| m.edges_mutex,
    donations: |m| m.donations_mutex,
};
const RWSEM: &Type = &Type {
    name: "rwsem",
    edges: |m| m.edges_rwsem,
    donations: |m| m.donations_rwsem,
};
const RTMUTEX: &Type = &Type {
    name: "rtmutex",
    edges: |m| m.edges_rtmutex,
    donations: |m| m.donations_rtmutex,
};
const PTHREAD: &Type = &Type {
    name: "pthread",
    edges: |m| m.edges_pthread,
    donations: |m| m.donations_pthread,
};
const BINDER: &Type = &Type {
    name: "binder",
    edges: |m| m.edges_binder,
    donations: |m| m.donations_binder,
};

const FUTEX: &Type = &Type {
    name: "futex",
    edges: |m| m.edges_futex,
    donations: |m| m.donations_futex,
};

/// CPU time that the owner still needs.
const NEED_MS: &str = "30";
/// Shorter, since what nobody donates to takes 70 times as long.
const UNLENT_NEED_MS: &str = "10";
/// Of which that is no donation to speak of.
const UNLENT_NS_MAX: u64 = 3_000_000;

/// What `scx_proxy doctor` says of a type of lock: `on`, `off`, `never`.
fn doctor_says(name: &str) -> Result<String, Failed> {
    let out = Command::new(SCX_PROXY)
        .args(["doctor", "--json"])
        .output()?;
    let json: Value = serde_json::from_slice(&out.stdout).map_err(|e| e.to_string())?;
    let rows = json["locks"].as_array().ok_or("doctor names no locks")?;
    let row = rows.iter().find(|row| row["lock"] == name);
    let state = row.and_then(|row| row["state"].as_str());
    Ok(state
        .ok_or_else(|| format!("doctor does not know {name}"))?
        .to_owned())
}

fn was_donated(factor: f64) -> Result<(), Failed> {
    ensure(factor <= donated_max(), || {
        format!("factor {factor:.2} with donation")
    })
}

/// What doctor says is followed is donated through, and counted as what it is.
fn donates(lock: &str, topology: &str, of_type: &Type) -> Result<(), Failed> {
    let said = doctor_says(of_type.name)?;
    ensure(said == "on", || {
        format!("doctor says {}: {said}", of_type.name)
    })?;
    // on PREEMPT_RT the locks of the kernel are rt_mutexes
    let kernels = matches!(of_type.name, "mutex" | "rwsem");
    let of_type = match kernels && !has_mutex_owner() {
        true => RTMUTEX,
        false => of_type,
    };
    sched::with(&[], || {
        let (factor, metrics) = staged(lock, topology, &[NEED_MS])?;
        ensure((of_type.edges)(&metrics) > 0, || {
            format!("no edge of type {} was seen", of_type.name)
        })?;
        ensure((of_type.donations)(&metrics) > 0, || {
            format!("nothing was donated through type {}", of_type.name)
        })?;
        was_donated(factor)
    })
}

/// Locks whose word names no owner: of several threads that used the lock, the one that has it is lent to most.
fn donates_unnamed(lock: &str) -> Result<(), Failed> {
    let said = doctor_says(FUTEX.name)?;
    ensure(said == "on", || format!("doctor says futex: {said}"))?;
    sched::with(&[], || {
        for topology in ["same", "cross", "unpinned"] {
            let (factor, metrics) = staged(lock, topology, &[NEED_MS])?;
            let (lent, missed) = (metrics.donations_futex, metrics.candidates_missed);
            println!(
                "{lent} lent, {missed} missed, {} edges",
                metrics.edges_futex
            );
            ensure(metrics.edges_futex > 0 && lent > 0, || {
                format!("nothing was donated through {lock}: {metrics:?}")
            })?;
            ensure(3 * missed < lent, || {
                format!("{missed} of {lent} donations were in vain")
            })?;
            was_donated(factor)?;
        }
        Ok(())
    })
}

/// Off by default, since its probe also runs when nobody has to wait.
fn ntsync_if_asked_for() -> Result<(), Failed> {
    let said = doctor_says("ntsync")?;
    ensure(said == "off", || format!("doctor says ntsync: {said}"))?;
    sched::with(&["--locks", "+ntsync"], || {
        let (factor, metrics) = staged("ntsync", "cross", &[NEED_MS])?;
        ensure(
            metrics.edges_ntsync > 0 && metrics.donations_ntsync > 0,
            || format!("nothing was donated through ntsync: {metrics:?}"),
        )?;
        was_donated(factor)
    })
}

fn rt_waiter(lock: &str) -> Result<(), Failed> {
    sched::with(&[], || {
        let more = [NEED_MS, "--hogs", "1", "--waiter-policy", "fifo"];
        let (factor, metrics) = staged(lock, "cross", &more)?;
        ensure(metrics.edges_urgent > 0, || {
            "no urgent edge was seen".into()
        })?;
        was_donated(factor)
    })
}

/// The wait is counted as what it is, and stays as long as it would be without us.
fn never(lock: &str, waits: fn(&Metrics) -> u64) -> Result<(), Failed> {
    sched::with(&[], || {
        let (factor, metrics) = staged(lock, "cross", &[UNLENT_NEED_MS])?;
        ensure(waits(&metrics) > 0, || "no wait was counted".into())?;
        // the mutex of a condition variable has an owner, for a moment
        ensure(metrics.donated_ns < UNLENT_NS_MAX, || {
            format!("{} ns were donated", metrics.donated_ns)
        })?;
        ensure(factor > NOT_DONATED_MIN, || {
            format!("factor {factor:.2}: somebody was lent to")
        })
    })
}

/// Every kernel that we know runs 32-bit programs.
fn pthread_of_32_bits() -> Result<(), Failed> {
    for topology in ["same", "cross", "unpinned"] {
        donates("pthread_32", topology, PTHREAD)?;
    }
    Ok(())
}

/// A reader is lent to where the kernel clears the names of those that have gone.
fn rwsem_reader() -> Result<(), Failed> {
    if !clears_readers() {
        return never("rwsem_reader", |m| m.reader_owned);
    }
    for topology in ["same", "cross", "unpinned"] {
        donates("rwsem_reader", topology, RWSEM)?;
    }
    Ok(())
}

/// `--locks` switches types off, in the kernel as well.
fn only_those_chosen() -> Result<(), Failed> {
    sched::with(ONLY_MUTEX, || {
        let (factor, metrics) = staged("pthread", "cross", &[UNLENT_NEED_MS])?;
        let seen = metrics.edges_pthread + metrics.edges_rwsem + metrics.waits_futex;
        ensure(seen == 0, || format!("followed all the same: {metrics:?}"))?;
        ensure(factor > NOT_DONATED_MIN, || {
            format!("factor {factor:.2} without donation")
        })?;
        let (factor, _) = staged("f_pos_lock", "cross", &[NEED_MS])?;
        was_donated(factor)
    })
}
