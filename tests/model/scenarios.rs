// SPDX-License-Identifier: GPL-2.0-only
//! Every scenario file on every policy.

use crate::{files, lockstep, policies::policies};
use scx_proxy::model::verdict::judge;

#[test]
fn every_scenario_is_as_expected_on_every_policy() {
    let mut wrong = Vec::new();
    let paths = files::all();
    assert!(
        paths.len() >= 20,
        "{} scenarios in {}",
        paths.len(),
        files::folder().display()
    );
    for path in paths {
        let name = path.display();
        match files::read(&path) {
            Err(e) => wrong.push(e),
            Ok(scenario) => {
                for (policy, make) in policies() {
                    if let Err(e) = judge(&scenario, make) {
                        wrong.push(format!("{name}, {policy}: {e}"));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n\n"));
}

#[test]
fn policies_agree_on_every_scenario() {
    for path in files::all() {
        let scenario = files::read(&path).unwrap_or_else(|e| panic!("{e}"));
        let setup = scenario.setup().expect("read() has tried");
        for other in &policies()[1..] {
            let compared = lockstep::compare(&setup, policies()[0], *other);
            compared.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        }
    }
}

#[test]
fn a_scenario_survives_being_written() {
    for path in files::all() {
        let scenario = files::read(&path).unwrap_or_else(|e| panic!("{e}"));
        let text = toml::to_string_pretty(&scenario).expect("it can be written");
        assert_eq!(files::parse(&path, &text), Ok(scenario));
    }
}

/// `SCX_PROXY_TRACE=<file> cargo test --test model show -- --ignored --nocapture`
#[test]
#[ignore = "prints every step of the scenario file that SCX_PROXY_TRACE names"]
fn show() {
    use scx_proxy::model::invariants::Checker;
    use scx_proxy::model::sim::Sim;
    let path = std::env::var("SCX_PROXY_TRACE").expect("SCX_PROXY_TRACE names a file");
    let scenario = files::read(path.as_ref()).unwrap_or_else(|e| panic!("{e}"));
    let setup = scenario.setup().expect("read() has tried");
    let mut sim = Sim::new(&setup, policies()[0].1(scenario.config()));
    let mut checker = Checker::default();
    while let Some(step) = sim.step() {
        println!("{} {} {:?}", step.number, step.now, step.event);
        for call in &sim.world.calls {
            println!("    {call:?}");
        }
        for donor in &step.view.donors {
            println!("  {donor:?}");
        }
        println!("  clocks {:?} keys {:?}", step.view.clocks, step.view.keys);
        checker.check(&sim, &step).unwrap_or_else(|e| panic!("{e}"));
    }
}

/// `cargo test --test model outcomes -- --ignored --nocapture`
#[test]
#[ignore = "prints what comes of each scenario"]
fn outcomes() {
    use scx_proxy::model::verdict::run;
    for path in files::all() {
        let scenario = files::read(&path).unwrap_or_else(|e| panic!("{e}"));
        let setup = scenario.setup().expect("read() has tried");
        println!("== {}", scenario.name);
        match run(&setup, policies()[0].1(scenario.config())) {
            Err(e) => println!("  {e}"),
            Ok(ran) => {
                let name = |pid: u32| scenario.tasks[pid as usize - 1].name.as_str();
                for d in &ran.observed.donations {
                    println!(
                        "  {} lends to {} on {}",
                        name(d.donor),
                        name(d.owner),
                        d.cpu
                    );
                }
                for m in &ran.observed.migrations {
                    println!("  context of {}: {} to {}", name(m.donor), m.from, m.to);
                }
                for w in &ran.observed.waits {
                    let lock = &scenario.locks[w.lock].name;
                    let end = w.ended.map(|end| end as f64 / 1e6);
                    let (began, factor) = (w.began as f64 / 1e6, w.factor());
                    let what = format!("{began:.2} to {end:.2?}, factor {factor:.2?}");
                    println!(
                        "  {} waits for {lock}, {what}, {}",
                        name(w.task),
                        w.acquired
                    );
                }
                for t in ran.sim.world.pids() {
                    let task = ran.sim.world.task(t);
                    println!("  {} ends {:?} on {}", name(t), task.state, task.cpu);
                }
            }
        }
    }
}
