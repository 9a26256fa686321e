// SPDX-License-Identifier: GPL-2.0-only
//! What `scripts/bench` says of measurements that were kept: which differences it claims, and which it does not.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::text;

const PYTHON: &str = "/usr/bin/python3";

fn bench(args: &[&str]) -> Output {
    // the program behind the script, which would see to the set-up first
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/lib/bench.py");
    let mut command = Command::new(PYTHON);
    command.arg("-B").arg(program).args(args);
    command.output().expect("runs")
}

fn runs(metric: &str, values: &[f64]) -> Value {
    values
        .iter()
        .map(|value| json!({ metric: value }))
        .collect()
}

fn kept(name: &str, cpus: u32, works: Value) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let whole = json!({
        "kernel": "7.3.4", "accel": "tcg", "cpus": cpus, "clock": "virtual", "even_us": 200, "secs_scale": 1.0,
        "schedulers": ["default", "scx_proxy", "scx_lavd 1.1.4"],
        "runs": works,
    });
    fs::write(&path, whole.to_string()).expect("written");
    path
}

fn row(table: &str, work: &str) -> Vec<String> {
    let line = table.lines().find(|line| line.contains(work));
    let cells = line.unwrap_or_else(|| panic!("no {work}: {table}"));
    cells.split('|').map(|cell| cell.trim().into()).collect()
}

#[test]
fn a_difference_within_the_spread_is_none() {
    if !Path::new(PYTHON).exists() {
        return;
    }
    let works = json!({
        // worse in the median, but its best run is as good as a run of the other
        "hackbench-pipes": {
            "default": runs("time, s", &[1.0, 1.1, 1.2]),
            "scx_proxy": runs("time, s", &[1.2, 1.3, 1.4]),
            "scx_lavd": runs("time, s", &[0.5, 0.6, 0.7]),
        },
        // a rate: more is better
        "produce": {
            "default": runs("items, /s", &[100.0, 101.0, 102.0]),
            "scx_proxy": runs("items, /s", &[200.0, 202.0, 204.0]),
            "scx_lavd": [{ "failed": "it was thrown out" }],
        },
        // two runs have no spread
        "forks": {
            "default": runs("forks, /s", &[100.0, 101.0]),
            "scx_proxy": runs("forks, /s", &[200.0, 202.0]),
        },
    });
    let file = kept("bench-kept.json", 4, works);
    let out = bench(&["--from", file.to_str().expect("a path")]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let table = text(&out.stdout);
    let pipes = row(&table, "hackbench-pipes");
    assert_eq!(
        pipes[3..8],
        [
            "1.10 (1.00-1.20)",
            "1.30 (1.20-1.40)",
            "0.600 (0.500-0.700)",
            "no difference",
            "scx_lavd: 2.17, worse"
        ]
    );
    let produce = row(&table, "produce");
    assert_eq!(produce[6..8], ["2.00, better", "default: 2.00, better"]);
    assert_eq!(row(&table, "forks")[6], "no difference");
    assert!(
        table.contains("scx_lavd, produce: 1 of 1 runs failed: it was thrown out"),
        "{table}"
    );
}

#[test]
fn rounds_of_several_guests_add_up_if_the_guests_are_alike() {
    if !Path::new(PYTHON).exists() {
        return;
    }
    let works = || json!({ "forks": { "default": runs("forks, /s", &[100.0, 103.0]) } });
    let files = [
        ("bench-a.json", 4),
        ("bench-b.json", 4),
        ("bench-c.json", 8),
    ];
    let paths = files.map(|(name, cpus)| kept(name, cpus, works()).display().to_string());
    let out = bench(&["--from", &paths[0], &paths[1]]);
    assert!(text(&out.stdout).contains("of 4 runs"), "{out:?}");
    let out = bench(&["--from", &paths[0], &paths[2]]);
    assert_eq!(out.status.code(), Some(1));
    assert!(text(&out.stderr).contains("cpus is 8 and 4"), "{out:?}");
}
