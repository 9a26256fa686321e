// SPDX-License-Identifier: GPL-2.0-only
//! What the kernel's verifier says of the programs, without a scheduler that is loaded.

use std::process::{Command, Output};

use libtest_mimic::Failed;

use crate::Test;
use crate::machine::{ensure, sched_ext_state};
use crate::sched::SCX_PROXY;

/// Before the others: they need no scheduler.
pub const TESTS: &[Test] = &[
    (
        "verify::costs_the_same_for_any_number_of_cpus",
        costs_the_same,
    ),
    ("verify::a_refusal_is_two_lines", a_refusal_is_two_lines),
];

fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// How many instructions the verifier looked at, as for `cpus` possible CPUs.
fn verified(cpus: &str) -> Result<f64, Failed> {
    let out = Command::new(SCX_PROXY)
        .args(["doctor", "--verify", "--json", "--verify-cpus", cpus])
        .output()?;
    ensure(out.status.success(), || {
        format!("{cpus} CPUs: {}", said(&out))
    })?;
    let json: serde_json::Value = serde_json::from_slice(&out.stdout)?;
    let programs = json["programs"].as_array().ok_or("no programs")?;
    let dispatch = programs.iter().any(|p| p["name"] == "proxy_dispatch");
    ensure(
        dispatch && json["cpus"].as_u64() == cpus.parse().ok(),
        || json.to_string(),
    )?;
    let total = json["verified_insns"].as_f64().ok_or("no sum")?;
    println!("{cpus} CPUs: {total} instructions verified");
    Ok(total)
}

/// A program whose cost grows with the machine is refused by a large one.
fn costs_the_same() -> Result<(), Failed> {
    let of_4 = verified("4")?;
    for cpus in ["1", "64", "512"] {
        let total = verified(cpus)?;
        ensure((total / of_4 - 1.0).abs() < 0.02, || {
            format!("{total} instructions for {cpus} CPUs, {of_4} for 4")
        })?;
    }
    ensure(sched_ext_state() == "disabled", || {
        "something was attached".to_owned()
    })
}

/// Root without the right to load programs.
fn a_refusal_is_two_lines() -> Result<(), Failed> {
    let out = Command::new("setpriv")
        .args(["--bounding-set=-bpf,-sys_admin", "--inh-caps=-all", "--"])
        .args([SCX_PROXY, "doctor", "--verify"])
        .output()?;
    let said = said(&out);
    ensure(out.status.code() == Some(1), || {
        format!("{}: {said}", out.status)
    })?;
    let clear = said.contains("lacks CAP_BPF");
    ensure(
        clear && said.lines().count() == 2 && said.contains("\n  try: "),
        || said.clone(),
    )
}
