//! Can this machine run the scheduler? Asked before anything is loaded, so that
//! a refusal is two lines for a person: what is in the way, what to do about it.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// Why the scheduler will not be loaded here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Refusal {
    /// What is in the way.
    pub why: String,
    /// What the user can do about it.
    pub remedy: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  try: {}", self.why, self.remedy)
    }
}

fn refuse(why: impl Into<String>, remedy: impl Into<String>) -> Result<(), Refusal> {
    Err(Refusal {
        why: why.into(),
        remedy: remedy.into(),
    })
}

const SCX: &str = "/sys/kernel/sched_ext";

/// Kernel functions without which the scheduler cannot work at all.
pub const KFUNCS_NEEDED: [&str; 7] = [
    "scx_bpf_create_dsq",
    "scx_bpf_dsq_move",
    "scx_bpf_dsq_move_to_local",
    "scx_bpf_select_cpu_dfl",
    "scx_bpf_kick_cpu",
    "bpf_iter_scx_dsq_new",
    "bpf_task_from_pid",
];

/// What the checks look at; tests stand in their own.
pub struct Machine<'a> {
    /// Root of the file system to look at, `/`.
    pub root: PathBuf,
    /// Effective user id.
    pub euid: u32,
    /// Whether the kernel's BTF knows a function; asked only when there is BTF.
    pub has_kfunc: &'a dyn Fn(&str) -> bool,
}

impl Machine<'_> {
    fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.root.join(path.trim_start_matches('/'))).ok()
    }

    fn exists(&self, path: &str) -> bool {
        self.root.join(path.trim_start_matches('/')).exists()
    }

    /// # Errors
    /// The first reason found against loading the scheduler.
    pub fn check(&self) -> Result<(), Refusal> {
        self.check_kernel()?;
        if self.euid != 0 {
            return refuse("loading a scheduler needs root", "sudo scx_proxy");
        }
        if self
            .read(&format!("{SCX}/state"))
            .is_some_and(|state| state.trim() == "enabled")
        {
            let name = self.read(&format!("{SCX}/root/ops")).unwrap_or_default();
            let name = name.trim();
            let shown = if name.is_empty() { "unknown" } else { name };
            return refuse(
                format!("another sched_ext scheduler is loaded: {shown}"),
                "stop it first (scxctl stop, systemctl stop scx, or Ctrl-C where it runs)",
            );
        }
        Ok(())
    }

    /// # Errors
    /// What the kernel lacks; who runs there now does not matter.
    pub fn check_kernel(&self) -> Result<(), Refusal> {
        const BTF: &str = "/sys/kernel/btf/vmlinux";
        if !self.exists(SCX) {
            return refuse(
                format!("this kernel has no sched_ext: {SCX} is missing"),
                "boot a kernel built with CONFIG_SCHED_CLASS_EXT=y (Debian: 6.16 or later)",
            );
        }
        if !self.exists(BTF) {
            return refuse(
                format!("this kernel does not describe its types: {BTF} is missing"),
                "boot a kernel built with CONFIG_DEBUG_INFO_BTF=y",
            );
        }
        let missing: Vec<_> = KFUNCS_NEEDED
            .into_iter()
            .filter(|kfunc| !(self.has_kfunc)(kfunc))
            .collect();
        if !missing.is_empty() {
            return refuse(
                format!(
                    "this kernel lacks functions that scx_proxy needs: {}",
                    missing.join(", ")
                ),
                "boot Linux 6.16 or later",
            );
        }
        Ok(())
    }
}

/// Check the machine that we run on.
///
/// # Errors
/// The reason for which the scheduler cannot be loaded.
pub fn check() -> Result<(), Refusal> {
    this(euid(), |machine| machine.check())
}

/// Check the machine that we run on, for root whoever we are.
///
/// # Errors
/// The reason for which root could not load the scheduler.
pub fn check_for_root() -> Result<(), Refusal> {
    this(0, |machine| machine.check())
}

/// Check that the kernel that we run on can have the scheduler's programs, as root, whatever
/// else is loaded.
///
/// # Errors
/// The reason for which they cannot be loaded.
pub fn check_for_verifier() -> Result<(), Refusal> {
    if !is_root() {
        return refuse(
            "to show programs to the kernel's verifier needs root",
            "sudo scx_proxy doctor --verify",
        );
    }
    this(0, |machine| machine.check_kernel())
}

/// Whether this process is root's.
#[must_use]
pub fn is_root() -> bool {
    euid() == 0
}

fn euid() -> u32 {
    // SAFETY: geteuid() has no preconditions and cannot fail.
    unsafe { libc::geteuid() }
}

fn this(euid: u32, check: impl FnOnce(&Machine<'_>) -> Result<(), Refusal>) -> Result<(), Refusal> {
    let has_kfunc = |kfunc: &str| scx_utils::ksym_exists(kfunc).unwrap_or(false);
    check(&Machine {
        root: Path::new("/").into(),
        euid,
        has_kfunc: &has_kfunc,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Root(PathBuf);

    impl Root {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let root =
                std::env::temp_dir().join(format!("scx_proxy-{name}-{}", std::process::id()));
            for (path, text) in files {
                let path = root.join(path);
                fs::create_dir_all(path.parent().expect("has a parent")).expect("create");
                fs::write(path, text).expect("write");
            }
            Root(root)
        }

        fn check(&self, euid: u32, missing: &str) -> String {
            let has_kfunc = |kfunc: &str| kfunc != missing;
            Machine {
                root: self.0.clone(),
                euid,
                has_kfunc: &has_kfunc,
            }
            .check()
            .map_or_else(|refusal| refusal.to_string(), |()| "ok".into())
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const BTF: (&str, &str) = ("sys/kernel/btf/vmlinux", "");
    const OFF: (&str, &str) = ("sys/kernel/sched_ext/state", "disabled\n");

    #[test]
    fn each_refusal_names_the_cause_and_the_remedy() {
        let cases = [
            (Root::new("noscx", &[BTF]).check(0, ""), "no sched_ext"),
            (
                Root::new("nobtf", &[OFF]).check(0, ""),
                "btf/vmlinux is missing",
            ),
            (Root::new("user", &[BTF, OFF]).check(1000, ""), "needs root"),
            (
                Root::new("kfunc", &[BTF, OFF]).check(0, "scx_bpf_dsq_move"),
                "scx_bpf_dsq_move",
            ),
            (
                Root::new(
                    "busy",
                    &[
                        BTF,
                        ("sys/kernel/sched_ext/state", "enabled\n"),
                        ("sys/kernel/sched_ext/root/ops", "bpfland_1.1.4\n"),
                    ],
                )
                .check(0, ""),
                "loaded: bpfland_1.1.4",
            ),
        ];
        for (got, want) in cases {
            assert!(got.contains(want), "{got:?} does not say {want:?}");
            assert_eq!(got.lines().count(), 2, "{got:?}");
            assert!(
                got.lines()
                    .nth(1)
                    .is_some_and(|line| line.starts_with("  try: ")),
                "{got:?}"
            );
        }
    }

    #[test]
    fn a_fit_machine_is_not_refused() {
        assert_eq!(Root::new("fit", &[BTF, OFF]).check(0, ""), "ok");
    }
}
