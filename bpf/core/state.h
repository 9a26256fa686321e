/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * State of tasks and CPUs, and its writers. The same table, with the
 * reasons, stands in DESIGN.md ("Protection").
 */
#ifndef PROXY_CORE_STATE_H
#define PROXY_CORE_STATE_H

/* donors one pick looks at; a power of 2 */
#define DONOR_LOOKS 8

/* where a task is, as the callbacks told us; written under the task's rq lock */
enum task_place {
	PLACE_ASLEEP = 0, /* also: not seen since it was enabled */
	PLACE_QUEUED,	  /* on the run queue (user DSQ) of dsq_cpu */
	PLACE_LOCAL,	  /* runnable, on a local DSQ or on its way to a queue */
	PLACE_RUNNING,	  /* on a CPU */
	PLACE_OTHER,	  /* of another scheduling class */
};

/* users of a lock that names no owner that are remembered (a power of 2), and those that one look tries */
#define CANDIDATES_MAX 8
#define CANDIDATE_LOOKS 4
/* slices that one wait lends to candidates: about a second */
#define CANDIDATE_SLICES 256
/* and to the last owner of a mutex that names nobody since its release */
#define RELEASED_SLICES 2
/* of each ROUND (a power of 2) so many go to those that point at the lock, if there are any */
#define CANDIDATE_ROUND 16
#define CANDIDATE_POINTING 12

/* task_ctx.wait_type of a directed yield, core/yield.h; else it is an enum lock_type */
#define WAIT_YIELD NR_LOCK_TYPES

struct candidate_turns {
	u32 pid;
	u32 nr;
};

struct task_ctx {
	/* [rq lock of the task] its own scheduling context */
	u64 vtime;	 /* key, in terms of the clock of vtime_cpu */
	s32 vtime_cpu;	 /* -1: none yet */
	u32 weight;	 /* effective: what it weighs among all; WEIGHT_NICE_0 at nice 0 in the root group */
	u32 own_weight;	 /* by nice value and policy */
	u32 group;	 /* its cgroup, group/state.h */
	u32 counted;	 /* the weight by which it counts in its group; 0: it does not */
	u64 charged_exec_ns; /* p->se.sum_exec_runtime that is charged already */
	u64 charged_at_ns;   /* when that was */
	u32 place;	 /* enum task_place */
	s32 dsq_cpu;	 /* the queue it is on, while PLACE_QUEUED */
	u32 dsq_reach;	 /* enum reach: which of that CPU's queues */
	u32 queued_weight; /* its part of that queue's load */
	u64 queued_at_ns;  /* when it was put there */
	u32 yielded;	 /* lets the next one go first, once */
	u32 yields_to;	 /* the task that it lends its context to until it runs again, core/yield.h */
	u32 parked_by;	 /* the group that has no budget, while it is parked */
	u32 slept;	 /* it has not run since it slept */
	u32 swap_to;	 /* CPU + 1 whose queue it goes to, in exchange for what was pulled from there */
	u64 pace;	 /* place/pace.h, as of pace_at_ns */
	u64 pace_at_ns;
	/* [written by the task itself, as a waker; then rq lock] place/select.h */
	u64 sync_at_ns;	 /* when it last woke a task and said that it was about to sleep */
	u32 handoffs;	 /* how often in a row that was true */
	u64 off_since_ns; /* since when it could run and does not; 0: runs, or could not */
	u64 delay_ns;	 /* sum of such times, and of those that waits of its were behind */

	/*
	 * [written by the task itself, and when it becomes ours] edge word of what it is about to
	 * sleep on: an rwsem, or a mutex; the latter of tasks of other classes, and of all on
	 * kernels without task->blocked_on
	 */
	u64 contended_lock;
	/*
	 * [written by the task itself; under its rq lock when it wakes and when it becomes ours,
	 * which is while it does not run] edge word of the user-space mutex, the binder
	 * transaction or the ntsync mutex that it waits for; the first's address and how it waits;
	 * as user_addr, the wait for the last
	 */
	u64 user_lock;
	u64 user_addr;
	u32 user_flags;
	/* [written by the task itself] where it asked for the lock at site_lock: obs/site.bpf.h */
	u64 site_lock;
	u64 site;
	u32 site_kind;
	u32 wait_type;	 /* enum lock_type of what the wait is for, or WAIT_YIELD; written as wait_seq */

	/* as a donor. token: compare-and-swap; wait_*: its holder (core/token.h) */
	u64 token;
	u64 wait_seq;	  /* [rq lock] last used wait number, in token form */
	u64 wait_key;
	s32 wait_cpu;	  /* the clock that wait_key belongs to */
	u32 wait_weight;
	u32 wait_urgency; /* 0: fair; else it sorts before all fair keys, the greater the earlier */
	u32 wait_user;	  /* whose it is, as the donor queue tells users apart */
	u64 lent_cost;	  /* [atomic add] virtual time run on this context meanwhile */
	u64 woke_at_ns;	  /* [rq lock] */
	u64 blocked_at_ns; /* [rq lock] when this wait began */
	u64 wait_lock;	  /* [as wait_seq] edge word of what it waits for, while that is timed */
	u64 wait_delay_ns; /* [as wait_seq] its slot's delay_ns when the wait began */
	/*
	 * [hints: walks of its chain] of a wait for a lock that names no owner, core/hop.h: the task taken
	 * for the owner at present, what that had run when it was chosen, which user is looked at next;
	 * and what was found when it was last looked
	 */
	u32 named_owner; /* which the lock named last in this wait */
	u32 candidate;
	u32 candidate_found;
	u64 candidate_at_ns;
	u32 candidate_next;
	u32 candidate_slices; /* that candidates have used up in this wait */
	u64 candidate_exec_ns;
	/* [hints: walks of its chain] slices that each used up in this wait */
	struct candidate_turns lent_to[CANDIDATES_MAX];
	u64 futex_at;	 /* [as user_lock] user address that it waits at, if that may be such a lock */
	/* [pi_lock in ops.select_cpu(), then rq lock] of a donor that woke, until it runs */
	u32 return_choice; /* enum return_choice */
	s32 return_cpu;	  /* where that choice sent it */

