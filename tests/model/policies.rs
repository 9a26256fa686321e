//! The policies under test. What holds for one must hold for all, and they must
//! agree with the first, step by step.

use crate::engine::policy::CoreC;
use scx_proxy::model::policy::{Config, Policy};
use scx_proxy::model::reference::Reference;

/// Makes a policy for a machine.
pub type MakePolicy = fn(Config) -> Box<dyn Policy>;

/// All of them; the reference first.
pub fn policies() -> Vec<(&'static str, MakePolicy)> {
    vec![
        ("reference", |cfg| Box::new(Reference::new(cfg))),
        // bpf/core, compiled for the host
        ("core", |cfg| Box::new(CoreC::new(&cfg))),
    ]
}
