// SPDX-License-Identifier: GPL-2.0-only
//! Runs a scenario on a policy, checks the invariants after each step, and compares
//! what came of it with what was expected; and the way back, from a run to a scenario.

use super::invariants::Checker;
use super::kernel::State;
use super::observe::{Donation, Observer};
use super::policy::{Config, Group, Policy};
use super::program::{Class, CpuMask, External, Op, Setup};
use super::scenario::{
    ExpectCpuTime, ExpectFinal, ExpectWait, NamedEvent, NamedGroup, NamedLock, NamedTask, Problem,
    Scenario, problem,
};
use super::sim::Sim;

/// A run that is over.
pub struct Ran {
    /// The machine as it is then.
    pub sim: Sim,
    /// What was observed.
    pub observed: Observer,
    /// How many steps it took.
    pub steps: u64,
}

/// Runs `setup` to its end; an error if an invariant breaks.
pub fn run(setup: &Setup, policy: Box<dyn Policy>) -> Result<Ran, String> {
    let mut sim = Sim::new(setup, policy);
    let mut checker = Checker::default();
    let mut observed = Observer::default();
    let mut steps = 0;
    while let Some(step) = sim.step() {
        observed.note(&sim, &step);
        checker.check(&sim, &step).map_err(|v| v.to_string())?;
        steps += 1;
    }
    Ok(Ran {
        sim,
        observed,
        steps,
    })
}

/// Runs a scenario, and compares; an error says all that is not as expected.
pub fn judge(
    scenario: &Scenario,
    policy: impl FnOnce(Config) -> Box<dyn Policy>,
) -> Result<Ran, String> {
    let setup = scenario.setup().map_err(|p| p.to_string())?;
    let ran = run(&setup, policy(scenario.config()))?;
    let wrong = differences(scenario, &ran).map_err(|p| p.to_string())?;
    if wrong.is_empty() {
        Ok(ran)
    } else {
        Err(wrong.join("\n"))
    }
}

fn differences(scenario: &Scenario, ran: &Ran) -> Result<Vec<String>, Problem> {
    let mut wrong = Vec::new();
    wrong.extend(donations(scenario, ran)?);
    wrong.extend(migrations(scenario, ran)?);
    for expected in &scenario.expect.waits {
        wrong.extend(wait(scenario, expected, ran)?);
    }
    for expected in &scenario.expect.cpu_time {
        wrong.extend(cpu_time(scenario, expected, ran)?);
    }
    for expected in &scenario.expect.final_state {
        wrong.extend(final_state(scenario, expected, ran)?);
    }
    Ok(wrong)
}

fn donations(scenario: &Scenario, ran: &Ran) -> Result<Option<String>, Problem> {
    let Some(expected) = &scenario.expect.donations else {
        return Ok(None);
    };
    let happened = &ran.observed.donations;
    let mut same = expected.len() == happened.len();
    for (e, h) in expected.iter().zip(happened) {
        let Donation { donor, owner, cpu } = *h;
        let cpus_agree = e.cpu.is_none_or(|wanted| wanted == cpu);
        same &= scenario.pid(&e.donor)? == donor && scenario.pid(&e.owner)? == owner && cpus_agree;
    }
    let name = |pid: u32| scenario.tasks[pid as usize - 1].name.as_str();
    let text = happened.iter().map(|d| {
        format!(
            "{{ donor = \"{}\", owner = \"{}\", cpu = {} }}",
            name(d.donor),
            name(d.owner),
            d.cpu
        )
    });
    let text = text.collect::<Vec<_>>().join(",\n  ");
    Ok((!same).then(|| format!("other donations than expected:\n  {text}")))
}

fn migrations(scenario: &Scenario, ran: &Ran) -> Result<Option<String>, Problem> {
    let Some(expected) = &scenario.expect.migrations else {
        return Ok(None);
    };
    let happened = &ran.observed.migrations;
    let mut same = expected.len() == happened.len();
    for (e, h) in expected.iter().zip(happened) {
        same &= scenario.pid(&e.donor)? == h.donor && e.to == h.to;
    }
    Ok((!same).then(|| format!("other migrations than expected: {happened:?}")))
}

