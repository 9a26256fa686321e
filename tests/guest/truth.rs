// SPDX-License-Identifier: GPL-2.0-only
//! Truth before the load: machines on which the scheduler cannot run, and odd ones on which it can. On each of
//! them `doctor` and the start must say the same, and whatever was refused leaves nothing behind.

use std::fs::{self, File};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use libtest_mimic::Failed;
use scx_proxy::cli::SOCKET;
use scx_proxy::client::Client;
use scx_utils::compat::malformed_scx_kfuncs;
use serde_json::Value;

use crate::Test;
use crate::machine::{cpus, ensure, read, run, sched_ext_state, wait_for};
use crate::sched::{self, SCX_PROXY, UNLOAD};

/// Before the others: they need no scheduler, and load none.
pub const REFUSED: &[Test] = &[
    ("truth::jit_off", jit_off),
    ("truth::user_namespace", || {
        refused(&["unshare", "-Ur"], "root in a user namespace")
    }),
    ("truth::container_without_root", || {
        let container = ["unshare", "-Urpfmn", "--mount-proc", "--kill-child"];
        refused(&container, "root in a user namespace")
    }),
    ("truth::memory_not_to_be_locked", || {
        let limit = ["prlimit", "--memlock=65536:65536"];
        let under = [&without("-ipc_lock,-sys_resource")[..], &limit[..]].concat();
        refused(&under, "may lock 64 KiB of memory only")
    }),
    ("truth::no_cap_bpf", || {
        refused(&without("-bpf,-sys_admin"), "lacks CAP_BPF")
    }),
    ("truth::no_cap_perfmon", || {
        refused(&without("-perfmon,-sys_admin"), "lacks CAP_PERFMON")
    }),
    ("truth::no_capabilities", || {
        refused(&without("-all"), "lacks CAP_BPF, CAP_PERFMON")
    }),
    ("truth::seccomp_without_bpf", || {
        let under = || {
            let mut command = Command::new(SCX_PROXY);
            // SAFETY: only system calls, between fork and exec.
            unsafe { command.pre_exec(deny_bpf) };
            command
        };
        refused_as(&under, "bpf() is denied")
    }),
    ("truth::read_only_run", || {
        let mount = "mount -t tmpfs -o ro tmpfs /run";
        refused(&within(mount), "cannot be made in")
    }),
    ("truth::no_kernel_types", || {
        let mount = "mount -t tmpfs tmpfs /sys/kernel/btf";
        refused(&within(mount), "/sys/kernel/btf/vmlinux is missing")
    }),
    ("truth::no_sysfs", || {
        refused(&within("mount -t tmpfs tmpfs /sys"), "sysfs is not mounted")
    }),
    ("truth::no_sched_ext", || {
        let mount = "mount -t tmpfs tmpfs /sys/kernel";
        refused(&within(mount), "no sched_ext")
    }),
    ("truth::no_function_tracer", || {
        refused(&within(NO_TRACER), "no function tracer")
    }),
    ("truth::small_memory_max", small_memory_max),
    ("truth::served_socket", served_socket),
];

/// These load a scheduler of their own: several odd things at a time, since each load takes long.
pub const WORKS: &[Test] = &[
    ("truth::as_booted", as_booted),
    ("truth::pid_namespace", pid_namespace),
    ("truth::few_rights_few_files", few_rights_few_files),
];

/// While another scheduler runs.
pub const BESIDE: &[Test] = &[("truth::another_scheduler", another_scheduler)];

/// What cannot be taken back.
pub const LOCKED_DOWN: &[Test] = &[("truth::locked_down", locked_down)];

const LOCKDOWN: &str = "/sys/kernel/security/lockdown";

pub fn unfit(test: &str) -> Option<&'static str> {
    match test {
        "truth::as_booted" if reason_as_booted().is_none() && cpus() == 4 => Some(
            "takes a machine that is booted in another way: scripts/test --kernel 7.3-isolcpus",
        ),
        "truth::locked_down" if !read("/proc/cmdline").contains("isolcpus=") => {
            Some("not to be taken back: scripts/test --kernel 7.3-isolcpus")
        }
        _ => None,
    }
}

/// What is known to be in the way on the machine as it was booted.
fn reason_as_booted() -> Option<&'static str> {
    if !malformed_scx_kfuncs().is_empty() {
        return Some("pahole");
    }
    let isolated = read("/proc/cmdline").contains("isolcpus=");
    isolated.then_some("isolcpus=3")
}

