// SPDX-License-Identifier: GPL-2.0-only
//! Owns the comparison of reports: one table, a row per scenario and a column per report, or a refusal to
//! compare what does not match.

use crate::report::{Report, ScenarioReport};
use crate::text::staged_cell;
use anyhow::{Result, bail, ensure};
use scx_proxy::output::Table;

/// Of two reports or more. They may be of different kernels, which is then said.
pub fn compare(reports: &[Report]) -> Result<String> {
    let [first, others @ ..] = reports else {
        bail!("there is no report");
    };
    for other in others {
        ensure!(
            first.cpus == other.cpus,
            "the reports are of different numbers of CPUs ({} and {})",
            first.cpus,
            other.cpus
        );
    }
    let labels: Vec<_> = (0..).zip(reports).map(label).collect();
    let columns = others
        .iter()
        .zip(2..)
        .map(|(other, nr)| pair_up(&first.scenarios, &other.scenarios, nr))
        .collect::<Result<Vec<_>>>()?;
    let mut headings = vec!["scenario", "hogs", "fair ideal"];
    headings.extend(labels.iter().map(String::as_str));
    headings.push("staged");
    let mut table = Table::new(&headings);
    for (nr, scenario) in first.scenarios.iter().enumerate() {
        let all = || std::iter::once(scenario).chain(columns.iter().map(|column| column[nr]));
        let mut row = vec![
            scenario.name(),
            scenario.hogs_per_cpu.to_string(),
            format!("{:.2}", scenario.fair_ideal),
        ];
        row.extend(all().map(factor_cell));
        row.push(all().map(staged_cell).collect::<Vec<_>>().join(" "));
        table.row(row);
    }
    Ok(format!(
        "Inversion factor: mean [median]; kernel {}, {} CPUs\n\n{}",
        kernels(reports, &labels),
        first.cpus,
        table.render()
    ))
}

fn label((nr, report): (usize, &Report)) -> String {
    report.label.clone().unwrap_or_else(|| match nr {
        0 => "before".to_string(),
        1 => "after".to_string(),
        _ => format!("report {}", nr + 1),
    })
}

/// The one of all reports, or each with what it is the kernel of.
fn kernels(reports: &[Report], labels: &[String]) -> String {
    let first = &reports[0].kernel;
    if reports.iter().all(|report| report.kernel == *first) {
        return first.clone();
    }
    let each = reports.iter().zip(labels);
    each.map(|(report, label)| format!("{} ({label})", report.kernel))
        .collect::<Vec<_>>()
        .join(", ")
}

/// The scenarios of report `nr` (from 1) in the order of the first one's.
fn pair_up<'a>(
    first: &[ScenarioReport],
    other: &'a [ScenarioReport],
    nr: usize,
) -> Result<Vec<&'a ScenarioReport>> {
    ensure!(!first.is_empty(), "the reports hold no scenarios");
    let mut pairs = Vec::with_capacity(first.len());
    for old in first {
        let mut same = other.iter().filter(|new| new.name() == old.name());
        match (same.next(), same.next()) {
            (Some(new), None) => pairs.push(checked(old, new)?),
            (None, _) => bail!("{} is in report 1 and not in report {nr}", old.name()),
            _ => bail!("{} is in report {nr} more than once", old.name()),
        }
    }
    for new in other {
        match first.iter().filter(|old| old.name() == new.name()).count() {
            0 => bail!("{} is in report {nr} and not in report 1", new.name()),
            1 => {}
            _ => bail!("{} is in report 1 more than once", new.name()),
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

    fn both(before: &Report, after: &Report) -> Result<String> {
        compare(&[before.clone(), after.clone()])
    }

    /// The refusal, or an empty string.
    fn refusal(before: &Report, after: &Report) -> String {
        both(before, after)
            .err()
            .map_or_else(String::new, |error| error.to_string())
    }

    #[test]
    fn one_table_of_two_reports() -> Result<()> {
        let before = report("kernel default");
        let mut after = report("scx_proxy");
        after.scenarios.reverse();
        let text = both(&before, &after)?;
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
    fn a_third_report_is_a_third_column_and_another_kernel_is_said() -> Result<()> {
        let (first, second) = (report("kernel default"), report("scx_proxy"));
        let mut third = report("in the kernel");
        third.kernel = "7.3.4-pe".to_string();
        third.scenarios.reverse();
        for scenario in &mut third.scenarios {
            if let Some(factor) = &mut scenario.factor {
                factor.mean = 1.75;
            }
        }
        let text = compare(&[first, second, third])?;
        let row = text.lines().find(|line| line.contains("3.00 [3.00]"));
        let row = row.unwrap_or_default();
        assert_eq!(row.matches("3.00 [3.00]").count(), 2, "{text}");
        assert!(row.contains("1.75 [3.00]"), "{text}");
        assert!(row.contains("2/3 2/3 2/3"), "{text}");
        assert!(text.contains("7.3.4-pe (in the kernel)"), "{text}");
        assert!(text.contains("(scx_proxy)"), "{text}");
        Ok(())
    }

    #[test]
    fn labels_have_defaults() -> Result<()> {
        let unlabelled = Report {
            label: None,
            ..report("x")
        };
        let text = compare(&[unlabelled.clone(), unlabelled.clone(), unlabelled])?;
        for label in ["before", "after", "report 3"] {
            assert!(text.contains(label), "{text}");
        }
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
        assert_eq!(changed(|after| after.kernel.push('x')), "");
        assert!(changed(|after| after.cpus = 2).contains("numbers of CPUs"));
        assert!(changed(|after| after.scenarios[0].hogs_per_cpu = 1).contains("hogs per CPU"));
        assert!(changed(|after| after.scenarios[0].owner_nice = 5).contains("owner nice"));
        let fifo = changed(|after| after.scenarios[0].waiter_policy = WaiterPolicy::Fifo(50));
        assert!(fifo.contains("not in report 2"), "{fifo}");
        assert!(changed(|after| after.scenarios.truncate(1)).contains("not in report 2"));
        assert!(changed(|after| after.scenarios[0].topology.push('x')).contains("not in report 2"));
        assert!(
            changed(|after| after.scenarios.push(after.scenarios[0].clone()))
                .contains("in report 2 more than once")
        );
        let mut shorter = report("a");
        shorter.scenarios.truncate(1);
        assert!(refusal(&shorter, &report("b")).contains("not in report 1"));
        let empty = Report {
            scenarios: vec![],
            ..report("a")
        };
        assert!(refusal(&empty, &empty).contains("no scenarios"));
        assert!(compare(&[]).is_err());
    }
}
