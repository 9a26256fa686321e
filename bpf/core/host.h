/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The policy for the host: an engine is the whole policy with its state, the
 * machine that it runs on stands behind struct host_ports. Bound to Rust for the
 * tests (tests/model, tests/core.rs); not part of the BPF object.
 */
#ifndef PROXY_CORE_HOST_H
#define PROXY_CORE_HOST_H

#include "abi.h"

typedef unsigned long long host_u64;

/* see core/ports.h; every function gets @machine first, tasks are pids */
struct host_ports {
	void *machine;
	host_u64 (*now)(void *);
	int (*this_cpu)(void *);
	unsigned int (*current)(void *, int cpu);
	int (*alive)(void *, unsigned int pid);
	host_u64 (*exec_ns)(void *, unsigned int pid);
	int (*nice)(void *, unsigned int pid);
	int (*task_cpu)(void *, unsigned int pid);
	unsigned int (*group_shares)(void *, unsigned int group);
	void (*group_limit)(void *, unsigned int group, host_u64 *quota_ns, host_u64 *period_ns,
			    host_u64 *burst_ns);
	void (*rekey)(void *, int cpu, unsigned int reach, host_u64 key);
	int (*may_run)(void *, unsigned int pid, int cpu);
	int (*pinned)(void *, unsigned int pid);
	int (*unrestricted)(void *, unsigned int pid);
	unsigned int (*user)(void *, unsigned int pid);
	unsigned int (*urgency)(void *, unsigned int pid);
	int (*core_runs)(void *, unsigned int pid);
	host_u64 (*blocked_on)(void *, unsigned int pid);
	unsigned int (*owner_of)(void *, host_u64 lock);
	unsigned int (*first_waiter_of)(void *, host_u64 lock);
	int (*wakes_after_release)(void *, host_u64 lock);
	unsigned int (*candidates_of)(void *, host_u64 lock);
	unsigned int (*candidate_of)(void *, host_u64 lock, unsigned int nr);
	int (*points_at)(void *, unsigned int pid, host_u64 lock);
	void (*insert)(void *, unsigned int pid, int cpu, unsigned int reach, host_u64 key,
		       host_u64 slice_ns);
	host_u64 (*head)(void *, int cpu, unsigned int reach, unsigned int *pid);
	int (*move_task)(void *, unsigned int pid, int from, unsigned int reach, int cpu,
			 host_u64 slice_ns);
	int (*head_take)(void *, int from, unsigned int reach, int cpu);
	void (*set_slice)(void *, unsigned int pid, host_u64 ns);
	void (*kick)(void *, int cpu, int how);
	void (*start_hrtick)(void *, int cpu, host_u64 ns);
	void (*event)(void *, const struct proxy_event *);
};

struct host_engine;

struct host_donor {
	host_u64 token;
	host_u64 wait_seq;
	host_u64 key;
	unsigned int yields_to;
};

struct host_engine *host_engine_new(const struct proxy_config *cfg, unsigned int nr_tasks);
void host_engine_free(struct host_engine *e);

/* What the loader does for the kernel: @cpu, online and idle, is at @bit of @domain. */
void host_place(struct host_engine *e, int cpu, unsigned int domain, unsigned int bit,
		int first_of_pair);
/* The tick of @cpu can be stopped while it is busy. */
void host_nohz_full(struct host_engine *e, int cpu);
/* CPUs of @domain that are big, as bits of it, where others are not. */
void host_big(struct host_engine *e, unsigned int domain, host_u64 big);
void host_near(struct host_engine *e, unsigned int domain, host_u64 near);

/* Group @nr comes to be below @parent; what cgroup callbacks do for the kernel. */
void host_group_begin(struct host_engine *e, unsigned int nr, unsigned int parent,
		      unsigned int shares);

/* The callbacks; @ports stands in for the machine until the call returns. */
void host_enable(struct host_engine *e, const struct host_ports *ports, unsigned int pid);
void host_group_move(struct host_engine *e, const struct host_ports *ports, unsigned int pid,
		     unsigned int group);
