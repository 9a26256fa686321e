// SPDX-License-Identifier: GPL-2.0-only
//! A lock, a chain or a task that is frozen: its history stays, also when the wait has ended and
//! the scheduler has forgotten it. Bounded in tasks and in lines.

use super::screens::{chain_text, task_name};
use super::sums::RowId;
use crate::watch::View;
use crate::watch::view::{Chain, HistoryLine, Task};

/// Tasks whose histories are asked for.
const TASKS_MAX: usize = 16;
/// Lines that are kept, the oldest going first.
const LINES_MAX: usize = 500;

/// What is frozen.
#[derive(Clone, Debug)]
pub struct Frozen {
    /// Which row.
    pub id: RowId,
    /// What it is called.
    pub title: String,
    /// The tasks in it so far.
    pub pids: Vec<u32>,
    /// What happened to them, the oldest first.
    pub lines: Vec<HistoryLine>,
    /// Why there is no more of it.
    pub error: Option<String>,
    /// Whether it waits (or is waited for) no longer.
    pub ended: bool,
}

impl Frozen {
    /// Freezes a row of `view`; `None`: that has no history.
    #[must_use]
    pub fn new(id: &RowId, view: &View) -> Option<Self> {
        let title = match id {
            RowId::Chain(pid) => chain_text(chain_of(view, *pid)?),
            RowId::Task(pid) => {
                let row = view.tasks.iter().find(|row| row.task.pid == *pid)?;
                task_name(&row.task)
            }
            RowId::Lock(lock) if *lock != 0 => {
                let row = view.locks.iter().find(|row| row.id == *lock)?;
                super::text::clean(&row.name)
            }
            _ => return None,
        };
        let mut frozen = Self {
            id: id.clone(),
            title,
            pids: Vec::new(),
            lines: Vec::new(),
            error: None,
            ended: false,
        };
        frozen.look(view);
        Some(frozen)
    }

    /// Looks who is in it now. Those who were stay.
    pub fn look(&mut self, view: &View) {
        let tasks = self.tasks(view);
        self.ended = match &self.id {
            RowId::Task(pid) => !waits_or_owns(view, *pid),
            _ => tasks.is_empty(),
        };
        for task in tasks {
            if !self.pids.contains(&task) && self.pids.len() < TASKS_MAX {
                self.pids.push(task);
            }
        }
    }

    fn tasks(&self, view: &View) -> Vec<u32> {
        let pid = |task: &Task| task.pid;
        match &self.id {
            RowId::Task(pid) => vec![*pid],
            RowId::Chain(donor) => chain_of(view, *donor).map_or_else(Vec::new, |chain| {
                let waiters = chain.links.iter().map(|link| &link.task);
                waiters.chain(&chain.end).map(pid).collect()
            }),
            RowId::Lock(id) => {
                let row = view.locks.iter().find(|row| row.id == *id);
                let links = view.chains.iter().flat_map(|chain| &chain.links);
                let waiters = links.filter(|link| link.lock == *id).map(|link| &link.task);
                let owner = row.and_then(|row| row.owner.as_ref());
                owner.into_iter().chain(waiters).map(pid).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Takes in a history: what is new of it is added.
    pub fn learn(&mut self, lines: Vec<HistoryLine>) {
        self.error = None;
        self.lines.extend(lines);
        // a chain's tasks tell of the same events
        self.lines
            .sort_by(|a, b| (a.time_ns, &a.text).cmp(&(b.time_ns, &b.text)));
        self.lines.dedup();
        let surplus = self.lines.len().saturating_sub(LINES_MAX);
        self.lines.drain(..surplus);
    }
}

fn chain_of(view: &View, donor: u32) -> Option<&Chain> {
    let starts = |chain: &&Chain| {
        chain
            .links
            .first()
            .is_some_and(|link| link.task.pid == donor)
    };
    view.chains.iter().find(starts)
}

fn waits_or_owns(view: &View, pid: u32) -> bool {
    view.chains.iter().any(|chain| {
        let waiters = chain.links.iter().map(|link| &link.task);
        waiters.chain(&chain.end).any(|task| task.pid == pid)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::view::{Link, LockRow};

    fn task(pid: u32) -> Task {
        let comm = format!("t{pid}");
        Task {
            pid,
            tgid: pid,
            comm,
        }
    }

    fn view() -> View {
        let link = |pid, lock| Link {
            task: task(pid),
            lock,
            lock_name: format!("m{lock}"),
            waited_ns: 5,
        };
        View {
            chains: vec![Chain {
                links: vec![link(1, 10), link(2, 11)],
                end: Some(task(3)),
                ..Chain::default()
            }],
            locks: vec![LockRow {
                id: 11,
                name: "m11".into(),
                owner: Some(task(3)),
                ..LockRow::default()
            }],
            ..View::default()
        }
    }

    fn line(time_ns: u64) -> HistoryLine {
        let text = format!("at {time_ns}");
        HistoryLine { time_ns, text }
    }

    #[test]
    fn a_chain_is_its_tasks_and_a_lock_those_at_it() {
        let mut view = view();
        let mut chain = Frozen::new(&RowId::Chain(1), &view).expect("a chain");
        assert_eq!(chain.title, "t1 1 -> m10 -> t2 2 -> m11 -> t3 3");
        assert_eq!(
            (chain.pids.as_slice(), chain.ended),
            (&[1, 2, 3][..], false)
        );
        let lock = Frozen::new(&RowId::Lock(11), &view).expect("a lock");
        assert_eq!(lock.pids, [3, 2], "the owner, then who waits");
        assert!(Frozen::new(&RowId::Lock(12), &view).is_none());
        assert!(Frozen::new(&RowId::Action(1), &view).is_none());
        view.chains.clear();
        chain.look(&view);
        assert_eq!((chain.pids.len(), chain.ended), (3, true), "they stay");
    }

    #[test]
    fn lines_stay_once_and_within_bounds() {
        let mut frozen = Frozen::new(&RowId::Chain(1), &view()).expect("a chain");
        frozen.learn(vec![line(1), line(3)]);
        frozen.learn(vec![line(2), line(3)]);
        let times: Vec<u64> = frozen.lines.iter().map(|line| line.time_ns).collect();
        assert_eq!(times, [1, 2, 3]);
        frozen.learn((0..2000).map(line).collect());
        assert_eq!(frozen.lines.len(), LINES_MAX);
        assert_eq!(frozen.lines.last(), Some(&line(1999)));
    }
}
