// SPDX-License-Identifier: GPL-2.0-only
//! The scheduler's programs before the kernel's verifier: loaded as the loader does, attached to
//! nothing, and gone again. Whatever else schedules is not disturbed.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Mutex;

use anyhow::{Context, Error, Result};
use libbpf_rs::skel::Skel;
use libbpf_rs::{PrintLevel, libbpf_sys, set_print};
use serde::Serialize;

use super::preflight::Refusal;
use super::skel::BpfSkel;
use super::{cpu_ids, load, prepare};
use crate::cli::Opts;
use crate::output::Table;

/// A program that the kernel took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// Instructions that the verifier looked at, each as often as it came by.
    pub verified_insns: u32,
}

/// What the verifier took; as JSON, these are the names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// As for a machine with so many possible CPUs.
    pub cpus: u32,
    /// In the order in which they were loaded.
    pub programs: Vec<Program>,
    /// Their sum.
    pub verified_insns: u64,
}

impl Verified {
    fn new(cpus: u32, programs: Vec<Program>) -> Self {
        Self {
            cpus,
            verified_insns: programs.iter().map(|p| u64::from(p.verified_insns)).sum(),
            programs,
        }
    }

    /// For a person: a row a program, and the sum.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut table = Table::new(&["program", "verified instructions"]);
        for program in &self.programs {
            table.row(vec![
                program.name.clone(),
                program.verified_insns.to_string(),
            ]);
        }
        table.row(vec!["total".to_owned(), self.verified_insns.to_string()]);
        format!(
            "{}\nverdict: the kernel takes these {} programs, as for {} possible CPUs; nothing was attached\n",
            table.render(),
            self.programs.len(),
            self.cpus
        )
    }

    /// One JSON object.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self).map(|text| text + "\n")
    }
}

/// What libbpf said while it loaded, the last of it.
static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());
const MESSAGES_MAX: usize = 64;
/// The verifier's log may have many megabytes; its reason stands at the end.
const TAIL_BYTES: usize = 16 << 10;

fn listen(_: PrintLevel, message: String) {
    let Ok(mut said) = SAID.lock() else { return };
    if said.len() >= MESSAGES_MAX {
        said.remove(0);
    }
    let mut from = message.len().saturating_sub(TAIL_BYTES);
    while !message.is_char_boundary(from) {
        from += 1;
    }
    said.push(message[from..].to_owned());
}

/// Load what `opts` ask for as for a machine with `cpus` possible CPUs, this one unless given.
///
/// # Errors
/// What the kernel or libbpf refused, as a [`Refusal`].
pub fn verify(opts: &Opts, cpus: Option<u32>) -> Result<Verified> {
    let cpus = cpus.map_or_else(cpu_ids, Ok)?;
    scx_utils::try_set_rlimit_infinity();
    set_print(Some((PrintLevel::Warn, listen)));
    let mut object = MaybeUninit::uninit();
    let loaded = prepare(opts, cpus, &mut object).and_then(load);
    let skel = loaded.map_err(|error| {
        let said = SAID.lock().map(|said| said.clone()).unwrap_or_default();
        Error::new(refusal(&error, &said))
    })?;
    Ok(Verified::new(cpus, programs(&skel)?))
}

fn programs(skel: &BpfSkel) -> Result<Vec<Program>> {
    let programs = skel.object().progs().filter(|program| program.autoload());
    let verified = programs.map(|program| {
        let name = program.name().to_string_lossy().into_owned();
        let verified_insns = verified_insns(&program).with_context(|| name.clone())?;
        Ok(Program {
            name,
            verified_insns,
        })
    });
    verified.collect()
}

fn verified_insns(program: &libbpf_rs::Program<'_>) -> Result<u32> {
    let mut info = libbpf_sys::bpf_prog_info::default();
    let mut len = u32::try_from(size_of_val(&info))?;
    let into: *mut libbpf_sys::bpf_prog_info = &mut info;
    // SAFETY: an open program, and `len` bytes that the kernel may write.
    let failed = unsafe {
        libbpf_sys::bpf_obj_get_info_by_fd(program.as_fd().as_raw_fd(), into.cast(), &mut len)
    };
    if failed != 0 {
        Err(std::io::Error::last_os_error()).context("the kernel does not describe the program")?;
    }
    Ok(info.verified_insns)
}

