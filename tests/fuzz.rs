// SPDX-License-Identifier: GPL-2.0-only
//! What the fuzzers (`fuzz/`) begin with, and what they found: every input that is kept goes through the
//! same code here, without a fuzzer. See CONTRIBUTING.md, Fuzzers.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use scx_proxy::fuzz::{self, TARGETS};

const FUZZ: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz");
/// Of all seeds together: they are in the repository.
const BYTES_MAX: u64 = 500_000;
/// One input takes no longer, also where others use this machine.
const INPUT_MAX: Duration = Duration::from_secs(10);

fn seeds(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(FUZZ).join("seeds").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut all: Vec<_> = entries.map(|entry| entry.expect("read").path()).collect();
    all.sort();
    all
}

fn check(target: &str) {
    let seeds = seeds(target);
    assert!(seeds.len() >= 2, "{target} has no seeds");
    let mut failed = Vec::new();
    for path in &seeds {
        let input = fs::read(path).expect("a seed");
        let begun = Instant::now();
        let run = catch_unwind(AssertUnwindSafe(|| fuzz::run(target, &input)));
        if run.is_err() || begun.elapsed() > INPUT_MAX {
            failed.push((path.display().to_string(), begun.elapsed()));
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

macro_rules! targets {
    ($($target:ident)*) => {
        $(#[test]
        fn $target() {
            check(stringify!($target));
        })*

        #[test]
        fn every_target_has_a_fuzzer_seeds_and_a_test() {
            let tested = [$(stringify!($target)),*];
            assert_eq!(tested, TARGETS.map(|target| target.name));
            let manifest = fs::read_to_string(Path::new(FUZZ).join("Cargo.toml")).expect("a manifest");
            for target in tested {
                let fuzzer = format!("{FUZZ}/fuzz_targets/{target}.rs");
                let text = fs::read_to_string(&fuzzer).unwrap_or_else(|e| panic!("{fuzzer}: {e}"));
                assert!(text.contains(&format!("(\"{target}\", ")), "{fuzzer}");
                assert!(manifest.contains(&format!("name = \"{target}\"")), "{target}");
            }
            let folders = fs::read_dir(Path::new(FUZZ).join("seeds")).expect("seeds");
            assert_eq!(folders.count(), tested.len());
        }
    };
}

targets! { recording batch elf symbol proc stats answers config }

#[test]
fn seeds_are_small() {
    let all = TARGETS.iter().flat_map(|target| seeds(target.name));
    let bytes: u64 = all.map(|path| path.metadata().expect("a file").len()).sum();
    assert!(bytes <= BYTES_MAX, "{bytes} bytes of seeds");
}