fn wait(scenario: &Scenario, e: &ExpectWait, ran: &Ran) -> Result<Option<String>, Problem> {
    let (task, lock) = (scenario.pid(&e.task)?, scenario.lock(&e.lock)?);
    let named = format!("the wait of {} for {}", e.task, e.lock);
    let Some(wait) = ran
        .observed
        .waits
        .iter()
        .find(|w| w.task == task && w.lock == lock)
    else {
        return Ok(Some(format!("{named} did not happen")));
    };
    let factor = wait.factor();
    let too_long = match (e.factor_max, factor) {
        (Some(most), Some(factor)) => factor > most,
        (most, factor) => most.is_some() && factor.is_none(),
    };
    let too_short = e
        .factor_min
        .is_some_and(|least| factor.is_some_and(|f| f < least));
    let other_end = e.acquired.is_some_and(|acquired| wait.acquired != acquired);
    Ok((too_long || too_short || other_end)
        .then(|| format!("{named} is not as expected, factor {factor:.3?}: {wait:?}")))
}

fn cpu_time(scenario: &Scenario, e: &ExpectCpuTime, ran: &Ran) -> Result<Option<String>, Problem> {
    let t = scenario.pid(&e.task)?;
    let start_ns = ran.sim.setup.tasks[t as usize - 1].start_ns;
    let share = ran.sim.world.exec_now(t) as f64 / (ran.sim.setup.until_ns - start_ns) as f64;
    let still_ms = ms(ran.observed.still_ns(t));
    let wrong = e
        .share
        .is_some_and(|[least, most]| share < least || share > most)
        || e.still_max_ms.is_some_and(|most| still_ms > most)
        || e.still_min_ms.is_some_and(|least| still_ms < least);
    Ok(wrong.then(|| {
        let task = &e.task;
        format!("{task} gets {share:.4} of the time, and stands still for {still_ms:.1} ms")
    }))
}

fn final_state(scenario: &Scenario, e: &ExpectFinal, ran: &Ran) -> Result<Option<String>, Problem> {
    let task = ran.sim.world.task(scenario.pid(&e.task)?);
    let known = [
        "exited", "blocked", "asleep", "runnable", "running", "queued",
    ];
    if !known.contains(&e.state.as_str()) {
        let what = format!("a final state is one of: {}", known.join(", "));
        return problem(&e.state, what);
    }
    let state = match task.state {
        State::Dead => "exited",
        State::Blocked(_) => "blocked",
        State::Asleep => "asleep",
        State::Runnable => "queued",
        State::Running => "running",
    };
    let runs = e.state == "runnable" && ["queued", "running"].contains(&state);
    let same = (state == e.state || runs) && e.cpu.is_none_or(|cpu| cpu == task.cpu);
    let text = || format!("{} is {state} on CPU {} at the end", e.task, task.cpu);
    Ok((!same).then(text))
}

fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

fn cpus_of(mask: CpuMask) -> Vec<u32> {
    (0..64).filter(|cpu| mask >> cpu & 1 == 1).collect()
}

fn op_text(op: &Op) -> String {
    let list = |mask| {
        cpus_of(mask)
            .iter()
            .map(u32::to_string)
            .collect::<Vec<_>>()
            .join(",")
    };
    match op {
        Op::Run(ns) => format!("run {}", ms(*ns)),
        Op::Sleep(ns) => format!("sleep {}", ms(*ns)),
        Op::Lock(l) => format!("lock l{l}"),
        Op::Share(l) => format!("share l{l}"),
        Op::Unlock(l) => format!("unlock l{l}"),
        Op::SetAffinity(mask) => format!("affinity {}", list(*mask)),
        Op::MigrateDisable => "migrate_disable".to_owned(),
        Op::MigrateEnable => "migrate_enable".to_owned(),
        Op::SetNice(nice) => format!("nice {nice}"),
        Op::Yield => "yield".to_owned(),
        Op::YieldTo(t) => format!("yield_to t{t}"),
        Op::CoreRuns(t, ns) => format!("core_runs t{t} {}", ms(*ns)),
        Op::Wait => "wait".to_owned(),
        Op::Notify(t) => format!("notify t{t}"),
        Op::Exit => "exit".to_owned(),
    }
}

