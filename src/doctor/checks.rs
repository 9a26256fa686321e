// SPDX-License-Identifier: GPL-2.0-only
//! Can this machine run the scheduler? One table of checks. The loader goes through it before it loads
//! anything, and `doctor` goes through the same one, so that they cannot disagree. A refusal is two
//! lines: what is in the way, and what to do about it.

use std::cell::OnceCell;
use std::fmt;
use std::io;

use super::host::Host;
use super::probe::Probed;
use crate::locks::KFUNCS_NEEDED;

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

/// Memory that may be locked, at least, in bytes: all that the process maps, and what it will map.
pub const LOCKED_BYTES: u64 = 1 << 30;

/// Memory of the cgroup that the scheduler needs at least, in bytes: its heap, and what it takes to load.
pub const MEMORY_BYTES: u64 = 88 << 20;
/// And for each CPU that is possible: its maps.
pub const MEMORY_BYTES_PER_CPU: u64 = 1 << 20;

/// What a check is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// The kernel, and how it was booted.
    Kernel,
    /// This process: what it may do, where it is. Not asked for a user who may become root.
    Process,
    /// What else the machine does now.
    Machine,
}

/// What the checks look at; tests stand in their own.
pub struct Machine<'a> {
    /// What files say.
    pub host: &'a Host,
    /// Whether the kernel's BTF knows a function; asked only when there is BTF.
    pub has_kfunc: &'a dyn Fn(&str) -> bool,
    /// Functions of sched_ext that the kernel's BTF gets wrong; asked only when there is BTF.
    pub malformed_kfuncs: &'a dyn Fn() -> Vec<String>,
    /// What the kernel says to a small BPF program.
    pub probe: &'a dyn Fn() -> io::Result<Probed>,
    probed: OnceCell<Result<Probed, Option<i32>>>,
}

