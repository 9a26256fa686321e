// SPDX-License-Identifier: GPL-2.0-only
//! Makes the subcommands of spinners, sleepers, pairs, forkers and who hands on work, and their reports one JSON object.

use crate::cli::{Load, Time};
use crate::forks::Forkers;
use crate::frames::{self, Frames};
use crate::pipe::{self, Pairs};
use crate::produce::{self, Producers};
use crate::requests::{self, Requests};
use crate::sleep::{self, Sleepers};
use crate::spec::{Cpus, Group, Weight};
use crate::spin::{GroupReport, Spinners};
use crate::stage::{Span, Stage};
use crate::sys;
use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

/// Does it; the report is a JSON object.
pub fn run(load: &Load) -> Result<Value> {
    match load {
        Load::Spin { spec, time } => spin(spec, time),
        Load::Sleepers {
            count,
            sleep_us,
            cpus,
            nice,
            beside,
            time,
            ..
        } => {
            let plan = sleep::Plan {
                count: *count as usize,
                sleep_us: *sleep_us,
                cpus: list(cpus.as_ref()).unwrap_or_default(),
                nice: *nice,
                secs: time.secs,
            };
            sleepers(&plan, &beside.beside, time)
        }
        Load::Pipe {
            pairs,
            rounds,
            cpus,
            beside,
            time,
        } => {
            let plan = pipe::Plan {
                pairs: *pairs as usize,
                rounds: *rounds,
                cpus: list(cpus.as_ref()),
                starts_on: None,
            };
            pipe(&plan, &beside.beside, time)
        }
        Load::Sync { time } => sync(time),
        Load::Forks {
            jobs,
            child_us,
            time,
        } => forks(*jobs, *child_us, time),
        Load::Requests {
            load,
            work_us,
            workers,
            beside,
            time,
        } => {
            let cpus = sys::allowed_cpus()?.len();
            let plan = requests::Plan {
                workers: workers.map_or(2 * cpus, |workers| workers as usize),
                work_us: *work_us,
                interval_ns: work_us * 1000 * 100 / (load * cpus as u64),
                secs: time.secs,
            };
            requests(&plan, &beside.beside, time)
        }
        Load::Frames {
            period_us,
            stage_us,
            jobs,
            child_us,
            time,
        } => {
            let plan = frames::Plan {
                period_us: *period_us,
                stage_us: *stage_us,
                secs: time.secs,
            };
            frames(&plan, *jobs as usize, *child_us, time)
        }
        Load::Produce {
            pairs,
            produce_us,
            consume_us,
            time,
        } => {
            let plan = produce::Plan {
                pairs: *pairs as usize,
                produce_us: *produce_us,
                consume_us: *consume_us,
            };
            produce(&plan, time)
        }
    }
}

fn list(cpus: Option<&Cpus>) -> Option<&[usize]> {
    cpus.map(|cpus| cpus.0.as_slice())
}

fn spin(groups: &[Group], time: &Time) -> Result<Value> {
    let mut stage = Stage::new()?;
    let spinners = Spinners::start(&mut stage, groups)?;
    let (span, groups) = measure(&mut stage, &spinners, time, true, |stage| stage.last(time))?;
    report("spin", span, json!({ "groups": groups }))
}

fn sleepers(plan: &sleep::Plan, beside: &[Group], time: &Time) -> Result<Value> {
    let mut stage = Stage::new()?;
    let spinners = Spinners::start(&mut stage, beside)?;
    let sleepers = Sleepers::start(&mut stage, plan)?;
    let (span, groups) = measure(&mut stage, &spinners, time, false, |stage| stage.last(time))?;
    report(
        "sleepers",
        span,
        json!({ "sleepers": sleepers.report(span), "beside": groups }),
    )
}

fn pipe(plan: &pipe::Plan, beside: &[Group], time: &Time) -> Result<Value> {
    let mut stage = Stage::new()?;
    let spinners = Spinners::start(&mut stage, beside)?;
    let pairs = Pairs::start(&mut stage, plan)?;
    let (span, groups) = measure(&mut stage, &spinners, time, false, |stage| {
        match plan.rounds {
            Some(_) => stage.until(|| pairs.all_done()),
            None => stage.last(time),
        }
    })?;
    report(
        "pipe",
        span,
        json!({ "pipe": pairs.report(span), "beside": groups }),
    )
}

