// SPDX-License-Identifier: GPL-2.0-only
//! The series that are exposed: one for each statistic of the scheduler, and histograms by class
//! of lock.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use scx_stats::prelude::*;
use serde_json::Value;

use super::classes::{Observed, Settled};
use crate::locks::LockType;
use crate::stats::Metrics;

/// Label of a version.
type Build = [(&'static str, String); 1];
/// Label of a cgroup.
type Cgroup = [(&'static str, String); 1];
/// Labels of a waiter's and an owner's cgroup.
type Cgroups = [(&'static str, String); 2];
/// Label of a class of locks.
type Class = [(&'static str, String); 1];
type ByClass = Family<Class, Histogram, fn() -> Histogram>;
/// Label of a type of lock.
type Type = [(&'static str, &'static str); 1];

/// Statistics that are counted by type of lock, as `NAME_TYPE`: series with that label, whose sum is `NAME`.
const BY_TYPE: [(&str, &str); 2] = [
    (
        "edges",
        "Edges seen, by the type of the lock: tasks that went to sleep on a tracked lock",
    ),
    (
        "donations",
        "Donations begun, by the type of the lock: an owner was given a slice in a donor's context",
    ),
];

enum Stat {
    Count(Counter),
    Seconds(Counter<f64, AtomicU64>),
    Level(Gauge),
}

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// Our scheduler.
    Scheduler,
    /// `observe --beside`: another one schedules.
    Beside,
}

/// All series.
pub struct Series {
    up: Gauge,
    beside: Gauge,
    lost: Counter,
    stats: BTreeMap<String, Stat>,
    waits: ByClass,
    inversions: ByClass,
    depths: ByClass,
    pair_waits: Family<Cgroups, Counter>,
    pair_waited: Family<Cgroups, Counter<f64, AtomicU64>>,
    pair_inverted: Family<Cgroups, Counter<f64, AtomicU64>>,
    pair_lent: Family<Cgroups, Counter<f64, AtomicU64>>,
    group_weights: Family<Cgroup, Gauge<f64, AtomicU64>>,
    group_throttled: Family<Cgroup, Counter>,
    group_throttled_time: Family<Cgroup, Counter<f64, AtomicU64>>,
}

/// From 10 us to 42 s.
fn times() -> Histogram {
    Histogram::new(exponential_buckets(1e-5, 4.0, 12))
}

fn depths() -> Histogram {
    Histogram::new([1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0])
}

impl Series {
    /// Registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let series = Self {
            up: Gauge::default(),
            beside: Gauge::default(),
            lost: Counter::default(),
            stats: stats(registry),
            waits: Family::new_with_constructor(times as fn() -> Histogram),
            inversions: Family::new_with_constructor(times as fn() -> Histogram),
            depths: Family::new_with_constructor(depths as fn() -> Histogram),
            pair_waits: Family::default(),
            pair_waited: Family::default(),
            pair_inverted: Family::default(),
            pair_lent: Family::default(),
            group_weights: Family::default(),
            group_throttled: Family::default(),
            group_throttled_time: Family::default(),
        };
        series.register_cgroups(registry);
        let build = Family::<Build, Gauge>::default();
        let version = env!("CARGO_PKG_VERSION").to_owned();
        build.get_or_create(&[("version", version)]).set(1);
        registry.register("build_info", "1, of the exporter's version", build);
        registry.register(
            "up",
            "1 while scx_proxy schedules and answers, 0 otherwise",
            series.up.clone(),
        );
        registry.register(
            "beside",
            "1 while it answers that observes beside another scheduler (observe --beside), 0 otherwise",
            series.beside.clone(),
        );
        registry.register(
            "histogram_events_lost",
            "Events that were lost and are not in the histograms",
            series.lost.clone(),
        );
        registry.register_with_unit(
            "wait",
            "Length of the waits for a lock that ended",
            Unit::Seconds,
            series.waits.clone(),
        );
        registry.register_with_unit(
            "inversion",
            "Inversion time of the waits that ended: the owner could have run, did not, and had a later key",
            Unit::Seconds,
            series.inversions.clone(),
        );
        registry.register_with_unit(
            "chain_depth",
            "Locks between donor and owner, for each donation",
            Unit::Other("locks".into()),
            series.depths.clone(),
        );
        series
    }

    fn register_cgroups(&self, registry: &mut Registry) {
        registry.register(
            "cgroup_waits",
            "Waits for a lock that ended, by the waiter's and the owner's cgroup",
            self.pair_waits.clone(),
        );
        registry.register_with_unit(
            "cgroup_waited",
            "Total length of these waits",
            Unit::Seconds,
            self.pair_waited.clone(),
        );
        registry.register_with_unit(
            "cgroup_inverted",
            "Inversion time of these waits: the owner could have run, did not, and had a later key",
            Unit::Seconds,
            self.pair_inverted.clone(),
        );
        registry.register_with_unit(
            "cgroup_lent",
            "CPU time that tasks of the waiter's cgroup gave by donation, and tasks of the owner's got",
            Unit::Seconds,
            self.pair_lent.clone(),
        );
        registry.register(
            "cgroup_effective_weight",
            "Weight of a whole cgroup among the tasks of the root cgroup; a nice-0 task there weighs 100",
            self.group_weights.clone(),
        );
        registry.register(
            "cgroup_throttled_tasks",
            "Times that a task was parked because this cgroup had used up its cpu.max",
            self.group_throttled.clone(),
        );
        registry.register_with_unit(
            "cgroup_throttled",
            "Total time that tasks were parked for that",
            Unit::Seconds,
            self.group_throttled_time.clone(),
        );
    }

    /// Weights hold for the moment: those of cgroups that are not named again are gone.
    pub fn forget_groups(&self) {
        self.group_weights.clear();
    }

    /// A cgroup: what it weighs now; how many of its tasks were throttled since the last reading, and
    /// for how long.
    pub fn group(&self, path: String, weight: f64, (tasks, ns): (u64, u64)) {
        let label = [("cgroup", path)];
        self.group_weights.get_or_create(&label).set(weight);
        if tasks > 0 {
            self.group_throttled.get_or_create(&label).inc_by(tasks);
            let secs = ns as f64 / 1e9;
            self.group_throttled_time.get_or_create(&label).inc_by(secs);
        }
    }

    /// Who answers, if anybody does.
    pub fn set_up(&self, answers: Option<Answers>) {
        self.up.set((answers == Some(Answers::Scheduler)).into());
        self.beside.set((answers == Some(Answers::Beside)).into());
    }

    /// Adds events that were lost.
    pub fn lost(&self, events: u64) {
        self.lost.inc_by(events);
    }

    /// Adds what the scheduler counted since it was last asked.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn count(&self, metrics: &Metrics) -> serde_json::Result<()> {
        let values = serde_json::to_value(metrics)?;
        for (field, series) in &self.stats {
            let value = values.get(field).and_then(Value::as_u64).unwrap_or(0);
            match series {
                Stat::Count(counter) => {
                    counter.inc_by(value);
                }
                Stat::Seconds(counter) => {
                    counter.inc_by(value as f64 / 1e9);
                }
                Stat::Level(gauge) => {
                    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
                }
            }
        }
        Ok(())
    }

    /// Adds what was observed of a class of locks.
    pub fn observe(&self, settled: Settled) {
        let class = [("class", settled.class)];
        match settled.what {
            Observed::Wait {
                waited_ns,
                inverted_ns,
            } => {
                let secs = |ns: u64| ns as f64 / 1e9;
                self.waits.get_or_create(&class).observe(secs(waited_ns));
                self.inversions
                    .get_or_create(&class)
                    .observe(secs(inverted_ns));
                let [waiter, owner] = settled.pair;
                let pair = [("waiter", waiter), ("owner", owner)];
                self.pair_waits.get_or_create(&pair).inc();
                self.pair_waited
                    .get_or_create(&pair)
                    .inc_by(secs(waited_ns));
                self.pair_inverted
                    .get_or_create(&pair)
                    .inc_by(secs(inverted_ns));
            }
            Observed::Gave(ns) => {
                let [waiter, owner] = settled.pair;
                let pair = [("waiter", waiter), ("owner", owner)];
                self.pair_lent.get_or_create(&pair).inc_by(ns as f64 / 1e9);
            }
            Observed::Donation(locks) => {
                self.depths.get_or_create(&class).observe(locks as f64);
            }
        }
    }
}

/// A series for each field of [`Metrics`]. Times are exposed in seconds.
fn stats(registry: &mut Registry) -> BTreeMap<String, Stat> {
    let mut stats = BTreeMap::new();
    for (name, about) in BY_TYPE {
        let family = Family::<Type, Counter>::default();
        registry.register(name, about, family.clone());
        for lock in LockType::followed() {
            let counter = family.get_or_create(&[("type", lock.name())]).clone();
            stats.insert(format!("{name}_{}", lock.name()), Stat::Count(counter));
        }
    }
    for (field, about) in Metrics::meta().fields {
        let is_sum = BY_TYPE.iter().any(|(name, _)| *name == field);
        if is_sum || stats.contains_key(&field) {
            continue;
        }
        let about = about.attrs.desc.unwrap_or_default();
        let series = if let Some(about) = about.strip_prefix("Level: ") {
            let gauge = Gauge::default();
            registry.register(field.clone(), sentence(about), gauge.clone());
            Stat::Level(gauge)
        } else {
            let about = about.trim_end_matches(", since the last reading");
            if let Some(name) = field.strip_suffix("_ns") {
                let counter = Counter::<f64, AtomicU64>::default();
                let about = about.replace(" in ns", "");
                registry.register_with_unit(name, about, Unit::Seconds, counter.clone());
                Stat::Seconds(counter)
            } else {
                let counter: Counter = Counter::default();
                registry.register(field.clone(), about, counter.clone());
                Stat::Count(counter)
            }
        };
        stats.insert(field, series);
    }
    stats
}

fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(chars).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn text(registry: &Registry) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, registry).expect("text");
        text
    }

    /// All series with made-up values, as they are scraped.
    fn scraped() -> String {
        let mut registry = Registry::with_prefix("scx_proxy");
        let series = Series::new(&mut registry);
        // histograms of no class are not exposed
        let observe = |what| {
            series.observe(Settled {
                class: "mutex".into(),
                pair: ["/a".into(), "/b".into()],
                what,
            });
        };
        observe(Observed::Donation(1));
        observe(Observed::Gave(1));
        observe(Observed::Wait {
            waited_ns: 1,
            inverted_ns: 0,
        });
        series.group("/a".into(), 100.0, (1, 1));
        text(&registry)
    }

    /// Name, type and unit of each series, as exposed.
    fn exposed() -> BTreeSet<[String; 3]> {
        let text = scraped();
        let about = |what: &str| -> BTreeMap<String, String> {
            let lines = text.lines();
            let lines = lines.filter_map(|line| line.strip_prefix(&format!("# {what} ")));
            let pairs = lines.filter_map(|line| line.split_once(' '));
            pairs.map(|(name, it)| (name.into(), it.into())).collect()
        };
        let units = about("UNIT");
        let unit = |name: &str| units.get(name).cloned().unwrap_or_default();
        let types = about("TYPE").into_iter();
        types
            .map(|(name, kind)| [name.clone(), kind, unit(&name)])
            .collect()
    }

    #[test]
    fn the_document_lists_what_there_is() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
        let document = std::fs::read_to_string(path).expect("docs/metrics.md");
        let rows = document.lines().filter(|line| line.starts_with("| `scx_"));
        let listed: BTreeSet<[String; 3]> = rows
            .map(|row| {
                let mut cells = row.split('|').skip(1).map(|cell| cell.trim().to_owned());
                let mut next = || cells.next().expect("a cell");
                let (name, kind, unit) = (next(), next(), next());
                [name.trim_matches('`').to_owned(), kind, unit]
            })
            .collect();
        let exposed = exposed();
        let missing: Vec<_> = exposed.difference(&listed).collect();
        let gone: Vec<_> = listed.difference(&exposed).collect();
        assert!(missing.is_empty(), "docs/metrics.md lacks {missing:#?}");
        assert!(gone.is_empty(), "docs/metrics.md has also {gone:#?}");
    }

    /// Each series of the dashboard and of the alerts is scraped, and has the labels that they sort by.
    #[test]
    fn dashboard_and_alerts_show_what_there_is() {
        let text = scraped();
        let mut labels: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let series = line.rsplit_once(' ').map_or(line, |(series, _)| series);
            let (name, inside) = series.split_once('{').unwrap_or((series, ""));
            let names = inside
                .split("=\"")
                .filter_map(|part| part.rsplit(['"', ',']).next());
            labels
                .entry(name)
                .or_default()
                .extend(names.filter(|name| !name.is_empty() && *name != "}"));
        }
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/docs");
        let read = |name: &str| std::fs::read_to_string(format!("{root}/{name}")).expect(name);
        let dashboard: Value = serde_json::from_str(&read("grafana.json")).expect("JSON");
        let panels = dashboard["panels"].as_array().expect("panels");
        let targets = panels
            .iter()
            .flat_map(|panel| panel["targets"].as_array().expect("targets"));
        let mut asked: Vec<String> = targets
            .map(|target| target["expr"].as_str().expect("an expression").to_owned())
            .collect();
        let alerts = read("alerts.yml");
        let rules = alerts
            .lines()
            .filter_map(|line| line.trim().strip_prefix("expr: "));
        asked.extend(rules.map(str::to_owned));
        assert!(asked.len() > 25, "{}", asked.len());
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        for expr in asked {
            let words = expr.split(|c| !is_word(c));
            let names: Vec<_> = words
                .filter(|word| word.starts_with("scx_proxy_"))
                .collect();
            assert!(!names.is_empty(), "{expr}");
            for name in names {
                let has = labels
                    .get(name)
                    .unwrap_or_else(|| panic!("{name} of {expr}"));
                let by = expr
                    .split("by (")
                    .nth(1)
                    .and_then(|rest| rest.split(')').next());
                // whoever scrapes adds the instance
                let by = by.into_iter().flat_map(|by| by.split(", "));
                for label in by.filter(|label| *label != "instance") {
                    assert!(has.contains(label), "{label} of {name}, which has {has:?}");
                }
            }
        }
    }

    #[test]
    fn times_are_seconds_and_levels_are_set() {
        let mut registry = Registry::with_prefix("scx_proxy");
        let series = Series::new(&mut registry);
        let metrics = Metrics {
            cpus: 4,
            edges: 3,
            edges_rwsem: 3,
            donated_ns: 1_500_000_000,
            ..Metrics::default()
        };
        series.count(&metrics).expect("counted");
        series.count(&metrics).expect("counted");
        let text = text(&registry);
        for line in [
            "scx_proxy_cpus 4",
            "scx_proxy_edges_total{type=\"rwsem\"} 6",
            "scx_proxy_edges_total{type=\"mutex\"} 0",
            "scx_proxy_donated_seconds_total 3.0",
        ] {
            assert!(text.lines().any(|l| l == line), "no {line} in {text}");
        }
    }
}