/// Root without some capabilities, in setpriv's words.
fn without(bounds: &str) -> Vec<&str> {
    vec!["setpriv", "--inh-caps=-all", "--bounding-set", bounds, "--"]
}

/// In a mount namespace of its own, after `commands`.
fn within(commands: &str) -> Vec<&str> {
    const SHELL: &str = r#"set -e; eval "$0"; exec "$@""#;
    vec!["unshare", "-m", "sh", "-c", SHELL, commands]
}

/// The sysctls that doctor reads, without that of the tracer.
const NO_TRACER: &str = "k=/proc/sys/kernel; mount -t tmpfs tmpfs /mnt; \
    cp $k/osrelease $k/version $k/kptr_restrict $k/perf_event_paranoid /mnt; mount --bind /mnt $k";

/// SECCOMP_RET_ERRNO with EPERM for bpf(), as container runtimes do.
fn deny_bpf() -> std::io::Result<()> {
    const LOAD_WORD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut filter = [
        step(LOAD_WORD, 0, 0, 0), // seccomp_data.nr
        step(JUMP_IF_EQUAL, 0, 1, libc::SYS_bpf as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: a program of as many steps as it says, which the kernel copies.
    match unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// What doctor says: whether it loads, and why not.
fn doctor(command: &dyn Fn() -> Command) -> Result<Option<String>, Failed> {
    let out = command().args(["doctor", "--json"]).output()?;
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    let json: Value =
        serde_json::from_slice(&out.stdout).map_err(|error| format!("doctor: {error}: {said}"))?;
    let (ok, why) = (json["loads"]["ok"] == true, json["loads"]["why"].as_str());
    let code = out.status.code();
    ensure(code == Some(i32::from(!ok)) && ok == why.is_none(), || {
        format!("doctor exits {code:?} and says {}", json["loads"])
    })?;
    Ok(why.map(str::to_owned))
}

/// What is to be gone after whatever happened.
fn nothing_is_left() -> Result<(), Failed> {
    wait_for("the default scheduler", UNLOAD, || {
        sched_ext_state() == "disabled"
    })?;
    let socket = fs::metadata(SOCKET).is_ok_and(|file| file.file_type().is_socket());
    ensure(!socket, || format!("{SOCKET} was left behind"))
}

fn command_of(under: &[&str]) -> Command {
    let mut command = Command::new(under[0]);
    command.args(&under[1..]).arg(SCX_PROXY);
    command
}

fn refused(under: &[&str], reason: &str) -> Result<(), Failed> {
    refused_as(&|| command_of(under), reason)
}

/// Doctor and the start refuse for the same reason: the latter in two lines, and with exit status 1.
fn refused_as(command: &dyn Fn() -> Command, reason: &str) -> Result<(), Failed> {
    sched::stop();
    refusal(command, reason)?;
    nothing_is_left()
}

fn refusal(command: &dyn Fn() -> Command, reason: &str) -> Result<(), Failed> {
    let why = doctor(command)?.ok_or("doctor says that it loads")?;
    ensure(why.contains(reason), || format!("doctor says: {why}"))?;
    let out = command().stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    ensure(out.status.code() == Some(1), || {
        format!("{}: {said}", out.status)
    })?;
    let lines: Vec<_> = said.lines().collect();
    let expected = format!("error: {why}");
    let two = lines.len() == 2 && lines[1].starts_with("  try: ");
    ensure(two && lines[0] == expected, || {
        format!("expected {expected:?} and a remedy: {said}")
    })
}

const LOG: &str = "/run/truth.log";

/// Doctor says that it loads, and it does. `look` looks at it, with what it has said and its pid; then it is
/// ended by `signal`.
fn starts(
    under: &[&str],
    signal: &str,
    look: impl FnOnce(&str, u32) -> Result<(), Failed>,
) -> Result<ExitStatus, Failed> {
    sched::stop();
    let why = doctor(&|| command_of(under))?;
    ensure(why.is_none(), || format!("doctor says: {why:?}"))?;
    let mut child = command_of(under)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(LOG)?)
        .spawn()?;
    sched::loads(&mut child, LOG)?;
    let pid = pid_of(SCX_PROXY)?;
    let looked = look(&read(LOG), pid);
    run(&["kill", signal, &pid.to_string()])?;
    let status = sched::exits(&mut child)?;
    looked?;
    Ok(status)
}

/// The same, and it ends as it should.
fn works(under: &[&str], look: impl FnOnce(&str, u32) -> Result<(), Failed>) -> Result<(), Failed> {
    let status = starts(under, "-INT", look)?;
    ensure(status.success(), || format!("{status}: {}", read(LOG)))?;
    nothing_is_left()
}

/// The process that runs this program, and not one that waits for it.
fn pid_of(program: &str) -> Result<u32, Failed> {
    let program = fs::canonicalize(program)?;
    let mut pids = fs::read_dir("/proc")?.flatten().filter_map(|entry| {
        let exe = fs::read_link(entry.path().join("exe")).ok()?;
        let pid = entry.file_name().to_str()?.parse().ok()?;
        (exe == program).then_some(pid)
    });
    pids.next().ok_or_else(|| "no such process".into())
}

/// Also where the sysctl cannot be seen: it is there in the initial network namespace only.
fn jit_off() -> Result<(), Failed> {
    const SYSCTL: &str = "/proc/sys/net/core/bpf_jit_enable";
    let reason = "net.core.bpf_jit_enable is 0";
    fs::write(SYSCTL, "0")?;
    let result = refused(&["env"], reason).and_then(|()| refused(&["unshare", "-n"], reason));
    fs::write(SYSCTL, "1")?;
    result
}

const CGROUPS: &str = "/sys/fs/cgroup";

/// A cgroup that is gone afterwards.
struct Cgroup(String);

impl Cgroup {
    fn new(name: &str, settings: &[(&str, &str)]) -> Result<Self, Failed> {
        fs::write(
            format!("{CGROUPS}/cgroup.subtree_control"),
            "+memory +cpuset",
        )?;
        let path = format!("{CGROUPS}/{name}");
        fs::create_dir(&path)?;
        for (file, text) in settings {
            fs::write(format!("{path}/{file}"), text)
                .map_err(|error| format!("{file}: {error}"))?;
        }
        Ok(Self(path))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

const IN_CGROUP: &str = r#"set -e; echo $$ > "$0/cgroup.procs"; exec "$@""#;

fn small_memory_max() -> Result<(), Failed> {
    let small = Cgroup::new("small", &[("memory.max", "52428800")])?;
    let under = ["sh", "-c", IN_CGROUP, &small.0];
    refused(&under, "50 MiB of memory.max of /sys/fs/cgroup/small")?;
    let kills = read(&format!("{}/memory.events", small.0));
    ensure(kills.contains("oom_kill 0"), || kills.clone())
}

/// By somebody who is no scheduler. Once that has gone, the socket is just a file in the way.
fn served_socket() -> Result<(), Failed> {
    sched::stop();
    fs::create_dir_all(Path::new(SOCKET).parent().ok_or("no folder")?)?;
    let listener = UnixListener::bind(SOCKET)?;
    let result = refusal(&|| command_of(&["env"]), "another process (");
    drop(listener);
    let left = fs::remove_file(SOCKET);
    result?;
    Ok(left?)
}

/// As root without another one: the row of the machine as it was booted, odd or not.
fn as_booted() -> Result<(), Failed> {
    match reason_as_booted() {
        Some(reason) => refused(&["env"], reason),
        None => works(&["env"], |log, _| {
            let cpus = format!("is scheduling {} CPUs", cpus());
            ensure(log.contains(&cpus), || log.to_owned())
        }),
    }
}

/// The numbers of tasks there are not the kernel's: none may be taken for another. So there are tasks in the
/// namespace that have the numbers of those that wait outside. Nor are there cgroups. It is killed in the end:
/// doctor, asked right then, does not take a scheduler that is being disabled for one that is in the way.
fn pid_namespace() -> Result<(), Failed> {
    const INVERSION: &str = env!("CARGO_BIN_EXE_inversion");
    const LAST_PID: &str = "/proc/sys/kernel/ns_last_pid";
    const DECOYS: u32 = 200;
    const SHELL: &str = r#"set -e; umount -l /sys/fs/cgroup; echo "$0" > /proc/sys/kernel/ns_last_pid
        for decoy in $(seq 200); do sleep 1000 & done; exec "$@""#;
    // doctor is run in such a namespace before, and each decoy has a number outside, too
    let first = (read(LAST_PID).parse::<u32>()? + 2 * DECOYS).to_string();
    let inside = ["unshare", "-pf", "--kill-child", "--mount-proc"];
    let under = [&inside[..], &["sh", "-c", SHELL, &first]].concat();
    let killed = starts(&under, "-KILL", |log, pid| {
        let own = format!("this process, {pid} to the kernel, is in a pid namespace");
        ensure(log.contains(&own), || format!("no {own:?}: {log}"))?;
        let said = |error: anyhow::Error| format!("{error:#}");
        let mut client = Client::connect(Path::new(SOCKET)).map_err(said)?;
        // sums begin with the first who watches
        client.view(100).map_err(said)?;
        run(&[
            INVERSION,
            "--lock",
            "f_pos_lock",
            "--trials",
            "1",
            "--topology",
            "cross",
            "--hogs",
            "1",
        ])?;
        let mut tasks = Vec::new();
        wait_for("tasks that have waited", UNLOAD, || {
            tasks = client
                .view(100)
                .map_or_else(|_| Vec::new(), |view| view.tasks);
            !tasks.is_empty()
        })?;
        let pids: Vec<u32> = tasks.iter().map(|row| row.task.pid).collect();
        let first: u32 = first.parse()?;
        let decoyed = pids
            .iter()
            .filter(|pid| (first + 1..=first + DECOYS).contains(pid));
        println!(
            "{} of {} numbers are there twice",
            decoyed.clone().count(),
            pids.len()
        );
        ensure(decoyed.count() > 0, || format!("{pids:?} from {first}"))?;
        // a name that is asked for comes later; number 0 is the row of all that nothing is known of
        std::thread::sleep(Duration::from_secs(2));
        tasks = client.view(100).map_err(said)?.tasks;
        let named = tasks
            .iter()
            .find(|row| row.task.pid != 0 && !row.task.comm.is_empty());
        ensure(named.is_none(), || format!("a name: {named:?}"))
    })?;
    println!("{killed}, and sched_ext is {}", sched_ext_state());
    let why = doctor(&|| command_of(&["env"]))?;
    ensure(why.is_none(), || format!("doctor says: {why:?}"))
}

/// Without CAP_SYS_ADMIN, CAP_NET_ADMIN and CAP_SYS_RESOURCE; in a cgroup that has just enough memory, beside an
/// isolated partition; no /boot with the kernel's configuration, no tracefs, no debugfs, a /proc that hides what
/// is not one's own, another network; and a socket that no process listens at.
fn few_rights_few_files() -> Result<(), Failed> {
    const HIDE: &str = "umount -l /boot /sys/kernel/tracing /sys/kernel/debug; \
        mount -t proc -o hidepid=invisible proc /proc; ! ls /boot/config-*";
    fs::create_dir_all(Path::new(SOCKET).parent().ok_or("no folder")?)?;
    if !Path::new(SOCKET).exists() {
        drop(UnixListener::bind(SOCKET)?);
    }
    let isolated = Cgroup::new(
        "isolated",
        &[("cpuset.cpus", "3"), ("cpuset.cpus.partition", "isolated")],
    )?;
    let partition = read(&format!("{}/cpuset.cpus.partition", isolated.0));
    ensure(partition == "isolated", || partition.clone())?;
    let enough = Cgroup::new("enough", &[("memory.max", "110100480")])?;
    let rights = without("-sys_admin,-net_admin,-sys_resource");
    let under = [
        &["sh", "-c", IN_CGROUP, &enough.0, "unshare", "-n"][..],
        &within(HIDE),
        &rights,
        &["prlimit", "--memlock=65536:65536"],
    ]
    .concat();
    let result = works(&under, |_, _| Ok(()));
    let peak = read(&format!("{}/memory.peak", enough.0));
    let events = read(&format!("{}/memory.events", enough.0));
    println!("memory.peak {peak}");
    result?;
    ensure(events.contains("oom_kill 0"), || events.clone())
}

fn another_scheduler() -> Result<(), Failed> {
    sched::with(&[], || {
        let reason = "another sched_ext scheduler is loaded: proxy";
        refusal(&|| command_of(&["env"]), reason)
    })
}

/// By securityfs, as `lockdown=confidentiality` on the command line does.
fn locked_down() -> Result<(), Failed> {
    if !Path::new(LOCKDOWN).exists() {
        run(&[
            "mount",
            "-t",
            "securityfs",
            "securityfs",
            "/sys/kernel/security",
        ])?;
    }
    fs::write(LOCKDOWN, "integrity")?;
    // nothing that the scheduler needs is forbidden by that
    refused(&["env"], "isolcpus=3")?;
    fs::write(LOCKDOWN, "confidentiality")?;
    let reason = "locked down (confidentiality)";
    refused(&["env"], reason)?;
    // where it cannot be read, the kernel is asked
    let hide = within("umount -l /sys/kernel/security");
    refused(&hide, reason)
}
