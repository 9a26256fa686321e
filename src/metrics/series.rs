// SPDX-License-Identifier: GPL-2.0-only
//! The series that are exposed: one for each statistic of the scheduler, and histograms by class
//! of lock.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Metric, Registry, Unit};
use scx_stats::prelude::*;
use serde_json::Value;

use super::classes::{Observed, Settled};
use crate::locks::LockType;
use crate::stats::Metrics;

/// Label of a version, a cgroup, or a class of locks.
type Label = [(&'static str, String); 1];
/// Labels of a waiter's and an owner's cgroup.
type Cgroups = [(&'static str, String); 2];
type ByClass = Family<Label, Histogram, fn() -> Histogram>;
type Seconds = Counter<f64, AtomicU64>;
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
    Seconds(Seconds),
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
    pair_waited: Family<Cgroups, Seconds>,
    pair_inverted: Family<Cgroups, Seconds>,
    pair_lent: Family<Cgroups, Seconds>,
    group_weights: Family<Label, Gauge<f64, AtomicU64>>,
    group_throttled: Family<Label, Counter>,
    group_throttled_time: Family<Label, Seconds>,
}

/// From 10 us to 42 s.
fn times() -> Histogram {
    Histogram::new(exponential_buckets(1e-5, 4.0, 12))
}

fn depths() -> Histogram {
    Histogram::new([1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0])
}

fn secs(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// Registers series. A unit becomes the last word of their names.
struct Adder<'a>(&'a mut Registry);

impl Adder<'_> {
    fn put<M: Metric + Clone>(
        &mut self,
        name: &str,
        unit: Option<Unit>,
        about: &str,
        series: M,
    ) -> M {
        let one = series.clone();
        match unit {
            Some(unit) => self.0.register_with_unit(name, about, unit, one),
            None => self.0.register(name, about, one),
        }
        series
    }

    fn add<M: Metric + Clone + Default>(&mut self, name: &str, about: &str) -> M {
        self.put(name, None, about, M::default())
    }

    fn seconds<M: Metric + Clone + Default>(&mut self, name: &str, about: &str) -> M {
        self.put(name, Some(Unit::Seconds), about, M::default())
    }

    fn by_class(
        &mut self,
        name: &str,
        unit: Unit,
        about: &str,
        make: fn() -> Histogram,
    ) -> ByClass {
        self.put(name, Some(unit), about, Family::new_with_constructor(make))
    }
}

impl Series {
    /// Registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let mut to = Adder(registry);
        let build: Family<Label, Gauge> = to.add("build_info", "1, of the exporter's version");
        let version = env!("CARGO_PKG_VERSION").to_owned();
        build.get_or_create(&[("version", version)]).set(1);
        Self {
            stats: stats(&mut to),
            up: to.add(
                "up",
                "1 while scx_proxy schedules and answers, 0 otherwise",
            ),
            beside: to.add(
                "beside",
                "1 while it answers that observes beside another scheduler (observe --beside), 0 otherwise",
            ),
            lost: to.add(
                "histogram_events_lost",
                "Events that were lost and are not in the histograms",
            ),
            waits: to.by_class(
                "wait",
                Unit::Seconds,
                "Length of the waits for a lock that ended",
                times,
            ),
            inversions: to.by_class(
                "inversion",
                Unit::Seconds,
                "Inversion time of the waits that ended: the owner could have run, did not, and had a later key",
                times,
            ),
            depths: to.by_class(
                "chain_depth",
                Unit::Other("locks".into()),
                "Locks between donor and owner, for each donation",
                depths,
            ),
            pair_waits: to.add(
                "cgroup_waits",
                "Waits for a lock that ended, by the waiter's and the owner's cgroup",
            ),
            pair_waited: to.seconds("cgroup_waited", "Total length of these waits"),
            pair_inverted: to.seconds(
                "cgroup_inverted",
                "Inversion time of these waits: the owner could have run, did not, and had a later key",
            ),
            pair_lent: to.seconds(
                "cgroup_lent",
                "CPU time that tasks of the waiter's cgroup gave by donation, and tasks of the owner's got",
            ),
            group_weights: to.add(
                "cgroup_effective_weight",
                "Weight of a whole cgroup among the tasks of the root cgroup; a nice-0 task there weighs 100",
            ),
            group_throttled: to.add(
                "cgroup_throttled_tasks",
                "Times that a task was parked because this cgroup had used up its cpu.max",
            ),
            group_throttled_time: to.seconds(
                "cgroup_throttled",
                "Total time that tasks were parked for that",
            ),
        }
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
            let time = self.group_throttled_time.get_or_create(&label);
            time.inc_by(secs(ns));
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
                    counter.inc_by(secs(value));
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
        let [waiter, owner] = settled.pair;
        let pair = [("waiter", waiter), ("owner", owner)];
        match settled.what {
            Observed::Wait {
                waited_ns,
                inverted_ns,
            } => {
                let (waited, inverted) = (secs(waited_ns), secs(inverted_ns));
                self.waits.get_or_create(&class).observe(waited);
                self.inversions.get_or_create(&class).observe(inverted);
                self.pair_waits.get_or_create(&pair).inc();
                self.pair_waited.get_or_create(&pair).inc_by(waited);
                self.pair_inverted.get_or_create(&pair).inc_by(inverted);
            }
            Observed::Gave(ns) => {
                self.pair_lent.get_or_create(&pair).inc_by(secs(ns));
            }
            Observed::Donation(locks) => {
                self.depths.get_or_create(&class).observe(locks as f64);
            }
        }
    }
}

/// A series for each field of [`Metrics`]. Times are exposed in seconds.
fn stats(to: &mut Adder) -> BTreeMap<String, Stat> {
    let mut stats = BTreeMap::new();
    for (name, about) in BY_TYPE {
        let family: Family<Type, Counter> = to.add(name, about);
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
            Stat::Level(to.add(&field, &sentence(about)))
        } else {
            let about = about.trim_end_matches(", since the last reading");
            if let Some(name) = field.strip_suffix("_ns") {
                let about = about.replace(" in ns", "");
                Stat::Seconds(to.seconds(name, &about))
            } else {
                Stat::Count(to.add(&field, about))
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
pub(super) mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn text(registry: &Registry) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, registry).expect("text");
        text
    }

    /// That these lines are among what is scraped, which it gives back.
    pub fn assert_scraped(registry: &Registry, lines: &[&str]) -> String {
        let text = text(registry);
        for line in lines {
            assert!(text.lines().any(|l| l == *line), "no {line} in {text}");
        }
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
        let lines = [
            "scx_proxy_cpus 4",
            "scx_proxy_edges_total{type=\"rwsem\"} 6",
            "scx_proxy_edges_total{type=\"mutex\"} 0",
            "scx_proxy_donated_seconds_total 3.0",
        ];
        assert_scraped(&registry, &lines);
    }
}
