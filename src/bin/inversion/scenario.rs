// SPDX-License-Identifier: GPL-2.0-only
//! Owns the run of scenarios: which trials, how many, and what is reported of them.

use crate::cli::Cli;
use crate::groups::Groups;
use crate::hogs::Hogs;
use crate::lock::{self, Company, Recipe, SizedSetup};
use crate::report::{Report, ScenarioReport};
use crate::summary::round3;
use crate::sys::{self, Interrupted};
use crate::topology::{Placement, Topology};
use crate::trial::{self, Outcome, Terms};
use crate::verdict::{Measured, NotStaged};
use anyhow::{Context, Result};
use std::collections::BTreeMap;

/// Attempts per staged trial wanted.
const ATTEMPTS_FACTOR: u32 = 3;
/// Time-outs after which a scenario is not worth waiting for.
const TIMEOUTS_MAX: u32 = 2;

/// Runs all scenarios that the command line asks for, telling `progress` a line each.
pub fn run_all(cli: &Cli, mut progress: impl FnMut(&str)) -> Result<Report> {
    take_nice(cli.lowest_nice())?;
    cli.waiter_policy.check_allowed()?;
    let groups = cli.groups().map(Groups::make).transpose()?;
    let cpus = sys::allowed_cpus()?;
    let mut scenarios = Vec::new();
    for recipe in cli.recipes() {
        let mut setup = None;
        for topology in cli.topologies() {
            let scenario = run_one(cli, recipe, topology, &cpus, groups.as_ref(), &mut setup)?;
            progress(&scenario.line());
            scenarios.push(scenario);
        }
    }
    Ok(Report {
        label: cli.label.clone(),
        kernel: sys::kernel_release(),
        cpus: cpus.len(),
        scenarios,
    })
}

/// Takes the lowest nice value needed, so that what directs a trial is not starved by it, and so that
/// children may take any of theirs.
fn take_nice(nice: i32) -> Result<()> {
    sys::set_nice(0, nice).with_context(|| {
        format!(
            "cannot take nice {nice}; run as root (or with CAP_SYS_NICE, or a nice limit that \
             allows it), or choose --waiter-nice, --owner-nice and --hog-nice at 0 or above"
        )
    })
}

/// Anything but an interrupt ends this scenario only, and is reported with it.
fn run_one(
    cli: &Cli,
    recipe: &'static Recipe,
    topology: Topology,
    cpus: &[usize],
    groups: Option<&Groups>,
    setup: &mut Option<SizedSetup>,
) -> Result<ScenarioReport> {
    let hogs_per_cpu = cli.hogs.unwrap_or(recipe.default_hogs);
    let mut report = empty_report(cli, recipe, topology, hogs_per_cpu);
    let place = match topology.place(cpus, hogs_per_cpu) {
        Ok(place) => place,
        Err(reason) => {
            report.skipped = Some(reason);
            return Ok(report);
        }
    };
    if let Some(groups) = report.groups {
        report.fair_ideal = round3(match cli.waiter_policy.is_fair() {
            true => groups.fair_ideal(place.hogs.len() / hogs_per_cpu as usize),
            false => 1.0,
        });
    }
    report.skipped = (recipe.unavailable)();
    if report.skipped.is_some() {
        return Ok(report);
    }
    if let Err(error) = stage_trials(cli, recipe, &place, groups, setup, &mut report) {
        if error.is::<Interrupted>() {
            return Err(error);
        }
        report.error = Some(format!("{error:#}"));
    }
    Ok(report)
}

fn stage_trials(
    cli: &Cli,
    recipe: &'static Recipe,
    place: &Placement,
    groups: Option<&Groups>,
    setup: &mut Option<SizedSetup>,
    report: &mut ScenarioReport,
) -> Result<()> {
    let terms = Terms {
        links: recipe.links,
        workers: recipe.workers,
        owner_nice: cli.owner_nice,
        waiter_nice: cli.waiter_nice,
        waiter_policy: cli.waiter_policy,
        critical: cli.critical(),
        max_wait: cli.max_wait(),
    };
    let mut hogs = Hogs::spawn(&place.hogs, cli.hog_nice, groups)?;
    let setup = match setup {
        Some(setup) => setup,
        None => {
            let mut sized = lock::calibrate(recipe, terms.section_ns())?;
            let company = Company {
                place: place.holders,
                nice: cli.hog_nice.min(0),
                hogs: &mut hogs,
            };
            sized.rehearse(terms.section_ns(), company)?;
            setup.insert(sized)
        }
    };
    let mut measured: Vec<Measured> = Vec::new();
    while keep_trying(report, cli.trials) {
        let outcome = trial::run(setup.setup(), &terms, place, groups, &mut hogs)?;
        report.attempted += 1;
        match outcome {
            Outcome::Staged(trial) => {
                report.staged += 1;
                measured.push(trial);
            }
            Outcome::NotStaged(reason) => {
                report.not_staged += 1;
                *report
                    .not_staged_reasons
                    .entry(reason.to_string())
                    .or_default() += 1;
            }
            Outcome::TimedOut => report.timed_out += 1,
        }
        report.set_trials(&measured);
        if let Some(scale) = correction(&outcome, &terms)
            && keep_trying(report, cli.trials)
        {
            setup.resize(scale)?;
        }
    }
    Ok(())
}

