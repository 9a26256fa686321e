// SPDX-License-Identifier: GPL-2.0-only
//! Owns the comparison of two reports: one table, a row per scenario, or a refusal to compare what does
//! not match.

use crate::report::{Report, ScenarioReport};
use crate::text::staged_cell;
use anyhow::{Result, bail, ensure};
use scx_proxy::output::Table;

pub fn compare(before: &Report, after: &Report) -> Result<String> {
    ensure!(
        before.kernel == after.kernel,
        "the reports are of different kernels ({} and {})",
        before.kernel,
        after.kernel
    );
    ensure!(
        before.cpus == after.cpus,
        "the reports are of different numbers of CPUs ({} and {})",
        before.cpus,
        after.cpus
    );
    let pairs = pair_up(&before.scenarios, &after.scenarios)?;
    let label_before = before.label.as_deref().unwrap_or("before");
    let label_after = after.label.as_deref().unwrap_or("after");
    let mut table = Table::new(&[
        "scenario",
        "hogs",
        "fair ideal",
        label_before,
        label_after,
        "staged",
    ]);
    for (before, after) in pairs {
        table.row(vec![
            before.name(),
            before.hogs_per_cpu.to_string(),
            format!("{:.2}", before.fair_ideal),
            factor_cell(before),
            factor_cell(after),
            format!("{} {}", staged_cell(before), staged_cell(after)),
        ]);
    }
    Ok(format!(
        "Inversion factor: mean [median]; kernel {}, {} CPUs\n\n{}",
        before.kernel,
        before.cpus,
        table.render()
    ))
}

fn pair_up<'a>(
    before: &'a [ScenarioReport],
    after: &'a [ScenarioReport],
) -> Result<Vec<(&'a ScenarioReport, &'a ScenarioReport)>> {
    ensure!(!before.is_empty(), "the reports hold no scenarios");
    let mut pairs = Vec::with_capacity(before.len());
    for old in before {
        let mut same = after.iter().filter(|new| new.name() == old.name());
        match (same.next(), same.next()) {
            (Some(new), None) => pairs.push((old, checked(old, new)?)),
            (None, _) => bail!("{} is in the first report only", old.name()),
            _ => bail!("{} is in the second report more than once", old.name()),
        }
    }
    for new in after {
        match before.iter().filter(|old| old.name() == new.name()).count() {
            0 => bail!("{} is in the second report only", new.name()),
            1 => {}
            _ => bail!("{} is in the first report more than once", new.name()),
        }
    }
    Ok(pairs)
}

/// Two reports of a scenario compare only if its terms were the same.
fn checked<'a>(old: &ScenarioReport, new: &'a ScenarioReport) -> Result<&'a ScenarioReport> {
    let terms = |scenario: &ScenarioReport| {
        [
            ("hogs per CPU", i64::from(scenario.hogs_per_cpu)),
            ("hog nice", i64::from(scenario.hog_nice)),
            ("owner nice", i64::from(scenario.owner_nice)),
            ("waiter nice", i64::from(scenario.waiter_nice)),
        ]
    };
    for ((term, old_value), (_, new_value)) in terms(old).into_iter().zip(terms(new)) {
        ensure!(
            old_value == new_value,
            "{}: the reports differ in {term} ({old_value} and {new_value})",
            old.name()
        );
    }
    Ok(new)
}

fn factor_cell(scenario: &ScenarioReport) -> String {
    match (&scenario.factor, &scenario.skipped) {
        (Some(factor), _) => format!("{:.2} [{:.2}]", factor.mean, factor.median),
        (None, Some(_)) => "skipped".to_string(),
        (None, None) if scenario.timed_out > 0 => "timed out".to_string(),
        (None, None) => "not staged".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::WaiterPolicy;
    use crate::report::tests::report;

    /// The refusal, or an empty string.
    fn refusal(before: &Report, after: &Report) -> String {
        compare(before, after)
            .err()
            .map_or_else(String::new, |error| error.to_string())
    }

    #[test]
    fn one_table_of_two_reports() -> Result<()> {
        let before = report("kernel default");
        let mut after = report("scx_proxy");
        after.scenarios.reverse();
        let text = compare(&before, &after)?;
        for part in [
            "kernel default",
            "scx_proxy",
            "3.00 [3.00]",
            "1.21",
            "2/3 2/3",
            "not staged",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        Ok(())
    }

    #[test]
    fn labels_have_defaults() -> Result<()> {
        let unlabelled = Report {
            label: None,
            ..report("x")
        };
        let text = compare(&unlabelled, &unlabelled)?;
        assert!(text.contains("before") && text.contains("after"), "{text}");
        Ok(())
    }

    #[test]
    fn what_does_not_match_is_refused() {
        let before = report("a");
        let changed = |change: fn(&mut Report)| {
            let mut after = report("b");
            change(&mut after);
            refusal(&before, &after)
        };
        assert_eq!(changed(|_| {}), "");
        assert!(changed(|after| after.kernel.push('x')).contains("different kernels"));
        assert!(changed(|after| after.cpus = 2).contains("numbers of CPUs"));
        assert!(changed(|after| after.scenarios[0].hogs_per_cpu = 1).contains("hogs per CPU"));
        assert!(changed(|after| after.scenarios[0].owner_nice = 5).contains("owner nice"));
        let fifo = changed(|after| after.scenarios[0].waiter_policy = WaiterPolicy::Fifo(50));
        assert!(fifo.contains("first report only"), "{fifo}");
        assert!(changed(|after| after.scenarios.truncate(1)).contains("first report only"));
        assert!(
            changed(|after| after.scenarios[0].topology.push('x')).contains("first report only")
        );
        assert!(
            changed(|after| after.scenarios.push(after.scenarios[0].clone()))
                .contains("second report more than once")
        );
        let mut shorter = report("a");
        shorter.scenarios.truncate(1);
        assert!(refusal(&shorter, &report("b")).contains("second report only"));
        let empty = Report {
            scenarios: vec![],
            ..report("a")
        };
        assert!(refusal(&empty, &empty).contains("no scenarios"));
    }
}
