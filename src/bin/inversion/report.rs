// SPDX-License-Identifier: GPL-2.0-only
//! Owns what is reported, and its JSON form, which other tools read and join. `text` shows it to
//! people.

use crate::groups::GroupTerms;
use crate::policy::WaiterPolicy;
use crate::summary::{Summary, mean, round3};
use crate::verdict::Measured;
use anyhow::{Context, Result};
use scx_proxy::output;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub label: Option<String>,
    pub kernel: String,
    /// CPUs that the program was allowed to use.
    pub cpus: usize,
    pub scenarios: Vec<ScenarioReport>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScenarioReport {
    pub lock: String,
    pub topology: String,
    pub hogs_per_cpu: u32,
    pub hog_nice: i32,
    pub owner_nice: i32,
    pub waiter_nice: i32,
    /// Reports from before there was a choice have none.
    #[serde(default)]
    pub waiter_policy: WaiterPolicy,
    /// Only if owners, waiter and hogs were in cgroups of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<GroupTerms>,
    pub fair_ideal: f64,
    pub attempted: u32,
    pub staged: u32,
    pub not_staged: u32,
    pub timed_out: u32,
    /// How often each reason not to count a trial was met.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub not_staged_reasons: BTreeMap<String, u32>,
    /// None if no trial was staged.
    pub factor: Option<Summary>,
    pub need_ms_mean: Option<f64>,
    pub wait_ms_mean: Option<f64>,
    /// Only if owners slept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slept_ms_mean: Option<f64>,
    pub trials: Vec<TrialReport>,
    /// Why the scenario cannot be run here at all, if so.
    pub skipped: Option<String>,
    /// What went wrong, if the scenario was broken off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrialReport {
    pub need_ms: f64,
    pub wait_ms: f64,
    /// Time of the wait that the owner slept; left out if it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slept_ms: Option<f64>,
    /// Time of the wait in which the owner could have run, and had no CPU: the wait, less what
    /// it needed, less what it slept, less what the waiter itself did not sleep.
    #[serde(default)]
    pub inverted_ms: f64,
    /// Time of the wait that the waiter did not sleep. While it had not gone to sleep yet, the owner may have
    /// run: `inverted_ms` is too small by that much at the most.
    #[serde(default)]
    pub awake_ms: f64,
    pub factor: f64,
}

impl From<&Measured> for TrialReport {
    fn from(measured: &Measured) -> TrialReport {
        TrialReport {
            need_ms: round3(measured.need_ns as f64 / 1e6),
            wait_ms: round3(measured.wait_ns as f64 / 1e6),
            slept_ms: (measured.slept_ns > 0).then(|| round3(measured.slept_ns as f64 / 1e6)),
            inverted_ms: round3(measured.inverted_ns() as f64 / 1e6),
            awake_ms: round3(measured.awake_ns as f64 / 1e6),
            factor: round3(measured.factor()),
        }
    }
}

impl ScenarioReport {
    /// The name people see, which tells scenarios apart: `lock topology`, a real-time waiter, and
    /// cgroups.
    pub fn name(&self) -> String {
        let mut name = format!("{} {}", self.lock, self.topology);
        if self.waiter_policy != WaiterPolicy::Other {
            name += &format!(" {}", self.waiter_policy);
        }
        if let Some(groups) = self.groups {
            name += &format!(" {groups}");
        }
        name
    }

    /// Fills in the numbers that follow from the trials.
    pub fn set_trials(&mut self, measured: &[Measured]) {
        self.trials = measured.iter().map(TrialReport::from).collect();
        let column = |value: fn(&TrialReport) -> f64| self.trials.iter().map(value).collect();
        let (need, wait, factor): (Vec<f64>, Vec<f64>, Vec<f64>) = (
            column(|t| t.need_ms),
            column(|t| t.wait_ms),
            column(|t| t.factor),
        );
        self.need_ms_mean = mean(&need).map(round3);
        self.wait_ms_mean = mean(&wait).map(round3);
        let slept: Vec<_> = self.trials.iter().filter_map(|t| t.slept_ms).collect();
        self.slept_ms_mean = mean(&slept).map(round3);
        self.factor = Summary::of(&factor);
    }

    /// No failure: measured, or impossible here.
    pub fn is_fine(&self) -> bool {
        self.skipped.is_some() || (self.staged > 0 && self.error.is_none())
    }

    /// One line that says how it went.
    pub fn line(&self) -> String {
        let name = self.name();
        if let Some(reason) = &self.skipped {
            return format!("{name}: skipped, {reason}");
        }
        let mut line = format!("{name}: {} of {} staged", self.staged, self.attempted);
        if let Some(factor) = &self.factor {
            line += &format!(
                ", factor {:.2} (fair ideal {:.2})",
                factor.mean, self.fair_ideal
            );
        }
        if self.timed_out > 0 {
            line += &format!(", {} timed out", self.timed_out);
        }
        for (reason, count) in &self.not_staged_reasons {
            line += &format!(", {count} x {reason}");
        }
        if let Some(error) = &self.error {
            line += &format!(", error: {error}");
        }
        line
    }
}

impl Report {
    pub fn load(path: &Path) -> Result<Report> {
        let shown = path.display();
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
        serde_json::from_str(&text)
            .with_context(|| format!("{shown} is not a report of `inversion --json`"))
    }
}

