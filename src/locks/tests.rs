// SPDX-License-Identifier: GPL-2.0-only
//! Plans for the kernels frozen in tests/fixtures/kernels (made by scripts/facts), and for these
//! kernels with something taken away.

use super::*;

const KERNELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/kernels");

const CONTENTION: [&str; 3] = ["proxy_cont_begin", "proxy_cont_end", "proxy_cont_over"];
const FUTEX: [&str; 3] = ["proxy_futex_done", "proxy_futex_over", "proxy_futex_wait"];
const NTSYNC: [&str; 1] = ["proxy_ntsync_isra"];

fn all_kernels() -> Vec<KernelFacts> {
    let files = std::fs::read_dir(KERNELS).expect("folder of frozen kernels");
    files
        .map(|file| {
            let path = file.expect("entry").path();
            let text = std::fs::read_to_string(&path).expect("readable");
            let facts = KernelFacts::parse(&text);
            facts.unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        })
        .collect()
}

/// The frozen kernel of a series and a flavour.
fn kernel(series: &str, flavour: &str) -> KernelFacts {
    let mut found: Vec<_> = all_kernels();
    found.retain(|facts| {
        let (version, rest) = facts.release().split_once('-').unwrap_or_default();
        version.starts_with(&format!("{series}.")) && rest == flavour
    });
    assert_eq!(found.len(), 1, "frozen kernels {series} {flavour}");
    found.remove(0)
}

fn set(list: &str) -> LockSet {
    list.parse().expect("a list of locks")
}

fn row(plan: &Plan, lock: LockType) -> &Row {
    let mut rows = plan.rows().iter();
    rows.find(|row| row.lock == lock).expect("a row per type")
}

/// `on SEEN`, or `off WHY`.
fn fate(plan: &Plan, lock: LockType) -> String {
    let row = row(plan, lock);
    let reason = match row.state {
        State::On => row.seen,
        _ => row.why.as_deref().expect("a reason"),
    };
    format!("{} {reason}", row.state.name())
}

#[track_caller]
fn fates(facts: &KernelFacts, list: &str, expected: &[(LockType, &str)]) -> Plan {
    let plan = Plan::new(facts, &set(list));
    for (lock, fate_expected) in expected {
        assert_eq!(
            fate(&plan, *lock),
            *fate_expected,
            "{} on {}",
            lock.name(),
            facts.release()
        );
    }
    plan
}

const NO_BINDER: &str = "off this kernel has no binder";
const BY_CONTENTION: &str = "on tracepoint lock:contention_begin";
const BY_PI: &str = "on task->pi_blocked_on";
const BY_FUTEX: &str = "on futex() in user registers";
const BY_NTSYNC: &str = "on kprobe ntsync_schedule";

#[test]
fn cloud_kernels_from_6_17_on_follow_all_but_binder() {
    for series in ["7.3", "7.2", "6.18"] {
        let plan = fates(
            &kernel(series, "cloud-amd64"),
            "all",
            &[
                (LockType::Mutex, "on task->blocked_on"),
                (LockType::Rwsem, BY_CONTENTION),
                (LockType::Rtmutex, BY_PI),
                (LockType::Pthread, BY_FUTEX),
                (LockType::Binder, NO_BINDER),
                (LockType::Ntsync, BY_NTSYNC),
                (LockType::Futex, BY_FUTEX),
            ],
        );
        assert_eq!(plan.programs(), [&CONTENTION[..], &FUTEX, &NTSYNC].concat());
        let mutex = row(&plan, LockType::Mutex);
        assert_eq!((mutex.owner, &mutex.why), ("mutex.owner", &None));
    }
}

#[test]
fn on_6_16_mutexes_are_seen_by_tracepoint_and_it_says_why() {
    let plan = fates(
        &kernel("6.16", "cloud-amd64"),
        "all",
        &[
            (LockType::Mutex, BY_CONTENTION),
            (LockType::Rwsem, BY_CONTENTION),
            (LockType::Rtmutex, BY_PI),
            (LockType::Pthread, BY_FUTEX),
            (LockType::Binder, NO_BINDER),
        ],
    );
    let mutex = row(&plan, LockType::Mutex);
    assert!(
        mutex
            .why
            .as_deref()
            .is_some_and(|why| why.contains("no task->blocked_on"))
    );
    assert_eq!(mutex.help.as_deref(), Some("boot Linux 6.17 or later"));
    assert_eq!(mutex.programs, CONTENTION);
}