/// How much longer or shorter the critical section should be, going by the last trial. The
/// calibration runs alone, trials do not, and a busy machine changes its pace.
fn correction(outcome: &Outcome, terms: &Terms) -> Option<f64> {
    let critical_ns = terms.critical.as_nanos() as u64;
    match outcome {
        Outcome::Staged(trial) if trial.need_ns > 2 * critical_ns => {
            Some((1.3 * critical_ns as f64 / trial.need_ns as f64).max(0.5))
        }
        Outcome::NotStaged(NotStaged::OwnerNotInside | NotStaged::TooLittleNeeded) => Some(1.5),
        _ => None,
    }
}

fn keep_trying(report: &ScenarioReport, trials: u32) -> bool {
    report.staged < trials
        && report.attempted < trials * ATTEMPTS_FACTOR
        && report.timed_out < TIMEOUTS_MAX
}

fn empty_report(
    cli: &Cli,
    recipe: &'static Recipe,
    topology: Topology,
    hogs_per_cpu: u32,
) -> ScenarioReport {
    ScenarioReport {
        lock: recipe.name.to_string(),
        topology: topology.to_string(),
        hogs_per_cpu,
        hog_nice: cli.hog_nice,
        owner_nice: cli.owner_nice,
        waiter_nice: cli.waiter_nice,
        waiter_policy: cli.waiter_policy,
        groups: cli.groups(),
        fair_ideal: round3(cli.waiter_policy.fair_ideal(
            hogs_per_cpu,
            cli.hog_nice,
            cli.waiter_nice,
        )),
        attempted: 0,
        staged: 0,
        not_staged: 0,
        timed_out: 0,
        not_staged_reasons: BTreeMap::new(),
        factor: None,
        need_ms_mean: None,
        wait_ms_mean: None,
        slept_ms_mean: None,
        trials: Vec::new(),
        skipped: None,
        error: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::WaiterPolicy;
    use crate::report::tests::scenario;
    use crate::spawn::WorkerKind;
    use std::time::Duration;

    #[test]
    fn the_section_is_corrected_towards_the_target() {
        let terms = Terms {
            links: 1,
            workers: WorkerKind::Processes,
            owner_nice: 19,
            waiter_nice: -10,
            waiter_policy: WaiterPolicy::Other,
            critical: Duration::from_millis(20),
            max_wait: Duration::from_secs(1),
        };
        let staged = |need_ns| {
            Outcome::Staged(Measured {
                need_ns,
                wait_ns: 2 * need_ns,
                slept_ns: 0,
                awake_ns: 0,
            })
        };
        assert_eq!(correction(&staged(30_000_000), &terms), None);
        assert_eq!(correction(&staged(52_000_000), &terms), Some(0.5));
        assert_eq!(correction(&staged(900_000_000), &terms), Some(0.5));
        let missed = Outcome::NotStaged(NotStaged::OwnerNotInside);
        assert_eq!(correction(&missed, &terms), Some(1.5));
        assert_eq!(correction(&Outcome::TimedOut, &terms), None);
    }

    #[test]
    fn trying_is_bounded() {
        let state = |staged, attempted, timed_out| ScenarioReport {
            staged,
            attempted,
            timed_out,
            ..scenario("chain", "same")
        };
        assert!(keep_trying(&state(0, 0, 0), 5));
        assert!(keep_trying(&state(4, 14, 1), 5));
        assert!(!keep_trying(&state(5, 5, 0), 5));
        assert!(!keep_trying(&state(4, 15, 0), 5));
        assert!(!keep_trying(&state(0, 2, 2), 5));
    }
}
