// SPDX-License-Identifier: GPL-2.0-only
//! The table of statistics: one row ties a counter of `include/stats.h` to its
//! field and its description. Everything else here is made from the table.

use std::io::{self, Write};

#[allow(unused_imports)] // the derive names them
use scx_stats::prelude::*;
use scx_stats_derive::Stats;
use serde::{Deserialize, Serialize};

use crate::abi;

macro_rules! metrics {
    (
        levels { $($level:ident $level_desc:literal)* }
        agent { $($agent:ident $agent_desc:literal)* }
        kernel { $($kernel:ident $kernel_desc:literal)* }
        counters { $($stat:ident $field:ident $desc:literal)* }
    ) => {
        /// What is read elsewhere than from BPF's counters: levels, which hold at the
        /// moment of reading, what the agent counts, and what the kernel does.
        #[derive(Clone, Copy, Debug, Default)]
        pub struct Readings {
            $(
                #[doc = $level_desc]
                pub $level: u64,
            )*
            $(
                #[doc = $agent_desc]
                pub $agent: u64,
            )*
            $(
                #[doc = $kernel_desc]
                pub $kernel: u64,
            )*
        }

        /// Everything that `--stats`, `--monitor` and the stats socket show.
        #[derive(Clone, Debug, Default, Serialize, Deserialize, Stats)]
        #[stat(top)]
        pub struct Metrics {
            $(
                /// See the description.
                #[stat(desc = $level_desc)]
                pub $level: u64,
            )*
            /// Edges seen less waits ended: 0 when nothing waits on a tracked lock.
            #[stat(desc = "Level: tasks that wait on a tracked lock now, queued as donors or not")]
            pub donors_waiting_now: u64,
            $(
                /// See the description.
                #[stat(desc = $desc)]
                pub $field: u64,
            )*
            $(
                /// See the description.
                #[stat(desc = $agent_desc)]
                pub $agent: u64,
            )*
            $(
                /// See the description.
                #[stat(desc = $kernel_desc)]
                pub $kernel: u64,
            )*
        }

        impl Metrics {
            /// Totals since the scheduler was loaded, from the counters summed over all CPUs.
            pub fn new(totals: &[u64; abi::proxy_stat_NR_PROXY_STATS as usize], readings: Readings) -> Self {
                let mut metrics = Self::default();
                $(metrics.$level = readings.$level;)*
                $(metrics.$agent = readings.$agent;)*
                $(metrics.$kernel = readings.$kernel;)*
                $(metrics.$field = totals[abi::$stat as usize];)*
                metrics.donors_waiting_now = metrics.edges.saturating_sub(metrics.edges_woken);
                metrics
            }

            /// What was counted after `last` was read; levels as they are.
            pub fn since(&self, last: &Self) -> Self {
                let mut delta = self.clone();
                $(delta.$field = self.$field.wrapping_sub(last.$field);)*
                $(delta.$agent = self.$agent.wrapping_sub(last.$agent);)*
                $(delta.$kernel = self.$kernel.wrapping_sub(last.$kernel);)*
                delta
            }

            #[cfg(test)]
            fn counters() -> Vec<u32> {
                vec![$(abi::$stat),*]
            }

            #[cfg(test)]
            const NR_READ: usize = [$(stringify!($agent)),*, $(stringify!($kernel)),*].len();
            #[cfg(test)]
            const NR_LEVELS: usize = [$(stringify!($level)),*].len() + 1;
        }
    };
}