fn to_json(report: &impl Serialize) -> Result<String> {
    let mut text = serde_json::to_string_pretty(report).context("cannot write JSON")?;
    text.push('\n');
    Ok(text)
}

/// Prints `text` by `print`, and writes the report to a file if one is given; if that is `-`, JSON goes
/// to the standard output and the text to the standard error.
pub fn write_json(
    report: &impl Serialize,
    file: Option<&Path>,
    text: &str,
    print: impl Fn(&str) -> Result<()>,
) -> Result<()> {
    match file {
        None => print(text),
        Some(path) if path == Path::new("-") => {
            output::print_error(&format!("\n{text}"));
            print(&to_json(report)?)
        }
        Some(path) => {
            std::fs::write(path, to_json(report)?)
                .with_context(|| format!("cannot write {}", path.display()))?;
            print(text)
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn scenario(lock: &str, topology: &str) -> ScenarioReport {
        ScenarioReport {
            lock: lock.to_string(),
            topology: topology.to_string(),
            hogs_per_cpu: 2,
            hog_nice: 0,
            owner_nice: 19,
            waiter_nice: -10,
            waiter_policy: WaiterPolicy::Other,
            groups: None,
            fair_ideal: 1.214,
            attempted: 3,
            staged: 2,
            not_staged: 1,
            timed_out: 0,
            not_staged_reasons: BTreeMap::from([("the waiter did not sleep".to_string(), 1)]),
            factor: None,
            need_ms_mean: None,
            wait_ms_mean: None,
            slept_ms_mean: None,
            trials: vec![],
            skipped: None,
            error: None,
        }
    }

    pub fn report(label: &str) -> Report {
        let mut first = scenario("f_pos_lock", "same");
        first.set_trials(&[
            Measured {
                need_ns: 10_000_000,
                wait_ns: 20_000_000,
                slept_ns: 0,
                awake_ns: 0,
            },
            Measured {
                need_ns: 20_000_000,
                wait_ns: 80_000_000,
                slept_ns: 0,
                awake_ns: 0,
            },
        ]);
        Report {
            label: Some(label.to_string()),
            kernel: "7.3.4".to_string(),
            cpus: 4,
            scenarios: vec![first, scenario("chain", "cross")],
        }
    }

    #[test]
    fn numbers_follow_from_the_trials() {
        let report = report("x");
        let first = &report.scenarios[0];
        assert_eq!(
            first.factor,
            Some(Summary {
                mean: 3.0,
                median: 3.0,
                p90: Some(4.0),
                p99: Some(4.0),
                max: 4.0
            })
        );
        assert_eq!(first.need_ms_mean, Some(15.0));
        assert_eq!(first.wait_ms_mean, Some(50.0));
        assert_eq!(
            first.trials[1],
            TrialReport {
                need_ms: 20.0,
                wait_ms: 80.0,
                slept_ms: None,
                inverted_ms: 60.0,
                awake_ms: 0.0,
                factor: 4.0
            }
        );
    }

    #[test]
    fn json_survives_the_round_trip() -> Result<()> {
        let report = report("x");
        let json = to_json(&report)?;
        assert_eq!(serde_json::from_str::<Report>(&json)?, report);
        let value: serde_json::Value = serde_json::from_str(&json)?;
        assert!(value["scenarios"][1]["factor"].is_null());
        assert!(value["scenarios"][0]["skipped"].is_null());
        assert_eq!(value["scenarios"][0]["factor"]["mean"], 3.0);
        Ok(())
    }

    #[test]
    fn sleep_is_shown_beside_the_wait() -> Result<()> {
        let mut scenario = scenario("sleeping_owner", "cross");
        assert!(
            serde_json::to_value(&scenario)?
                .get("slept_ms_mean")
                .is_none()
        );
        scenario.set_trials(&[Measured {
            need_ns: 20_000_000,
            wait_ns: 60_000_000,
            slept_ns: 30_000_000,
            awake_ns: 0,
        }]);
        assert_eq!(scenario.slept_ms_mean, Some(30.0));
        assert_eq!(scenario.trials[0].factor, 1.5);
        Ok(())
    }

    #[test]
    fn a_real_time_waiter_is_named_and_old_reports_have_none() -> Result<()> {
        let mut scenario = scenario("chain", "cross");
        assert_eq!(scenario.name(), "chain cross");
        let mut json = serde_json::to_value(&scenario)?;
        assert_eq!(json["waiter_policy"], "other");
        if let Some(fields) = json.as_object_mut() {
            fields.remove("waiter_policy");
        }
        assert_eq!(serde_json::from_value::<ScenarioReport>(json)?, scenario);
        scenario.waiter_policy = WaiterPolicy::Fifo(50);
        assert_eq!(scenario.name(), "chain cross fifo:50");
        Ok(())
    }

    #[test]
    fn fine_means_staged_or_skipped() {
        let good = scenario("chain", "same");
        assert!(good.is_fine());
        assert!(
            !ScenarioReport {
                staged: 0,
                ..good.clone()
            }
            .is_fine()
        );
        let error = Some("out of memory".to_string());
        assert!(
            !ScenarioReport {
                error,
                ..good.clone()
            }
            .is_fine()
        );
        let skipped = Some("one CPU".to_string());
        assert!(
            ScenarioReport {
                staged: 0,
                skipped,
                ..good
            }
            .is_fine()
        );
    }
}
