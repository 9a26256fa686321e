// SPDX-License-Identifier: GPL-2.0-only
//! Reads what doctor reports from the machine that runs it, or from a folder that looks like one. Files
//! become text here, or the reason why not; what they mean is decided elsewhere.

use std::ffi::CString;
use std::fs;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use serde::Serialize;

use super::cgroups::NotHonoured;
use super::config::{Config, places};
use super::rights::{Rights, Sources};
use crate::cli::SOCKET;
use crate::naming::cgroups::mount_point;

const SCX: &str = "/sys/kernel/sched_ext";

/// Where the stats are served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StatsSocket {
    /// The socket.
    pub path: &'static str,
    /// The folder in which it, or what leads to it, would be made.
    pub folder: String,
    /// Whether this process may do so.
    pub writable: bool,
    /// Why not.
    pub why: Option<String>,
    /// The process that answers there now, by its number here; 0 if it has none here.
    pub served_by: Option<i32>,
}

/// The kernel, and how it was booted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kernel {
    /// Whether /sys is there at all.
    pub sysfs: bool,
    /// Whether it has sched_ext.
    pub sched_ext: bool,
    /// Whether it describes its types (BTF).
    pub types: bool,
    /// Whether it has a function tracer.
    pub function_tracer: bool,
    /// sysctl net.core.bpf_jit_enable, which is there in the initial network namespace only.
    pub jit: Option<i64>,
    /// What `isolcpus=` names, if it takes CPUs from the scheduler.
    pub isolcpus: Option<String>,
    /// CPUs that there may be.
    pub possible_cpus: u32,
}

/// The memory of a cgroup that this process is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CgroupMemory {
    /// Its folder.
    pub cgroup: String,
    /// Its memory.max.
    pub max_bytes: u64,
    /// What is left of that, file caches counted as free.
    pub free_bytes: u64,
}

/// Where this process is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Process {
    /// Effective user id.
    pub euid: u32,
    /// Whether its user namespace is the first one, the machine's. None: not known.
    pub initial_user_namespace: Option<bool>,
    /// Whether its pid namespace is the first one. None: not known.
    pub initial_pid_namespace: Option<bool>,
    /// The cgroup, its own or one above, that leaves least memory; none without a limit.
    pub cgroup_memory: Option<CgroupMemory>,
}

/// The sched_ext scheduler of this moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Loaded {
    /// What the kernel calls the state: `enabled`, `disabled`. None: not known.
    pub state: Option<String>,
    /// The scheduler's name, if one is loaded.
    pub name: Option<String>,
    /// Why the state is not known.
    pub why: Option<String>,
}

/// What the machine says, beside its facts about locks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Host {
    /// What the kernel has.
    #[serde(rename = "kernel_has")]
    pub kernel: Kernel,
    /// Where this process is.
    pub process: Process,
    /// How the kernel was built.
    pub config: Config,
    /// What this process may do.
    pub rights: Rights,
    /// Where the stats would be served.
    pub stats_socket: StatsSocket,
    /// What is loaded.
    pub scheduler: Loaded,
    /// What cgroups are set to without effect.
    pub not_honoured: NotHonoured,
}

/// A root folder to read from: `/`, in tests another.
pub struct Root(pub PathBuf);