#[test]
fn on_preempt_rt_mutexes_and_rwsems_are_rt_mutexes() {
    let facts = kernel("7.3", "rt-amd64");
    assert!(facts.preempt_rt());
    let followed = [
        (LockType::Mutex, BY_PI),
        (LockType::Rwsem, BY_PI),
        (LockType::Rtmutex, BY_PI),
        (LockType::Pthread, BY_FUTEX),
        (LockType::Binder, "on tracepoint binder_transaction"),
        (LockType::Ntsync, BY_NTSYNC),
    ];
    let plan = fates(&facts, "all", &followed);
    assert_eq!(row(&plan, LockType::Rwsem).owner, "rt_mutex_base.owner");
    let programs = [
        "proxy_binder_transaction",
        "proxy_cont_begin",
        "proxy_futex_done",
        "proxy_futex_over",
        "proxy_futex_wait",
        "proxy_ntsync_isra",
    ];
    assert_eq!(plan.programs(), programs);

    fates(&facts, "rtmutex", &followed[..3]);
    let why = "off an rt_mutex on PREEMPT_RT, and rtmutex is off: not asked for";
    let plan = fates(
        &facts,
        "mutex,rwsem",
        &[(LockType::Mutex, why), (LockType::Rwsem, why)],
    );
    assert_eq!(
        row(&plan, LockType::Mutex).help.as_deref(),
        Some("--locks +rtmutex")
    );
    assert!(!plan.follows_any());
    // the fact that tells them apart is in the types as well
    assert!(facts.without(&["config PREEMPT_RT"]).preempt_rt());
}

#[test]
fn binder_needs_its_module_loaded() {
    let facts = kernel("7.3", "amd64");
    let on = (LockType::Binder, "on tracepoint binder_transaction");
    let plan = fates(&facts, "binder", &[on]);
    assert_eq!(plan.programs(), ["proxy_binder_transaction"]);

    let unloaded = facts.without(&["types binder_linux", "tp binder_transaction"]);
    let why = "off module binder_linux is not loaded, or describes no types";
    let plan = fates(&unloaded, "binder", &[(LockType::Binder, why)]);
    let help = row(&plan, LockType::Binder).help.as_deref();
    assert_eq!(help, Some("modprobe binder_linux before scx_proxy starts"));
    assert!(plan.programs().is_empty());

    let absent = unloaded.without(&["module binder_linux"]);
    fates(&absent, "binder", &[(LockType::Binder, NO_BINDER)]);
}

#[test]
fn ntsync_needs_its_module_loaded() {
    let facts = kernel("7.3", "amd64");
    let plan = fates(&facts, "ntsync", &[(LockType::Ntsync, BY_NTSYNC)]);
    assert_eq!(plan.programs(), NTSYNC);

    // as a compiler leaves it that takes no arguments apart
    let text = facts
        .to_string()
        .replace("ksym ntsync_schedule.isra.0", "func ntsync_schedule");
    let plain = KernelFacts::parse(&text).expect("facts");
    let plan = fates(&plain, "ntsync", &[(LockType::Ntsync, BY_NTSYNC)]);
    assert_eq!(plan.programs(), ["proxy_ntsync_wait"]);

    let unloaded = facts.without(&["types ntsync", "ksym ntsync_schedule.isra.0"]);
    let text = unloaded.to_string();
    let lines = text
        .lines()
        .filter(|line| !line.starts_with("field ntsync_"));
    let unloaded = KernelFacts::parse(&lines.collect::<Vec<_>>().join("\n")).expect("facts");
    let why = "off module ntsync is not loaded, or describes no types";
    let plan = fates(&unloaded, "ntsync", &[(LockType::Ntsync, why)]);
    let help = row(&plan, LockType::Ntsync).help.as_deref();
    assert_eq!(help, Some("modprobe ntsync before scx_proxy starts"));
    assert!(plan.programs().is_empty());

    let absent = unloaded.without(&["module ntsync"]);
    let why = "off this kernel has no ntsync";
    fates(&absent, "ntsync", &[(LockType::Ntsync, why)]);
}