fn sync(time: &Time) -> Result<Value> {
    let spinner = |cpu: usize| Group {
        text: format!("1@{cpu}"),
        count: 1,
        weight: Weight::Nice(0),
        cpus: Some(Cpus(vec![cpu])),
    };
    let pair = pipe::Plan {
        pairs: 1,
        rounds: None,
        cpus: Some(&[0, 1]),
        starts_on: Some(0),
    };
    let sleeper = sleep::Plan {
        count: 1,
        sleep_us: 10_000,
        cpus: &[0],
        nice: 0,
        secs: time.secs,
    };
    let mut stage = Stage::new()?;
    let spinners = Spinners::start(&mut stage, &[spinner(0), spinner(1)])?;
    let pairs = Pairs::start(&mut stage, &pair)?;
    let sleepers = Sleepers::start(&mut stage, &sleeper)?;
    let (span, groups) = measure(&mut stage, &spinners, time, false, |stage| stage.last(time))?;
    report(
        "sync",
        span,
        json!({
            "beside": groups,
            "pipe": pairs.report(span),
            "sleepers": sleepers.report(span),
        }),
    )
}

fn forks(jobs: Option<u32>, child_us: u64, time: &Time) -> Result<Value> {
    let jobs = match jobs {
        Some(jobs) => jobs as usize,
        None => sys::allowed_cpus()?.len(),
    };
    let mut stage = Stage::new()?;
    let forkers = Forkers::start(&mut stage, jobs, child_us)?;
    let span = all_of(&mut stage, time)?;
    report("forks", span, json!({ "forks": forkers.report(span) }))
}

fn requests(plan: &requests::Plan, beside: &[Group], time: &Time) -> Result<Value> {
    let mut stage = Stage::new()?;
    let spinners = Spinners::start(&mut stage, beside)?;
    let requests = Requests::start(&mut stage, plan)?;
    let (span, groups) = measure(&mut stage, &spinners, time, false, |stage| stage.last(time))?;
    report(
        "requests",
        span,
        json!({ "requests": requests.report(span), "beside": groups }),
    )
}

fn frames(plan: &frames::Plan, jobs: usize, child_us: u64, time: &Time) -> Result<Value> {
    let mut stage = Stage::new()?;
    let forkers = Forkers::start(&mut stage, jobs, child_us)?;
    let frames = Frames::start(&mut stage, plan)?;
    let span = all_of(&mut stage, time)?;
    report(
        "frames",
        span,
        json!({ "frames": frames.report(span), "forks": forkers.report(span) }),
    )
}

fn produce(plan: &produce::Plan, time: &Time) -> Result<Value> {
    let mut stage = Stage::new()?;
    let producers = Producers::start(&mut stage, plan)?;
    let span = all_of(&mut stage, time)?;
    report(
        "produce",
        span,
        json!({ "produce": producers.report(span) }),
    )
}

/// Releases the tasks and measures them for the whole time.
fn all_of(stage: &mut Stage, time: &Time) -> Result<Span> {
    let from_ns = stage.begin(time.settle)?;
    let to_ns = stage.last(time)?;
    Ok(Span { from_ns, to_ns })
}

/// Releases the tasks and measures until `wait` returns; with the report of the spinners.
fn measure(
    stage: &mut Stage,
    spinners: &Spinners,
    time: &Time,
    each: bool,
    wait: impl FnOnce(&mut Stage) -> Result<u64>,
) -> Result<(Span, Vec<GroupReport>)> {
    let from_ns = stage.begin(time.settle)?;
    let before = spinners.read()?;
    let to_ns = wait(stage)?;
    let after = spinners.read()?;
    let span = Span { from_ns, to_ns };
    let groups = spinners.report(span, &before, &after, each);
    Ok((span, groups))
}

/// `found` is an object; what the machine is comes before it.
fn report(load: &str, span: Span, found: Value) -> Result<Value> {
    let mut all = Map::new();
    all.insert("load".into(), load.into());
    all.insert("kernel".into(), sys::kernel_release().into());
    all.insert("scheduler".into(), sys::scheduler().into());
    all.insert("cpus".into(), sys::allowed_cpus()?.len().into());
    all.insert("secs".into(), span.secs().into());
    let Value::Object(found) = found else {
        return Err(anyhow::anyhow!("{found}")).context("a report is no object");
    };
    all.extend(found);
    Ok(Value::Object(all))
}