impl Root {
    fn at(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    fn read(&self, path: &str) -> Result<String, String> {
        fs::read_to_string(self.at(path)).map_err(|error| format!("{path}: {error}"))
    }

    /// What `uname -r` prints.
    pub fn release(&self) -> Option<String> {
        let text = self.read("/proc/sys/kernel/osrelease").ok()?;
        Some(text.trim().to_owned())
    }

    /// All of it.
    #[must_use]
    pub fn look(&self) -> Host {
        Host {
            kernel: self.kernel(),
            process: self.process(),
            config: Config::new(self.config()),
            rights: Rights::new(&Sources {
                status: self.read("/proc/self/status"),
                limits: self.read("/proc/self/limits"),
                kptr_restrict: self.read("/proc/sys/kernel/kptr_restrict"),
                perf_event_paranoid: self.read("/proc/sys/kernel/perf_event_paranoid"),
                lockdown: self.read("/sys/kernel/security/lockdown"),
            }),
            stats_socket: self.stats_socket(),
            scheduler: self.loaded(),
            not_honoured: NotHonoured::look(&self.0),
        }
    }

    fn kernel(&self) -> Kernel {
        let number = |path| self.read(path).ok()?.trim().parse().ok();
        let possible = self.read("/sys/devices/system/cpu/possible");
        let possible =
            possible.map(|list| scx_utils::read_cpulist(list.trim()).unwrap_or_default());
        Kernel {
            sysfs: self.at("/sys/kernel").exists(),
            sched_ext: self.at(SCX).exists(),
            types: self.at("/sys/kernel/btf/vmlinux").exists(),
            function_tracer: self.at("/proc/sys/kernel/ftrace_enabled").exists(),
            jit: number("/proc/sys/net/core/bpf_jit_enable"),
            isolcpus: self
                .read("/proc/cmdline")
                .ok()
                .and_then(|line| isolcpus(&line)),
            possible_cpus: possible.map_or(1, |cpus| cpus.len() as u32),
        }
    }

    fn process(&self) -> Process {
        // SAFETY: geteuid() has no preconditions and cannot fail.
        let euid = unsafe { libc::geteuid() };
        Process {
            euid,
            initial_user_namespace: self.is_initial("user", INITIAL_USER_NAMESPACE),
            initial_pid_namespace: self.is_initial("pid", INITIAL_PID_NAMESPACE),
            cgroup_memory: self.cgroup_memory(),
        }
    }

    fn is_initial(&self, namespace: &str, inode: u32) -> Option<bool> {
        let link = fs::read_link(self.at(&format!("/proc/self/ns/{namespace}"))).ok()?;
        Some(link.to_string_lossy() == format!("{namespace}:[{inode}]"))
    }

    /// Of the unified hierarchy.
    fn cgroup_memory(&self) -> Option<CgroupMemory> {
        let mounts = self.read("/proc/self/mountinfo").ok()?;
        let mounted = mount_point(&mounts)?;
        let own = self.read("/proc/self/cgroup").ok()?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let cgroups = Path::new(own).ancestors().map(|path| mounted.join(path));
        let left = cgroups.filter_map(|cgroup| {
            let cgroup = cgroup.to_string_lossy().into_owned();
            let number = |file: &str| -> Option<u64> {
                let text = self.read(&format!("{cgroup}/{file}")).ok()?;
                text.trim().parse().ok()
            };
            let (max, current) = (number("memory.max")?, number("memory.current")?);
            let stat = self.read(&format!("{cgroup}/memory.stat"));
            let free_bytes = max.saturating_sub(current) + caches(&stat.unwrap_or_default());
            Some(CgroupMemory {
                max_bytes: max,
                free_bytes,
                cgroup,
            })
        });
        left.min_by_key(|memory| memory.free_bytes)
    }

    /// The file of the kernel's configuration, and what is in it.
    fn config(&self) -> Result<(String, String), String> {
        let Some(release) = self.release() else {
            return Err("the kernel's release cannot be read".to_owned());
        };
        let mut reasons = Vec::new();
        for path in places(&release) {
            match self.unpacked(&path) {
                Ok(text) => return Ok((path, text)),
                Err(error) => reasons.push(format!("{path}: {error}")),
            }
        }
        Err(reasons.join(", "))
    }

    fn unpacked(&self, path: &str) -> io::Result<String> {
        let mut file = fs::File::open(self.at(path))?;
        let mut text = String::new();
        if path.ends_with(".gz") {
            GzDecoder::new(file).read_to_string(&mut text)?;
        } else {
            file.read_to_string(&mut text)?;
        }
        Ok(text)
    }

    fn stats_socket(&self) -> StatsSocket {
        let mut folders = Path::new(SOCKET).ancestors().skip(1);
        let nearest = folders.find(|folder| self.at(&folder.to_string_lossy()).exists());
        let folder = nearest
            .unwrap_or(Path::new("/"))
            .to_string_lossy()
            .into_owned();
        let failed = may_write(&self.at(&folder)).err();
        StatsSocket {
            path: SOCKET,
            folder,
            writable: failed.is_none(),
            why: failed.map(|error| error.to_string()),
            served_by: serves(&self.at(SOCKET)),
        }
    }

    /// Whether `/proc` shows the tasks of the initial pid namespace, where this process is `pid`.
    #[must_use]
    pub fn shows_all_tasks(&self, pid: u32) -> bool {
        let own = fs::read_link(self.at("/proc/self")).ok();
        if own.is_none_or(|own| own.to_string_lossy() != pid.to_string()) {
            return false;
        }
        // in a namespace the same number may be chance: an outer /proc also tells those further in
        let status = self.read("/proc/self/status").unwrap_or_default();
        let mut lines = status.lines();
        let numbers = lines.find_map(|line| line.strip_prefix("NSpid:"));
        self.is_initial("pid", INITIAL_PID_NAMESPACE) == Some(true)
            || numbers.is_some_and(|numbers| numbers.split_ascii_whitespace().count() > 1)
    }

    /// Whether a scheduler is being enabled or disabled.
    #[must_use]
    pub fn is_changing_schedulers(&self) -> bool {
        let state = self.read(&format!("{SCX}/state"));
        state.is_ok_and(|state| matches!(state.trim(), "enabling" | "disabling"))
    }

    fn loaded(&self) -> Loaded {
        let state = self.read(&format!("{SCX}/state"));
        let name = self.read(&format!("{SCX}/root/ops")).ok();
        Loaded {
            why: state.as_ref().err().cloned(),
            state: state.ok().map(|text| text.trim().to_owned()),
            name: name
                .map(|text| text.trim().to_owned())
                .filter(|name| !name.is_empty()),
        }
    }
}

// linux/nsfs.h; they have been so since there are such files
const INITIAL_USER_NAMESPACE: u32 = 0xEFFF_FFFD;
const INITIAL_PID_NAMESPACE: u32 = 0xEFFF_FFFC;

/// CPUs of `isolcpus=`, if its flags take them from the scheduler's domains: `domain` does, as without flags.
fn isolcpus(cmdline: &str) -> Option<String> {
    let mut words = cmdline.split_ascii_whitespace();
    let said = words.find_map(|word| word.strip_prefix("isolcpus="))?;
    let is_flag = |item: &&str| item.starts_with(|first: char| first.is_ascii_alphabetic());
    let (flags, cpus): (Vec<_>, Vec<_>) = said
        .split(',')
        .partition(|item| is_flag(item) && !item.starts_with("all"));
    (flags.is_empty() || flags.contains(&"domain")).then(|| cpus.join(","))
}

/// What the kernel takes back from file caches before it kills anybody.
fn caches(stat: &str) -> u64 {
    let value = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        let counts = matches!(name, "inactive_file" | "active_file");
        counts.then(|| value.parse::<u64>().ok())?
    };
    stat.lines().filter_map(value).sum()
}

