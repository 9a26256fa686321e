//! `scx_proxy doctor`: whether this kernel can run the scheduler, and which locks it would follow.
//! Loads nothing and changes nothing; needs no root. "Loads" is the preflight's opinion: nobody asks
//! the verifier.

use std::fmt::Write;

use serde::Serialize;

use crate::loader::preflight::{self, Refusal};
use crate::locks::{KernelFacts, LockSet, Plan, Row};
use crate::output::Table;

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
    /// A row a lock type; none if the kernel's types cannot be read.
    pub locks: Vec<Row>,
    /// Why there are no rows.
    pub unread: Option<String>,
    #[serde(skip)]
    follows_any: bool,
}

impl Report {
    fn new(loads: Loads, facts: Result<&KernelFacts, String>, wanted: &LockSet) -> Self {
        let plan = facts.as_ref().ok().map(|facts| Plan::new(facts, wanted));
        Self {
            kernel: facts
                .as_ref()
                .map_or_else(|_| "unknown".to_owned(), |facts| facts.release().to_owned()),
            preempt_rt: facts.as_ref().is_ok_and(|facts| facts.preempt_rt()),
            loads,
            follows_any: plan.as_ref().is_some_and(Plan::follows_any),
            locks: plan.map_or_else(Vec::new, |plan| plan.rows().to_vec()),
            unread: facts.err(),
        }
    }

    /// Look at the machine that we run on.
    #[must_use]
    pub fn of_this_machine(wanted: &LockSet) -> Self {
        let loads = Loads::new(preflight::check_for_root(), preflight::is_root());
        let facts = KernelFacts::live().map_err(|error| error.to_string());
        Self::new(loads, facts.as_ref().map_err(Clone::clone), wanted)
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

    /// For a person: whether it loads, a table of the locks, and what is to be said about them.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = format!(
            "kernel: {}{}\n",
            self.kernel,
            if self.preempt_rt { " (PREEMPT_RT)" } else { "" }
        );
        match &self.loads {
            Loads {
                ok: true,
                root: true,
                ..
            } => text.push_str("loads: yes\n"),
            Loads {
                ok: true,
                root: false,
                ..
            } => text.push_str("loads: yes, as root\n"),
            Loads { why, help, .. } => {
                push_remark(&mut text, "loads: no", why.as_deref(), help.as_deref())
            }
        }
        if let Some(unread) = &self.unread {
            let _ = writeln!(text, "locks: not known: {unread}");
            return text;
        }
        let mut table = Table::new(&["lock", "state", "waiters seen by", "owner read from"]);
        for row in &self.locks {
            let cells = [row.lock.name(), row.state.name(), row.seen, row.owner];
            table.row(cells.map(str::to_owned).to_vec());
        }
        let _ = write!(text, "\n{}\n", table.render());
        for row in self.locks.iter().filter(|row| row.why.is_some()) {
            let head = format!("{} {}", row.lock.name(), row.state.name());
            push_remark(&mut text, &head, row.why.as_deref(), row.help.as_deref());
        }
        text
    }
}

fn push_remark(text: &mut String, head: &str, why: Option<&str>, help: Option<&str>) {
    // a String takes all that is written
    let _ = writeln!(text, "{head}: {}", why.unwrap_or("for no known reason"));
    if let Some(help) = help {
        let _ = writeln!(text, "  try: {help}");
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
        Report::new(Loads::new(checked, root), Ok(&facts()), &wanted)
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
        assert!(text.starts_with("kernel: 7.3.4+deb13-cloud-amd64\nloads: yes, as root\n\nlock "));
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
                "owner": "rw_semaphore.owner while count says writer",
                "why": "not asked for",
                "help": "--locks +rwsem",
                "programs": [],
            })
        );
    }

    #[test]
    fn a_kernel_that_describes_no_types_is_a_short_report() {
        let loads = Loads::new(refusal(), true);
        let report = Report::new(loads, Err("no such file".into()), &LockSet::default());
        assert!(!report.is_well() && report.locks.is_empty());
        assert!(
            report
                .to_text()
                .ends_with("locks: not known: no such file\n")
        );
    }
}
