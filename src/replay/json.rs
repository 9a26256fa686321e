// SPDX-License-Identifier: GPL-2.0-only
//! Events as JSON, a line each, with the names of what is in them. Names of fields are stable;
//! `docs/recording.md` lists them.

use std::io::Write;

use anyhow::Result;
use serde::Serialize;
use serde_with::skip_serializing_none;

use super::Sink;
use crate::events::{About, Batch, Event, Labels, NameTable, What, edge};

/// A task.
#[skip_serializing_none]
#[derive(Clone, Copy, Serialize)]
struct Task<'a> {
    pid: u32,
    tgid: Option<u32>,
    comm: Option<&'a str>,
}

/// A lock.
#[skip_serializing_none]
#[derive(Serialize)]
struct Lock<'a> {
    r#type: &'static str,
    class: String,
    name: Option<&'a str>,
    address: String,
}

/// An event. What it does not have is left out.
#[skip_serializing_none]
#[derive(Serialize, Default)]
struct Line<'a> {
    time_ns: u64,
    kind: &'static str,
    cpu: Option<u32>,
    waiter: Option<Task<'a>>,
    donor: Option<Task<'a>>,
    owner: Option<Task<'a>>,
    at: Option<Task<'a>>,
    lock: Option<Lock<'a>>,
    wait: Option<u64>,
    waited_ns: Option<u64>,
    inverted_ns: Option<u64>,
    cgroup: Option<&'a str>,
    owner_cgroup: Option<&'a str>,
    locks: Option<u64>,
    choice: Option<&'static str>,
    moved: Option<bool>,
    after_ns: Option<u64>,
    lock_type: Option<&'static str>,
    donating: Option<bool>,
    given_ns: Option<u64>,
    gone_ns: Option<u64>,
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

fn lock<'a>(names: &'a NameTable, about: &About) -> Option<Lock<'a>> {
    (about.lock != 0).then(|| Lock {
        r#type: edge::type_name(about.lock),
        class: Labels(names).class_of(about.lock, about.site),
        name: names.lock(about.lock),
        address: format!("{:#x}", edge::address(about.lock)),
    })
}

fn describe<'a>(event: &Event, names: &'a NameTable) -> Line<'a> {
    let about = event.about();
    let who = task(names, about.pid, about.tgid);
    let other = task(names, about.owner, 0);
    let cgroup = names.cgroup(about.cgroup);
    let owner_cgroup = names.cgroup(about.owner_cgroup);
    let line = |kind: &'static str| Line {
        time_ns: event.time_ns,
        cpu: Some(event.cpu),
        kind,
        ..Line::default()
    };
    let wait = |kind, inverted_ns| Line {
        waiter: who,
        owner: other,
        lock: lock(names, &about),
        inverted_ns: Some(inverted_ns),
        cgroup,
        owner_cgroup,
        ..line(kind)
    };
    let donation = |kind| Line {
        donor: who,
        owner: other,
        ..line(kind)
    };
    let walk = |kind| Line {
        donor: who,
        at: other,
        ..line(kind)
    };
    match event.what {
        What::Block(begun) => Line {
            wait: Some(begun.number),
            ..wait("block", begun.inverted_ns)
        },
        What::Snapshot(begun) => Line {
            wait: Some(begun.number),
            ..wait("snapshot", begun.inverted_ns)
        },
        What::Wake(ended) => Line {
            waited_ns: Some(ended.waited_ns),
            ..wait("wake", ended.inverted_ns)
        },
        What::Donate { locks, .. } => Line {
            locks: Some(locks),
            ..donation("donate")
        },
        What::Gave(gave) => Line {
            given_ns: Some(gave.ns),
            cgroup,
            owner_cgroup,
            ..donation("gave")
        },
        What::Migrate { .. } => donation("migrate"),
        What::Park { .. } => donation("park"),
        What::Truncated { .. } => walk("truncated"),
        What::Cycle { .. } => walk("cycle"),
        What::Return(back) => Line {
            waiter: who,
            choice: Some(back.choice_name()),
            moved: Some(back.moved),
            after_ns: Some(back.after_ns),
            lock_type: Some(edge::type_name(back.lock_type.into())),
            ..line("return")
        },
        What::Switch { donating } => Line {
            donating: Some(donating),
            ..line("switch")
        },
        What::Restart { gone_ns } => Line {
            gone_ns: Some(gone_ns),
            cpu: None,
            ..line("restart")
        },
        What::Unknown(raw) => Line {
            number: Some(raw.kind.into()),
            ..line("unknown")
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::{self, proxy_event};
    use crate::events::{Names, TaskName};

    fn said(event: proxy_event) -> serde_json::Value {
        let mut names = NameTable::default();
        let event = Event::from(event);
        let (tgid, comm) = (5, "tar".into());
        names.learn(&Names {
            tasks: vec![(7, TaskName { tgid, comm })],
            sites: vec![(event.about().site, "fdget_pos".into())],
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
        for kind in 1..=abi::proxy_event_kind_EVENT_GAVE {
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
