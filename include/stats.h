/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Counters kept by BPF, one copy per CPU, only ever added to (the CPU itself is
 * the only writer of its copy). src/stats sums the copies and describes each.
 * A new counter goes at the end of its group and into src/stats/metrics.rs; the
 * unit test there fails as long as one of the two does not know the other.
 */
#ifndef PROXY_STATS_H
#define PROXY_STATS_H

enum proxy_stat {
	/* dispatches by path */
	STAT_DISPATCH_QUEUE,		/* head of the CPU's own run queue */
	STAT_DISPATCH_KEEP,		/* previous task goes on: its key is the earliest */
	STAT_DISPATCH_DONATION,		/* owner picked in a donor's context */
	STAT_DISPATCH_STEAL,		/* idle CPU took from another run queue */
	STAT_DISPATCH_BALANCE,		/* busy CPU took a task that got less than its share */
	STAT_DISPATCH_TO_BIG,		/* heavy task left a CPU of small capacity for an idle big core */
	STAT_ENQUEUE,			/* tasks put on a run queue */
	STAT_ENQUEUE_IDLE,		/* of those, sent to an idle CPU's queue */
	STAT_WAKE_IDLE,		/* wakeups sent to an idle CPU */
	STAT_WAKE_HANDOFF,		/* ... or to the CPU of a waker that is about to sleep */
	STAT_PREEMPT_WAKEUP,		/* running tasks preempted by a waking one */
	STAT_PREEMPT_TICK,		/* ... by a timer or a tick after that: they had just begun, or have been passed since */
	STAT_TICKLESS,			/* tasks that got a CPU of nohz_full to themselves, without ticks */
	STAT_STARVE_CLAMP,		/* keys drawn in by the starvation guard */
	STAT_STARVE_CLOCK,		/* clocks moved on by it, so that the turn of all that waited came */
	STAT_STARVE_OVERDUE,		/* picks with urgent donors and a queued task that waited too long */
	STAT_URGENT_THROTTLED,		/* picks in which urgent donors had had enough of the CPU */
	STAT_KICK_FOR_WORK,		/* idle CPUs woken by a tick, since work waits */

	/* cgroups */
	STAT_GROUP_FULL,		/* cgroups beyond GROUPS_MAX: their tasks count for the group above */
	STAT_PARKED,			/* tasks parked, since a cgroup above them had used up its cpu.max */
	STAT_PARKED_NS,			/* how long they were */

	STAT_TASK_UNSERVED,		/* tasks forked without memory for their state: they run in turn */

	/* edges and donors */
	STAT_EDGE,			/* tasks that blocked on a tracked lock */
	STAT_EDGE_WOKEN,		/* of those, waits that ended */
	STAT_EDGE_URGENT,		/* of those, real-time and deadline tasks */
	STAT_EDGE_MUTEX,		/* of the edges, by type: in the order of enum lock_type */
	STAT_EDGE_RWSEM,
	STAT_EDGE_RTMUTEX,
	STAT_EDGE_PTHREAD,
	STAT_EDGE_BINDER,
	STAT_EDGE_NTSYNC,
	STAT_EDGE_FUTEX,
	STAT_DONOR_QUEUED,		/* entries put on a donor queue */
	STAT_DONATION,			/* donations begun */
	STAT_DONATION_MUTEX,		/* of the donations, by type of the lock that the donor waits for */
	STAT_DONATION_RWSEM,
	STAT_DONATION_RTMUTEX,
	STAT_DONATION_PTHREAD,
	STAT_DONATION_BINDER,
	STAT_DONATION_NTSYNC,
	STAT_DONATION_FUTEX,
	STAT_DONATION_YIELD,		/* and of those that it yields to */
	STAT_YIELD_TO,			/* directed yields to tasks that were queued: contexts offered */
	STAT_CANDIDATE_MISSED,		/* slices used up by candidates that turned out not to have the lock */
	STAT_DONATED_NS,		/* CPU time charged to donors */
	STAT_OWN_NS,			/* CPU time charged to the tasks themselves */
	STAT_RUNTIME_NS,		/* CPU time of all tasks: DONATED + OWN */
	STAT_DONOR_MIGRATION,		/* entries moved to the owner's CPU */
	STAT_CHAIN_FOLLOWED,		/* waiters in the middle of a chain that moved along */
	STAT_DONOR_KICK,		/* CPUs preempted for a donor that arrived */
	STAT_RETURN_PREEMPT,		/* donated slices cut short: the donor woke, or its chain moved on */
	STAT_WAITED_NS,			/* how long the waits lasted that ended */
	STAT_INVERTED_NS,		/* of that, inversion time (core/inversion.h) */
	STAT_INVERSION_UNTRACKED,	/* waits of which no inversion time is known: two locks met */

	/* why a look at a chain did not end in a donation */
	STAT_OWNER_RUNNING,
	STAT_OWNER_SLEEPING,
	STAT_FIRST_WAITER,		/* no owner: the first waiter stood in */
	STAT_RELEASER,			/* likewise, of a mutex of user space: its last owner */
	STAT_NO_OWNER,
	STAT_STALE,
	STAT_TRUNCATED,
	STAT_CYCLE,
	STAT_AFFINITY_REFUSED,		/* owner may not run here: donor migrates */
	STAT_OTHER_CLASS,
	STAT_LOST_RACE,
	STAT_READER_OWNED,		/* rwsems held by readers, none of whom proves to have it */
	STAT_UNPROVEN,			/* owners named by user memory, binder or ntsync that did not prove to be it */
	STAT_QUEUE_FULL,
	STAT_ATTACH_FULL,

	/* waits for what has no owner that could be known; no edges */
	STAT_WAIT_PERCPU_RWSEM,
	STAT_WAIT_SEMAPHORE,
	STAT_WAIT_FUTEX,		/* condition variables, semaphores, barriers, locks without users known */

	/* chain depth, in lock hops from the donor to the end */
	STAT_DEPTH_1,
	STAT_DEPTH_2,
	STAT_DEPTH_3_4,
	STAT_DEPTH_5_8,
	STAT_DEPTH_9_UP,

	/* return migration */
	STAT_RETURN_IDLE,		/* donor woke onto an idle CPU */
	STAT_RETURN_HOME,		/* ... onto the CPU that it blocked on */
	STAT_RETURN_OWNER,		/* ... onto the CPU of the owner */
	STAT_RETURN_IDLE_NS,		/* what came of it: time from wake to run ... */
	STAT_RETURN_HOME_NS,
	STAT_RETURN_OWNER_NS,
	STAT_RETURN_IDLE_MOVED,		/* ... and those that ran somewhere else in the end */
	STAT_RETURN_HOME_MOVED,
	STAT_RETURN_OWNER_MOVED,

	/* the agent */
	STAT_EVENT_LOST,		/* events that found the ring full */
	STAT_HINT_SKIP,			/* walks that went on where a hint said */
	STAT_HINT_CYCLE,		/* donors that a hint knows to be in a deadlock */
	STAT_HINT_STALE,		/* hints that did not hold any more */

	NR_PROXY_STATS,
};

#endif /* PROXY_STATS_H */
