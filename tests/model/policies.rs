// SPDX-License-Identifier: GPL-2.0-only
//! The policies under test. What holds for one must hold for all, and they must
//! agree with the first, step by step.

use crate::engine::policy::CoreC;
use scx_proxy::model::policy::{
    Config, Cpu, DeqFlags, EnqFlags, Group, Kernel, Pid, Policy, View, WakeKind,
};
use scx_proxy::model::reference::Reference;
use std::cell::RefCell;
use std::rc::Rc;

/// A policy that somebody else looks into.
pub struct Shared(pub Rc<RefCell<CoreC>>);

impl Policy for Shared {
    fn enable(&mut self, k: &mut dyn Kernel, t: Pid) {
        self.0.borrow_mut().enable(k, t)
    }
    fn group_begin(&mut self, g: Group, parent: Group, shares: u32) {
        self.0.borrow_mut().group_begin(g, parent, shares)
    }
    fn group_move(&mut self, k: &mut dyn Kernel, t: Pid, g: Group) {
        self.0.borrow_mut().group_move(k, t, g)
    }
    fn disable(&mut self, k: &mut dyn Kernel, t: Pid) {
        self.0.borrow_mut().disable(k, t)
    }
    fn select_cpu(&mut self, k: &mut dyn Kernel, t: Pid, prev_cpu: Cpu, kind: WakeKind) -> Cpu {
        self.0.borrow_mut().select_cpu(k, t, prev_cpu, kind)
    }
    fn update_idle(&mut self, k: &mut dyn Kernel, cpu: Cpu, idle: bool) {
        self.0.borrow_mut().update_idle(k, cpu, idle)
    }
    fn runnable(&mut self, k: &mut dyn Kernel, t: Pid, flags: EnqFlags) {
        self.0.borrow_mut().runnable(k, t, flags)
    }
    fn enqueue(&mut self, k: &mut dyn Kernel, t: Pid, cpu: Cpu, flags: EnqFlags) {
        self.0.borrow_mut().enqueue(k, t, cpu, flags)
    }
    fn dispatch(&mut self, k: &mut dyn Kernel, cpu: Cpu, prev: Option<Pid>) {
        self.0.borrow_mut().dispatch(k, cpu, prev)
    }
    fn running(&mut self, k: &mut dyn Kernel, t: Pid) {
        self.0.borrow_mut().running(k, t)
    }
    fn stopping(&mut self, k: &mut dyn Kernel, t: Pid, runnable: bool) {
        self.0.borrow_mut().stopping(k, t, runnable)
    }
    fn quiescent(&mut self, k: &mut dyn Kernel, t: Pid, flags: DeqFlags) {
        self.0.borrow_mut().quiescent(k, t, flags)
    }
    fn tick(&mut self, k: &mut dyn Kernel, t: Pid) {
        self.0.borrow_mut().tick(k, t)
    }
    fn yields(&mut self, k: &mut dyn Kernel, t: Pid) {
        self.0.borrow_mut().yields(k, t)
    }
    fn yields_to(&mut self, k: &mut dyn Kernel, t: Pid, to: Pid) -> bool {
        self.0.borrow_mut().yields_to(k, t, to)
    }
    fn hrtick(&mut self, k: &mut dyn Kernel, cpu: Cpu) {
        self.0.borrow_mut().hrtick(k, cpu)
    }
    fn timer(&mut self, k: &mut dyn Kernel) {
        self.0.borrow_mut().timer(k)
    }
    fn contention_begin(&mut self, k: &mut dyn Kernel, t: Pid, cpu: Cpu) {
        self.0.borrow_mut().contention_begin(k, t, cpu)
    }
    fn contention_end(&mut self, k: &mut dyn Kernel, t: Pid) {
        self.0.borrow_mut().contention_end(k, t)
    }
    fn view(&self) -> View {
        self.0.borrow().view()
    }
}

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
