// SPDX-License-Identifier: GPL-2.0-only
//! The facts of the kernel that runs: the one place of `locks` that does I/O.
//!
//! Needs no root: BTF and kallsyms are there for all to read. (Addresses in kallsyms are hidden
//! from users; the names are not, and only these are looked at.)

use std::collections::{BTreeSet, HashSet};
use std::ffi::{CStr, CString};
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::ptr;

use libbpf_rs::libbpf_sys as sys;

use super::facts::{
    KernelFacts, MODULES, is_field_kept, is_record_kept, is_symbol_kept, is_tracepoint_kept,
};

const BTF: &str = "/sys/kernel/btf";
const KALLSYMS: &str = "/proc/kallsyms";
const RELEASE: &str = "/proc/sys/kernel/osrelease";
/// What `uname -v` prints: how the kernel was built, PREEMPT_RT for one.
const VERSION: &str = "/proc/sys/kernel/version";

/// Anonymous structs and unions inside one another, at most.
const NESTING_MAX: u32 = 4;

/// Why the facts cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    /// The kernel's description of its types.
    #[error("the kernel's types cannot be read from {path}: {source}")]
    Btf {
        /// What was read.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// Another file of the kernel's.
    #[error("{path} cannot be read: {source}")]
    File {
        /// What was read.
        path: &'static str,
        /// Why not.
        source: io::Error,
    },
}

impl KernelFacts {
    /// The facts of the kernel that runs.
    ///
    /// # Errors
    /// A file of the kernel's that cannot be read. A missing module is none.
    pub fn live() -> Result<Self, FactsError> {
        let release = line_of(RELEASE)?;
        let mut facts = BTreeSet::new();
        if line_of(VERSION)?.contains("PREEMPT_RT") {
            facts.insert("config PREEMPT_RT".to_owned());
        }
        let symbols = symbols()?;
        let vmlinux = Btf::read(&format!("{BTF}/vmlinux"), None)?;
        vmlinux.collect(1, &symbols, &mut facts);
        for module in MODULES {
            let path = format!("{BTF}/{module}");
            if Path::new(&path).exists() {
                Btf::read(&path, Some(&vmlinux))?.collect(vmlinux.len(), &symbols, &mut facts);
                facts.insert(format!("types {module}"));
            }
            if is_installed(module, &release) {
                facts.insert(format!("module {module}"));
            }
        }
        for symbol in symbols {
            if !facts.contains(&format!("func {symbol}")) {
                facts.insert(format!("ksym {symbol}"));
            }
        }
        Ok(Self::new(release, facts))
    }
}

fn line_of(path: &'static str) -> Result<String, FactsError> {
    let text = fs::read_to_string(path).map_err(|source| FactsError::File { path, source })?;
    Ok(text.trim().to_owned())
}

/// Whether the module is among those installed for, or built into, the kernel.
fn is_installed(module: &str, release: &str) -> bool {
    let file = format!("/{module}.ko");
    ["modules.dep", "modules.builtin"].into_iter().any(|list| {
        fs::read_to_string(format!("/lib/modules/{release}/{list}")).is_ok_and(|text| {
            let mut paths = text.lines().filter_map(|line| line.split(':').next());
            paths.any(|path| path.contains(&file))
        })
    })
}

/// The names in kallsyms that are asked about.
fn symbols() -> Result<HashSet<String>, FactsError> {
    let error = |source| FactsError::File {
        path: KALLSYMS,
        source,
    };
    let mut lines = BufReader::new(fs::File::open(KALLSYMS).map_err(error)?);
    let (mut symbols, mut line) = (HashSet::new(), String::new());
    while lines.read_line(&mut line).map_err(error)? > 0 {
        // ADDRESS TYPE NAME [MODULE]
        let mut words = line.split_ascii_whitespace().skip(2);
        let (name, module) = (words.next().unwrap_or(""), words.next());
        let ours = |module: &str| MODULES.contains(&module.trim_matches(['[', ']']));
        if is_symbol_kept(name) && module.is_none_or(ours) {
            symbols.insert(name.to_owned());
        }
        line.clear();
    }
    Ok(symbols)
}