metrics! {
    levels {
        cpus "Level: online CPUs"
        cpuperf_percent_now "Level: average speed asked of schedutil for online CPUs, in percent of the highest"
        donors_queued_now "Level: entries on all donor queues now"
        tasks_queued_now "Level: tasks on all run queues now"
        agent_waits_now "Level: waits that the agent knows of now"
        agent_hints_now "Level: hints about waits that the agent gives now"
        agent_watched_now "Level: 1 while the agent is told of waits and donations, because somebody watches or a hint is asked for, 0 otherwise"
    }
    agent {
        agent_rounds "Polls of the event ring by the agent, since the last reading"
        agent_events "Events that the agent has read, since the last reading"
        events_missed "Events that a client (record, --metrics) read too slowly, and lost, since the last reading"
        agent_rebuilds "Times that the agent read all waits again: when watching began, and after events were lost, since the last reading"
        agent_restarts "Times that the agent was started again after a failure, since the last reading"
        deadlocks "Deadlocks that lasted for a second and were reported, since the last reading"
    }
    kernel {
        recursion_misses "Times that the kernel skipped a probe of the scheduler, because the probe was already running on that CPU, since the last reading"
    }
    counters {
        proxy_stat_STAT_DISPATCH_QUEUE dispatch_queue "Dispatches of the head of the CPU's own run queue, since the last reading"
        proxy_stat_STAT_DISPATCH_KEEP dispatch_keep "Picks in which the previous task continued, because its key was the earliest, since the last reading"
        proxy_stat_STAT_DISPATCH_DONATION dispatch_donation "Picks decided by a donor: its lock's owner runs in its context, since the last reading"
        proxy_stat_STAT_DISPATCH_STEAL dispatch_steal "Dispatches by an idle CPU from another CPU's run queue, since the last reading"
        proxy_stat_STAT_DISPATCH_BALANCE dispatch_balance "Dispatches by a busy CPU of a task that got less than its share on another CPU, since the last reading"
        proxy_stat_STAT_DISPATCH_TO_BIG dispatch_to_big "Heavy tasks that left a CPU of small capacity for an idle big core, since the last reading"
        proxy_stat_STAT_ENQUEUE enqueues "Tasks put on a run queue, since the last reading"
        proxy_stat_STAT_ENQUEUE_IDLE enqueues_idle "Of the enqueues, those sent to the run queue of an idle CPU, since the last reading"
        proxy_stat_STAT_WAKE_IDLE wakeups_idle "Wakeups sent to an idle CPU, since the last reading"
        proxy_stat_STAT_WAKE_HANDOFF wakeups_handoff "Wakeups sent to the CPU of a waker that is about to sleep, since the last reading"
        proxy_stat_STAT_PREEMPT_TICK preempt_tick "Running tasks preempted by a timer or a tick, because a task that woke earlier has an earlier key, since the last reading"
        proxy_stat_STAT_PREEMPT_WAKEUP preempt_wakeup "Running tasks preempted by a waking task with an earlier key, since the last reading"
        proxy_stat_STAT_TICKLESS tickless_turns "Tasks that began to run on a CPU of nohz_full with nobody else there, and so without ticks, since the last reading"
        proxy_stat_STAT_STARVE_CLAMP starve_clamps "Keys lowered by the starvation guard (--starve-ms), since the last reading"
        proxy_stat_STAT_STARVE_CLOCK starve_clock_moves "Times that the starvation guard advanced a CPU's clock for tasks that had waited for --starve-ms, since the last reading"
        proxy_stat_STAT_STARVE_OVERDUE starve_overdue "Picks in which urgent donors were held back by a task that had waited for --starve-ms, since the last reading"
        proxy_stat_STAT_URGENT_THROTTLED urgent_throttled "Picks in which urgent donors had used up their 95 % of a second of the CPU, since the last reading"
        proxy_stat_STAT_KICK_FOR_WORK kicks_for_work "Idle CPUs kicked by a tick because tasks were queued elsewhere, since the last reading"
        proxy_stat_STAT_GROUP_FULL cgroups_untracked "Cgroups created beyond the 4,095 whose cpu.weight can be honoured: their tasks count for the parent cgroup, since the last reading"
        proxy_stat_STAT_PARKED throttled "Times that a task was parked because one of its cgroups had used up its cpu.max, since the last reading"
        proxy_stat_STAT_PARKED_NS throttled_ns "Time in ns that tasks were parked for cpu.max; counted when it ends, since the last reading"
        proxy_stat_STAT_TASK_UNSERVED tasks_unserved "Tasks forked while there was no memory for their state: scheduled in turn, without weight, cpu.max or lending, since the last reading"
        proxy_stat_STAT_EDGE edges "Edges seen: tasks that went to sleep on a tracked lock, since the last reading"
        proxy_stat_STAT_EDGE_WOKEN edges_woken "Waits on a tracked lock that ended, since the last reading"
        proxy_stat_STAT_EDGE_URGENT edges_urgent "Of the edges, those of real-time and deadline tasks, since the last reading"
        proxy_stat_STAT_EDGE_MUTEX edges_mutex "Of the edges, those of tasks that wait for a mutex, since the last reading"
        proxy_stat_STAT_EDGE_RWSEM edges_rwsem "Of the edges, those of tasks that wait for an rwsem, since the last reading"
        proxy_stat_STAT_EDGE_RTMUTEX edges_rtmutex "Of the edges, those of tasks that wait for an rt_mutex: a PI futex, on PREEMPT_RT any sleeping lock, since the last reading"
        proxy_stat_STAT_EDGE_PTHREAD edges_pthread "Of the edges, those of tasks that wait for a pthread mutex, since the last reading"
        proxy_stat_STAT_EDGE_BINDER edges_binder "Of the edges, those of tasks that wait for the reply to a binder transaction, since the last reading"
        proxy_stat_STAT_EDGE_NTSYNC edges_ntsync "Of the edges, those of tasks that wait for a mutex of ntsync, since the last reading"
        proxy_stat_STAT_EDGE_FUTEX edges_futex "Of the edges, those of tasks that wait for a user-space lock that names no owner but has candidates, since the last reading"
        proxy_stat_STAT_DONOR_QUEUED donors_queued "Entries put on a donor queue; one wait may cause several, since the last reading"
        proxy_stat_STAT_DONATION donations "Donations begun: an owner was given a slice in a donor's context, since the last reading"
        proxy_stat_STAT_DONATION_MUTEX donations_mutex "Of the donations, those of donors that wait for a mutex, since the last reading"
        proxy_stat_STAT_DONATION_RWSEM donations_rwsem "Of the donations, those of donors that wait for an rwsem, since the last reading"
        proxy_stat_STAT_DONATION_RTMUTEX donations_rtmutex "Of the donations, those of donors that wait for an rt_mutex: a PI futex, on PREEMPT_RT any sleeping lock, since the last reading"
        proxy_stat_STAT_DONATION_PTHREAD donations_pthread "Of the donations, those of donors that wait for a pthread mutex, since the last reading"
        proxy_stat_STAT_DONATION_BINDER donations_binder "Of the donations, those of donors that wait for the reply to a binder transaction, since the last reading"
        proxy_stat_STAT_DONATION_NTSYNC donations_ntsync "Of the donations, those of donors that wait for a mutex of ntsync, since the last reading"
        proxy_stat_STAT_DONATION_FUTEX donations_futex "Of the donations, those of donors that wait for a user-space lock that names no owner: candidates get slices in turn, since the last reading"
        proxy_stat_STAT_DONATION_YIELD donations_yield "Donations begun of tasks that yield to a certain task (directed yield, as KVM's virtual CPUs do), since the last reading"
        proxy_stat_STAT_YIELD_TO yields_to "Directed yields to a task that was queued: it is lent a slice when the turn of the task that yields comes, unless it runs before, since the last reading"
        proxy_stat_STAT_CANDIDATE_MISSED candidates_missed "Slices used up by candidates that turned out not to own the lock; counted when the wait ends, since the last reading"
        proxy_stat_STAT_DONATED_NS donated_ns "CPU time in ns that owners ran in donors' contexts, charged to the donors, since the last reading"
        proxy_stat_STAT_OWN_NS own_ns "CPU time in ns charged to the tasks that ran it, since the last reading"
        proxy_stat_STAT_RUNTIME_NS runtime_ns "CPU time in ns of all tasks scheduled; always donated_ns + own_ns, since the last reading"
        proxy_stat_STAT_DONOR_MIGRATION donor_migrations "Donors whose context moved to the CPU where the owner may run, since the last reading"
        proxy_stat_STAT_CHAIN_FOLLOWED chain_followed "Waiters in the middle of a chain whose context moved along with the donor's, since the last reading"
        proxy_stat_STAT_DONOR_KICK donor_kicks "Of the donor migrations, those that preempted the CPU, since the last reading"
        proxy_stat_STAT_RETURN_PREEMPT return_preempts "Donated slices cut short because the donor woke elsewhere or its chain moved on, since the last reading"
        proxy_stat_STAT_WAITED_NS waited_ns "Total length in ns of the waits on tracked locks that ended, since the last reading"
        proxy_stat_STAT_INVERTED_NS inverted_ns "Of waited_ns, inversion time: the owner could have run, did not, and had a later key than the waiter, since the last reading"
        proxy_stat_STAT_INVERSION_UNTRACKED inversion_untracked "Waits whose inversion time is not known, because two locks shared a slot, since the last reading"
        proxy_stat_STAT_OWNER_RUNNING owner_running "Walks whose end was already running: the donor is attached to it, since the last reading"
        proxy_stat_STAT_OWNER_SLEEPING owner_sleeping "Walks whose end slept on no tracked lock: the donor is attached to it, since the last reading"
        proxy_stat_STAT_FIRST_WAITER first_waiter "Walks to a lock without an owner whose first waiter was awake and stood in for the owner, since the last reading"
        proxy_stat_STAT_RELEASER last_owner "Walks to a user-space mutex without an owner whose last owner had not yet woken the waiter and stood in, since the last reading"
        proxy_stat_STAT_NO_OWNER no_owner "Walks to a lock that had no owner at that moment, since the last reading"
        proxy_stat_STAT_STALE stale "Walks that found a waiter that no longer waited for the lock, since the last reading"
        proxy_stat_STAT_TRUNCATED truncated "Walks truncated at --hops-max, since the last reading"
        proxy_stat_STAT_CYCLE cycles "Walks that found a cycle, since the last reading"
        proxy_stat_STAT_AFFINITY_REFUSED affinity_refusals "Owners that may not run on the donor's CPU, since the last reading"
        proxy_stat_STAT_OTHER_CLASS other_class "Walks whose end belongs to another scheduling class (real-time, deadline), since the last reading"
        proxy_stat_STAT_LOST_RACE lost_races "Owners that had left their run queue when they were to be moved, since the last reading"
        proxy_stat_STAT_READER_OWNED reader_owned "Walks to an rwsem held by readers, of which no owner is known: no donation, since the last reading"
        proxy_stat_STAT_UNPROVEN unproven "Owners named by user memory, binder or ntsync that could not be verified: no donation, since the last reading"
        proxy_stat_STAT_QUEUE_FULL queue_full "Donors refused because a donor queue was full, since the last reading"
        proxy_stat_STAT_ATTACH_FULL attach_full "Donors that could not be attached because 8 are attached to the same owner, since the last reading"
        proxy_stat_STAT_WAIT_PERCPU_RWSEM waits_percpu_rwsem "Waits for percpu rwsems, which name no owner, since the last reading"
        proxy_stat_STAT_WAIT_SEMAPHORE waits_semaphore "Waits for kernel semaphores, which have no owner, since the last reading"
        proxy_stat_STAT_WAIT_FUTEX waits_futex "Waits for futexes that are not followed: condition variables, semaphores, barriers, locks without candidates, since the last reading"
        proxy_stat_STAT_DEPTH_1 depth_1 "Walks that ended after 1 lock, since the last reading"
        proxy_stat_STAT_DEPTH_2 depth_2 "Walks that ended after 2 locks, since the last reading"
        proxy_stat_STAT_DEPTH_3_4 depth_3_4 "Walks that ended after 3 or 4 locks, since the last reading"
        proxy_stat_STAT_DEPTH_5_8 depth_5_8 "Walks that ended after 5 to 8 locks, since the last reading"
        proxy_stat_STAT_DEPTH_9_UP depth_9_up "Walks that ended after 9 locks or more, since the last reading"
        proxy_stat_STAT_RETURN_IDLE return_idle "Donors that woke onto an idle CPU, since the last reading"
        proxy_stat_STAT_RETURN_HOME return_home "Donors that woke onto the CPU they had blocked on, since the last reading"
        proxy_stat_STAT_RETURN_OWNER return_owner "Donors that woke onto the CPU of the lock's owner, since the last reading"
        proxy_stat_STAT_RETURN_IDLE_NS return_idle_ns "Time in ns from wakeup to running of donors sent to an idle CPU, since the last reading"
        proxy_stat_STAT_RETURN_HOME_NS return_home_ns "Time in ns from wakeup to running of donors sent home, since the last reading"
        proxy_stat_STAT_RETURN_OWNER_NS return_owner_ns "Time in ns from wakeup to running of donors sent to the owner's CPU, since the last reading"
        proxy_stat_STAT_RETURN_IDLE_MOVED return_idle_moved "Donors sent to an idle CPU that then ran on another one, since the last reading"
        proxy_stat_STAT_RETURN_HOME_MOVED return_home_moved "Donors sent home that then ran on another CPU, since the last reading"
        proxy_stat_STAT_RETURN_OWNER_MOVED return_owner_moved "Donors sent to the owner's CPU that then ran on another one, since the last reading"
        proxy_stat_STAT_EVENT_LOST events_lost "Events dropped because the agent's ring was full, since the last reading"
        proxy_stat_STAT_HINT_SKIP hint_skips "Walks continued beyond --hops-max by a hint of the agent, since the last reading"
        proxy_stat_STAT_HINT_CYCLE hint_cycles "Picks of donors that the agent knows to be in a deadlock, since the last reading"
        proxy_stat_STAT_HINT_STALE hints_stale "Hints of the agent that were too old or about another wait, since the last reading"
    }
}

