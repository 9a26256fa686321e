// SPDX-License-Identifier: GPL-2.0-only
//! `scx_proxy doctor`: whether this kernel can run the scheduler, which locks it would follow, and what
//! of the machine bears on that. Attaches nothing and changes nothing; needs no root. "Loads" is what the
//! table of `checks` says, which the loader goes through, too, before it loads: whoever is not root is told
//! what root would be. As root, the kernel is also shown two programs of a few instructions (`probe`); the
//! scheduler's own programs are shown to the verifier by `--verify` only (`loader::verify`).
//!
//! `preflight` goes through the table on this machine, `beside` says the same of `observe --beside`; `skipped`
//! asks about programs that run. `host` and `cgroups` read the machine, `config` and `rights` say what that means, `text` tells it to a person.

pub mod beside;
mod cgroups;
pub mod checks;
mod config;
mod host;
pub mod preflight;
pub mod probe;
mod rights;
mod skipped;
mod text;

pub use cgroups::NotHonoured;
pub use config::{Config, Need, Setting};
pub use host::{CgroupMemory, Host, Kernel, Loaded, Process, Root, StatsSocket};
pub use rights::Rights;
#[cfg(feature = "fuzzed")]
pub(crate) use rights::Sources;

use serde::Serialize;

use crate::locks::{KernelFacts, LockSet, Plan, Probe, Row, State};
use beside::Observes;
use checks::Refusal;

/// Whether the scheduler can be loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Loads {
    /// Whether nothing is in the way, root rights left aside.
    pub ok: bool,
    /// Whether we are root, which loading needs.
    pub root: bool,
    /// What is in the way.
    pub why: Option<String>,
    /// What would help.
    pub help: Option<String>,
}

impl Loads {
    fn new(checked: Result<(), Refusal>, root: bool) -> Self {
        let refusal = checked.err();
        Self {
            ok: refusal.is_none(),
            root,
            why: refusal.as_ref().map(|refusal| refusal.why.clone()),
            help: refusal.map(|refusal| refusal.remedy),
        }
    }
}

/// What `doctor` found; as JSON, these are the names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What `uname -r` prints.
    pub kernel: String,
    /// Whether it is a PREEMPT_RT kernel.
    pub preempt_rt: bool,
    /// Whether the scheduler can be loaded.
    pub loads: Loads,
    /// Whether `observe --beside` can watch this kernel, whatever schedules it.
    pub observes_beside: Observes,
    /// A row a lock type; none if the kernel's types cannot be read.
    pub locks: Vec<Row>,
    /// Why there are no rows.
    pub unread: Option<String>,
    /// What the optional BPF programs attach to; none if the kernel's types cannot be read.
    pub probes: Vec<Probe>,
    /// What the machine says.
    #[serde(flatten)]
    pub host: Host,
    /// What would be tracked, in one sentence.
    pub verdict: String,
    #[serde(skip)]
    follows_any: bool,
}

impl Report {
    fn new(
        loads: Loads,
        facts: Result<&KernelFacts, String>,
        wanted: &LockSet,
        release: Option<String>,
        host: Host,
    ) -> Self {
        let plan = facts.as_ref().ok().map(|facts| Plan::new(facts, wanted));
        let probes = match (&facts, &plan) {
            (Ok(facts), Some(plan)) => Probe::all(facts, plan),
            _ => Vec::new(),
        };
        let facts_release = facts.as_ref().ok().map(|facts| facts.release().to_owned());
        let mut report = Self {
            kernel: facts_release
                .or(release)
                .unwrap_or_else(|| "unknown".to_owned()),
            preempt_rt: facts.as_ref().is_ok_and(|facts| facts.preempt_rt())
                || host.config.value("PREEMPT_RT") == Some("y"),
            loads,
            observes_beside: Observes::new(facts.clone(), &host.rights),
            follows_any: plan.as_ref().is_some_and(Plan::follows_any),
            locks: plan.map_or_else(Vec::new, |plan| plan.rows().to_vec()),
            unread: facts.err(),
            probes,
            host,
            verdict: String::new(),
        };
        report.verdict = report.judge();
        report
    }

