// SPDX-License-Identifier: GPL-2.0-only
//! Weights and throttled time of cgroups, as far as there is room: those with a limit come first.

use std::collections::HashMap;

use super::series::Series;
use crate::stats::GroupRow;

/// Most cgroups that are exposed; each has three lines in a scrape.
pub const GROUPS_MAX: usize = 64;

/// What one connection read of each cgroup the last time; `None`: nothing yet.
#[derive(Debug, Default)]
pub struct Groups(Option<HashMap<u64, GroupRow>>);

impl Groups {
    /// Takes in a reading, with paths. Of the first one counters are over an unknown time.
    pub fn read(&mut self, series: &Series, mut rows: Vec<(String, GroupRow)>) {
        let now: HashMap<_, _> = rows.iter().map(|(_, row)| (row.id, row.clone())).collect();
        let before = self.0.replace(now);
        // what was held up, may be, or competes tells more than what is idle
        let idle = |row: &GroupRow| (row.throttled == 0, row.quota_ns == 0, row.competing <= 0.0);
        rows.sort_by_key(|(_, row)| (idle(row), row.id));
        rows.truncate(GROUPS_MAX);
        series.forget_groups();
        for (path, row) in rows {
            let now = row.counters();
            let then = match &before {
                Some(before) => before.get(&row.id).map_or((0, 0), GroupRow::counters),
                None => now,
            };
            let added = (now.0.saturating_sub(then.0), now.1.saturating_sub(then.1));
            series.group(path, row.effective_weight, added);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::series::tests::assert_scraped;
    use prometheus_client::registry::Registry;

    #[test]
    fn the_throttled_ones_come_first_and_counters_add_up() {
        let mut registry = Registry::with_prefix("scx_proxy");
        let series = Series::new(&mut registry);
        let mut groups = Groups::default();
        let rows = |throttled, throttled_ns| {
            let row = |id| GroupRow {
                id,
                effective_weight: 50.0,
                throttled: if id == 999 { throttled } else { 0 },
                throttled_ns: if id == 999 { throttled_ns } else { 0 },
                ..GroupRow::default()
            };
            (0..1000).map(|id| (format!("/{id}"), row(id))).collect()
        };
        groups.read(&series, rows(1, 1_000_000_000));
        groups.read(&series, rows(2, 3_000_000_000));
        groups.read(&series, rows(4, 4_000_000_000));
        let lines = [
            "scx_proxy_cgroup_throttled_seconds_total{cgroup=\"/999\"} 3.0",
            "scx_proxy_cgroup_throttled_tasks_total{cgroup=\"/999\"} 3",
            "scx_proxy_cgroup_effective_weight{cgroup=\"/999\"} 50.0",
        ];
        let text = assert_scraped(&registry, &lines);
        let exposed = text.matches("cgroup_effective_weight{").count();
        assert_eq!(exposed, GROUPS_MAX);
    }
}