void host_disable(struct host_engine *e, const struct host_ports *ports, unsigned int pid);
int host_select_cpu(struct host_engine *e, const struct host_ports *ports, unsigned int pid,
		    int prev_cpu, int kind);
void host_update_idle(struct host_engine *e, const struct host_ports *ports, int cpu, int idle);
void host_enqueue(struct host_engine *e, const struct host_ports *ports, unsigned int pid,
		  int wakeup, int selected, int last, int came_back);
void host_dispatch(struct host_engine *e, const struct host_ports *ports, int cpu,
		   unsigned int prev);
void host_running(struct host_engine *e, const struct host_ports *ports, unsigned int pid);
void host_stopping(struct host_engine *e, const struct host_ports *ports, unsigned int pid);
void host_quiescent(struct host_engine *e, const struct host_ports *ports, unsigned int pid,
		    int sleeps);
void host_tick(struct host_engine *e, const struct host_ports *ports, unsigned int pid);
void host_hrtick(struct host_engine *e, const struct host_ports *ports, int cpu);
void host_yield(struct host_engine *e, const struct host_ports *ports, unsigned int pid);
int host_yield_to(struct host_engine *e, const struct host_ports *ports, unsigned int pid,
		  unsigned int to);
void host_timer(struct host_engine *e, const struct host_ports *ports);
void host_contention_begin(struct host_engine *e, const struct host_ports *ports, unsigned int pid,
			   int cpu);
void host_contention_end(struct host_engine *e, const struct host_ports *ports, unsigned int pid);

/* From now on donors lend, or are only observed. */
void host_set_donating(struct host_engine *e, int on);

/* What tests look at. */
/* ns that @pid could have run and did not, or waited for a task that could have: what ended */
host_u64 host_delay(const struct host_engine *e, unsigned int pid);
host_u64 host_stat(const struct host_engine *e, unsigned int stat);
host_u64 host_clock(const struct host_engine *e, int cpu);
host_u64 host_key(const struct host_engine *e, unsigned int pid);
void host_donor(const struct host_engine *e, unsigned int pid, struct host_donor *d);
unsigned int host_queue_length(const struct host_engine *e, int cpu);
void host_set_wait_hint(struct host_engine *e, unsigned int pid, const struct wait_hint *h);

/* The parts without ports, by themselves. */
struct donor_heap *host_heap_new(void);
void host_heap_free(struct donor_heap *h);
int host_heap_push(struct donor_heap *h, host_u64 key, host_u64 seq, unsigned int pid);
int host_heap_remove(struct donor_heap *h, unsigned int idx, host_u64 seq, unsigned int pid);
int host_heap_top(const struct donor_heap *h);
host_u64 host_heap_top_key(const struct donor_heap *h);
host_u64 host_key_cost(host_u64 ns, unsigned int weight);
unsigned int host_perf_after(unsigned int perf, host_u64 busy_ns, host_u64 elapsed_ns,
			     unsigned int cur);
host_u64 host_key_floor(host_u64 key, host_u64 clock, host_u64 lag);
host_u64 host_key_ceiling(host_u64 key, host_u64 clock, host_u64 starve_ns, host_u64 load);
host_u64 host_key_min(host_u64 a, host_u64 b);
unsigned int host_weight_of_nice(int nice);
host_u64 host_token_make(host_u64 seq, unsigned int kind, unsigned int place);
unsigned int host_token_kind(host_u64 token);
unsigned int host_walk(const unsigned int *pids, unsigned int nr, unsigned int hops_max, int *end);
host_u64 host_donated_before_wake(host_u64 delta_ns, host_u64 charged_at_ns, host_u64 woke_at_ns);

struct host_return_facts {
	host_u64 waited_ns;
	long long home_lead, owner_lead, owner_bias_ns;
	int owner_runs, owner_allowed, home_busy, shares_cache;
};
unsigned int host_return_choose(const struct host_return_facts *f, unsigned int policy,
				host_u64 cold_ns, host_u64 margin_ns);

#endif /* PROXY_CORE_HOST_H */