    /// Look at the machine that we run on.
    #[must_use]
    pub fn of_this_machine(wanted: &LockSet) -> Self {
        let root = Root("/".into());
        let host = preflight::settled(&root);
        let checked = preflight::check_for_root(&host);
        let loads = Loads::new(checked, preflight::is_root());
        let facts = KernelFacts::live().map_err(|error| error.to_string());
        let facts = facts.as_ref().map_err(Clone::clone);
        let mut report = Self::new(loads, facts, wanted, root.release(), host);
        skipped::note_skipped(&mut report.probes);
        report
    }

    fn judge(&self) -> String {
        if let Loads { ok: false, why, .. } = &self.loads {
            let why = why.as_deref().unwrap_or("for no known reason");
            let instead = match self.observes_beside.ok {
                true => "; scx_proxy observe --beside can watch it",
                false => "",
            };
            return format!(
                "nothing would be tracked, since scx_proxy cannot be loaded: {why}{instead}"
            );
        }
        let loaded = match self.loads.root {
            true => "scx_proxy can be loaded",
            false => "scx_proxy can be loaded by root",
        };
        if let Some(unread) = &self.unread {
            return format!("{loaded}, but what it would track is not known: {unread}");
        }
        let of = |state| {
            let rows = self.locks.iter().filter(move |row| row.state == state);
            rows.map(|row| row.lock.name()).collect::<Vec<_>>()
        };
        let (on, off) = (of(State::On), of(State::Off));
        if on.is_empty() {
            return format!("{loaded}, but would track no lock, and so lend nothing");
        }
        let mut said = format!(
            "{loaded}, and would track waits for {}, with {} probes",
            on.join(", "),
            self.probes.iter().filter(|probe| probe.attached).count()
        );
        if !off.is_empty() {
            said += &format!("; not for {}", off.join(", "));
        }
        if on.contains(&"pthread") && self.host.rights.hides_from_root() {
            said += "; pthread mutexes only once kernel.kptr_restrict is 1 or 0";
        }
        said
    }