#[test]
fn a_missing_fact_turns_off_its_lock_and_no_other() {
    let facts = kernel("7.3", "amd64");
    for (missing, lock, says) in [
        ("field mutex.owner", LockType::Mutex, "mutex.owner"),
        (
            "field rw_semaphore.owner",
            LockType::Rwsem,
            "rw_semaphore.owner",
        ),
        (
            "field rw_semaphore.count",
            LockType::Rwsem,
            "rw_semaphore.count",
        ),
        (
            "field task_struct.pi_blocked_on",
            LockType::Rtmutex,
            "task_struct.pi_blocked_on",
        ),
        (
            "field rt_mutex_waiter.lock",
            LockType::Rtmutex,
            "rt_mutex_waiter.lock",
        ),
        (
            "field rt_mutex_base.owner",
            LockType::Rtmutex,
            "rt_mutex_base.owner",
        ),
        (
            "ksym page_offset_base",
            LockType::Pthread,
            "symbol page_offset_base",
        ),
        (
            "field binder_transaction.to_thread",
            LockType::Binder,
            "binder_transaction.to_thread",
        ),
        (
            "tp binder_transaction",
            LockType::Binder,
            "tracepoint binder_transaction",
        ),
        (
            "tp contention_begin",
            LockType::Rwsem,
            "tracepoint lock:contention_begin",
        ),
        (
            "tp contention_end",
            LockType::Rwsem,
            "tracepoint lock:contention_end",
        ),
        (
            "ksym ntsync_schedule.isra.0",
            LockType::Ntsync,
            "function ntsync_schedule",
        ),
        ("field ntsync_q.owner", LockType::Ntsync, "ntsync_q.owner"),
        ("field ntsync_obj.u", LockType::Ntsync, "ntsync_obj.u"),
    ] {
        let less = facts.without(&[missing]);
        assert_ne!(less, facts, "{missing:?} is no fact of {}", facts.release());
        let plan = Plan::new(&less, &set("all"));
        let off = row(&plan, lock);
        assert_eq!(off.state, State::Off, "without {missing}");
        assert!(
            off.why.as_deref().is_some_and(|why| why.contains(says)),
            "{missing}: {:?}",
            off.why
        );
        assert!(
            off.help.is_some() && off.programs.is_empty(),
            "without {missing}"
        );
        // words of user space are read in the same way, whatever they say
        let both = missing.contains("page_offset_base");
        for other in LockType::followed() {
            assert_eq!(
                plan.is_on(other),
                other != lock && !(both && other == LockType::Futex),
                "{} without {missing}",
                other.name()
            );
        }
    }
}

#[test]
fn without_the_tracepoint_mutexes_lose_their_real_time_waiters_only() {
    let facts = kernel("7.3", "cloud-amd64").without(&["tp contention_begin"]);
    let plan = fates(&facts, "mutex", &[(LockType::Mutex, "on task->blocked_on")]);
    let why = row(&plan, LockType::Mutex).why.as_deref();
    assert!(
        why.is_some_and(|why| why.starts_with("real-time waiters are not seen")),
        "{why:?}"
    );
    assert!(plan.programs().is_empty());

    let facts = facts.without(&["field task_struct.blocked_on"]);
    let why = "off this kernel has no tracepoint lock:contention_begin";
    fates(&facts, "mutex", &[(LockType::Mutex, why)]);
}

#[test]
fn without_the_function_futexes_lose_their_real_time_waiters_only() {
    let facts = kernel("7.3", "cloud-amd64").without(&["func __futex_wait"]);
    let plan = fates(&facts, "pthread", &[(LockType::Pthread, BY_FUTEX)]);
    let why = row(&plan, LockType::Pthread).why.as_deref();
    assert!(
        why.is_some_and(|why| why.starts_with("real-time waiters are not seen")),
        "{why:?}"
    );
    assert!(plan.programs().is_empty());
}

#[test]
fn what_is_not_asked_for_is_off_and_says_how_to_ask() {
    for facts in all_kernels() {
        let plan = Plan::new(&facts, &LockSet::NONE);
        assert!(!plan.follows_any() && plan.programs().is_empty());
        let pthread = row(&plan, LockType::Pthread);
        assert_eq!(pthread.why.as_deref(), Some("not asked for"));
        assert_eq!(pthread.help.as_deref(), Some("--locks +pthread"));
        // what is impossible anyway says that instead
        let none = fate(&plan, LockType::Binder);
        assert_eq!(none == NO_BINDER, !facts.module("binder_linux"), "{none}");
    }
}

#[test]
fn mutex_or_rwsem_alone_bring_the_tracepoint_with_them() {
    let facts = kernel("7.3", "cloud-amd64");
    for (list, programs) in [
        ("mutex", &CONTENTION[..]),
        ("rwsem", &CONTENTION),
        ("mutex,rwsem", &CONTENTION),
        ("rtmutex", &[]),
        ("pthread", &FUTEX),
    ] {
        assert_eq!(Plan::new(&facts, &set(list)).programs(), programs, "{list}");
    }
}

#[test]
fn what_has_no_owner_is_never_followed() {
    for facts in all_kernels() {
        let plan = Plan::new(&facts, &set("all"));
        for lock in LockType::ALL {
            let row = row(&plan, lock);
            let never = lock.number().is_none();
            assert_eq!(row.state == State::Never, never, "{}", lock.name());
            assert!(row.state == State::On || row.why.is_some());
            assert!(!never || row.programs.is_empty());
        }
    }
}

#[test]
fn every_frozen_kernel_has_the_functions_that_loading_needs() {
    for facts in all_kernels() {
        for kfunc in KFUNCS_NEEDED {
            assert!(facts.func(kfunc), "{kfunc} on {}", facts.release());
        }
    }
}
