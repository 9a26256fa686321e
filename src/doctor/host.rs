// SPDX-License-Identifier: GPL-2.0-only
//! Reads what doctor reports from the machine that runs it, or from a folder that looks like one. Files
//! become text here, or the reason why not; what they mean is decided elsewhere.

use std::ffi::CString;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use serde::Serialize;

use super::cgroups::NotHonoured;
use super::config::{Config, places};
use super::rights::{Rights, Sources};
use crate::watch::client::SOCKET;

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
        }
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
