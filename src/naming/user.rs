// SPDX-License-Identifier: GPL-2.0-only
//! Names of places in programs: `mysqld+0x1a2b (trx_lock)`. The offset is the virtual address in
//! the ELF file, as `nm`, `objdump` and `addr2line -e` have it.
//!
//! A user chooses for a program what it maps, and under which path, and may put something else there
//! afterwards: a FIFO, a device, a link out of a container. So no file is opened by its path.
//! `/proc/PID/map_files` leads to what is mapped; it is looked at before it is opened, and must be a regular
//! file, of a file system whose reads do not depend on a user's process or on the network. What it says is
//! read by `elf`, within bounds.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::elf::{self, Budget};
use super::proc;
use crate::output::printable;

/// Largest file whose symbols are looked at.
const FILE_MAX: u64 = 1 << 30;
/// Longest name of a function, and of a file.
const FUNCTION_LEN_MAX: usize = 100;
const FILE_NAME_LEN_MAX: usize = 100;
/// Executable mappings of one process that are known, and bytes of its list of them that are read.
const MAPPINGS_MAX: usize = 16_384;
const MAPS_BYTES_MAX: u64 = 16 << 20;
const MOUNTS_BYTES_MAX: u64 = 1 << 20;
/// What is read of files in a second, and may be saved up.
const BYTES_PER_SEC: u64 = 64 << 20;
/// File systems that wait for a process of anybody's, or for another machine.
const SLOW: [&str; 8] = [
    "fuse", "nfs", "cifs", "smb", "ceph", "afs", "autofs", "lustre",
];

/// A line of `/proc/PID/maps`: a piece of a file that may be executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    start: u64,
    end: u64,
    offset: u64,
    /// Major and minor number of its device.
    device: (u32, u32),
    pub path: PathBuf,
}

/// A line of that list; `None` if it is no file, or may not be executed.
pub fn parse_mapping(line: &str) -> Option<Mapping> {
    let mut rest = line.trim_end_matches('\n');
    let mut word = || {
        let (word, after) = rest.trim_start().split_once(' ')?;
        rest = after;
        Some(word)
    };
    let (start, end) = word()?.split_once('-')?;
    let executable = word()?.as_bytes().get(2) == Some(&b'x');
    let offset = word()?;
    let (major, minor) = word()?.split_once(':')?;
    let _inode = word()?;
    // what begins with no slash is no file: [vdso], or nothing
    let path = rest.trim_start();
    let hex = |digits| u64::from_str_radix(digits, 16).ok();
    let number = |digits| u32::from_str_radix(digits, 16).ok();
    (executable && path.starts_with('/')).then_some(())?;
    Some(Mapping {
        start: hex(start)?,
        end: hex(end)?,
        offset: hex(offset)?,
        device: (number(major)?, number(minor)?),
        path: path.into(),
    })
}

/// The type of the file system on `device`, by the text of a `mountinfo`.
pub fn file_system(mountinfo: impl BufRead, device: (u32, u32)) -> Option<String> {
    let device = format!("{}:{}", device.0, device.1);
    let mut lines = mountinfo.lines().map_while(Result::ok);
    let line = lines.find(|line| line.split(' ').nth(2) == Some(&device))?;
    let (_, after) = line.split_once(" - ")?;
    after.split(' ').next().map(str::to_owned)
}

/// Whether reading from it waits for nobody. What is mounted nowhere that is known may be anything.
fn is_local(pid: u32, device: (u32, u32)) -> bool {
    let of = |path: PathBuf| {
        let file = File::open(path).ok()?;
        file_system(BufReader::new(file.take(MOUNTS_BYTES_MAX)), device)
    };
    let found = of("/proc/self/mountinfo".into()).or_else(|| of(proc::file(pid, "mountinfo")?));
    found.is_some_and(|name| !SLOW.iter().any(|slow| name.starts_with(slow)))
}

/// Opens what `path` leads to, if that is a regular file. To open anything else may have effects, or wait
/// for ever: so it is only looked at first.
fn open_regular(path: &Path) -> io::Result<File> {
    let mut look = File::options();
    look.read(true).custom_flags(libc::O_PATH | libc::O_CLOEXEC);
    let found = look.open(path)?;
    let metadata = found.metadata()?;
    if !metadata.is_file() || metadata.len() > FILE_MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut open = File::options();
    open.read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC);
    open.open(format!("/proc/self/fd/{}", found.as_raw_fd()))
}

/// The name of a file, also of one that was replaced since.
pub fn file_name(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_string_lossy();
    let name = printable(name.strip_suffix(" (deleted)").unwrap_or(&name));
    Some(name[..name.floor_char_boundary(FILE_NAME_LEN_MAX)].to_owned())
}

/// A demangled name without the parameters of C++, and not too long.
fn short(name: &str) -> &str {
    let (mut depth, mut end, mut i) = (0_i32, name.len(), 0);
    while i < name.len() {
        match name.as_bytes()[i] {
            b'<' => depth += 1,
            b'>' => depth -= 1,
            b'(' if depth <= 0 => {
                if name[i..].starts_with("(anonymous namespace)") {
                    i += "(anonymous namespace)".len();
                    continue;
                }
                if !name[..i].ends_with("operator") {
                    end = i;
                    break;
                }
            }
            _ => {}
        }
        i += 1;
    }
    let end = if end == 0 { name.len() } else { end };
    &name[..name.floor_char_boundary(end.min(FUNCTION_LEN_MAX))]
}

