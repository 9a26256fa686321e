// SPDX-License-Identifier: GPL-2.0-only
//! Two machines, one program, two policies: every step must be the same.

use crate::policies::MakePolicy;
use scx_proxy::model::kernel::Call;
use scx_proxy::model::policy::Config;
use scx_proxy::model::program::Setup;
use scx_proxy::model::sim::{Sim, Step};
use std::fmt::Write;

/// A policy by its name.
pub type Named = (&'static str, MakePolicy);

fn side(text: &mut String, name: &str, sim: &Sim, step: &Option<Step>) {
    let _ = writeln!(text, "{name}:");
    let Some(step) = step else {
        text.push_str("  is at its end\n");
        return;
    };
    let _ = writeln!(text, "  {:?} at {} ns", step.event, step.now);
    for call in &sim.world.calls {
        let _ = writeln!(text, "    {call:?}");
    }
    let _ = writeln!(
        text,
        "  own {} donated {}",
        step.view.own_ns, step.view.donated_ns
    );
    let _ = writeln!(text, "  donors {:?}", step.view.donors);
    let _ = writeln!(text, "  clocks {:?}", step.view.clocks);
    let _ = writeln!(text, "  keys {:?}", step.view.keys);
}

/// What the policy did, and not in which of two callbacks: one does at `enqueue` and `quiescent` what another one does at
/// `runnable` and `stopping` right before.
fn done(sim: &Sim) -> impl Iterator<Item = &Call> {
    let calls = sim.world.calls.iter();
    calls.filter(|call| {
        !matches!(
            call,
            Call::Runnable(..) | Call::Enqueue(..) | Call::Stopping(..) | Call::Quiescent(..)
        )
    })
}

/// Runs both to the end; the number of steps, or the first one that differs, seen
/// from both sides.
pub fn compare(setup: &Setup, a: Named, b: Named) -> Result<u64, String> {
    compare_with(setup.config(), setup, a, b)
}

/// The same with other tunables.
pub fn compare_with(config: Config, setup: &Setup, a: Named, b: Named) -> Result<u64, String> {
    let mut one = Sim::new(setup, (a.1)(config.clone()));
    let mut two = Sim::new(setup, (b.1)(config));
    for number in 0.. {
        let (left, right) = (one.step(), two.step());
        if left != right || left.is_some() && !done(&one).eq(done(&two)) {
            let mut text = format!("step {number}, seed {}, differs\n", setup.seed);
            side(&mut text, a.0, &one, &left);
            side(&mut text, b.0, &two, &right);
            return Err(text);
        }
        if left.is_none() {
            return Ok(number);
        }
    }
    unreachable!("the loop has no end of its own")
}

#[test]
fn a_difference_is_found_and_shown() {
    use crate::{files, policies::policies};
    use scx_proxy::model::reference::Reference;
    let path = files::folder().join("owner-on-another-cpu.toml");
    let setup = files::read(&path)
        .expect("a scenario")
        .setup()
        .expect("a setup");
    let hasty: MakePolicy = |cfg| {
        Box::new(Reference::new(Config {
            slice_ns: 2_000_000,
            ..cfg
        }))
    };
    let text = compare(&setup, policies()[0], ("hasty", hasty)).expect_err("they differ");
    assert!(
        text.contains("reference:") && text.contains("hasty:"),
        "{text}"
    );
    assert!(text.contains("InsertVtime"), "{text}");
}
