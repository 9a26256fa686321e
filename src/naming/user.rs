// SPDX-License-Identifier: GPL-2.0-only
//! Names of places in programs: `mysqld+0x1a2b (trx_lock)`. The offset is the virtual address in
//! the ELF file, as `nm`, `objdump` and `addr2line -e` have it.
//!
//! blazesym reads the symbols. It maps a file whole, and all that this process maps is locked into
//! memory (`mlockall`), so it is not asked about very large files, and forgets all after each batch.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use blazesym::symbolize::source::{Elf, Source};
use blazesym::symbolize::{Input, Symbolizer};

use super::proc;

/// Largest file whose symbols are looked at. Its heap is small: 16 bytes a symbol.
const FILE_MAX: u64 = 128 << 20;
/// Files that are mapped at a time.
const FILES_MAX: usize = 4;
/// Longest name of a function.
const FUNCTION_LEN_MAX: usize = 100;
/// Program headers that are looked at.
const HEADERS_MAX: usize = 128;

/// A line of `/proc/PID/maps`: a piece of a file that may be executed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mapping {
    start: u64,
    end: u64,
    offset: u64,
    path: PathBuf,
}

fn parse_mapping(line: &str) -> Option<Mapping> {
    let mut rest = line.trim_end_matches('\n');
    let mut word = || {
        let (word, after) = rest.trim_start().split_once(' ')?;
        rest = after;
        Some(word)
    };
    let (start, end) = word()?.split_once('-')?;
    let executable = word()?.as_bytes().get(2) == Some(&b'x');
    let offset = word()?;
    let (_device, _inode) = (word()?, word()?);
    // what begins with no slash is no file: [vdso], or nothing
    let path = rest.trim_start();
    let hex = |digits| u64::from_str_radix(digits, 16).ok();
    (executable && path.starts_with('/')).then_some(())?;
    Some(Mapping {
        start: hex(start)?,
        end: hex(end)?,
        offset: hex(offset)?,
        path: path.into(),
    })
}

/// The name of a file, also of one that was replaced since.
fn file_name(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_string_lossy();
    let name = name.strip_suffix(" (deleted)").unwrap_or(&name);
    Some(name.to_owned())
}

/// Where in memory the linker wanted byte `offset` of the 64-bit ELF file.
fn virtual_address(file: &File, offset: u64) -> Option<u64> {
    let mut header = [0; 64];
    file.read_exact_at(&mut header, 0).ok()?;
    if !header.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let u16_at = |i: usize| Some(u16::from_le_bytes(*header[i..].first_chunk()?));
    let table = u64::from_le_bytes(*header[32..].first_chunk()?);
    let (size, count) = (usize::from(u16_at(54)?), usize::from(u16_at(56)?));
    (0..count.min(HEADERS_MAX)).find_map(|i| {
        let mut segment = [0; 56];
        let at = table.checked_add((i * size) as u64)?;
        file.read_exact_at(&mut segment, at).ok()?;
        let u64_at = |i: usize| Some(u64::from_le_bytes(*segment[i..].first_chunk()?));
        let (begin, address, length) = (u64_at(8)?, u64_at(16)?, u64_at(32)?);
        let is_load = segment.starts_with(&1_u32.to_le_bytes());
        let inside = offset.checked_sub(begin).filter(|inside| *inside < length);
        inside
            .filter(|_| is_load)
            .and_then(|inside| address.checked_add(inside))
    })
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
            let maps = BufReader::new(File::open(proc::file(pid, "maps")?).ok()?);
            let lines = maps.lines().map_while(Result::ok);
            self.mappings = lines.filter_map(|line| parse_mapping(&line)).collect();
        }
        self.mappings
            .iter()
            .find(|mapping| (mapping.start..mapping.end).contains(&at))
    }
}

/// Finds out places in programs, for one batch of questions.
pub struct Programs {
    processes: HashMap<u32, Option<Process>>,
    symbolizer: Symbolizer,
    /// What the symbolizer has mapped.
    files: HashSet<PathBuf>,
}

fn symbolizer() -> Symbolizer {
    Symbolizer::builder().enable_code_info(false).build()
}

impl Programs {
    /// Knows nothing yet.
    pub fn new() -> Self {
        Self {
            processes: HashMap::new(),
            symbolizer: symbolizer(),
            files: HashSet::new(),
        }
    }

    /// The place at address `at` of process `pid`; with `at` 0, its program.
    pub fn name(&mut self, pid: u32, at: u64) -> Option<String> {
        let process = self
            .processes
            .entry(pid)
            .or_insert_with(|| Process::read(pid));
        let process = process.as_mut()?;
        let exe = process.exe.clone();
        if at == 0 {
            return file_name(&exe);
        }
        let Some(mapping) = process.mapping(pid, at) else {
            return file_name(&exe);
        };
        let binary = file_name(&mapping.path)?;
        // as the process sees it: it may be in a container, its program replaced
        let path = match mapping.path == exe {
            true => PathBuf::from(format!("/proc/{pid}/exe")),
            false => PathBuf::from(format!("/proc/{pid}/root{}", mapping.path.display())),
        };
        let in_file = at - mapping.start + mapping.offset;
        let place = File::open(&path).ok().and_then(|file| {
            let address = virtual_address(&file, in_file)?;
            Some((address, file.metadata().ok()?.len()))
        });
        let Some((address, size)) = place else {
            return Some(binary);
        };
        let function = (size <= FILE_MAX)
            .then(|| self.function(path, address))
            .flatten();
        Some(match function {
            Some(function) => format!("{binary}+{address:#x} ({function})"),
            None => format!("{binary}+{address:#x}"),
        })
    }

    fn function(&mut self, path: PathBuf, address: u64) -> Option<String> {
        if !self.files.contains(&path) {
            if self.files.len() >= FILES_MAX {
                self.symbolizer = symbolizer();
                self.files.clear();
            }
            self.files.insert(path.clone());
        }
        let mut elf = Elf::new(path);
        elf.debug_syms = false;
        // a call at the very end of a function returns to the next one: look a byte before
        let input = Input::VirtOffset(address.checked_sub(1)?);
        let found = self.symbolizer.symbolize_single(&Source::Elf(elf), input);
        let found = found.ok()?.into_sym()?;
        Some(short(&found.name).to_owned())
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
}
