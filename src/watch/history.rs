// SPDX-License-Identifier: GPL-2.0-only
//! The events of late, and those of a task in words.

use std::collections::VecDeque;

use super::view::HistoryLine;
use crate::events::{Event, Labels, What};

/// Events that are kept; the oldest go first.
pub const HISTORY_MAX: usize = 4096;

/// A ring of events.
#[derive(Debug, Default)]
pub struct History(VecDeque<Event>);

impl History {
    /// Keeps an event.
    pub fn keep(&mut self, event: &Event) {
        if self.0.len() >= HISTORY_MAX {
            self.0.pop_front();
        }
        self.0.push_back(*event);
    }

    /// What happened to `pid`, the oldest first.
    pub fn of(&self, pid: u32, labels: Labels) -> Vec<HistoryLine> {
        let concerned = self.0.iter().filter(|event| concerns(event, pid));
        let line = |event: &Event| {
            Some(HistoryLine {
                time_ns: event.time_ns,
                text: words(event, labels)?,
            })
        };
        concerned.filter_map(line).collect()
    }
}

fn concerns(event: &Event, pid: u32) -> bool {
    let about = event.about();
    pid != 0 && (about.pid == pid || about.owner == pid)
}

/// `3.204 ms`, or in us if it is less than one.
fn duration(ns: u64) -> String {
    match ns {
        0..1_000_000 => format!("{:.1} us", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.3} ms", ns as f64 / 1e6),
        _ => format!("{:.3} s", ns as f64 / 1e9),
    }
}

/// An event in words; `None` if it has nothing to do with a task.
fn words(event: &Event, labels: Labels) -> Option<String> {
    let about = event.about();
    let who = labels.task_text(about.pid);
    let other = labels.task_text(about.owner);
    let lock = || {
        let lock = match about.lock {
            0 => "a lock".to_owned(),
            lock => labels.lock(lock, about.site),
        };
        match about.owner {
            0 => lock,
            _ => format!("{lock} of {other}"),
        }
    };
    let cpu = event.cpu;
    Some(match event.what {
        What::Block(_) => format!("{who} waits for {}", lock()),
        What::Snapshot(_) => format!("{who} has begun to wait for {}", lock()),
        What::Wake(ended) => {
            let inverted = match ended.inverted_ns {
                0 => String::new(),
                ns => format!(", inverted for {}", duration(ns)),
            };
            let waited = duration(ended.waited_ns);
            format!("{who} waited {waited} for {}{inverted}", lock())
        }
        What::Donate { locks: 0 | 1, .. } => format!("{who} donates to {other} on CPU {cpu}"),
        What::Donate { locks, .. } => {
            format!("{who} donates to {other} on CPU {cpu}, {locks} locks on")
        }
        What::Migrate { .. } => format!("{who} migrates to CPU {cpu}, where {other} may run"),
        What::Park { .. } => format!("{who} donates to {other} when that one stops or wakes"),
        What::Return(back) => {
            let after = duration(back.after_ns);
            let choice = back.choice_name();
            let moved = if back.moved {
                ", moved on from there"
            } else {
                ""
            };
            format!("{who} returns to CPU {cpu} {after} after it woke (sent: {choice}{moved})")
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi;
    use crate::events::{NameTable, Names, TaskName};

    fn event(kind: u32, value: u64) -> abi::proxy_event {
        abi::proxy_event {
            kind,
            value,
            pid: 812,
            other: 907,
            cpu: 3,
            ..Default::default()
        }
    }

    #[test]
    fn events_are_put_in_words_with_the_names_of_now() {
        let mut names = NameTable::default();
        let blocked = abi::proxy_event {
            lock: 0xffff_8880_0000_1230,
            site: 0x55,
            site_kind: abi::proxy_site_kind_SITE_KERNEL,
            ..event(abi::proxy_event_kind_EVENT_BLOCK, 1)
        };
        let mut history = History::default();
        let blocked = Event::from(blocked);
        history.keep(&blocked);
        let said = |names: &NameTable| history.of(812, Labels(names))[0].text.clone();
        assert_eq!(
            said(&names),
            "812 waits for mutex 0xffff888000001230 of 907"
        );
        let task = |comm: &str| TaskName {
            tgid: 1,
            comm: comm.to_owned(),
        };
        names.learn(&Names {
            tasks: vec![(812, task("firefox")), (907, task("tar"))],
            sites: vec![(blocked.about().site, "fdget_pos".to_owned())],
            ..Names::default()
        });
        let expected = "firefox 812 waits for mutex fdget_pos 0xffff888000001230 of tar 907";
        assert_eq!(said(&names), expected);
        assert_eq!(history.of(907, Labels(&names)).len(), 1, "it is the owner");
        assert!(history.of(0, Labels(&names)).is_empty());
        let woke = abi::proxy_event {
            inverted_ns: 1_500,
            ..event(abi::proxy_event_kind_EVENT_WAKE, 3_204_000)
        };
        let said = words(&woke.into(), Labels(&names)).expect("words");
        let expected = "firefox 812 waited 3.204 ms for a lock of tar 907, inverted for 1.5 us";
        assert_eq!(said, expected);
        let donated = event(abi::proxy_event_kind_EVENT_DONATE, 2);
        let said = words(&donated.into(), Labels(&names)).expect("words");
        assert_eq!(said, "firefox 812 donates to tar 907 on CPU 3, 2 locks on");
    }

    #[test]
    fn the_ring_has_a_bound() {
        let mut history = History::default();
        for _ in 0..HISTORY_MAX + 5 {
            history.keep(&event(abi::proxy_event_kind_EVENT_PARK, 0).into());
        }
        let names = NameTable::default();
        assert_eq!(history.of(812, Labels(&names)).len(), HISTORY_MAX);
        let mut returned = event(abi::proxy_event_kind_EVENT_RETURN, 0);
        returned.other = 5;
        history.keep(&returned.into());
        assert!(history.of(5, Labels(&names)).is_empty(), "no pid in there");
    }
}
