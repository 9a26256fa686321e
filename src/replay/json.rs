// SPDX-License-Identifier: GPL-2.0-only
//! Events as JSON, a line each, with the names of what is in them. Names of fields are stable;
//! `docs/recording.md` lists them.

use std::io::Write;

use anyhow::Result;
use serde::Serialize;

use super::Sink;
use crate::abi::{self, proxy_event};
use crate::agent::{edge, line};
use crate::watch::{Batch, Labels, NameTable, Site};

/// A task.
#[derive(Serialize)]
struct Task<'a> {
    pid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    tgid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comm: Option<&'a str>,
}

/// A lock.
#[derive(Serialize)]
struct Lock<'a> {
    r#type: &'static str,
    class: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    address: String,
}

/// An event. What it does not have is left out.
#[derive(Serialize, Default)]
#[serde(default)]
struct Line<'a> {
    time_ns: u64,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waiter: Option<Task<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    donor: Option<Task<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<Task<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<Task<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lock: Option<Lock<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wait: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waited_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inverted_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroup: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner_cgroup: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    locks: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    choice: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    moved: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lock_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    donating: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gone_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<u64>,
}

/// Writes events as JSON.
pub struct Json<W> {
    out: W,
    last_ns: u64,
}

impl<W: Write> Json<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Self {
        Self { out, last_ns: 0 }
    }

    fn write(&mut self, line: &Line) -> Result<()> {
        // as text first: an error of the writer keeps its kind
        writeln!(self.out, "{}", serde_json::to_string(line)?)?;
        Ok(())
    }
}

impl<W: Write> Sink for Json<W> {
    fn batch(&mut self, batch: &Batch, names: &NameTable) -> Result<()> {
        if batch.lost > 0 {
            self.write(&Line {
                time_ns: self.last_ns,
                kind: "lost",
                number: Some(batch.lost),
                ..Line::default()
            })?;
        }
        for event in &batch.events {
            self.last_ns = self.last_ns.max(event.time_ns);
            self.write(&describe(event, names))?;
        }
        Ok(())
    }

    fn end(&mut self, _names: &NameTable) -> Result<()> {
        Ok(self.out.flush()?)
    }
}

fn task(names: &NameTable, pid: u32, tgid: u32) -> Option<Task<'_>> {
    let name = names.task(pid);
    (pid != 0).then(|| Task {
        pid,
        tgid: match tgid {
            0 => name.map(|name| name.tgid),
            tgid => Some(tgid),
        },
        comm: name.map(|name| name.comm.as_str()),
    })
}

fn lock<'a>(names: &'a NameTable, event: &proxy_event) -> Option<Lock<'a>> {
    (event.lock != 0).then(|| Lock {
        r#type: edge::type_name(event.lock),
        class: Labels(names).class_of(event.lock, Site::of(event)),
        name: names.lock(event.lock),
        address: format!("{:#x}", edge::address(event.lock)),
    })
}

fn describe<'a>(event: &proxy_event, names: &'a NameTable) -> Line<'a> {
    let line = Line {
        time_ns: event.time_ns,
        cpu: Some(event.cpu),
        ..Line::default()
    };
    let other = task(names, event.other, 0);
    let wait = |kind: &'static str| Line {
        kind,
        waiter: task(names, event.pid, event.tgid),
        owner: task(names, event.other, 0),
        lock: lock(names, event),
        inverted_ns: Some(event.inverted_ns),
        cgroup: names.cgroup(event.cgroup),
        owner_cgroup: names.cgroup(event.other_cgroup),
        time_ns: event.time_ns,
        cpu: Some(event.cpu),
        ..Line::default()
    };
    let donor = |kind: &'static str, other: Option<Task<'a>>| Line {
        kind,
        donor: task(names, event.pid, event.tgid),
        owner: other,
        lock: lock(names, event),
        time_ns: event.time_ns,
        cpu: Some(event.cpu),
        ..Line::default()
    };
    match event.kind {
        abi::proxy_event_kind_EVENT_BLOCK => Line {
            wait: Some(event.value),
            ..wait("block")
        },
        abi::proxy_event_kind_EVENT_SNAPSHOT => Line {
            wait: Some(event.value),
            ..wait("snapshot")
        },
        abi::proxy_event_kind_EVENT_WAKE => Line {
            waited_ns: Some(event.value),
            ..wait("wake")
        },
        abi::proxy_event_kind_EVENT_DONATE => Line {
            locks: Some(event.value),
            ..donor("donate", other)
        },
        abi::proxy_event_kind_EVENT_MIGRATE => donor("migrate", other),
        abi::proxy_event_kind_EVENT_PARK => donor("park", other),
        abi::proxy_event_kind_EVENT_TRUNCATED => Line {
            at: other,
            ..donor("truncated", None)
        },
        abi::proxy_event_kind_EVENT_CYCLE => Line {
            at: other,
            ..donor("cycle", None)
        },
        abi::proxy_event_kind_EVENT_RETURN => Line {
            kind: "return",
            waiter: task(names, event.pid, event.tgid),
            choice: Some(line::choice(event.other)),
            moved: Some(event.other & abi::RETURN_MOVED != 0),
            after_ns: Some(event.value),
            lock_type: Some(edge::type_name(event.lock)),
            ..line
        },
        abi::proxy_event_kind_EVENT_SWITCH => Line {
            kind: "switch",
            donating: Some(event.value != 0),
            ..line
        },
        abi::proxy_event_kind_EVENT_RESTART => Line {
            kind: "restart",
            gone_ns: Some(event.value),
            cpu: None,
            ..line
        },
        kind => Line {
            kind: "unknown",
            number: Some(kind.into()),
            ..line
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::Names;
    use crate::watch::names::TaskName;

    fn said(event: proxy_event) -> serde_json::Value {
        let mut names = NameTable::default();
        let site = Site::of(&event);
        names.learn(&Names {
            tasks: vec![(
                7,
                TaskName {
                    tgid: 5,
                    comm: "tar".into(),
                },
            )],
            sites: vec![(site, "fdget_pos".into())],
            cgroups: vec![(3, "/user".into())],
            ..Names::default()
        });
        serde_json::to_value(describe(&event, &names)).expect("JSON")
    }

    #[test]
    fn a_wait_has_names() {
        let event = proxy_event {
            time_ns: 9,
            lock: 0x1230,
            value: 4,
            kind: abi::proxy_event_kind_EVENT_BLOCK,
            cpu: 1,
            pid: 7,
            other: 8,
            site: 0xabc,
            site_kind: abi::proxy_site_kind_SITE_KERNEL,
            cgroup: 3,
            ..Default::default()
        };
        let expected = serde_json::json!({
            "time_ns": 9, "kind": "block", "cpu": 1, "wait": 4, "inverted_ns": 0,
            "waiter": {"pid": 7, "tgid": 5, "comm": "tar"}, "owner": {"pid": 8},
            "lock": {"type": "mutex", "class": "mutex fdget_pos", "address": "0x1230"},
            "cgroup": "/user",
        });
        assert_eq!(said(event), expected);
    }

    #[test]
    fn each_kind_has_a_name_and_no_lock_where_there_is_none() {
        for kind in 1..=abi::proxy_event_kind_EVENT_RESTART {
            let line = said(proxy_event {
                kind,
                pid: 7,
                ..Default::default()
            });
            assert_ne!(line["kind"], "unknown", "{kind}");
            assert!(line.get("lock").is_none(), "{line}");
        }
    }
}
