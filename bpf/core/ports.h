/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Ports: all that the core asks of whatever it runs in. The kernel's side is
 * bpf/sched/ports.bpf.h, the host's is bpf/core/host.c (where the simulator of
 * src/model stands behind them). A file that includes the core defines these first,
 * as functions or macros; struct task_struct is opaque to the core.
 *
 *   struct task_struct *port_task_get(u32 pid)   a live task, or NULL
 *   void port_task_put(struct task_struct *)     gives it back
 *   u32  port_pid(struct task_struct *)
 *   s32  port_task_cpu(struct task_struct *)     the CPU it is on, or was last
 *   u64  port_exec_ns(struct task_struct *)      CPU time it has had, brought up to date
 *   u32  port_weight(struct task_struct *)       by nice value and policy, WEIGHT_NICE_0 at nice 0
 *   bool port_may_run(struct task_struct *, s32 cpu)  affinity, migrate-disable
 *   bool port_pinned(struct task_struct *)       may run on one CPU only
 *   bool port_unrestricted(struct task_struct *) may run on all CPUs, as far as is known
 *   u32  port_user(struct task_struct *)         whose it is, below HEAP_USERS
 *   bool port_exiting(struct task_struct *)     is on its way through do_exit()
 *   bool port_in_rcu(struct task_struct *)       was preempted inside an RCU read-side section
 *   bool port_is_agent(struct task_struct *)     part of scx_proxy's own process
 *   bool port_core_runs(struct task_struct *)    whether it, which is queued, executes all the same: the
 *                                                kernel's own proxy execution, for a task of a higher class
 *   u64  port_core_ran_ns(struct task_struct *, const struct task_ctx *)
 *                                                for how long it did since it last ran by our own doing
 *   void port_set_slice(struct task_struct *, u64 ns)
 *   struct task_struct *port_current(void)       the task that this CPU runs
 *   s32  port_this_cpu(void)
 *   u64  port_now(void)                          ns; the scheduler's clock, the same within a callback
 *   u64  port_switch_now(s32 cpu)                likewise, in a switch on @cpu, once what ran before has stopped
 *   u64  port_monotonic(void)                    ns; CLOCK_MONOTONIC, as in hints
 *   void port_kick(s32 cpu, enum port_kick)
 *   void port_hrtick(s32 cpu, u64 ns)            hrtick() of that CPU, in @ns; only the last counts
 *   u32  port_perf_now(s32 cpu)                  its speed, of PERF_ONE
 *   void port_perf_set(s32 cpu, u32 perf)        ... and what it shall be
 *   bool port_donating(void)                     whether donors lend, or are only observed
 *
 *   struct task_ctx *task_ctx_of(struct task_struct *)   state, see state.h
 *   struct cpu_ctx *cpu_ctx_of(s32 cpu)
 *   struct domain *domain_of(u32 nr)             place/state.h; NULL beyond DOMAINS_MAX
 *   struct machine *machine_of(void)
 *   struct group_table *group_table_of(void)     group/state.h
 *   struct group *group_of(u32 nr)               NULL beyond GROUPS_MAX
 *   struct group_load *group_load_here(u32 nr)   what this CPU has counted of that group
 *   struct group_load *group_load_on(u32 nr, s32 cpu)  ... another CPU
 *   u32  port_group_shares(struct group *, u32 nr)  cpu.weight, WEIGHT_NICE_0 at 100
 *   void port_group_limit(struct group *, u32 nr, struct group_limit *)  cpu.max
 *   struct donor_queue *donor_queue_of(s32 cpu)
 *   struct lock_slot *lock_slot_at(u32 nr)       below LOCK_SLOTS
 *   queue_lock(q), queue_unlock(q)               the donor queue's own lock
 *
 *   u64  queue_head(s32 cpu, u32 reach, u32 *pid)  first key on that run queue, or KEY_NONE, and whose
 *   int  queue_head_take(s32 from, u32 reach, s32 cpu)  its first task that may run on @cpu goes
 *                                                there; of REACH_SOME among the first QUEUE_LOOKS
 *   void queue_insert(struct task_struct *, s32 cpu, u32 reach, u64 key, u64 enq_flags)
 *   void queue_rekey(s32 cpu, u32 reach, u64 key)  its first task has another key from now on
 *   enum moved owner_move(struct task_struct *, s32 from, u32 reach, s32 cpu)
 *
 *   u64  edge_lock(struct task_struct *, const struct task_ctx *)  what it sleeps on, or 0
 *   u32  edge_owner_pid(struct task_struct *, const struct task_ctx *, u64 lock)
 *                                                the owner of the lock that it sleeps on, or 0
 *   u32  edge_first_waiter_pid(u64 lock)         the first in line, or 0
 *   u32  edge_candidates(struct task_struct *, const struct task_ctx *, u64 lock)
 *                                                how many there are, CANDIDATES_MAX at most, that may
 *                                                own the lock that it sleeps on, which names no owner
 *   u32  edge_candidate_pid(struct task_struct *, const struct task_ctx *, u64 lock, u32 nr)
 *                                                one of them, the likeliest first; 0 if it is gone
 *   bool edge_releaser_proven(struct task_struct *, const struct task_ctx *, u64 lock, u32 pid)  whether the lock
 *                                                names its owner, was that one's, and may be released
 *                                                by it some time before it wakes the next one
 *   bool edge_candidate_proven(struct task_struct *, u32 pid)  whether it may lend to that one at all
 *   bool edge_candidate_points(const struct task_ctx *, u64 lock, u32 pid)  whether the registers or the
 *                                                stack of that one point at the lock
 *
 *   void stat_inc(u32), stat_add(u32, u64)       include/stats.h
 *   void event(u32 kind, s32 cpu, u32 pid, u32 other, u64 lock, u64 value)  include/events.h
 *   void event_wait(u32 kind, s32 cpu, struct task_struct *, const struct task_ctx *,
 *                   u32 owner, u64 lock, u64 value, u64 inverted_ns)   likewise, of a wait
 *   void event_gave(u32 donor_pid, u32 owner_pid, u64 ns)   likewise, of CPU time that a donor paid
 *   hint_*: see hint.h
 */
#ifndef PROXY_CORE_PORTS_H
#define PROXY_CORE_PORTS_H

enum port_kick {
	PORT_KICK,	   /* pick again */
	PORT_KICK_IDLE,	   /* pick if idle */
	PORT_KICK_PREEMPT, /* end the slice of what runs there, pick again */
};

/* a slice that does not end by itself: SCX_SLICE_INF */
#define SLICE_INFINITE (~0ULL)

/* restricted tasks on one queue that are looked at for one that may run on another CPU */
#define QUEUE_LOOKS 8

/* How an attempt ended to take a queued owner to another CPU. */
enum moved {
	MOVED,
	MOVE_LOST,
	MOVE_REFUSED
};

#endif /* PROXY_CORE_PORTS_H */