/// A kernel's or module's BTF, read by libbpf. libbpf_rs has none of modules.
struct Btf {
    raw: *mut sys::btf,
}

impl Drop for Btf {
    fn drop(&mut self) {
        // SAFETY: the only pointer to it, from libbpf's parser, and not null.
        unsafe { sys::btf__free(self.raw) }
    }
}

impl Btf {
    /// Read a file of BTF; a module's continues that of the kernel, which must outlive it.
    fn read(path: &str, base: Option<&Btf>) -> Result<Self, FactsError> {
        let error = |source| FactsError::Btf {
            path: path.to_owned(),
            source,
        };
        let c_path = CString::new(path).map_err(|e| error(e.into()))?;
        let base = base.map_or(ptr::null_mut(), |base| base.raw);
        // SAFETY: a terminated string; `base` is null or a live BTF.
        let raw = unsafe { sys::btf__parse_split(c_path.as_ptr(), base) };
        if raw.is_null() {
            return Err(error(io::Error::last_os_error()));
        }
        Ok(Self { raw })
    }

    /// Types up to this number are there, those of the base included.
    fn len(&self) -> u32 {
        // SAFETY: a live BTF.
        unsafe { sys::btf__type_cnt(self.raw) }
    }

    fn name(&self, offset: u32) -> &str {
        // SAFETY: a live BTF, which owns the string that is returned and is not changed.
        unsafe {
            let name = sys::btf__name_by_offset(self.raw, offset);
            if name.is_null() {
                return "";
            }
            CStr::from_ptr(name).to_str().unwrap_or("")
        }
    }

    fn get(&self, id: u32) -> Option<&sys::btf_type> {
        // SAFETY: null, or a type that this live BTF owns; nothing changes it.
        unsafe { sys::btf__type_by_id(self.raw, id).as_ref() }
    }

    /// The members of a struct or union; of other types none.
    fn members(&self, id: u32) -> &[sys::btf_member] {
        let composite = |ty| matches!(kind(ty), sys::BTF_KIND_STRUCT | sys::BTF_KIND_UNION);
        let Some(ty) = self.get(id).filter(|ty| composite(ty)) else {
            return &[];
        };
        let count = (ty.info & 0xffff) as usize;
        // SAFETY: in BTF, which libbpf has checked, as many members as the low half of `info` says
        // follow a struct or union, in the same buffer and with the same alignment.
        unsafe {
            let first = sys::btf__type_by_id(self.raw, id).add(1);
            std::slice::from_raw_parts(first.cast(), count)
        }
    }

    /// Put down what is asked about among the types from `first` on.
    fn collect(&self, first: u32, symbols: &HashSet<String>, facts: &mut BTreeSet<String>) {
        for id in first..self.len() {
            let Some(ty) = self.get(id) else { continue };
            let name = self.name(ty.name_off);
            match kind(ty) {
                // BTF also names functions of which the compiler kept variants only
                sys::BTF_KIND_FUNC if symbols.contains(name) => {
                    facts.insert(format!("func {name}"));
                }
                sys::BTF_KIND_TYPEDEF => {
                    if let Some(tp) = name.strip_prefix("btf_trace_")
                        && is_tracepoint_kept(tp)
                    {
                        facts.insert(format!("tp {tp}"));
                    }
                }
                sys::BTF_KIND_STRUCT if is_record_kept(name) => {
                    self.collect_members(name, id, NESTING_MAX, facts);
                }
                _ => {}
            }
        }
    }

    /// Put down the members of a struct, those of anonymous ones inside it too.
    fn collect_members(
        &self,
        record: &str,
        id: u32,
        nesting_max: u32,
        facts: &mut BTreeSet<String>,
    ) {
        for member in self.members(id) {
            let name = self.name(member.name_off);
            if !name.is_empty() {
                if is_field_kept(record, name) {
                    facts.insert(format!("field {record}.{name}"));
                }
            } else if nesting_max > 0 {
                self.collect_members(record, member.type_, nesting_max - 1, facts);
            }
        }
    }
}

fn kind(ty: &sys::btf_type) -> u32 {
    (ty.info >> 24) & 0x1f
}