    /// Whether the scheduler could be loaded and would follow any lock.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.loads.ok && self.follows_any
    }

    /// One JSON object.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self).map(|text| text + "\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> KernelFacts {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/fixtures/kernels/7.3.4+deb13-cloud-amd64.txt"
        );
        let text = std::fs::read_to_string(path).expect("a frozen kernel");
        KernelFacts::parse(&text).expect("facts")
    }

    fn report(checked: Result<(), Refusal>, root: bool, list: &str) -> Report {
        let wanted = list.parse().expect("a list of locks");
        let loads = Loads::new(checked, root);
        Report::new(loads, Ok(&facts()), &wanted, None, nowhere())
    }

    /// A machine of which nothing can be read.
    fn nowhere() -> Host {
        Root("/absent".into()).look()
    }

    fn refusal() -> Result<(), Refusal> {
        Err(Refusal {
            why: "another sched_ext scheduler is loaded: lavd".into(),
            remedy: "stop it first".into(),
        })
    }

    #[test]
    fn it_is_well_if_it_loads_and_follows_any_lock() {
        assert!(report(Ok(()), true, "default").is_well());
        assert!(report(Ok(()), false, "mutex").is_well());
        assert!(!report(Ok(()), true, "none").is_well());
        assert!(!report(Ok(()), true, "binder").is_well(), "no binder there");
        assert!(!report(refusal(), true, "default").is_well());
    }

    #[test]
    fn text_has_the_verdict_a_table_and_a_reason_for_all_that_is_not_on() {
        let text = report(Ok(()), false, "default").to_text();
        assert!(text.starts_with("kernel: 7.3.4+deb13-cloud-amd64\nloads: yes, as root\nobserves beside: yes, as root\n\nlock "));
        for line in [
            "mutex         on     task->blocked_on                  mutex.owner",
            "percpu_rwsem  never  tracepoint lock:contention_begin  none",
            "binder off: this kernel has no binder",
            "semaphore never: last_holder is only a hint: anybody may release it",
        ] {
            assert!(text.lines().any(|l| l == line), "no {line:?} in\n{text}");
        }
        let text = report(refusal(), true, "default").to_text();
        let no = "loads: no: another sched_ext scheduler is loaded: lavd\n  try: stop it first\n";
        assert!(text.contains(no), "{text}");
    }

    #[test]
    fn json_has_stable_names() {
        let text = report(Ok(()), true, "-rwsem").to_json().expect("JSON");
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(json["kernel"], "7.3.4+deb13-cloud-amd64");
        assert_eq!(json["preempt_rt"], false);
        let loads = serde_json::json!({"ok": true, "root": true, "why": null, "help": null});
        assert_eq!(json["loads"], loads);
        assert_eq!(json["unread"], serde_json::Value::Null);
        assert_eq!(
            json["locks"][1],
            serde_json::json!({
                "lock": "rwsem",
                "state": "off",
                "seen": "tracepoint lock:contention_begin",
                "owner": "rw_semaphore.owner",
                "why": "not asked for",
                "help": "--locks +rwsem",
                "programs": [],
            })
        );
    }

    #[test]
    fn a_kernel_that_describes_no_types_is_a_short_report() {
        let loads = Loads::new(refusal(), true);
        let unread = Err("no such file".into());
        let release = Some("7.3".to_owned());
        let report = Report::new(loads, unread, &LockSet::default(), release, nowhere());
        assert!(!report.is_well() && report.locks.is_empty() && report.probes.is_empty());
        let text = report.to_text();
        assert!(text.starts_with("kernel: 7.3\n"), "{text}");
        assert!(
            text.contains("\nlocks: not known: no such file\n"),
            "{text}"
        );
        assert!(
            text.contains("\nobserves beside: no: no such file\n"),
            "{text}"
        );
        let last = text.lines().last();
        assert!(last.is_some_and(|line| line.starts_with("verdict: nothing would be tracked")));
    }

    #[test]
    fn the_verdict_names_what_is_tracked_and_what_is_not() {
        let verdict = |checked, list| report(checked, true, list).verdict;
        let said = verdict(Ok(()), "default");
        let start = "scx_proxy can be loaded, and would track waits for mutex, rwsem, rtmutex, \
                     pthread, futex, with 6 probes; not for binder, ntsync";
        assert!(said.starts_with(start), "{said}");
        let said = verdict(Ok(()), "none");
        assert!(said.contains("would track no lock"), "{said}");
        let said = verdict(refusal(), "default");
        let end = "cannot be loaded: another sched_ext scheduler is loaded: lavd; \
                   scx_proxy observe --beside can watch it";
        assert!(said.ends_with(end), "{said}");
    }

    #[test]
    fn the_verdict_says_that_hidden_addresses_hide_pthread_mutexes() {
        let facts = facts();
        let verdict = |level| {
            let mut host = nowhere();
            host.rights.kptr_restrict = level;
            let loads = Loads::new(Ok(()), true);
            Report::new(loads, Ok(&facts), &LockSet::default(), None, host).verdict
        };
        assert!(verdict(Some(2)).contains("kernel.kptr_restrict"));
        for level in [Some(1), Some(0), None] {
            assert!(
                !verdict(level).contains("kernel.kptr_restrict"),
                "{level:?}"
            );
        }
    }

    #[test]
    fn every_probe_says_whether_it_is_there_and_what_for() {
        let report = report(Ok(()), true, "-rwsem,-pthread");
        let probe = |name| {
            let mut probes = report.probes.iter();
            probes.find(|probe| probe.program == name).expect("a probe")
        };
        let begin = probe("proxy_cont_begin");
        assert!(begin.exists && begin.attached);
        let locks: Vec<_> = begin.locks.iter().map(|lock| lock.name()).collect();
        assert_eq!(locks, ["mutex"]);
        let futex = probe("proxy_futex_wait");
        assert!(futex.exists && !futex.attached);
        assert!(!probe("proxy_binder_transaction").exists);
    }

    #[test]
    fn json_has_the_machine_beside_the_locks() {
        let text = report(Ok(()), false, "default").to_json().expect("JSON");
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let option = &json["config"]["options"][0];
        assert_eq!(option["name"], "CONFIG_SCHED_CLASS_EXT");
        assert_eq!(
            (&option["need"], &option["value"]),
            (&"needed".into(), &().into())
        );
        assert_eq!(json["rights"]["lockdown"], serde_json::Value::Null);
        assert_eq!(json["stats_socket"]["path"], "/var/run/scx/root/stats");
        assert_eq!(json["scheduler"]["name"], serde_json::Value::Null);
        assert_eq!(json["probes"][0]["kind"], "tracepoint");
        assert!(
            json["verdict"]
                .as_str()
                .is_some_and(|said| said.contains("mutex"))
        );
    }
}
