// SPDX-License-Identifier: GPL-2.0-only
//! A deadlock in words: who waits for which lock, who has it, for how long, and where in the
//! kernel each of them sleeps. What it needs of the machine comes from `/proc`.

use std::fmt::Write;

use super::ends::Graph;
use crate::events::edge;
use crate::naming::proc;
use crate::output::printable;

/// Tasks of one deadlock that are described.
const TASKS_MAX: usize = 32;
/// Frames of a task's stack that are printed.
const FRAMES_MAX: usize = 64;
/// What a task is called that has gone.
const NO_NAME: &str = "?";

/// What a report reads of the machine.
pub trait Machine {
    /// `/proc/PID/comm` and the process of a task.
    fn task(&self, pid: u32) -> (Option<String>, Option<u32>);
    /// `/proc/PID/stack`.
    fn stack(&self, pid: u32) -> std::io::Result<String>;
}

/// This machine.
pub struct Proc;

impl Machine for Proc {
    fn task(&self, pid: u32) -> (Option<String>, Option<u32>) {
        (proc::comm(pid), proc::process(pid))
    }

    fn stack(&self, pid: u32) -> std::io::Result<String> {
        let path = proc::file(pid, "stack").ok_or(std::io::ErrorKind::NotFound)?;
        std::fs::read_to_string(path)
    }
}

/// `mutex 0xffff888004a51c40`: type and address. What asked for it shows in the waiter's stack.
fn lock_name(lock: u64) -> String {
    format!("{} {:#x}", edge::type_name(lock), edge::address(lock))
}

/// A name as it may stand in a log: a user chooses it.
fn shown_name(comm: Option<&str>) -> String {
    comm.map_or_else(|| NO_NAME.to_owned(), printable)
}

fn task_name(pid: u32, machine: &dyn Machine) -> String {
    let comm = machine.task(pid).0;
    format!("{} ({pid})", shown_name(comm.as_deref()))
}

/// The lines of a report about `cycle`, each of which waits for the next in `graph`, and the last
/// for the first. The first line says all in short.
pub fn lines(cycle: &[u32], graph: &Graph, now_ns: u64, machine: &dyn Machine) -> Vec<String> {
    let shown = &cycle[..cycle.len().min(TASKS_MAX)];
    let mut lines = vec![summary(shown, cycle, graph, machine)];
    for pid in shown {
        let (comm, tgid) = machine.task(*pid);
        let mut line = format!("  {} ({pid}", shown_name(comm.as_deref()));
        if let Some(tgid) = tgid {
            let _ = write!(line, ", process {tgid}");
        }
        line.push(')');
        if let Some(wait) = graph.get(*pid) {
            let waited_s = now_ns.saturating_sub(wait.since_ns) as f64 / 1e9;
            let lock = lock_name(wait.lock);
            let _ = write!(line, " waits for {lock} since {waited_s:.1} s");
        }
        if let Some(owner) = graph.waits_for(*pid) {
            let _ = write!(line, ", which {} has", task_name(owner, machine));
        }
        lines.push(line);
        lines.extend(stack(*pid, machine));
    }
    if shown.len() < cycle.len() {
        lines.push(format!("  and {} more tasks", cycle.len() - shown.len()));
    }
    lines
}

/// `deadlock: tar (1) waits for mutex 0x100 of cp (2) waits for mutex 0x200 of tar (1)`.
fn summary(shown: &[u32], cycle: &[u32], graph: &Graph, machine: &dyn Machine) -> String {
    let mut text = "deadlock: ".to_owned();
    for pid in shown {
        let lock = graph.get(*pid).map_or(0, |wait| wait.lock);
        let (lock, task) = (lock_name(lock), task_name(*pid, machine));
        let _ = write!(text, "{task} waits for {lock} of ");
    }
    if shown.len() < cycle.len() {
        text.push_str("... of ");
    }
    let first = cycle.first().map(|pid| task_name(*pid, machine));
    text + &first.unwrap_or_default()
}

