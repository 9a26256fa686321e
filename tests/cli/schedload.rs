// SPDX-License-Identifier: GPL-2.0-only
//! `schedload` on this machine, under whatever scheduler it has: loads of a moment, and what is refused.

use std::process::{Command, Output};

use crate::text;

fn schedload(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_schedload"))
        .args(args)
        .output()
        .expect("runs")
}

/// The report of a load of 0.2 s.
fn report(args: &[&str]) -> serde_json::Value {
    report_after("0.2", args)
}

fn report_after(secs: &str, args: &[&str]) -> serde_json::Value {
    let out = schedload(&[args, &["--secs", secs, "--settle", "0.05"]].concat());
    assert_eq!(out.status.code(), Some(0), "{args:?}: {out:?}");
    assert!(out.stderr.is_empty(), "{args:?}: {}", text(&out.stderr));
    serde_json::from_slice(&out.stdout).expect("one JSON object")
}

#[test]
fn spinners_share_a_cpu() {
    let report = report(&["spin", "--spec", "2@0", "1xidle@0"]);
    let groups = report["groups"].as_array().expect("groups");
    let counts: Vec<_> = groups.iter().map(|g| g["count"].as_u64()).collect();
    assert_eq!(counts, [Some(2), Some(1)]);
    assert_eq!(groups[0]["spinners"].as_array().map(Vec::len), Some(2));
    let all: f64 = groups
        .iter()
        .flat_map(|group| group["spinners"].as_array().expect("spinners"))
        .map(|spinner| spinner["share"].as_f64().expect("a share"))
        .sum();
    assert!(all > 0.0 && all < 1.1, "{all} of one CPU: {report}");
}

#[test]
fn sleepers_wake_and_are_counted() {
    let report = report(&["sleepers", "--count", "2", "--sleep-us", "2000"]);
    let samples = report["sleepers"]["lateness"]["samples"].as_u64();
    assert!(samples.is_some_and(|n| (1..=200).contains(&n)), "{report}");
    assert_eq!(report["sleepers"]["dropped"], 0);
}

#[test]
fn pairs_make_the_rounds_that_are_asked_for() {
    let out = schedload(&["pipe", "--pairs", "2", "--rounds", "50", "--settle", "0.05"]);
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
    assert_eq!(report["pipe"]["rounds"], 100, "{report}");
}

#[test]
fn forks_are_counted() {
    let report = report(&["forks", "--jobs", "1", "--child-us", "1000"]);
    let rate = report["forks"]["forks_per_sec"].as_f64();
    assert!(
        rate.is_some_and(|rate| rate > 0.0 && rate <= 1000.0),
        "{report}"
    );
}

/// All of a CPU's work is due twice, and a queue has room for some of it.
#[test]
fn requests_that_find_no_room_are_lost_and_counted() {
    // who makes the requests has to get a CPU for that, on a busy machine as well
    let args = ["requests", "--load", "200", "--work-us", "500"];
    let report = report_after("2", &args);
    let requests = &report["requests"];
    let per_sec = |name: &str| requests[name].as_f64().expect("a rate");
    assert!(per_sec("requests_per_sec") > 0.0, "{report}");
    // twice of what there is CPU time for
    let cpus = report["cpus"].as_f64().expect("CPUs");
    assert!(
        per_sec("requests_per_sec") < 1.2 * cpus / 500e-6,
        "{report}"
    );
    assert!(per_sec("lost_per_sec") > 0.0, "{report}");
    assert!(
        requests["request"]["samples"].as_u64() > Some(0),
        "{report}"
    );
}

#[test]
fn frames_take_three_stages_and_are_late_if_a_period_is_too_short() {
    let wide = report(&["frames", "--period-us", "50000", "--stage-us", "500"]);
    let p50_us = wide["frames"]["frame"]["p50_us"].as_f64();
    assert!(p50_us.is_some_and(|us| us >= 1500.0), "{wide}");
    let narrow = report(&["frames", "--period-us", "1000", "--stage-us", "1000"]);
    assert_eq!(narrow["frames"]["late_share"], 1.0, "{narrow}");
}

#[test]
fn an_item_takes_what_it_takes_to_consume_it() {
    let report = report(&["produce", "--produce-us", "100", "--consume-us", "2000"]);
    let rate = report["produce"]["items_per_sec"].as_f64();
    assert!(
        rate.is_some_and(|rate| rate > 0.0 && rate <= 550.0),
        "{report}"
    );
}

#[test]
fn what_cannot_be_done_is_said() {
    for (args, says) in [
        (
            &["spin", "--spec", "1x20"][..],
            "nice 20 is not in -20..=19",
        ),
        (&["spin", "--spec", "many"], "COUNT[xNICE|xidle][@CPULIST]"),
        (
            &["spin", "--spec", "1@1023"],
            "schedload: CPU 1023 cannot be used",
        ),
        (
            &["sleepers", "--cpus", "0,1023"],
            "CPU 1023 cannot be used: there are",
        ),
        (&["pipe", "--cpus", "0-"], "\"\" is no CPU"),
        (&["spin"], "--spec"),
        (&[], "Usage: schedload <COMMAND>"),
    ] {
        let out = schedload(args);
        assert_eq!(out.status.code(), Some(1), "{args:?}");
        let said = text(&out.stderr);
        assert!(said.contains(says), "{args:?}: {said}");
        assert!(out.stdout.is_empty(), "{args:?}");
    }
}
