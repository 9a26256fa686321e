// SPDX-License-Identifier: GPL-2.0-only
//! Time given by donors, as the C of the policy tells it: all of what it counts as donated, once, by whom and to
//! whom.

use std::cell::RefCell;
use std::rc::Rc;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use scx_proxy::abi;
use scx_proxy::model::program::Setup;
use scx_proxy::model::sim::Sim;

use crate::engine::policy::CoreC;
use crate::files;
use crate::generate;
use crate::policies::Shared;

const PROGRAMS: u32 = 100;

/// Runs `setup`; the time that was told, after it was compared with the time that was counted.
fn told_ns(setup: &Setup, what: &str) -> u64 {
    let core = Rc::new(RefCell::new(CoreC::new(&setup.config())));
    core.borrow_mut().events = Some(Vec::new());
    let mut sim = Sim::new(setup, Box::new(Shared(core.clone())));
    while sim.step().is_some() {}
    let mut core = core.borrow_mut();
    let events = core.events.take().expect("as above");
    let gave = events
        .iter()
        .filter(|event| event.kind == abi::proxy_event_kind_EVENT_GAVE);
    let mut told_ns = 0;
    for event in gave {
        assert!(
            event.pid != 0 && event.other != 0 && event.pid != event.other && event.value > 0,
            "{what}: {} gave {} to {}",
            event.pid,
            event.value,
            event.other
        );
        told_ns += event.value;
    }
    assert_eq!(
        told_ns,
        core.stat(abi::proxy_stat_STAT_DONATED_NS),
        "{what}"
    );
    told_ns
}

#[test]
fn all_time_that_is_donated_is_told_once() {
    let mut all_ns = 0;
    for path in files::all() {
        let scenario = files::read(&path).unwrap_or_else(|e| panic!("{e}"));
        let setup = scenario.setup().expect("read() has tried");
        all_ns += told_ns(&setup, &path.display().to_string());
    }
    let mut runner = TestRunner::deterministic();
    for nr in 0..PROGRAMS {
        let tree = generate::setup().new_tree(&mut runner).expect("a program");
        all_ns += told_ns(&tree.current(), &format!("program {nr}"));
    }
    assert!(all_ns > 1_000_000_000, "{all_ns}");
}
