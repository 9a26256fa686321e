// SPDX-License-Identifier: GPL-2.0-only
//! The checks of `checks` on the machine that we run on, before anything is loaded.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::checks::{About, Check, Machine};
use super::{Host, Root, probe};

pub use super::checks::Refusal;

/// How long a scheduler that is being enabled or disabled is waited for.
const SETTLE: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Check whether this process can load the scheduler.
///
/// # Errors
/// The reason for which it cannot.
pub fn check() -> Result<(), Refusal> {
    this(&settled(&Root("/".into())), |_| true)
}

/// The same for `doctor`: whoever is not root is told whether root could.
///
/// # Errors
/// The reason for which the scheduler could not be loaded.
pub fn check_for_root(host: &Host) -> Result<(), Refusal> {
    let as_it_is = is_root();
    this(host, |check| as_it_is || check.about != About::Process)
}

/// Check that this process can show the scheduler's programs to the verifier of the kernel that we run
/// on, whatever else is loaded.
///
/// # Errors
/// The reason for which it cannot.
pub fn check_for_verifier() -> Result<(), Refusal> {
    if !is_root() {
        return Err(Refusal {
            why: "to show programs to the kernel's verifier needs root".into(),
            remedy: "sudo scx_proxy doctor --verify".into(),
        });
    }
    this(&Root("/".into()).look(), |check| check.verifier)
}

/// The machine, once no scheduler is on its way into or out of the kernel, or as it is after a while.
#[must_use]
pub fn settled(root: &Root) -> Host {
    let begun = Instant::now();
    while root.is_changing_schedulers() && begun.elapsed() < SETTLE {
        sleep(LOOK_AGAIN);
    }
    root.look()
}

/// Whether this process is root's.
#[must_use]
pub fn is_root() -> bool {
    // SAFETY: geteuid() has no preconditions and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// BTF, and what is said about it, is read only where there is any.
fn this(host: &Host, wanted: impl Fn(&Check) -> bool) -> Result<(), Refusal> {
    let has_types = Path::new("/sys/kernel/btf/vmlinux").exists();
    let has_kfunc = |kfunc: &str| has_types && scx_utils::ksym_exists(kfunc).unwrap_or(false);
    let malformed = || match has_types {
        true => scx_utils::compat::malformed_scx_kfuncs(),
        false => Vec::new(),
    };
    Machine::new(host, &has_kfunc, &malformed, &probe::probe).check(wanted)
}
