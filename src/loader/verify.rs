// SPDX-License-Identifier: GPL-2.0-only
//! The scheduler's programs before the kernel's verifier: loaded as the loader does, attached to
//! nothing, and gone again. Whatever else schedules is not disturbed.

use std::mem::MaybeUninit;

use anyhow::{Context, Result};
use libbpf_rs::skel::Skel;
use serde::Serialize;

use super::programs;
use super::refused;
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

    /// For a person: a row per program, and the sum.
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

/// Load what `opts` ask for as for a machine with `cpus` possible CPUs, this one unless given.
///
/// # Errors
/// What the kernel or libbpf refused, as a [`crate::doctor::checks::Refusal`].
pub fn verify(opts: &Opts, cpus: Option<u32>) -> Result<Verified> {
    let cpus = cpus.map_or_else(cpu_ids, Ok)?;
    scx_utils::try_set_rlimit_infinity();
    refused::listen();
    let mut object = MaybeUninit::uninit();
    let loaded = prepare(opts, cpus, &mut object).and_then(load);
    let skel = loaded.map_err(|error| refused::to_load(&error))?;
    Ok(Verified::new(cpus, programs(&skel)?))
}

fn programs(skel: &BpfSkel) -> Result<Vec<Program>> {
    let programs = skel.object().progs().filter(|program| program.autoload());
    let verified = programs.map(|program| {
        let name = program.name().to_string_lossy().into_owned();
        let info = programs::info(&program).with_context(|| name.clone())?;
        Ok(Program {
            name,
            verified_insns: info.verified_insns,
        })
    });
    verified.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
