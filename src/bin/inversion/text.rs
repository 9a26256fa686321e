// SPDX-License-Identifier: GPL-2.0-only
//! Owns the text table of a report.

use crate::policy::WaiterPolicy;
use crate::report::{Report, ScenarioReport};
use scx_proxy::output::Table;

/// The table, and below it what went other than planned.
pub fn table(report: &Report) -> String {
    let mut table = Table::new(&[
        "lock", "topology", "waiter", "hogs", "staged", "need ms", "wait ms", "slept ms", "factor",
        "median", "p90", "p99", "max", "ideal",
    ]);
    for scenario in &report.scenarios {
        table.row(row(scenario));
    }
    let label = report
        .label
        .as_ref()
        .map(|label| format!("{label}, "))
        .unwrap_or_default();
    let notes: String = report
        .scenarios
        .iter()
        .filter(|s| s.skipped.is_some() || s.staged < s.attempted)
        .fold(String::new(), |notes, scenario| {
            notes + "  " + &scenario.line() + "\n"
        });
    format!(
        "{label}kernel {}, {} CPUs\nfactor = (wait - time of it that the owner slept) / CPU time the \
         owner still needed\n\n{}{}{}",
        report.kernel,
        report.cpus,
        table.render(),
        if notes.is_empty() { "" } else { "\n" },
        notes
    )
}

fn row(scenario: &ScenarioReport) -> Vec<String> {
    let number = |value: Option<f64>, digits: usize| {
        value.map_or_else(|| "-".to_string(), |value| format!("{value:.digits$}"))
    };
    let factor = scenario.factor.as_ref();
    vec![
        scenario.lock.clone(),
        scenario.topology.clone(),
        waiter_cell(scenario),
        scenario.hogs_per_cpu.to_string(),
        staged_cell(scenario),
        number(scenario.need_ms_mean, 1),
        number(scenario.wait_ms_mean, 1),
        number(scenario.slept_ms_mean, 1),
        number(factor.map(|factor| factor.mean), 2),
        number(factor.map(|factor| factor.median), 2),
        number(factor.and_then(|factor| factor.p90), 2),
        number(factor.and_then(|factor| factor.p99), 2),
        number(factor.map(|factor| factor.max), 2),
        number(Some(scenario.fair_ideal), 2),
    ]
}

/// `staged/attempted`.
pub fn staged_cell(scenario: &ScenarioReport) -> String {
    match scenario.skipped {
        Some(_) => "skipped".to_string(),
        None => format!("{}/{}", scenario.staged, scenario.attempted),
    }
}

fn waiter_cell(scenario: &ScenarioReport) -> String {
    match (scenario.waiter_policy, scenario.groups) {
        (WaiterPolicy::Other, None) => format!("nice {}", scenario.waiter_nice),
        (WaiterPolicy::Other, Some(groups)) => groups.to_string(),
        (policy, _) => policy.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{report, scenario};

    #[test]
    fn a_row_shows_waiter_and_sleep() {
        let mut scenario = scenario("chain", "cross");
        scenario.slept_ms_mean = Some(30.0);
        let cells = row(&scenario);
        assert_eq!((cells[2].as_str(), cells[7].as_str()), ("nice -10", "30.0"));
        scenario.waiter_policy = WaiterPolicy::Fifo(50);
        assert_eq!(row(&scenario)[2], "fifo:50");
    }

    #[test]
    fn text_shows_what_was_not_staged() {
        let text = table(&report("x"));
        assert!(text.contains("f_pos_lock"), "{text}");
        assert!(text.contains("2/3"), "{text}");
        assert!(text.contains("1 x the waiter did not sleep"), "{text}");
    }
}
