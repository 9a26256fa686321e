// SPDX-License-Identifier: GPL-2.0-only
//! Directed yields, staged by what makes them: two virtual CPUs of a small machine of KVM, of which one calls for
//! the other again and again (`KVM_HC_SCHED_YIELD`, Documentation/virt/kvm/x86/hypercalls.rst).

use std::sync::mpsc;
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

use libtest_mimic::Failed;

use crate::Test;
use crate::kvm::{self, Machine};
use crate::load::{Load, cpu_time_ns};
use crate::machine::{ensure, wait_for};
use crate::sched::{self, Stats};
use crate::stage::{set_affinity, set_nice};

pub const TESTS: &[Test] = &[
    ("yields::lend_on_the_same_cpu", || lend([0, 0])),
    ("yields::lend_on_another_cpu", || lend([0, 1])),
];

const PATIENCE: Duration = Duration::from_secs(60);
/// Once it has run for so long it has started.
const HOG_RUNS_NS: u64 = 300_000_000;
const WINDOW: Duration = Duration::from_secs(4);

/// Why `test` cannot run on this machine.
pub fn unfit(test: &str) -> Option<&'static str> {
    (test.starts_with("yields::") && !kvm::is_there()).then_some("this kernel has no KVM here")
}

/// A thread that is a virtual CPU, and its thread id. It runs its program when it is handed out.
struct VirtualCpu {
    tid: u32,
    thread: JoinHandle<Result<(), Failed>>,
}

fn start(machine: &Machine, code: &[u8], cpu: usize, nice: i32) -> Result<VirtualCpu, Failed> {
    let nr = machine.nr_vcpus();
    let mut vcpu = machine.vcpu(code)?;
    let (send, receive) = mpsc::channel();
    let thread = spawn(move || {
        // SAFETY: no arguments.
        let tid = unsafe { libc::gettid() } as u32;
        send.send(tid)?;
        Ok(vcpu.run()?)
    });
    let tid = receive.recv()?;
    wait_for("a virtual CPU to run", PATIENCE, || {
        machine.has_run(nr) || thread.is_finished()
    })?;
    // not before: at nice 19 it would take long to get that far
    set_affinity(tid, 1 << cpu)?;
    set_nice(tid, nice)?;
    Ok(VirtualCpu { tid, thread })
}

/// What each of `tids` runs in the window.
fn run_ns<const N: usize>(tids: [&str; N]) -> Result<[u64; N], Failed> {
    let look = || -> Result<[u64; N], Failed> {
        let mut ns = [0; N];
        for (ns, tid) in ns.iter_mut().zip(tids) {
            *ns = cpu_time_ns(tid)?;
        }
        Ok(ns)
    };
    let before = look()?;
    sleep(WINDOW);
    let mut ran = look()?;
    for (ran, before) in ran.iter_mut().zip(before) {
        *ran -= before;
    }
    Ok(ran)
}

/// The caller (nice 0) and the called one (nice 19) are on these CPUs, each beside a hog of nice 0: without a
/// donation the called one would have 1.5 % of that.
fn lend(cpus: [usize; 2]) -> Result<(), Failed> {
    sched::with(&[], || {
        let mut stats = Stats::open()?;
        let mut load = Load::default();
        let machine = Machine::new()?;
        let caller = start(&machine, kvm::CALLS_FOR_SECOND, cpus[0], 0)?;
        let called = start(&machine, kvm::SPINS, cpus[1], 19)?;
        let mut hog = load.hog(cpus[0], 0)?;
        if cpus[0] != cpus[1] {
            hog = load.hog(cpus[1], 0)?;
        }
        wait_for("the hog to run", PATIENCE, || {
            cpu_time_ns(hog).is_ok_and(|ns| ns > HOG_RUNS_NS)
        })?;
        let tid = |v: &VirtualCpu| format!("self/task/{}", v.tid);
        stats.delta()?;
        let ran = run_ns([&tid(&caller), &tid(&called), &hog.to_string()]);
        let metrics = stats.delta()?;
        machine.stop();
        for vcpu in [caller, called] {
            let ended = vcpu.thread.join().map_err(|_| "a virtual CPU panicked")?;
            ended?;
        }
        let [caller, called, hog] = ran?;
        let (yields, donations) = (metrics.yields_to, metrics.donations_yield);
        println!(
            "{yields} directed yields, {donations} donations; ran in ms: caller {}, called {}, hog {}",
            caller / 1_000_000,
            called / 1_000_000,
            hog / 1_000_000
        );
        ensure(donations > 0, || "nothing was lent".into())?;
        ensure(donations <= yields, || {
            "more was lent than was asked for".into()
        })?;
        let all = called + hog + if cpus[0] == cpus[1] { caller } else { 0 };
        ensure(called * 8 > all, || {
            "the called one had hardly anything".into()
        })?;
        ensure(hog * 5 > all * 2, || {
            "the hog beside them paid for it".into()
        })
    })
}
