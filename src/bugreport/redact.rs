// SPDX-License-Identifier: GPL-2.0-only
//! Logs without names of programs.

/// What stands in the place of a line that names a task.
const LEFT_OUT: &str = "(a line that names a task: left out, see --names)";

/// `log` without the lines that name a task: the kernel writes `comm[pid]`, the scheduler `comm (pid`.
#[must_use]
pub fn log(log: &str) -> String {
    let line = |line: &str| match names_a_task(line) {
        true => format!("{LEFT_OUT}\n"),
        false => format!("{line}\n"),
    };
    log.lines().map(line).collect()
}

fn names_a_task(line: &str) -> bool {
    let number_ends = |rest: &str, ends: &[char]| {
        let end = rest.find(|c: char| !c.is_ascii_digit());
        end.is_some_and(|end| end > 0 && rest[end..].starts_with(ends))
    };
    let kernel = |(at, _): (usize, &str)| number_ends(&line[at + 1..], &[']']);
    // watchdogs: [comm:pid], task comm:pid
    let watchdog = |(at, _): (usize, &str)| number_ends(&line[at + 1..], &[']', ' ']);
    let ours = |(at, _): (usize, &str)| number_ends(&line[at + 2..], &[')', ',']);
    line.contains(" Comm: ")
        || line.match_indices('[').any(kernel)
        || line.match_indices(':').any(watchdog)
        || line.match_indices(" (").any(ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_name_tasks_are_left_out() {
        for line in [
            "sched_ext: proxy: my secret game[1234] failed to run for 32.664s",
            "  R secret[77] -1ms",
            "  secret thing (4711, process 4700) waits for mutex 0xffff since 1.0 s",
            "which secret (12) has",
            "watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [secret:1234]",
            "INFO: task secret:815 blocked for more than 120 seconds.",
            "CPU: 1 PID: 5 Comm: secret Not tainted",
        ] {
            let kept = log(line);
            assert!(
                !kept.contains("secret") && kept.contains(LEFT_OUT),
                "{kept}"
            );
        }
    }

    #[test]
    fn others_stay() {
        for line in [
            "[   12.345678] sched_ext: BPF scheduler \"proxy\" enabled",
            "Linux 7.3.4 (x86_64), 4 CPUs (2 cores)",
            "array[i] and f(3)",
        ] {
            assert_eq!(log(line), format!("{line}\n"));
        }
        assert_eq!(log(""), "");
    }
}
