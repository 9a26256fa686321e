// SPDX-License-Identifier: GPL-2.0-only
//! What must be right when no callback is under way, and that all tasks come to their end from there.

use crate::kernel::Kernel;
use crate::machine::*;
use crate::object::TaskState;

impl Kernel {
    /// Tasks and CPUs, for a person.
    pub fn show(&self) -> String {
        use std::fmt::Write;
        let mut text = String::new();
        for (t, task) in (1..).zip(&self.m().tasks) {
            let state = self.state(t);
            let _ = writeln!(
                text,
                "  {t}: {:?} {:?} CPU {} waits {:?} has {:?} token {:x} donor {}",
                task.state, task.dsq, task.cpu, task.waits, task.held, state.token, state.donor_pid
            );
        }
        for (cpu, state) in self.m().cpus.iter().enumerate() {
            let _ = writeln!(
                text,
                "  CPU {cpu}: runs {}, kicks {}",
                state.curr, state.kicks
            );
        }
        text
    }

    /// What the task on `cpu` does next, once CPUs go on in turn.
    pub fn go_on(&self, cpu: Cpu) {
        let t = self.cpu(cpu).curr;
        if t == 0 {
            return;
        }
        if self.task(t).waits.is_some() {
            return self.op(cpu, Op::Retry);
        }
        match self.task(t).held.last() {
            Some(&l) => self.op(cpu, Op::Unlock(l)),
            None => self.op(cpu, Op::Exit),
        }
    }

    pub fn over(&self) -> bool {
        let over =
            |t: &Task| t.state == State::Dead || (t.state == State::Asleep && t.waits.is_none());
        self.m().tasks.iter().all(over)
    }

    /// All tasks come to their end, and nothing is left of them.
    pub fn ends(&self) -> Result<(), String> {
        for t in 1..=self.m().tasks.len() as Pid {
            if self.task(t).state == State::Asleep && !self.task(t).held.is_empty() {
                self.wake(t);
            }
        }
        for _ in 0..ROUNDS {
            if self.over() {
                break;
            }
            for cpu in 0..self.m().cpus.len() {
                self.m().cpu = cpu;
                self.op(cpu, Op::Run(1_500_000));
                self.op(cpu, Op::Timer);
                if self.is_kicked(cpu) || self.curr_is_over(cpu) {
                    self.schedule(cpu);
                }
                self.op(cpu, Op::Tick);
                self.go_on(cpu);
            }
        }
        if !self.over() {
            return Err(format!("a task never comes to its end:\n{}", self.show()));
        }
        self.right()?;
        for t in 1..=self.m().tasks.len() as Pid {
            let state = self.state(t);
            if state.token != 0 || state.donor_pid != 0 {
                return Err(format!(
                    "at the end task {t} is a donor or an owner still: {state:?}"
                ));
            }
        }
        Ok(())
    }

    pub fn curr_is_over(&self, cpu: Cpu) -> bool {
        let t = self.cpu(cpu).curr;
        self.update_curr(cpu);
        t != 0 && self.task(t).slice == 0
    }

    pub fn state(&self, t: Pid) -> TaskState {
        let mut state = TaskState::default();
        // SAFETY: t exists, state is valid for the write.
        unsafe { (self.api.explored_task)(self.engine, t, &mut state) };
        state
    }

    /// What holds whenever no callback is under way.
    pub fn right(&self) -> Result<(), String> {
        if !self.m().faults.is_empty() {
            return Err(self.m().faults.join("; "));
        }
        let mut why = [0u8; 200];
        let locks: Vec<u64> = self.m().locks.iter().map(|l| l.name).collect();
        let groups = self.m().groups.len() as u32;
        // SAFETY: locks are as many as it is told; it writes a string of 200 bytes at the most.
        let right = unsafe {
            let why = why.as_mut_ptr().cast();
            (self.api.explored_right)(self.engine, locks.as_ptr(), locks.len() as u32, groups, why)
        };
        if right == 0 {
            let end = why.iter().position(|&b| b == 0).unwrap_or(0);
            return Err(String::from_utf8_lossy(&why[..end]).into_owned());
        }
        self.charged()?;
        for t in 1..=self.m().tasks.len() as Pid {
            self.place_right(t)?;
            self.donor_right(t)?;
        }
        Ok(())
    }

    /// CPU time that the policy has seen is charged once.
    pub fn charged(&self) -> Result<(), String> {
        use scx_proxy::abi::{proxy_stat_STAT_DONATED_NS, proxy_stat_STAT_OWN_NS};
        // SAFETY: the engine lives as long as self.
        let stat = |nr| unsafe { (self.api.host_stat)(self.engine, nr) };
        let charged = stat(proxy_stat_STAT_OWN_NS) + stat(proxy_stat_STAT_DONATED_NS);
        let seen: u64 = self.m().tasks.iter().map(|t| t.seen).sum();
        if charged == seen {
            return Ok(());
        }
        Err(format!("{seen} ns run, {charged} ns charged"))
    }

    /// Where the policy has a task is where it is.
    pub fn place_right(&self, t: Pid) -> Result<(), String> {
        const PLACES: [&str; 5] = ["asleep", "queued", "local", "running", "other"];
        let (task, state) = (self.task(t), self.state(t));
        let place = PLACES[state.place as usize];
        let right = match (task.state, task.dsq) {
            _ if task.rt != 0 || task.state == State::Dead => place == "other",
            (State::Asleep | State::Blocked, _) => place == "asleep",
            (State::Running, _) => place == "running",
            (_, Dsq::User(cpu, reach)) => {
                place == "queued" && (state.dsq_cpu, state.dsq_reach) == (cpu as i32, reach as u32)
            }
            (_, Dsq::Local(_)) => place == "queued" || place == "local",
            _ => false,
        };
        if right {
            return Ok(());
        }
        Err(format!("task {t} is {place}: {state:?}, {task:?}"))
    }

    /// Who waits is a donor, in one place; nobody else is.
    pub fn donor_right(&self, t: Pid) -> Result<(), String> {
        let (task, state) = (self.task(t), self.state(t));
        let (kind, other) = (state.token >> 32 & 0xff, state.token as u32);
        let waits = match task.rt {
            0 => task.state == State::Blocked,
            _ => task.waits.is_some(),
        };
        let wrong = |what: &str| Err(format!("donor {t}: {what}: {state:?}, {task:?}"));
        if waits && task.edge.is_some() && state.token == 0 && !task.reclassed {
            return wrong("waits, and lends nothing");
        }
        let stands_back = state.yields_to != 0 && task.state == State::Runnable;
        if !waits && !stands_back && state.token != 0 {
            return wrong("outlives its wait");
        }
        if kind == 2 || kind == 3 {
            let owner = self.task(other);
            let queued = matches!(owner.dsq, Dsq::User(..)) || owner.state == State::Dead;
            if kind == 2 && (state.attached_to == 0 || queued) {
                return wrong(
                    "is attached to a task that is queued or gone, or knows nothing of it",
                );
            }
            if kind == 3 && (state.donates_true == 0 || queued || !owner.on_rq) {
                return wrong("lends to a task that does not run");
            }
        }
        if state.donor_pid != 0
            && task.state != State::Running
            && !matches!(task.dsq, Dsq::Local(_))
        {
            return wrong("has a donor and does not run");
        }
        Ok(())
    }
}
