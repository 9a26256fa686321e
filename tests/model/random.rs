// SPDX-License-Identifier: GPL-2.0-only
//! Random programs, on every policy, with all invariants checked after each step.
//! What fails is made smaller and kept as a scenario file.

use crate::policies::policies;
use crate::{files, generate, lockstep};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config as RunnerConfig, RngAlgorithm, TestRng, TestRunner};
use scx_proxy::model::observe::Tally;
use scx_proxy::model::policy::Config;
use scx_proxy::model::program::Setup;
use scx_proxy::model::verdict::{run, scenario_of};
use std::cell::Cell;

/// Attempts to make a failing program smaller.
const SHRINK_STEPS: usize = 3000;

fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|e| panic!("{name}={text}: {e}")),
        Err(_) => default,
    }
}

fn seed() -> u64 {
    number("SCX_PROXY_SEED", 1)
}

/// Steps that a test has at the least; without optimization a smaller part of it.
fn least_steps() -> u64 {
    number(
        "SCX_PROXY_STEPS",
        if cfg!(debug_assertions) {
            50_000
        } else {
            1_000_000
        },
    )
}

/// Programs that a test tries at the least, so that steps are not all of one kind.
fn least_programs() -> u64 {
    if cfg!(debug_assertions) { 50 } else { 1_000 }
}

fn runner(seed: u64) -> TestRunner {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    TestRunner::new_with_rng(RunnerConfig::default(), rng)
}

/// Makes the program of `tree`, on which `check` fails, as small as it gets; that and
/// what it says then.
fn shrink<T: ValueTree<Value = Setup>>(
    tree: &mut T,
    check: &dyn Fn(&Setup) -> Result<u64, String>,
    mut error: String,
) -> (Setup, String) {
    let mut smallest = tree.current();
    for _ in 0..SHRINK_STEPS {
        let setup = tree.current();
        let goes_on = match check(&setup) {
            Err(e) => {
                (smallest, error) = (setup, e);
                tree.simplify()
            }
            Ok(_) => tree.complicate(),
        };
        if !goes_on {
            break;
        }
    }
    (smallest, error)
}

/// Tries programs until there were enough steps; `check` runs one.
fn try_many(name: &str, check: &dyn Fn(&Setup) -> Result<u64, String>) {
    let seed = seed();
    let mut runner = runner(seed);
    let (mut steps, mut programs) = (0, 0);
    let began = std::time::Instant::now();
    while steps < least_steps() || programs < least_programs() {
        let mut tree = generate::setup().new_tree(&mut runner).expect("a program");
        match check(&tree.current()) {
            Ok(n) => steps += n,
            Err(e) => {
                let (setup, e) = shrink(&mut tree, check, e);
                let path = files::keep(&scenario_of(&setup, name, &e));
                panic!(
                    "{name}, SCX_PROXY_SEED={seed}, program {programs}, kept as {}:\n{e}",
                    path.display()
                );
            }
        }
        programs += 1;
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("{name}: SCX_PROXY_SEED={seed}, {programs} programs, {steps} steps, {seconds:.1} s");
}

#[test]
fn invariants_hold_for_programs_by_chance() {
    for (name, make) in policies() {
        let tally = Cell::new(Tally::default());
        let check = |setup: &Setup| {
            let ran = run(setup, make(setup.config()))?;
            let mut sum = tally.get();
            sum += ran.observed.tally;
            tally.set(sum);
            Ok(ran.steps)
        };
        try_many(&format!("invariants-{name}"), &check);
        println!("{:?}", tally.get());
        let missing = tally.get().missing();
        assert!(missing.is_empty(), "never happened: {missing:?}");
    }
}

#[test]
fn policies_agree_on_programs_by_chance() {
    for other in &policies()[1..] {
        let name = format!("lockstep-{}", other.0);
        try_many(&name, &|setup| {
            lockstep::compare(setup, policies()[0], *other)?;
            let observed = Config {
                donate: false,
                ..Config::new(setup.nr_cpus)
            };
            lockstep::compare_with(observed, setup, policies()[0], *other)
        });
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let make = policies()[0];
    let mut runner = runner(seed());
    for _ in 0..10 {
        let setup = generate::setup()
            .new_tree(&mut runner)
            .expect("a program")
            .current();
        lockstep::compare(&setup, make, make).unwrap_or_else(|e| panic!("{e}"));
    }
}
