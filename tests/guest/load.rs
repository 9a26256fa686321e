// SPDX-License-Identifier: GPL-2.0-only
//! Load for the scheduler: processes that end with the test.

use std::fmt::Display;
use std::process::{Child, Command, Stdio};

use libtest_mimic::Failed;

/// Children that are killed, by pid, and reaped when this is dropped.
#[derive(Default)]
pub struct Load(Vec<Child>);

impl Load {
    /// Start `argv`; the pid is returned.
    pub fn start(&mut self, argv: &[&str]) -> Result<u32, Failed> {
        let child = Command::new(argv[0])
            .args(&argv[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("{}: {e}", argv[0]))?;
        let pid = child.id();
        self.0.push(child);
        Ok(pid)
    }

    /// A process that never sleeps, on `cpu`, at `nice`.
    pub fn hog(&mut self, cpu: usize, nice: i32) -> Result<u32, Failed> {
        let (cpu, nice) = (cpu.to_string(), nice.to_string());
        // renice from within would run unniced first; exec keeps the pid
        self.start(&[
            "taskset",
            "-c",
            &cpu,
            "nice",
            "-n",
            &nice,
            "sh",
            "-c",
            "while :; do :; done",
        ])
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
        }
        for child in &mut self.0 {
            let _ = child.wait();
        }
    }
}

/// CPU time in ns of a pid, or of a thread (`self/task/TID`): the first field of its schedstat.
pub fn cpu_time_ns(task: impl Display) -> Result<u64, Failed> {
    let text = std::fs::read_to_string(format!("/proc/{task}/schedstat"))?;
    let first = text.split_whitespace().next().ok_or("empty schedstat")?;
    Ok(first
        .parse()
        .map_err(|e| format!("schedstat {text:?}: {e}"))?)
}