/// The name of a function, as it may be shown.
pub fn shown(name: &str) -> String {
    printable(short(name))
}

/// What is known of a process for one batch of questions.
struct Process {
    exe: PathBuf,
    mappings: Vec<Mapping>,
}

impl Process {
    fn read(pid: u32) -> Option<Self> {
        Some(Self {
            exe: std::fs::read_link(proc::file(pid, "exe")?).ok()?,
            mappings: Vec::new(),
        })
    }

    /// Its mappings, read when first wanted: reading them waits for the process's mmap_lock.
    fn mapping(&mut self, pid: u32, at: u64) -> Option<&Mapping> {
        if self.mappings.is_empty() {
            let maps = File::open(proc::file(pid, "maps")?).ok()?;
            let lines = BufReader::new(maps.take(MAPS_BYTES_MAX)).lines();
            let mappings = lines
                .map_while(Result::ok)
                .filter_map(|line| parse_mapping(&line));
            self.mappings = mappings.take(MAPPINGS_MAX).collect();
        }
        self.mappings
            .iter()
            .find(|mapping| (mapping.start..mapping.end).contains(&at))
    }
}

/// Finds out places in programs.
pub struct Programs {
    /// Of this batch of questions.
    processes: HashMap<u32, Option<Process>>,
    budget: Budget,
    filled: Instant,
}

impl Programs {
    /// Knows nothing yet.
    pub fn new() -> Self {
        Self {
            processes: HashMap::new(),
            budget: Budget(BYTES_PER_SEC),
            filled: Instant::now(),
        }
    }

    /// Another batch of questions: what was known of processes may be wrong by now.
    pub fn begin(&mut self) {
        self.processes.clear();
        let more = self.filled.elapsed().as_millis() as u64 * (BYTES_PER_SEC / 1000);
        self.budget.0 = self.budget.0.saturating_add(more).min(BYTES_PER_SEC);
        self.filled = Instant::now();
    }

    /// The place at address `at` of process `pid`; with `at` 0, its program.
    pub fn name(&mut self, pid: u32, at: u64) -> Option<String> {
        let process = self
            .processes
            .entry(pid)
            .or_insert_with(|| Process::read(pid));
        let process = process.as_mut()?;
        let exe = file_name(&process.exe);
        if at == 0 {
            return exe;
        }
        let Some(mapping) = process.mapping(pid, at).cloned() else {
            return exe;
        };
        let binary = file_name(&mapping.path)?;
        let Some((address, function)) = self.place(pid, &mapping, at) else {
            return Some(binary);
        };
        Some(match function {
            Some(function) => format!("{binary}+{address:#x} ({function})"),
            None => format!("{binary}+{address:#x}"),
        })
    }