impl Metrics {
    /// Four lines: the picks, the donors, why there was no donation, the agent.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn print<W: Write>(&self, w: &mut W) -> io::Result<()> {
        writeln!(
            w,
            "[proxy] picks: queue {} keep {} idle {} donation {} steal {} balance {} | queued now {}",
            self.dispatch_queue,
            self.dispatch_keep,
            self.wakeups_idle,
            self.dispatch_donation,
            self.dispatch_steal,
            self.dispatch_balance,
            self.tasks_queued_now,
        )?;
        writeln!(
            w,
            "        donors: edges {} donations {} donated {:.1} ms of {:.1} ms migrations {} | waiting now {} queued now {}",
            self.edges,
            self.donations,
            self.donated_ns as f64 / 1e6,
            self.runtime_ns as f64 / 1e6,
            self.donor_migrations,
            self.donors_waiting_now,
            self.donors_queued_now,
        )?;
        writeln!(
            w,
            "        waits: {:.1} ms inverted {:.1} ms of them",
            self.waited_ns as f64 / 1e6,
            self.inverted_ns as f64 / 1e6,
        )?;
        writeln!(
            w,
            "        instead: owner ran {} slept {} none {} stale {} cycle {} truncated {} other class {} lost race {} | returns: home {} owner {} idle {}",
            self.owner_running,
            self.owner_sleeping,
            self.no_owner,
            self.stale,
            self.cycles,
            self.truncated,
            self.other_class,
            self.lost_races,
            self.return_home,
            self.return_owner,
            self.return_idle,
        )?;
        writeln!(
            w,
            "        agent: waits {} hints {} events {} lost {} rebuilds {} deadlocks {} | hints used: skip {} cycle {} stale {}",
            self.agent_waits_now,
            self.agent_hints_now,
            self.agent_events,
            self.events_lost,
            self.agent_rebuilds,
            self.deadlocks,
            self.hint_skips,
            self.hint_cycles,
            self.hints_stale,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NR: usize = abi::proxy_stat_NR_PROXY_STATS as usize;

    #[test]
    fn every_counter_has_one_metric() {
        let mut counters = Metrics::counters();
        counters.sort_unstable();
        assert_eq!(counters, (0..NR as u32).collect::<Vec<_>>());
    }

    #[test]
    fn counters_are_deltas_and_levels_are_not() {
        let mut totals = [0; NR];
        totals[abi::proxy_stat_STAT_EDGE as usize] = 7;
        totals[abi::proxy_stat_STAT_EDGE_WOKEN as usize] = 4;
        let levels = Readings {
            cpus: 4,
            donors_queued_now: 2,
            tasks_queued_now: 9,
            recursion_misses: 3,
            ..Readings::default()
        };
        let first = Metrics::new(&totals, levels);
        totals[abi::proxy_stat_STAT_EDGE as usize] = 9;
        let delta = Metrics::new(&totals, levels).since(&first);
        assert_eq!((delta.edges, delta.edges_woken), (2, 0));
        assert_eq!((first.recursion_misses, delta.recursion_misses), (3, 0));
        assert_eq!(delta.donors_waiting_now, 5);
        assert_eq!(
            (delta.cpus, delta.donors_queued_now, delta.tasks_queued_now),
            (4, 2, 9)
        );
    }

    #[test]
    fn description_says_delta_or_level() {
        let mut text = Vec::new();
        crate::stats::server_data(None, std::thread::current())
            .describe_meta(&mut text, None)
            .expect("describe");
        let text = String::from_utf8(text).expect("UTF-8");
        let levels = text.matches("Level:").count();
        let deltas = text.matches("since the last reading").count();
        let counted = NR + Metrics::NR_READ;
        assert_eq!((levels, deltas), (Metrics::NR_LEVELS, counted), "{text}");
    }
}
