// SPDX-License-Identifier: GPL-2.0-only
//! The report for a person: a verdict at the end, and before it what it rests on.

use std::fmt::Write;

use super::beside::Observes;
use super::{Loads, Report};
use crate::output::Table;

impl Report {
    /// For a person: whether it loads, tables of the locks, probes and options, what is to be said
    /// about them, and the verdict.
    #[must_use]
    pub fn to_text(&self) -> String {
        let rt = if self.preempt_rt { " (PREEMPT_RT)" } else { "" };
        let mut text = format!("kernel: {}{rt}\n", self.kernel);
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
        match &self.observes_beside {
            Observes { ok: true, .. } if self.loads.root => text.push_str("observes beside: yes\n"),
            Observes { ok: true, .. } => text.push_str("observes beside: yes, as root\n"),
            Observes { why, help, .. } => {
                push_remark(
                    &mut text,
                    "observes beside: no",
                    why.as_deref(),
                    help.as_deref(),
                );
            }
        }
        match &self.unread {
            Some(unread) => push_line(&mut text, "locks", &format!("not known: {unread}")),
            None => {
                self.push_locks(&mut text);
                self.push_probes(&mut text);
            }
        }
        self.push_config(&mut text);
        text.push('\n');
        self.push_rights(&mut text);
        self.push_machine(&mut text);
        push_line(&mut text, "\nverdict", &self.verdict);
        text
    }

    fn push_locks(&self, text: &mut String) {
        let mut table = Table::new(&["lock", "state", "waiters seen by", "owner read from"]);
        for row in &self.locks {
            let cells = [row.lock.name(), row.state.name(), row.seen, row.owner];
            table.row(cells.map(str::to_owned).to_vec());
        }
        let _ = write!(text, "\n{}\n", table.render());
        for row in self.locks.iter().filter(|row| row.why.is_some()) {
            let head = format!("{} {}", row.lock.name(), row.state.name());
            push_remark(text, &head, row.why.as_deref(), row.help.as_deref());
        }
    }

    fn push_probes(&self, text: &mut String) {
        let mut table = Table::new(&["probe", "would attach to", "exists", "skipped", "used for"]);
        for probe in &self.probes {
            let locks: Vec<_> = probe.locks.iter().map(|lock| lock.name()).collect();
            table.row(vec![
                probe.program.to_owned(),
                format!("{} {}", probe.kind.name(), probe.target),
                yes_no(probe.exists).to_owned(),
                probe
                    .skipped
                    .map_or_else(|| "-".to_owned(), |n| n.to_string()),
                match probe.attached {
                    true => locks.join(", "),
                    false => "nothing: not attached".to_owned(),
                },
            ]);
        }
        let _ = write!(text, "\n{}", table.render());
    }

    fn push_config(&self, text: &mut String) {
        let config = &self.host.config;
        let Some(file) = &config.file else {
            text.push('\n');
            push_remark(
                text,
                "configuration: not known",
                config.why.as_deref(),
                None,
            );
            return;
        };
        let mut table = Table::new(&["option", "value", "it is", "for"]);
        for option in &config.options {
            let value = option.value.as_deref().unwrap_or("not known");
            let cells = [&option.name, value, option.need.name(), option.purpose];
            table.row(cells.map(str::to_owned).to_vec());
        }
        let _ = write!(text, "\nconfiguration: {file}\n{}", table.render());
        for option in config.options.iter().filter(|option| option.is_missing()) {
            let head = format!("{} missing, {}", option.name, option.need.name());
            push_remark(text, &head, Some(option.purpose), option.help.as_deref());
        }
        if let Some(why) = &config.why {
            push_remark(text, "configuration", Some(why), None);
        }
    }