/// Two lines out of what libbpf said: which program, and the verifier's last word about it.
fn refusal(error: &Error, said: &[String]) -> Refusal {
    let lines: Vec<&str> = said.iter().flat_map(|message| message.lines()).collect();
    let failed = lines.iter().find_map(|line| {
        let (name, errno) = line.split_once(": BPF program load failed: ")?;
        let name = name.rsplit_once("prog ")?.1.trim_matches('\'');
        Some((name, errno))
    });
    let why = match failed {
        Some((name, errno)) => {
            let reason = verifiers_reason(&lines).unwrap_or("no reason given");
            format!("the kernel refuses the program {name}: {reason} ({errno})")
        }
        None => {
            // libbpf says first what went wrong, then what it gives up for that
            let first = lines.iter().find(|line| line.contains(": -E"));
            let first = first.map(|line| line.trim_start_matches("libbpf: ").to_owned());
            let reason = first.unwrap_or_else(|| format!("{error:#}").replace('\n', " "));
            format!("the programs cannot be loaded: {reason}")
        }
    };
    Refusal {
        why,
        remedy: "scx_proxy doctor for what this kernel lacks; scx_proxy -vv for all that it says"
            .to_owned(),
    }
}

/// The last line of the verifier's log that is no statistics.
fn verifiers_reason<'a>(lines: &[&'a str]) -> Option<&'a str> {
    const STATISTICS: [&str; 4] = ["processed ", "verification time", "stack depth", "insns "];
    let end = lines
        .iter()
        .position(|line| line.contains("-- END PROG LOAD LOG --"))?;
    let told = lines[..end].iter().rev().map(|line| line.trim());
    told.filter(|line| !line.is_empty() && !line.contains("-- BEGIN PROG LOAD LOG --"))
        .find(|line| !STATISTICS.iter().any(|head| line.starts_with(head)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(said: &[&str]) -> String {
        let said: Vec<String> = said.iter().map(|text| (*text).to_owned()).collect();
        let refusal = refusal(&anyhow::anyhow!("Failed to load BPF program"), &said);
        let text = refusal.to_string();
        assert_eq!(text.lines().count(), 2, "{text}");
        refusal.why
    }

    #[test]
    fn a_refused_program_is_named_with_the_verifiers_reason() {
        let said = [
            "libbpf: prog 'proxy_dispatch': BPF program load failed: -E2BIG\n",
            "libbpf: prog 'proxy_dispatch': -- BEGIN PROG LOAD LOG --\n\
             12: (85) call bpf_map_lookup_elem#1\n\
             BPF program is too large. Processed 1000001 insn\n\
             processed 1000001 insns (limit 1000000) max_states_per_insn 30 total_states 9\n\
             -- END PROG LOAD LOG --\n",
            "libbpf: prog 'proxy_dispatch': failed to load: -E2BIG\n",
            "libbpf: failed to load object 'bpf_bpf'\n",
        ];
        assert_eq!(
            why(&said),
            "the kernel refuses the program proxy_dispatch: \
             BPF program is too large. Processed 1000001 insn (-E2BIG)"
        );
    }

    #[test]
    fn without_a_log_the_first_failure_is_the_reason() {
        assert!(why(&[]).contains("Failed to load BPF program"));
        let said = [
            "libbpf: Error in bpf_object__probe_loading(): -EPERM. Couldn't load trivial BPF program.\n",
            "libbpf: failed to load object 'bpf_bpf'\n",
        ];
        assert!(why(&said).contains("bpf_object__probe_loading(): -EPERM"));
        let said = [
            "libbpf: map 'cpu_ctxs': failed to create: -EPERM\n",
            "libbpf: failed to load object 'bpf_bpf'\n",
        ];
        assert_eq!(
            why(&said),
            "the programs cannot be loaded: map 'cpu_ctxs': failed to create: -EPERM"
        );
    }

    #[test]
    fn the_text_has_a_row_a_program_and_their_sum() {
        let program = |name: &str, verified_insns| Program {
            name: name.to_owned(),
            verified_insns,
        };
        let verified = Verified::new(4, vec![program("proxy_init", 90), program("proxy_tick", 9)]);
        let text = verified.to_text();
        let rows: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(rows[1], ["proxy_init", "90"]);
        assert_eq!(rows[3], ["total", "99"]);
        assert!(
            text.contains("these 2 programs, as for 4 possible CPUs"),
            "{text}"
        );
        let json: serde_json::Value =
            serde_json::from_str(&verified.to_json().expect("JSON")).expect("JSON");
        assert_eq!(json["verified_insns"], 99);
        assert_eq!(json["programs"][1]["name"], "proxy_tick");
    }
}
