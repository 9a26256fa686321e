// SPDX-License-Identifier: GPL-2.0-only
//! Scenarios: small files that say who runs what on which CPU, and which donations
//! shall come of it. Times are in ms, tasks and locks have names.
//!
//! This is the form and its meaning. The text is TOML, read and written by whoever
//! does I/O (`tests/model/files.rs`), with serde; a [`Problem`] says which piece of
//! the text is wrong, so that the reader can name the line.

use serde::{Deserialize, Serialize};
use std::fmt;

use super::policy::{Config, Cpu, Group, Limit, Pid, Topology};
use super::program::{
    Class, CpuMask, External, GroupSpec, LockIdx, LockKind, LockSpec, Op, PointedBy, Setup,
    TaskSpec, mask_of,
};

/// A scenario.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it is about.
    pub name: String,
    /// Which hazard, and what is right.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub about: String,
    /// Number of CPUs, up to 64.
    pub cpus: u32,
    /// CPUs that share a cache, from CPU 0 on; none named: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain_cpus: Option<u32>,
    /// Whether two CPUs in a row are threads of a core.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub smt: bool,
    /// CPUs of a larger capacity than the others, from CPU 0 on; 0: all are alike.
    #[serde(default)]
    pub big_cpus: u32,
    /// CPUs booted with `nohz_full=`, from the last CPU down.
    #[serde(default)]
    pub nohz_full_cpus: u32,
    /// Caches of a NUMA node; none named: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_domains: Option<u32>,
    /// When it ends.
    pub until_ms: f64,
    /// Seed of delays, if there are any.
    #[serde(default)]
    pub seed: u64,
    /// Longest time from a kick to its CPU's pick.
    #[serde(default)]
    pub kick_delay_us: f64,
    /// Longest time from a release to the wakeup of the first waiter.
    #[serde(default)]
    pub wake_delay_us: f64,
    /// Longest time by which a tick is late: slices then end at any time.
    #[serde(default)]
    pub tick_delay_us: f64,
    /// Whether there are timers beside the tick; PREEMPT_RT has none for BPF.
    #[serde(default = "yes")]
    pub hrtick: bool,
    /// How to stage it on a real kernel: free form, not used here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<serde_json::Map<String, serde_json::Value>>,
    /// The locks.
    #[serde(default)]
    pub locks: Vec<NamedLock>,
    /// The cgroups, each below one that is named before.
    #[serde(default)]
    pub groups: Vec<NamedGroup>,
    /// The tasks; the first has pid 1.
    pub tasks: Vec<NamedTask>,
    /// What comes from outside.
    #[serde(default)]
    pub events: Vec<NamedEvent>,
    /// What shall come of it.
    #[serde(default)]
    pub expect: Expect,
}

/// A lock.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedLock {
    /// Its name.
    pub name: String,
    /// `mutex` unless named: `rwsem`, `rtmutex`, `pthread`, `binder`, `unowned`,
    /// `unnamed`.
    #[serde(default)]
    pub kind: LockKind,
    /// Whose registers or stack point at it: `nobody` unless named, `owner`, `others`.
    #[serde(default)]
    pub pointed_by: PointedBy,
    /// Whether each release names the first waiter as the owner.
    #[serde(default)]
    pub handoff: bool,
    /// CPU time from a release to the wakeup of the first waiter, of `pthread` and `unnamed`.
    #[serde(default)]
    pub release_ms: f64,
}

/// A cgroup.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedGroup {
    /// Its name.
    pub name: String,
    /// The one that it is in; not named: the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Its `cpu.weight`; not named: 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// Its `cpu.max`: quota and period in ms; not named: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_ms: Option<[f64; 2]>,
    /// Its `cpu.max.burst`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst_ms: Option<f64>,
}

/// A task.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedTask {
    /// Its name.
    pub name: String,
    /// Its nice value.
    #[serde(default)]
    pub nice: i32,
    /// Its real-time priority, instead of a nice value; 200 for a deadline task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rt: Option<u32>,
    /// Its cgroup; not named: the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// CPUs that it may run on; none named: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cpus: Vec<Cpu>,
    /// When it wakes first.
    #[serde(default)]
    pub start_ms: f64,
    /// Where; not named: the first CPU that it may run on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_cpu: Option<Cpu>,
    /// Whether its program begins anew at the end.
    #[serde(default)]
    pub repeat: bool,
    /// What it does: `run 2.5`, `lock a`, `share a`, `unlock a`, `sleep 1`, `affinity 0,1`,
    /// `migrate_disable`, `migrate_enable`, `nice 5`, `wait`, `notify b`, `yield`,
    /// `yield_to b`, `exit`.
    pub program: Vec<String>,
}

