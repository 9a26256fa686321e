// SPDX-License-Identifier: GPL-2.0-only
//! Programs in pid namespaces of their own, as in containers: the TIDs in their mutexes are
//! numbers in there.

use std::path::PathBuf;
use std::time::Duration;

use libtest_mimic::Failed;

use crate::Test;
use crate::donation::{donated_max, staged_under};
use crate::forge::Threads;
use crate::load::Load;
use crate::machine::ensure;
use crate::sched::{self, Stats};

pub const TESTS: &[Test] = &[
    ("containers::pthread", || donates(&INSIDE, "pthread")),
    ("containers::pthread_two_levels_deep", || {
        donates(&TWO_LEVELS, "pthread")
    }),
    ("containers::pthread_of_two_processes", || {
        donates(&INSIDE, "pthread_shared")
    }),
    ("containers::musl_mutex", || donates(&INSIDE, "musl_mutex")),
    ("containers::musl_owner_number_16", musl_owner_number_16),
    (
        "containers::others_owners_are_not_lent_to",
        others_owners_are_not_lent_to,
    ),
];

const INSIDE: [&str; 4] = ["unshare", "-pf", "--mount-proc", "--kill-child"];
const TWO_LEVELS: [&str; 7] = [
    "unshare",
    "-pf",
    "--kill-child",
    "unshare",
    "-pf",
    "--mount-proc",
    "--kill-child",
];

/// Whom the forgers in a process of this program name: `self` or `others`, of glibc's mutexes; or
/// `musl TYPE`, in a mutex of musl of that type the thread whose TID is 16.
const NAMES: &str = "SCX_PROXY_FORGE_NAMES";
const CPU: usize = 2;
/// In the word of a normal mutex of musl stands EBUSY, and in others the owner's TID. In a container there
/// is mostly a thread of this number.
const MUSL_NORMAL: u32 = 16;
const MEASURED: Duration = Duration::from_secs(3);

fn donates(command: &[&str], lock: &str) -> Result<(), Failed> {
    sched::with(&[], || {
        let (factor, metrics) = staged_under(command, lock, "cross", &["30"])?;
        ensure(metrics.edges_pthread > 0, || "no edge was seen".into())?;
        ensure(metrics.donations_pthread > 0, || {
            "nothing was donated".into()
        })?;
        ensure(factor <= donated_max(), || {
            format!("factor {factor:.2} with donation")
        })
    })
}

/// Never returns if the variable is set.
pub fn run_if_asked() {
    let Ok(names) = std::env::var(NAMES) else {
        return;
    };
    let (mut threads, mut load) = (Threads::default(), Load::default());
    if let Some(kind) = names.strip_prefix("musl ") {
        while threads.start(std::hint::spin_loop) != MUSL_NORMAL {}
        threads.forge_musl(kind.parse().unwrap_or(0), MUSL_NORMAL);
        loop {
            std::thread::park();
        }
    }
    let named = match names.as_str() {
        "self" => threads.start(std::hint::spin_loop),
        _ => load.hog(CPU, 0).unwrap_or(0),
    };
    threads.forge(named, libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG);
    threads.forge(named, libc::FUTEX_WAIT);
    loop {
        std::thread::park();
    }
}

/// What is counted while two threads in a namespace name somebody there.
fn forged(names: &str) -> Result<(u64, u64), Failed> {
    let program: PathBuf = std::env::current_exe()?;
    let program = program.to_str().ok_or("a path that is no text")?;
    let variable = format!("{NAMES}={names}");
    let mut load = Load::default();
    load.hog(CPU, 0)?;
    let mut stats = Stats::open()?;
    load.start(&[&INSIDE[..], &["env", &variable, program]].concat())?;
    std::thread::sleep(MEASURED);
    let metrics = stats.delta()?;
    println!(
        "naming {names}: unproven {}, edges {}, donations {}",
        metrics.unproven, metrics.edges_pthread, metrics.donations_pthread
    );
    Ok((metrics.unproven, metrics.donations_pthread))
}

/// A process of the same namespace, by its number there; a thread of the forger's own shows that the
/// number is understood.
fn others_owners_are_not_lent_to() -> Result<(), Failed> {
    sched::with(&[], || {
        let (_, donations) = forged("self")?;
        ensure(donations > 0, || "nothing was lent".into())?;
        let (unproven, donations) = forged("others")?;
        ensure(unproven > 100, || "nothing was forged".into())?;
        ensure(donations == 0, || "a forger lent".into())
    })
}

/// The type of the mutex tells a thread with the TID 16 from nobody.
fn musl_owner_number_16() -> Result<(), Failed> {
    const RECURSIVE: u32 = 1;
    sched::with(&[], || {
        let (_, donations) = forged(&format!("musl {RECURSIVE}"))?;
        ensure(donations > 0, || "nothing was lent to thread 16".into())?;
        let (_, donations) = forged("musl 0")?;
        ensure(donations == 0, || "a normal mutex named thread 16".into())
    })
}
