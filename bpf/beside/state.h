/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What is kept while another scheduler runs the machine: of tasks that wait for locks or own locks that are
 * waited for, and of such locks (core/delay.h). All of it is bounded: what there is no room for is counted,
 * and not followed.
 */
#ifndef PROXY_BESIDE_STATE_H
#define PROXY_BESIDE_STATE_H

/* in off_since_ns: the clock stands; and it was so since its task was seen on a CPU by another one */
#define CLOCK_STANDS (1ULL << 63)
#define CLOCK_RUNNING_SEEN (1ULL << 62)
#define CLOCK_TIME (CLOCK_RUNNING_SEEN - 1)

/* written by the loader before load, constant from then on */
struct beside_config {
	u32 locks;	/* LOCK_BIT() of each type that is followed */
	u32 own_tgid;	/* our own process: its waits are not looked at */
	u32 sample;	/* of so many waits one is looked at */
	u8 events;	/* 1: tell what happens; always, here */
	u8 track_by_tracepoint; /* 1: lock:contention_begin serves all; always, here */
};

/* A task that waited for a lock, or owned one that was waited for. By pid, until it dies. */
struct task_ctx {
	u64 task;	/* its address: a number, not to be followed without proof */
	/*
	 * [the CPU that it leaves, or comes to, or is woken by; in that order by its rq lock. Once in a round
	 * by whoever begins to wait for it, with compare-and-swap: see owner_follow()] its clock, as
	 * core/delay.h says; CLOCK_STANDS and a time: it has stood since. off_since_ns holds while follow_round is ours:
	 * nobody looks while nobody waits. Written after round
	 */
	u64 off_since_ns;
	u64 delay_ns;
	u32 round;
	u32 pid;
	/* [the task itself] as in core/state.h */
	u64 contended_lock;
	u64 user_lock;
	u64 user_addr;
	u32 user_flags;
	u32 site_kind;
	u64 site_lock;
	u64 site;
	/* [as off_since_ns] its wait, if it is in one */
	u32 waits;
	u32 wait_first; /* as it began, its owner was less important */
	s32 wait_cpu;
	u64 wait_edge;	/* edge word */
	u64 wait_seq;
	u64 blocked_at_ns;
	u64 wait_lock;	/* the same edge, while its delay is timed */
	u64 wait_delay_ns;
	u64 last_owner; /* address of who owned what it waited for last: for comparison with that of last_owner_pid */
	u32 last_owner_pid;
};

/* As in core/state.h. */
struct lock_slot {
	u64 lock;
	u64 owner_mark;
	u64 delay_ns;
	u32 nr_waiting;
	u32 pad;
};

/* preallocated: it is written to under run queues' locks, where memory must not be asked for */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, BESIDE_TASKS_MAX);
	__type(key, u32);
	__type(value, struct task_ctx);
} task_ctxs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, LOCK_SLOTS);
	__type(key, u32);
	__type(value, struct lock_slot);
} lock_slots SEC(".maps");

/* [atomic] waits that go on; and how often there was a first one. Clocks stand still while there is none */
u32 nr_waits;
u32 follow_round = 1;

#endif /* PROXY_BESIDE_STATE_H */