    fn push_rights(&self, text: &mut String) {
        let rights = &self.host.rights;
        push_line(text, "root", yes_no(self.loads.root));
        match rights.missing_capabilities.as_deref() {
            None => push_line(text, "capabilities", "not known"),
            Some([]) => push_line(text, "capabilities", "all that loading needs"),
            Some(missing) => {
                let why = format!("{} missing, which loading needs", missing.join(", "));
                let help = (!self.loads.root).then_some("sudo scx_proxy");
                push_remark(text, "capabilities", Some(&why), help);
            }
        }
        let number = |value: Option<i64>| value.map_or("not known".to_owned(), |n| n.to_string());
        let sysctls = format!(
            "kernel.kptr_restrict {}, kernel.perf_event_paranoid {}",
            number(rights.kptr_restrict),
            number(rights.perf_event_paranoid)
        );
        if rights.hides_from_root() {
            let why = format!(
                "hidden from root, too ({sysctls}): no lock has a name, and no pthread mutex can be read"
            );
            let help = Some("sysctl kernel.kptr_restrict=1");
            push_remark(text, "addresses of symbols", Some(&why), help);
        } else {
            let seen = match rights.sees_addresses {
                None => "not known whether they are seen",
                Some(true) => "seen",
                Some(false) => "hidden from this user, not from root",
            };
            push_line(text, "addresses of symbols", &format!("{seen} ({sysctls})"));
        }
        push_line(
            text,
            "lockdown",
            rights.lockdown.as_deref().unwrap_or("not known"),
        );
        let limit = rights.memlock.as_deref().unwrap_or("not known");
        let binds = match rights.memlock_binds {
            None => "",
            Some(true) if self.loads.root => ", which binds this process",
            Some(true) => ", which binds this user, not root",
            Some(false) => ", which does not bind this user",
        };
        push_line(
            text,
            "memory that may be locked",
            &format!("{limit}{binds}"),
        );
        for unread in &rights.unread {
            push_line(text, "not known", unread);
        }
    }

    fn push_machine(&self, text: &mut String) {
        let socket = &self.host.stats_socket;
        match &socket.why {
            None => {
                let said = format!("{} can be made in {}", socket.path, socket.folder);
                push_line(text, "stats socket", &said);
            }
            Some(why) => {
                let said = format!("{} cannot be made in {}: {why}", socket.path, socket.folder);
                let help = match self.loads.root {
                    true => "mount a file system there that can be written",
                    false => "sudo scx_proxy",
                };
                push_remark(text, "stats socket", Some(&said), Some(help));
            }
        }
        if let Some(pid) = socket.served_by {
            push_line(
                text,
                "stats socket served now",
                &format!("by process {pid}"),
            );
        }
        if let Some(memory) = &self.host.process.cgroup_memory {
            let mib = memory.free_bytes >> 20;
            push_line(
                text,
                "memory of the cgroup",
                &format!("{mib} MiB are left in {}", memory.cgroup),
            );
        }
        if self.host.process.initial_pid_namespace == Some(false) {
            push_line(
                text,
                "pid namespace",
                "not the machine's: tasks have no names, unless /proc is the machine's (hostPID)",
            );
        }
        let scheduler = &self.host.scheduler;
        let said = match (&scheduler.state, &scheduler.name, &scheduler.why) {
            (Some(state), Some(name), _) => format!("{name} ({state})"),
            (Some(state), None, _) if state == "disabled" => "none".to_owned(),
            (Some(state), None, _) => format!("one without a name ({state})"),
            (None, _, why) => format!("not known: {}", why.as_deref().unwrap_or("no reason")),
        };
        push_line(text, "sched_ext scheduler loaded now", &said);
        for sentence in self.host.not_honoured.sentences() {
            push_line(text, "not honoured", sentence);
        }
    }
}

fn yes_no(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

fn push_line(text: &mut String, head: &str, said: &str) {
    // a String takes all that is written
    let _ = writeln!(text, "{head}: {said}");
}

fn push_remark(text: &mut String, head: &str, why: Option<&str>, help: Option<&str>) {
    push_line(text, head, why.unwrap_or("for no known reason"));
    if let Some(help) = help {
        let _ = writeln!(text, "  try: {help}");
    }
}