fn stack(pid: u32, machine: &dyn Machine) -> Vec<String> {
    let text = match machine.stack(pid) {
        Ok(text) => text,
        Err(e) => return vec![format!("    stack not readable: {e}")],
    };
    let frames = text.lines().filter(|line| !line.is_empty());
    let mut lines: Vec<String> = frames
        .clone()
        .take(FRAMES_MAX)
        .map(|frame| format!("    {frame}"))
        .collect();
    let more = frames.count().saturating_sub(FRAMES_MAX);
    if more > 0 {
        lines.push(format!("    and {more} more frames"));
    }
    if lines.is_empty() {
        // a task that runs, or has just ended, has none
        lines.push("    stack empty".to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::ends::tests::{block, chain};
    use super::*;
    use crate::events::Event;

    /// Tasks have names and stacks, but for task 2.
    struct Still {
        frames: usize,
    }

    impl Machine for Still {
        fn task(&self, pid: u32) -> (Option<String>, Option<u32>) {
            let known = pid != 2;
            (
                known.then(|| "tar".to_owned()),
                known.then_some(pid + 1_000),
            )
        }

        fn stack(&self, pid: u32) -> std::io::Result<String> {
            match pid {
                2 => Err(std::io::Error::from_raw_os_error(libc::ESRCH)),
                _ => Ok("[<0>] __mutex_lock+0x1/0x2\n".repeat(self.frames)),
            }
        }
    }

    fn two() -> Graph {
        let mut graph = Graph::default();
        for (pid, owner) in [(1, 2), (2, 1)] {
            graph.take(&Event {
                time_ns: u64::from(pid) * 1_000_000_000,
                ..block(pid, u64::from(pid) << 8, owner, 1)
            });
        }
        graph
    }

    #[test]
    fn a_deadlock_is_told_in_full() {
        let machine = Still { frames: 2 };
        let told = lines(&[1, 2], &two(), 4_000_000_000, &machine);
        let expected = [
            "deadlock: tar (1) waits for mutex 0x100 of ? (2) waits for mutex 0x200 of tar (1)",
            "  tar (1, process 1001) waits for mutex 0x100 since 3.0 s, which ? (2) has",
            "    [<0>] __mutex_lock+0x1/0x2",
            "    [<0>] __mutex_lock+0x1/0x2",
            "  ? (2) waits for mutex 0x200 since 2.0 s, which tar (1) has",
            "    stack not readable: No such process (os error 3)",
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn what_a_program_is_called_cannot_forge_a_line() {
        struct Hostile;
        impl Machine for Hostile {
            fn task(&self, pid: u32) -> (Option<String>, Option<u32>) {
                (Some("a\n\x1b[2Jb".to_owned()), Some(pid))
            }

            fn stack(&self, _: u32) -> std::io::Result<String> {
                Ok(String::new())
            }
        }
        let told = lines(&[1, 2], &two(), 0, &Hostile);
        assert!(
            told[0].starts_with(r"deadlock: a\n\u{1b}[2Jb (1) waits"),
            "{told:?}"
        );
        assert!(told.iter().all(|line| !line.contains(char::is_control)));
        assert_eq!(told[2], "    stack empty");
    }

    #[test]
    fn a_report_has_a_bound() {
        let mut graph = chain(100);
        graph.take(&block(100, 0x99, 1, 1));
        let cycle: Vec<u32> = (1..=100).collect();
        let machine = Still { frames: 100 };
        let told = lines(&cycle, &graph, 0, &machine);
        assert!(
            told.len() <= 2 + TASKS_MAX * (2 + FRAMES_MAX),
            "{}",
            told.len()
        );
        assert_eq!(told.last().map(String::as_str), Some("  and 68 more tasks"));
        assert!(told[0].ends_with(" of ... of tar (1)"), "{}", told[0]);
        let more = told.iter().filter(|line| *line == "    and 36 more frames");
        assert_eq!(more.count(), TASKS_MAX - 1);
    }

    #[test]
    fn this_machine_knows_its_tasks() {
        let pid = std::process::id();
        let (comm, tgid) = Proc.task(pid);
        assert!(comm.is_some_and(|comm| !comm.is_empty()));
        assert_eq!(tgid, Some(pid));
        assert_eq!(Proc.task(u32::MAX), (None, None));
        assert!(Proc.stack(u32::MAX).is_err());
    }
}