/// An event from outside: a time, and exactly one of the others.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedEvent {
    /// When.
    pub at_ms: f64,
    /// The task that gets a signal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// The task whose affinity or nice value is changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// ... to these CPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<Vec<Cpu>>,
    /// ... to this nice value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nice: Option<i32>,
    /// ... or to this cgroup (`""`: the root); without a task the cgroup whose weight is changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// ... to this `cpu.weight`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// The CPU that goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offline: Option<Cpu>,
    /// The CPU that comes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub online: Option<Cpu>,
}

/// What shall come of a scenario. What is not named is not checked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// All donations in order; one that is renewed counts once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub donations: Option<Vec<ExpectDonation>>,
    /// All migrations of contexts in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migrations: Option<Vec<ExpectMigration>>,
    /// Waits, and how long they may be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits: Vec<ExpectWait>,
    /// What tasks get of the CPUs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cpu_time: Vec<ExpectCpuTime>,
    /// Where tasks are at the end.
    #[serde(default, rename = "final", skip_serializing_if = "Vec::is_empty")]
    pub final_state: Vec<ExpectFinal>,
}

/// A donation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectDonation {
    /// The donor.
    pub donor: String,
    /// The owner that runs.
    pub owner: String,
    /// Where; not named: anywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
}

/// A migration of a context.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectMigration {
    /// Whose context.
    pub donor: String,
    /// To the queue of this CPU.
    pub to: Cpu,
}

/// The first wait of a task for a lock.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectWait {
    /// The waiter.
    pub task: String,
    /// For which lock.
    pub lock: String,
    /// Greatest inversion factor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factor_max: Option<f64>,
    /// Least one: shows that the scenario inverts anything at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factor_min: Option<f64>,
    /// Whether it has the lock in the end, or gave up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acquired: Option<bool>,
}

/// What a task gets of the CPUs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectCpuTime {
    /// The task.
    pub task: String,
    /// Least and most CPU time, of the time from its start to the end of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<[f64; 2]>,
    /// Longest time that it may be runnable without running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub still_max_ms: Option<f64>,
    /// Least such time, once: shows that the scenario keeps anybody waiting at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub still_min_ms: Option<f64>,
}

/// What a task does at the end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectFinal {
    /// The task.
    pub task: String,
    /// `exited`, `blocked`, `asleep`, `running`, `queued`, or `runnable` (one of the last two).
    pub state: String,
    /// The CPU that it is on, or was last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
}

/// Something in the text of a scenario that cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The string of the text that it is about.
    pub at: String,
    /// What is wrong, and what to do.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\": {}", self.at, self.what)
    }
}

impl std::error::Error for Problem {}

pub(super) fn problem<T>(at: &str, what: impl Into<String>) -> Result<T, Problem> {
    Err(Problem {
        at: at.to_owned(),
        what: what.into(),
    })
}

fn ns(value: f64, per_unit: f64) -> u64 {
    (value * per_unit).round().max(0.0) as u64
}

/// Milliseconds of a file in ns.
pub fn ms_to_ns(ms: f64) -> u64 {
    ns(ms, 1e6)
}

/// What `hrtick` is, if a file does not say.
fn yes() -> bool {
    true
}

