/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Tunables: the loader writes them once, before the programs are loaded; BPF
 * sees constants. Units are in the names. src/loader fills them from the
 * command line; src/cli.rs says what each is for, and its range.
 */
#ifndef PROXY_CONFIG_H
#define PROXY_CONFIG_H

struct proxy_config {
	unsigned long long slice_ns;	   /* time a task runs before the next pick */
	unsigned long long lag_ns;	   /* vtime a waking task may lie behind the clock */
	unsigned long long wakeup_gran_ns; /* lead a waking nice-0 task needs to preempt */
	unsigned long long protect_ns;	   /* time that a task that slept runs before a waking one preempts it */
	unsigned long long balance_ns;	   /* least time between two pulls by a busy CPU */
	unsigned long long starve_ns;	   /* longest estimated wait on a run queue */
	unsigned int nr_cpu_ids;	   /* numbers of possible CPUs are below that; there may be holes */
	unsigned int nr_cpus_online;	   /* CPUs that there are while the scheduler is loaded */
	unsigned int hops_max;		   /* lock hops one chain walk follows, <= HOPS_LIMIT */
	unsigned long long return_cold_ns; /* wait after which a donor's caches are cold at home */
	unsigned long long return_margin_ns; /* lead that warm caches at home are worth, in key */
	unsigned int return_policy;	   /* enum return_policy, bpf/core/return.h */
	unsigned int agent_tgid;	   /* process of the agent: never starved */
	unsigned int locks;		   /* LOCK_BIT() of each lock type that is followed */
	unsigned char events;		   /* 1: tell the agent what happens */
	unsigned char hints;		   /* 1: look at the agent's hints */
	unsigned char limits;		/* 1: enforce cpu.max. That takes a BPF timer, which PREEMPT_RT has not */
	unsigned char hrtick;		/* 1: a timer looks whether a woken task is due between two ticks; likewise */
	unsigned char cpufreq;		/* 1: tell the kernel how fast each CPU shall be */
	unsigned char track_by_tracepoint; /* no task->blocked_on: contention_begin serves all */
};

#endif /* PROXY_CONFIG_H */