	/* as an owner. donor_*: [the CPU that runs or picks it] */
	u32 donor_pid;	  /* whose context it runs in; 0: its own */
	u32 has_attached; /* [atomic] hint: attached[] may hold something */
	u64 donor_seq;
	u32 attached[ATTACH_MAX]; /* [atomic] pids of donors that wait for it to stop or wake */
};

struct cpu_ctx {
	/* [loader, before attach] */
	u32 cache_id;	     /* CPUs of the same last-level cache have the same */
	u32 domain;	     /* place/state.h: its domain, and its bit there */
	u32 bit;
	u32 nohz_full;	     /* its tick can be stopped while it is busy */
	u32 possible;	     /* [ops.init()] whether there can be such a CPU: numbers may have holes */
	u32 idle;	     /* [rq lock of the CPU] whether it is; later claims do not count */
	u64 clock;	     /* [rq lock of the CPU] least key on the CPU, never goes back */
	/*
	 * [hint] what runs, and since when (0: nothing of ours). Written by the CPU
	 * itself, and by a donor that wakes, for the owner that ran in its context.
	 * Read by others without a lock: a torn read costs or spares a preemption.
	 */
	u64 running_key;
	u64 running_since_ns;
	u32 running_weight;
	u32 running_pid;
	u64 awake_at_ns; /* when the turn began, after a sleep; 0: it had been running before */
	u32 turn_pid;	 /* in whose context the last one ran that was not idle */
	u32 turn_over; /* it went on when its donor woke: not its turn, unless its own key says so */
	u32 preempt_at_tick; /* a task of earlier key woke when that was a moment ago */
	u64 hrtick_at_ns; /* when what runs is looked at again, place/hrtick.h; 0: not asked for */
	/* [rq lock of the CPU; a timer, of a CPU that is idle] frequency demand, place/perf.h */
	u64 perf_at_ns;	     /* when the present window began */
	u64 perf_busy_ns;    /* what tasks ran in it, up to perf_since_ns */
	u64 perf_since_ns;   /* since when one runs; 0: none does */
	u64 perf_ran_ns;     /* when that was last true */
	u32 perf;	     /* demand, of PERF_ONE */
	u32 perf_told;	     /* what the kernel was told last */
	/* [rq lock of the CPU] */
	u64 pulled_at_ns;    /* when it last looked for tasks that get less than their share */
	u32 pull_cursor;
	u32 pulled_pid;	     /* the task that its last pick pulled, until it runs */
	u32 overdue_picks;   /* picks in which a queued task had waited for too long */
	u64 guard_at_ns;     /* starvation guard: when its present period began ... */
	u64 guard_key;	     /* ... and the latest key that was queued then */
	u64 least_key;	     /* of its last pick, donors left aside; KEY_NONE: there was none */
	u64 urgent_at_ns;    /* when the present second of urgent donors began ... */
	u64 urgent_ns;	     /* ... and what was run for them in it */
	u64 donor_look_ns;   /* idle with donors: how long until it looks at them again; else 0 */
	u64 donor_look_at_ns;
	u64 held_token[DONOR_LOOKS]; /* donors that this pick holds, core/pick.h */
	u32 held_pid[DONOR_LOOKS];
	/* likewise: waiters of the chain walked here last, core/resolve.h */
	u32 between[HOPS_LIMIT];
	u32 nr_held;
	u32 unserved_turn;   /* whose turn the last pick was, sched/unserved.bpf.h */
	u32 took_unseen;     /* the last pick did not see the key of what it took, core/pick.h */
	u32 tickless;	     /* what runs has begun alone, and without ticks: place/tickless.h */
	/* written by other CPUs as well: a cache line of its own */
	u32 nr_queued[NR_REACH] __attribute__((aligned(64))); /* [atomic] tasks on its run queues */
	u32 nr_parked;	     /* [atomic] tasks parked here, group/park.h */
	u32 nr_donors;	     /* [atomic] entries on the donor queue, for stats */
	u64 queued_load;     /* [atomic] sum of the weights on its run queues */
	u64 key_max;	     /* [compare-and-swap] latest key that was ever queued here */
	u64 waiting_pace;    /* [hint] pace of the task queued last that other CPUs may pull */
} __attribute__((aligned(64)));

/* A lock that is waited for, core/inversion.h. */
struct lock_slot {
	u64 lock;	/* [compare-and-swap, without waiters] edge word */
	u64 owner_mark; /* [compare-and-swap] who owns it, and what that task's clock said then */
	u64 delay_ns;	/* [atomic add] by how much the clocks of its owners went on */
	u32 nr_waiting; /* [atomic] */
	u32 pad;
};

struct donor_queue {
	struct bpf_spin_lock lock;
	struct donor_heap heap;
};

#endif /* PROXY_CORE_STATE_H */