impl Scenario {
    /// The pid of the task of that name.
    pub fn pid(&self, name: &str) -> Result<Pid, Problem> {
        let names = || {
            self.tasks
                .iter()
                .map(|t| t.name.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        };
        match self.tasks.iter().position(|t| t.name == name) {
            Some(i) => Ok(i as Pid + 1),
            None => problem(name, format!("no such task; there are: {}", names())),
        }
    }

    /// The number of the cgroup of that name; of the root, whose name is empty, 0.
    fn group(&self, name: &str) -> Result<Group, Problem> {
        if name.is_empty() {
            return Ok(0);
        }
        match self.groups.iter().position(|g| g.name == name) {
            Some(i) => Ok(i as Group + 1),
            None => problem(name, "no such cgroup; add it under [[groups]]"),
        }
    }

    fn group_spec(&self, group: &NamedGroup) -> Result<GroupSpec, Problem> {
        let parent = match &group.parent {
            Some(parent) => self.group(parent)?,
            None => 0,
        };
        if parent >= self.group(&group.name)? {
            return problem(&group.name, "its parent must be named before it");
        }
        Ok(GroupSpec {
            parent,
            weight: group_weight(&group.name, group.weight.unwrap_or(100))?,
            limit: group.max_ms.map(|[quota, period]| Limit {
                quota_ns: ms_to_ns(quota),
                period_ns: ms_to_ns(period),
                burst_ns: ms_to_ns(group.burst_ms.unwrap_or(0.0)),
            }),
        })
    }

    /// The lock of that name.
    pub fn lock(&self, name: &str) -> Result<LockIdx, Problem> {
        match self.locks.iter().position(|l| l.name == name) {
            Some(i) => Ok(i),
            None => problem(name, "no such lock; add it under [[locks]]"),
        }
    }

    /// The configuration of a policy for this machine.
    pub fn config(&self) -> Config {
        Config {
            domains: self.topology().domains(self.cpus),
            nohz_full: self.topology().nohz_full(self.cpus),
            ..Config::new(self.cpus)
        }
    }

    fn topology(&self) -> Topology {
        let all = Topology::default();
        Topology {
            domain_cpus: self.domain_cpus.unwrap_or(all.domain_cpus),
            smt: self.smt,
            big_cpus: self.big_cpus,
            nohz_full_cpus: self.nohz_full_cpus,
            node_domains: self.node_domains.unwrap_or(all.node_domains),
        }
    }

    /// The run that this scenario is.
    pub fn setup(&self) -> Result<Setup, Problem> {
        if self.cpus == 0 || self.cpus > 64 {
            return problem(&self.name, "cpus must be from 1 to 64");
        }
        Ok(Setup {
            nr_cpus: self.cpus,
            topology: self.topology(),
            groups: self
                .groups
                .iter()
                .map(|g| self.group_spec(g))
                .collect::<Result<_, _>>()?,
            tasks: self
                .tasks
                .iter()
                .map(|t| self.task_spec(t))
                .collect::<Result<_, _>>()?,
            locks: self
                .locks
                .iter()
                .map(|l| LockSpec {
                    kind: l.kind,
                    pointed_by: l.pointed_by,
                    handoff: l.handoff,
                    release_ns: ms_to_ns(l.release_ms),
                })
                .collect(),
            externals: self
                .events
                .iter()
                .map(|e| self.external(e))
                .collect::<Result<_, _>>()?,
            until_ns: ms_to_ns(self.until_ms),
            seed: self.seed,
            kick_delay_ns: ns(self.kick_delay_us, 1e3),
            wake_delay_ns: ns(self.wake_delay_us, 1e3),
            tick_delay_ns: ns(self.tick_delay_us, 1e3),
            hrtick: self.hrtick,
        })
    }

    fn mask(&self, at: &str, cpus: &[Cpu]) -> Result<CpuMask, Problem> {
        if cpus.is_empty() {
            return Ok(mask_of(self.cpus));
        }
        match cpus.iter().find(|&&cpu| cpu >= self.cpus) {
            Some(cpu) => problem(at, format!("there is no CPU {cpu}; raise `cpus`")),
            None => Ok(cpus.iter().fold(0, |mask, cpu| mask | 1 << cpu)),
        }
    }

    fn task_spec(&self, task: &NamedTask) -> Result<TaskSpec, Problem> {
        let cpus = self.mask(&task.name, &task.cpus)?;
        let start_cpu = task.start_cpu.unwrap_or(cpus.trailing_zeros());
        if cpus >> start_cpu & 1 == 0 {
            return problem(&task.name, "start_cpu is not among its cpus");
        }
        if !(-20..=19).contains(&task.nice) || task.rt == Some(0) {
            return problem(
                &task.name,
                "nice is from -20 to 19, rt from 1 to 99 (deadline: 200)",
            );
        }
        Ok(TaskSpec {
            class: task
                .rt
                .map_or(Class::Fair { nice: task.nice }, |prio| Class::Rt { prio }),
            group: task.group.as_deref().map_or(Ok(0), |g| self.group(g))?,
            cpus,
            start_ns: ms_to_ns(task.start_ms),
            start_cpu,
            program: task
                .program
                .iter()
                .map(|op| self.op(op))
                .collect::<Result<_, _>>()?,
            repeat: task.repeat,
        })
    }

    fn op(&self, text: &str) -> Result<Op, Problem> {
        let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
        let rest = rest.trim();
        let time = || match rest.parse::<f64>() {
            Ok(ms) if ms >= 0.0 => Ok(ms_to_ns(ms)),
            _ => problem(
                text,
                format!("`{verb}` wants a time in ms, as in `{verb} 2.5`"),
            ),
        };
        Ok(match verb {
            "run" => Op::Run(time()?),
            "sleep" => Op::Sleep(time()?),
            "lock" => Op::Lock(self.lock(rest).or_else(|p| problem(text, p.what))?),
            "share" => Op::Share(self.lock(rest).or_else(|p| problem(text, p.what))?),
            "unlock" => Op::Unlock(self.lock(rest).or_else(|p| problem(text, p.what))?),
            "affinity" => Op::SetAffinity(self.mask(text, &cpu_list(text, rest)?)?),
            "migrate_disable" => Op::MigrateDisable,
            "migrate_enable" => Op::MigrateEnable,
            "nice" => match rest.parse() {
                Ok(nice) if (-20..=19).contains(&nice) => Op::SetNice(nice),
                _ => return problem(text, "`nice` wants a value from -20 to 19"),
            },
            "yield" => Op::Yield,
            "yield_to" => Op::YieldTo(self.pid(rest).or_else(|p| problem(text, p.what))?),
            "core_runs" => self.core_runs(text, rest)?,
            "wait" => Op::Wait,
            "notify" => Op::Notify(self.pid(rest).or_else(|p| problem(text, p.what))?),
            "exit" => Op::Exit,
            _ => {
                let known = "run, lock, share, unlock, sleep, affinity, migrate_disable, \
                             migrate_enable, nice, wait, notify, yield, yield_to, core_runs, exit";
                return problem(text, format!("unknown operation; there are: {known}"));
            }
        })
    }

    fn core_runs(&self, text: &str, rest: &str) -> Result<Op, Problem> {
        let parts = rest.rsplit_once(' ');
        let parts = parts.and_then(|(task, ms)| Some((task, ms.parse::<f64>().ok()?)));
        match parts {
            Some((task, ms)) if ms >= 0.0 => {
                let pid = self.pid(task).or_else(|p| problem(text, p.what))?;
                Ok(Op::CoreRuns(pid, ms_to_ns(ms)))
            }
            _ => problem(text, "`core_runs` wants a task and a time in ms"),
        }
    }

    fn external(&self, event: &NamedEvent) -> Result<(u64, External), Problem> {
        let what = match event {
            NamedEvent {
                signal: Some(t), ..
            } => External::Signal(self.pid(t)?),
            NamedEvent {
                task: Some(t),
                cpus: Some(cpus),
                ..
            } => External::Affinity(self.pid(t)?, self.mask(t, cpus)?),
            NamedEvent {
                task: Some(t),
                nice: Some(nice),
                ..
            } => External::Nice(self.pid(t)?, *nice),
            NamedEvent {
                task: Some(t),
                group: Some(group),
                ..
            } => External::Move(self.pid(t)?, self.group(group)?),
            NamedEvent {
                group: Some(group),
                weight: Some(weight),
                ..
            } => External::Weight(self.group(group)?, group_weight(group, *weight)?),
            NamedEvent {
                offline: Some(cpu), ..
            } if *cpu < self.cpus => External::Offline(*cpu),
            NamedEvent {
                online: Some(cpu), ..
            } if *cpu < self.cpus => External::Online(*cpu),
            _ => {
                let known = "signal = task; task and cpus; task and nice; task and group; \
                             group and weight; offline = cpu; online = cpu";
                return problem("at_ms", format!("an event needs one of: {known}"));
            }
        };
        Ok((ms_to_ns(event.at_ms), what))
    }
}

fn group_weight(at: &str, weight: u32) -> Result<u32, Problem> {
    if (1..=10_000).contains(&weight) {
        Ok(weight)
    } else {
        problem(at, "weight is from 1 to 10000")
    }
}

fn cpu_list(text: &str, list: &str) -> Result<Vec<Cpu>, Problem> {
    let cpus: Result<Vec<Cpu>, _> = list.split(',').map(|cpu| cpu.trim().parse()).collect();
    cpus.or_else(|_| problem(text, "`affinity` wants CPUs, as in `affinity 0,2`"))
}