/// The process that listens at a socket. One that no process listens at is left over, and will be replaced.
fn serves(path: &Path) -> Option<i32> {
    let stream = UnixStream::connect(path).ok()?;
    let mut peer = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let mut len = size_of_val(&peer) as libc::socklen_t;
    // SAFETY: an open socket, and `len` bytes that the kernel may write.
    unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut len,
        )
    };
    Some(peer.pid)
}

/// Whether files can be made in the folder, as far as the kernel says without trying.
fn may_write(folder: &Path) -> io::Result<()> {
    let path = CString::new(folder.as_os_str().as_bytes())?;
    let asked = libc::W_OK | libc::X_OK;
    // SAFETY: a terminated string.
    match unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), asked, libc::AT_EACCESS) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;

    struct Machine(Root);

    impl Machine {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let pid = std::process::id();
            let root = Root(std::env::temp_dir().join(format!("scx_proxy-host-{name}-{pid}")));
            for (path, text) in files {
                let path = root.at(path);
                fs::create_dir_all(path.parent().expect("has a parent")).expect("create");
                fs::write(path, text).expect("write");
            }
            Self(root)
        }
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0.0);
        }
    }

    const RELEASE: (&str, &str) = ("proc/sys/kernel/osrelease", "7.3\n");

    #[test]
    fn the_configuration_is_read_packed_or_not() {
        let machine = Machine::new("config", &[RELEASE, ("proc/config.gz", "")]);
        let Machine(root) = &machine;
        let file = fs::File::create(root.at("proc/config.gz")).expect("create");
        let mut packed = GzEncoder::new(file, Compression::fast());
        packed.write_all(b"CONFIG_BPF_JIT=y\n").expect("packed");
        packed.finish().expect("packed");
        let config = root.look().config;
        assert_eq!(config.file.as_deref(), Some("/proc/config.gz"));
        assert_eq!(config.value("BPF_JIT"), Some("y"));

        fs::create_dir(root.at("boot")).expect("create");
        fs::write(root.at("boot/config-7.3"), "# CONFIG_BPF_JIT is not set\n").expect("write");
        let config = root.look().config;
        assert_eq!(config.file.as_deref(), Some("/boot/config-7.3"));
        assert_eq!(config.value("BPF_JIT"), Some("n"));
    }

    #[test]
    fn a_packed_file_that_is_none_is_said() {
        let files = [RELEASE, ("proc/config.gz", "CONFIG_BPF_JIT=y")];
        let machine = Machine::new("packed", &files);
        let config = machine.0.look().config;
        assert_eq!(config.file, None);
        assert!(
            config
                .why
                .is_some_and(|why| why.contains("/proc/config.gz: "))
        );
    }

    #[test]
    fn an_empty_machine_has_a_reason_for_everything() {
        let machine = Machine::new("empty", &[("etc/hostname", "")]);
        let host = machine.0.look();
        let why = host.config.why.as_deref();
        assert_eq!(why, Some("the kernel's release cannot be read"));
        assert_eq!(host.rights.unread.len(), 5, "{:?}", host.rights.unread);
        assert!(host.scheduler.why.is_some() && host.scheduler.state.is_none());
        assert_eq!(host.stats_socket.folder, "/");
        assert!(host.stats_socket.writable);
    }

    #[test]
    fn isolcpus_counts_only_where_it_takes_cpus_from_the_scheduler() {
        let cases = [
            ("quiet isolcpus=3 ro", Some("3")),
            ("isolcpus=2-3,5", Some("2-3,5")),
            ("isolcpus=nohz,domain,3\n", Some("3")),
            ("isolcpus=all", Some("all")),
            ("isolcpus=managed_irq,3", None),
            ("nohz_full=3", None),
        ];
        for (line, expected) in cases {
            assert_eq!(isolcpus(line).as_deref(), expected, "{line}");
        }
    }

    #[test]
    fn what_a_cgroup_leaves_is_that_of_the_tightest_above() {
        let files = [
            ("proc/self/cgroup", "0::/a/b\n"),
            (
                "proc/self/mountinfo",
                "40 31 0:37 / /cg rw - cgroup2 cgroup2 rw\n",
            ),
            ("cg/memory.stat", "anon 1\n"),
            ("cg/a/memory.max", "104857600\n"),
            ("cg/a/memory.current", "52428800\n"),
            (
                "cg/a/memory.stat",
                "anon 7\ninactive_file 1048576\nactive_file 1048576\n",
            ),
            ("cg/a/b/memory.max", "max\n"),
            ("cg/a/b/memory.current", "0\n"),
        ];
        let machine = Machine::new("memory", &files);
        let expected = CgroupMemory {
            cgroup: "/cg/a".into(),
            max_bytes: 100 << 20,
            free_bytes: 52 << 20,
        };
        assert_eq!(machine.0.look().process.cgroup_memory, Some(expected));
    }

    #[test]
    fn proc_of_a_namespace_is_told_from_the_machines() {
        let machine = |name, own: &str, status, namespace: &str| {
            let machine = Machine::new(name, &[("proc/1/status", status)]);
            let at = |path| machine.0.at(path);
            std::os::unix::fs::symlink("1", at("proc/self")).expect("link");
            fs::create_dir(at("proc/1/ns")).expect("create");
            std::os::unix::fs::symlink(namespace, at("proc/1/ns/pid")).expect("link");
            machine.0.shows_all_tasks(own.parse().expect("a number"))
        };
        let (first, other) = ("pid:[4026531836]", "pid:[4026532000]");
        assert!(machine("pid-first", "1", "NSpid:\t1\n", first));
        assert!(!machine("pid-inner", "77", "NSpid:\t1\n", other));
        assert!(machine("pid-outer", "1", "NSpid:\t1\t9\n", other));
        assert!(!machine("pid-chance", "1", "NSpid:\t1\n", other));
    }

    #[test]
    fn a_socket_counts_as_served_while_somebody_listens() {
        let machine = Machine::new("served", &[("var/run/scx/root/x", "")]);
        let path = machine.0.at(SOCKET);
        let listener = std::os::unix::net::UnixListener::bind(&path).expect("bound");
        let own = i32::try_from(std::process::id()).expect("a pid");
        assert_eq!(machine.0.look().stats_socket.served_by, Some(own));
        drop(listener);
        assert!(path.exists());
        assert_eq!(machine.0.look().stats_socket.served_by, None);
    }

    #[test]
    fn the_loaded_scheduler_has_its_name() {
        let files = [
            ("sys/kernel/sched_ext/state", "enabled\n"),
            ("sys/kernel/sched_ext/root/ops", "lavd_1.1\n"),
            ("var/run/scx/x", ""),
        ];
        let machine = Machine::new("loaded", &files);
        let host = machine.0.look();
        assert_eq!(host.scheduler.state.as_deref(), Some("enabled"));
        assert_eq!(host.scheduler.name.as_deref(), Some("lavd_1.1"));
        assert_eq!(host.stats_socket.folder, "/var/run/scx");
    }
}