fn group_name(g: Group) -> Option<String> {
    (g > 0).then(|| format!("g{g}"))
}

fn event_of(at: u64, external: External) -> NamedEvent {
    let mut event = NamedEvent {
        at_ms: ms(at),
        ..NamedEvent::default()
    };
    let name = |t: u32| Some(format!("t{t}"));
    match external {
        External::Signal(t) => event.signal = name(t),
        External::Affinity(t, mask) => {
            event.task = name(t);
            event.cpus = Some(cpus_of(mask));
        }
        External::Nice(t, nice) => {
            event.task = name(t);
            event.nice = Some(nice);
        }
        External::Move(t, g) => {
            event.task = name(t);
            // "" is the root
            event.group = Some(group_name(g).unwrap_or_default());
        }
        External::Weight(g, weight) => {
            event.group = group_name(g);
            event.weight = Some(weight);
        }
        External::Offline(cpu) => event.offline = Some(cpu),
        External::Online(cpu) => event.online = Some(cpu),
    }
    event
}

/// The scenario that `setup` is, without expectations: to be kept as a file.
pub fn scenario_of(setup: &Setup, name: &str, about: &str) -> Scenario {
    let task = |(i, spec): (usize, &super::program::TaskSpec)| NamedTask {
        name: format!("t{}", i + 1),
        nice: if let Class::Fair { nice } = spec.class {
            nice
        } else {
            0
        },
        rt: if let Class::Rt { prio } = spec.class {
            Some(prio)
        } else {
            None
        },
        group: group_name(spec.group),
        cpus: cpus_of(spec.cpus),
        start_ms: ms(spec.start_ns),
        start_cpu: Some(spec.start_cpu),
        repeat: spec.repeat,
        program: spec.program.iter().map(op_text).collect(),
    };
    let lock = |(i, spec): (usize, &super::program::LockSpec)| NamedLock {
        name: format!("l{i}"),
        kind: spec.kind,
        pointed_by: spec.pointed_by,
        handoff: spec.handoff,
        release_ms: ms(spec.release_ns),
    };
    let group = |(i, spec): (usize, &super::program::GroupSpec)| NamedGroup {
        name: format!("g{}", i + 1),
        parent: group_name(spec.parent),
        weight: Some(spec.weight),
        max_ms: spec.limit.map(|l| [ms(l.quota_ns), ms(l.period_ns)]),
        burst_ms: spec.limit.map(|l| ms(l.burst_ns)),
    };
    Scenario {
        name: name.to_owned(),
        about: about.to_owned(),
        cpus: setup.nr_cpus,
        domain_cpus: Some(setup.topology.domain_cpus),
        smt: setup.topology.smt,
        big_cpus: setup.topology.big_cpus,
        nohz_full_cpus: setup.topology.nohz_full_cpus,
        node_domains: Some(setup.topology.node_domains),
        until_ms: ms(setup.until_ns),
        seed: setup.seed,
        kick_delay_us: setup.kick_delay_ns as f64 / 1e3,
        wake_delay_us: setup.wake_delay_ns as f64 / 1e3,
        tick_delay_us: setup.tick_delay_ns as f64 / 1e3,
        hrtick: setup.hrtick,
        groups: setup.groups.iter().enumerate().map(group).collect(),
        locks: setup.locks.iter().enumerate().map(lock).collect(),
        tasks: setup.tasks.iter().enumerate().map(task).collect(),
        events: setup
            .externals
            .iter()
            .map(|&(at, e)| event_of(at, e))
            .collect(),
        ..Scenario::default()
    }
}