    fn place(&mut self, pid: u32, mapping: &Mapping, at: u64) -> Option<(u64, Option<String>)> {
        if !is_local(pid, mapping.device) {
            return None;
        }
        let range = format!("map_files/{:x}-{:x}", mapping.start, mapping.end);
        let file = open_regular(&proc::file(pid, &range)?).ok()?;
        let in_file = (at - mapping.start).checked_add(mapping.offset)?;
        let address = elf::virtual_address(&file, in_file, &mut self.budget)?;
        // a call at the very end of a function returns to the next one: look a byte before
        let before = address.checked_sub(1)?;
        let function = elf::function(&file, before, &mut self.budget);
        Some((address, function.map(|name| shown(&name))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executable_mappings_of_files_are_read() {
        let text = "55d0a000-55d0b000 r-xp 00002000 fd:01 1234      /usr/bin/with blank (deleted)";
        let expected = Mapping {
            start: 0x55d0_a000,
            end: 0x55d0_b000,
            offset: 0x2000,
            device: (0xfd, 1),
            path: "/usr/bin/with blank (deleted)".into(),
        };
        assert_eq!(parse_mapping(text), Some(expected.clone()));
        assert_eq!(file_name(&expected.path).as_deref(), Some("with blank"));
        for other in [
            "55d0a000-55d0b000 rw-p 00002000 fd:01 1234      /usr/bin/true",
            "7ffc0000-7ffc1000 r-xp 00000000 00:00 0         [vdso]",
            "7ffc0000-7ffc1000 rwxp 00000000 00:00 0 ",
            "nonsense",
        ] {
            assert_eq!(parse_mapping(other), None, "{other}");
        }
    }

    #[test]
    fn names_are_made_short() {
        for (name, expected) in [
            ("trx_lock(trx_t*, bool)", "trx_lock"),
            ("main", "main"),
            (
                "core::ptr::drop_in_place<fn(u8)>",
                "core::ptr::drop_in_place<fn(u8)>",
            ),
            ("(anonymous namespace)::f(int)", "(anonymous namespace)::f"),
            ("A::operator()(int) const", "A::operator()"),
            (
                "std::vec<int, f(int)>::push(int)",
                "std::vec<int, f(int)>::push",
            ),
        ] {
            assert_eq!(short(name), expected);
        }
        assert_eq!(short(&"x".repeat(500)).len(), FUNCTION_LEN_MAX);
    }

    #[test]
    fn file_systems_are_known_by_device() {
        let mounts = "22 1 253:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n\
                      40 22 0:37 / /home/a/mnt rw - fuse.sshfs a:/ rw\n";
        let of = |device| file_system(mounts.as_bytes(), device);
        assert_eq!(of((253, 1)).as_deref(), Some("ext4"));
        assert_eq!(of((0, 37)).as_deref(), Some("fuse.sshfs"));
        assert_eq!(of((0, 3)), None);
    }

    /// A folder of a test, gone with it.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("scxp-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).expect("a folder");
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn make(what: libc::mode_t, device: u64, path: &Path) -> bool {
        let path = std::ffi::CString::new(path.to_str().expect("UTF-8")).expect("a path");
        // SAFETY: a path that lives as long as the call.
        unsafe { libc::mknod(path.as_ptr(), what | 0o600, device) == 0 }
    }

    #[test]
    fn what_is_no_regular_file_is_not_opened() {
        let folder = Folder::new("regular");
        let path = |name: &str| folder.0.join(name);
        std::fs::write(path("file"), "text").expect("a file");
        std::os::unix::fs::symlink(path("fifo"), path("link")).expect("a link");
        assert!(make(libc::S_IFIFO, 0, &path("fifo")));
        let mut text = String::new();
        let mut file = open_regular(&path("file")).expect("a file");
        file.read_to_string(&mut text).expect("text");
        assert_eq!(text, "text");
        for other in [
            path("fifo"),
            path("link"),
            folder.0.clone(),
            "/dev/zero".into(),
            "/dev/ptmx".into(),
        ] {
            assert!(open_regular(&other).is_err(), "{}", other.display());
        }
        let long = File::create(path("long")).expect("a file");
        long.set_len(FILE_MAX + 1).expect("long");
        assert!(open_regular(&path("long")).is_err(), "too long");
    }

    /// Executable memory of this process that is the file.
    fn map(file: &File, length: usize) -> u64 {
        let (read, private) = (libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE);
        // SAFETY: new memory, which nobody uses but by its address.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                read,
                private,
                file.as_raw_fd(),
                0,
            )
        };
        assert_ne!(at, libc::MAP_FAILED);
        at as u64
    }

    /// A program maps a file, and puts something else at its path: what is read is what was mapped, and
    /// nothing waits.
    #[test]
    fn a_path_that_was_swapped_leads_nowhere() {
        if std::fs::read_dir("/proc/self/map_files").is_ok_and(|mut dir| {
            dir.next()
                .is_none_or(|entry| entry.is_ok_and(|entry| File::open(entry.path()).is_err()))
        }) {
            println!("skipped: this user may not look at what is mapped");
            return;
        }
        let folder = Folder::new("swapped");
        let (path, other) = (folder.0.join("prog"), folder.0.join("secret"));
        let bytes = elf::tests::elf(&[("mine", 0x1000, 0x1000)], 1);
        std::fs::write(&path, &bytes).expect("a file");
        let secret = elf::tests::elf(&[("secret", 0x1000, 0x1000)], 1);
        std::fs::write(&other, secret).expect("a file");
        let file = File::options()
            .read(true)
            .write(true)
            .open(&path)
            .expect("a file");
        let at = map(&file, 4096);
        let name = || {
            let begun = Instant::now();
            let name = Programs::new().name(std::process::id(), at + 0x20);
            assert!(begun.elapsed().as_secs() < 5, "it waited");
            name
        };
        assert_eq!(name().as_deref(), Some("prog+0x1020 (mine)"));
        for step in ["link", "fifo", "device", "folder"] {
            let _ = std::fs::remove_file(&path);
            match step {
                "link" => std::os::unix::fs::symlink(&other, &path).expect("a link"),
                "fifo" => assert!(make(libc::S_IFIFO, 0, &path)),
                // it may be forbidden to make one here
                "device" => drop(make(libc::S_IFCHR, libc::makedev(5, 2), &path)),
                _ => std::fs::create_dir(&path).expect("a folder"),
            }
            assert_eq!(name().as_deref(), Some("prog+0x1020 (mine)"), "{step}");
        }
        // cut short under the mapping: no byte of it is touched there
        file.set_len(100).expect("cut");
        assert_eq!(name().as_deref(), Some("prog"));
        file.set_len(0).expect("cut");
        assert_eq!(name().as_deref(), Some("prog"));
    }

    #[test]
    fn names_of_files_cannot_move_the_cursor() {
        let name = file_name(Path::new("/tmp/a\x1b[2J\nb (deleted)"));
        assert_eq!(name.as_deref(), Some(r"a\u{1b}[2J\nb"));
        let long = format!("/{}", "ä".repeat(500));
        assert!(file_name(Path::new(&long)).is_some_and(|name| name.len() <= FILE_NAME_LEN_MAX));
    }
}