/// One row of the table.
pub struct Check {
    /// A short name.
    pub name: &'static str,
    /// What it is about.
    pub about: About,
    /// Whether programs cannot even be shown to the verifier.
    pub verifier: bool,
    look: fn(&Machine<'_>) -> Result<(), Refusal>,
}

const fn check(
    name: &'static str,
    about: About,
    verifier: bool,
    look: fn(&Machine<'_>) -> Result<(), Refusal>,
) -> Check {
    Check {
        name,
        about,
        verifier,
        look,
    }
}

/// All checks, in the order in which they are made: the first that fails is what is said.
pub const CHECKS: [Check; 16] = [
    check("sched_ext", About::Kernel, true, sched_ext),
    check("kernel types", About::Kernel, true, types),
    check("kernel functions", About::Kernel, true, kfuncs),
    check("function prototypes", About::Kernel, true, prototypes),
    check("function tracer", About::Kernel, true, function_tracer),
    check("lockdown", About::Kernel, true, lockdown),
    check("BPF JIT", About::Kernel, true, jit),
    check("isolated CPUs", About::Kernel, false, isolated_cpus),
    check("root", About::Process, true, root),
    check("user namespace", About::Process, true, user_namespace),
    check("capabilities", About::Process, true, capabilities),
    check("bpf()", About::Process, true, bpf),
    check("locked memory", About::Process, false, locked_memory),
    check("memory of the cgroup", About::Process, false, cgroup_memory),
    check("other scheduler", About::Machine, false, other_scheduler),
    check("stats socket", About::Process, false, stats_socket),
];

impl<'a> Machine<'a> {
    /// Nothing is asked before a check wants to know.
    pub fn new(
        host: &'a Host,
        has_kfunc: &'a dyn Fn(&str) -> bool,
        malformed_kfuncs: &'a dyn Fn() -> Vec<String>,
        probe: &'a dyn Fn() -> io::Result<Probed>,
    ) -> Self {
        Self {
            host,
            has_kfunc,
            malformed_kfuncs,
            probe,
            probed: OnceCell::new(),
        }
    }

    /// Go through those checks of the table that `wanted` wants.
    ///
    /// # Errors
    /// The first reason found against loading the scheduler.
    pub fn check(&self, wanted: impl Fn(&Check) -> bool) -> Result<(), Refusal> {
        let mut checks = CHECKS.iter().filter(|check| wanted(check));
        checks.try_for_each(|check| (check.look)(self))
    }

    /// Asked once, and only by who may ask: what is refused for want of a right says nothing of the kernel.
    fn probed(&self) -> Result<Probed, Option<i32>> {
        let missing = self.host.rights.missing_capabilities.as_deref();
        let may = self.host.process.euid == 0
            && self.host.process.initial_user_namespace != Some(false)
            && missing.is_none_or(<[_]>::is_empty);
        if !may {
            return Err(None);
        }
        let probe = || (self.probe)().map_err(|error| error.raw_os_error());
        *self.probed.get_or_init(probe)
    }
}

fn sched_ext(machine: &Machine<'_>) -> Result<(), Refusal> {
    let kernel = &machine.host.kernel;
    if !kernel.sysfs {
        return refuse(
            "sysfs is not mounted: there is no /sys/kernel",
            "mount -t sysfs sysfs /sys",
        );
    }
    if !kernel.sched_ext {
        return refuse(
            "this kernel has no sched_ext: /sys/kernel/sched_ext is missing",
            "boot a kernel built with CONFIG_SCHED_CLASS_EXT=y (Debian: 6.16 or later)",
        );
    }
    Ok(())
}

fn types(machine: &Machine<'_>) -> Result<(), Refusal> {
    if machine.host.kernel.types {
        return Ok(());
    }
    refuse(
        "this kernel does not describe its types: /sys/kernel/btf/vmlinux is missing",
        "boot a kernel built with CONFIG_DEBUG_INFO_BTF=y",
    )
}

fn kfuncs(machine: &Machine<'_>) -> Result<(), Refusal> {
    let missing: Vec<_> = KFUNCS_NEEDED
        .into_iter()
        .filter(|kfunc| !(machine.has_kfunc)(kfunc))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    refuse(
        format!(
            "this kernel lacks functions that scx_proxy needs: {}",
            missing.join(", ")
        ),
        "boot Linux 6.16 or later",
    )
}

fn prototypes(machine: &Machine<'_>) -> Result<(), Refusal> {
    let wrong = (machine.malformed_kfuncs)();
    let Some(first) = wrong.first() else {
        return Ok(());
    };
    let more = match wrong.len() - 1 {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    refuse(
        format!(
            "this kernel's types are wrong for functions of sched_ext, as pahole before 1.26 makes them: {first}{more}"
        ),
        "boot a kernel that was built with pahole 1.26 or later",
    )
}

fn function_tracer(machine: &Machine<'_>) -> Result<(), Refusal> {
    if machine.host.kernel.function_tracer {
        return Ok(());
    }
    refuse(
        "this kernel has no function tracer: /proc/sys/kernel/ftrace_enabled is missing",
        "boot a kernel built with CONFIG_FUNCTION_TRACER=y",
    )
}

fn lockdown(machine: &Machine<'_>) -> Result<(), Refusal> {
    let said = machine.host.rights.lockdown.as_deref() == Some("confidentiality");
    // where securityfs is not mounted, only the kernel knows
    let found = || machine.probed().is_ok_and(|probed| !probed.reads_kernel);
    if !said && !found() {
        return Ok(());
    }
    refuse(
        "the kernel is locked down (confidentiality): BPF may not read its memory",
        "boot with lockdown=integrity, or without",
    )
}

fn jit(machine: &Machine<'_>) -> Result<(), Refusal> {
    let said = machine.host.kernel.jit == Some(0);
    // the sysctl is there in the initial network namespace only
    let found = || machine.probed().is_ok_and(|probed| !probed.jited);
    if !said && !found() {
        return Ok(());
    }
    refuse(
        "the kernel does not compile BPF programs: net.core.bpf_jit_enable is 0",
        "sysctl net.core.bpf_jit_enable=1",
    )
}

fn isolated_cpus(machine: &Machine<'_>) -> Result<(), Refusal> {
    let Some(cpus) = &machine.host.kernel.isolcpus else {
        return Ok(());
    };
    refuse(
        format!(
            "the kernel was booted with isolcpus={cpus}: sched_ext does not work with isolated CPUs"
        ),
        "boot without isolcpus; isolated cpuset partitions do the same and can be had with sched_ext",
    )
}

fn root(machine: &Machine<'_>) -> Result<(), Refusal> {
    match machine.host.process.euid {
        0 => Ok(()),
        _ => refuse("loading a scheduler needs root", "sudo scx_proxy"),
    }
}

fn user_namespace(machine: &Machine<'_>) -> Result<(), Refusal> {
    if machine.host.process.initial_user_namespace != Some(false) {
        return Ok(());
    }
    refuse(
        "root in a user namespace (a rootless container) may not load a scheduler",
        "run it as root of the machine, outside of the container, or in one without a user namespace",
    )
}

fn capabilities(machine: &Machine<'_>) -> Result<(), Refusal> {
    let missing = machine.host.rights.missing_capabilities.as_deref();
    match missing {
        None | Some([]) => Ok(()),
        Some(missing) => {
            let list = missing.join(", ");
            refuse(
                format!("this process lacks {list}, which loading BPF programs needs"),
                format!("start it with {list} (CAP_SYS_ADMIN includes them)"),
            )
        }
    }
}

fn bpf(machine: &Machine<'_>) -> Result<(), Refusal> {
    match machine.probed() {
        Err(Some(libc::EPERM | libc::EACCES)) => refuse(
            "bpf() is denied to this process, though it has the capabilities (seccomp, a security module)",
            "allow bpf() in the container's seccomp profile, or start it outside",
        ),
        Err(Some(libc::ENOSYS)) => refuse(
            "there is no bpf() for this process (CONFIG_BPF_SYSCALL=n, or seccomp)",
            "allow bpf() in the container's seccomp profile, or boot a kernel built with CONFIG_BPF_SYSCALL=y",
        ),
        _ => Ok(()),
    }
}

fn locked_memory(machine: &Machine<'_>) -> Result<(), Refusal> {
    match machine.host.rights.lockable_bytes {
        Some(limit) if limit < LOCKED_BYTES => refuse(
            format!(
                "this process may lock {} KiB of memory only: it has neither CAP_IPC_LOCK nor CAP_SYS_RESOURCE",
                limit >> 10
            ),
            "start it with CAP_IPC_LOCK, or with ulimit -l unlimited (LimitMEMLOCK=infinity)",
        ),
        _ => Ok(()),
    }
}

fn cgroup_memory(machine: &Machine<'_>) -> Result<(), Refusal> {
    let host = machine.host;
    let Some(room) = &host.process.cgroup_memory else {
        return Ok(());
    };
    let needed = MEMORY_BYTES + MEMORY_BYTES_PER_CPU * u64::from(host.kernel.possible_cpus);
    if room.free_bytes >= needed {
        return Ok(());
    }
    refuse(
        format!(
            "too little is free of the {} MiB of memory.max of {}: scx_proxy needs {} MiB, and the kernel would kill it",
            room.max_bytes >> 20,
            room.cgroup,
            needed >> 20
        ),
        "raise memory.max (MemoryMax=) there, or start it in another cgroup",
    )
}

fn stats_socket(machine: &Machine<'_>) -> Result<(), Refusal> {
    let socket = &machine.host.stats_socket;
    if let Some(why) = &socket.why {
        return refuse(
            format!(
                "the stats socket {} cannot be made in {}: {why}",
                socket.path, socket.folder
            ),
            "mount a file system there that can be written (tmpfs)",
        );
    }
    let who = match socket.served_by {
        None => return Ok(()),
        Some(0) => "a process outside of this pid namespace".to_owned(),
        Some(pid) => format!("another process ({pid})"),
    };
    refuse(
        format!(
            "{who} serves {}, though no scheduler is loaded",
            socket.path
        ),
        "stop that process first",
    )
}

fn other_scheduler(machine: &Machine<'_>) -> Result<(), Refusal> {
    const REMEDY: &str = "stop it first (scxctl stop, systemctl stop scx, or Ctrl-C where it runs)";
    let scheduler = &machine.host.scheduler;
    let name = scheduler.name.as_deref().unwrap_or("unknown");
    match scheduler.state.as_deref() {
        Some("enabled") => refuse(
            format!("another sched_ext scheduler is loaded: {name}"),
            REMEDY,
        ),
        Some(state @ ("enabling" | "disabling")) => refuse(
            format!("a sched_ext scheduler has been {state} for 5 s: {name}"),
            "wait, and start it again",
        ),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{CgroupMemory, Root};

    const FIT: Probed = Probed {
        jited: true,
        reads_kernel: true,
        tgid: 1,
    };

    /// A machine that nothing is wrong with.
    fn fit() -> Host {
        let mut host = Root("/absent".into()).look();
        host.kernel.sysfs = true;
        host.kernel.sched_ext = true;
        host.kernel.types = true;
        host.kernel.function_tracer = true;
        host.process.euid = 0;
        host.stats_socket.why = None;
        host.scheduler.state = Some("disabled".into());
        host
    }

    fn probed(host: &Host, missing: &str, wrong: &[&str], probe: io::Result<Probed>) -> String {
        let has_kfunc = |kfunc: &str| kfunc != missing;
        let malformed = || wrong.iter().map(|kfunc| (*kfunc).to_owned()).collect();
        let answer = || match &probe {
            Ok(probed) => Ok(*probed),
            Err(error) => Err(io::Error::from_raw_os_error(
                error.raw_os_error().unwrap_or_default(),
            )),
        };
        let machine = Machine::new(host, &has_kfunc, &malformed, &answer);
        let checked = machine.check(|_| true);
        checked.map_or_else(|refusal| refusal.to_string(), |()| "ok".into())
    }

    fn said(change: impl Fn(&mut Host)) -> String {
        let mut host = fit();
        change(&mut host);
        probed(&host, "", &[], Ok(FIT))
    }

    #[test]
    fn a_fit_machine_is_not_refused() {
        assert_eq!(said(|_| ()), "ok");
        assert_eq!(said(|host| host.kernel.jit = Some(1)), "ok");
        assert_eq!(
            said(|host| host.rights.lockdown = Some("integrity".into())),
            "ok"
        );
        assert_eq!(
            said(|host| host.rights.lockable_bytes = Some(LOCKED_BYTES)),
            "ok"
        );
        assert_eq!(
            said(|host| host.process.initial_pid_namespace = Some(false)),
            "ok"
        );
    }

    #[test]
    fn each_refusal_is_two_lines_the_cause_and_the_remedy() {
        let denied = || Err(io::Error::from_raw_os_error(libc::EPERM));
        let unjited = Ok(Probed {
            jited: false,
            ..FIT
        });
        let unread = Ok(Probed {
            reads_kernel: false,
            ..FIT
        });
        let room = |mib: u64| {
            Some(CgroupMemory {
                cgroup: "/sys/fs/cgroup/small".into(),
                max_bytes: 100 << 20,
                free_bytes: mib << 20,
            })
        };
        let cases = [
            (
                said(|host| host.kernel.sysfs = false),
                "sysfs is not mounted",
            ),
            (said(|host| host.kernel.sched_ext = false), "no sched_ext"),
            (
                said(|host| host.kernel.types = false),
                "btf/vmlinux is missing",
            ),
            (
                probed(&fit(), "scx_bpf_dsq_move", &[], Ok(FIT)),
                "scx_bpf_dsq_move",
            ),
            (
                probed(&fit(), "", &["scx_bpf_a", "scx_bpf_b"], Ok(FIT)),
                "scx_bpf_a and 1 more",
            ),
            (
                said(|host| host.kernel.function_tracer = false),
                "no function tracer",
            ),
            (
                said(|host| host.rights.lockdown = Some("confidentiality".into())),
                "locked down",
            ),
            (probed(&fit(), "", &[], unread), "locked down"),
            (
                said(|host| host.kernel.jit = Some(0)),
                "bpf_jit_enable is 0",
            ),
            (probed(&fit(), "", &[], unjited), "bpf_jit_enable is 0"),
            (
                said(|host| host.kernel.isolcpus = Some("3".into())),
                "isolcpus=3",
            ),
            (said(|host| host.process.euid = 1000), "needs root"),
            (
                said(|host| host.process.initial_user_namespace = Some(false)),
                "user namespace",
            ),
            (
                said(|host| host.rights.missing_capabilities = Some(vec!["CAP_BPF"])),
                "lacks CAP_BPF",
            ),
            (probed(&fit(), "", &[], denied()), "bpf() is denied"),
            (
                said(|host| host.rights.lockable_bytes = Some(65536)),
                "64 KiB",
            ),
            (
                said(|host| host.process.cgroup_memory = room(80)),
                "of the 100 MiB of memory.max of /sys/fs/cgroup/small",
            ),
            (
                said(|host| host.stats_socket.why = Some("Read-only".into())),
                "Read-only",
            ),
            (
                said(|host| host.stats_socket.served_by = Some(7)),
                "another process (7)",
            ),
            (
                said(|host| {
                    host.scheduler.state = Some("enabled".into());
                    host.scheduler.name = Some("bpfland_1.1.4".into());
                }),
                "loaded: bpfland_1.1.4",
            ),
            (
                said(|host| host.scheduler.state = Some("disabling".into())),
                "disabling",
            ),
        ];
        for (got, want) in cases {
            assert!(got.contains(want), "{got:?} does not say {want:?}");
            assert_eq!(got.lines().count(), 2, "{got:?}");
            let second = got.lines().nth(1).unwrap_or_default();
            assert!(second.starts_with("  try: "), "{got:?}");
        }
    }

    /// Without CAP_PERFMON no program may read the kernel's memory, locked down or not.
    #[test]
    fn a_missing_right_is_not_taken_for_a_kernel_that_is_locked_down() {
        let mut host = fit();
        host.rights.missing_capabilities = Some(vec!["CAP_PERFMON"]);
        let unread = Ok(Probed {
            reads_kernel: false,
            ..FIT
        });
        let said = probed(&host, "", &[], unread);
        assert!(said.contains("lacks CAP_PERFMON"), "{said}");
    }

    /// A user is told what root would be; nobody may ask the kernel for a user.
    #[test]
    fn a_user_is_not_told_of_the_rights_that_root_has() {
        let mut host = fit();
        host.process.euid = 1000;
        host.rights.missing_capabilities = Some(vec!["CAP_BPF"]);
        let asked = || -> io::Result<Probed> { panic!("asked for a user") };
        let machine = Machine::new(&host, &|_| true, &Vec::new, &asked);
        assert_eq!(machine.check(|check| check.about != About::Process), Ok(()));
    }
}
