/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Everything BPF and Rust share; build.rs runs bindgen over this file. Keep it
 * free of kernel types, so that host programs can include it as well.
 */
#ifndef PROXY_ABI_H
#define PROXY_ABI_H

#include "config.h"
#include "events.h"
#include "hints.h"
#include "locks.h"
#include "stats.h"

/* lock hops one chain walk may follow at the most; see core/walk.h */
#define HOPS_LIMIT 16

/* donors one CPU's donor queue can hold; a power of two, see core/heap.h */
#define DONORS_PER_CPU 2048

/* CPUs of one domain, and domains, at the most: bits of a word; see bpf/place/state.h */
#define DOMAIN_CPUS 64
#define DOMAINS_MAX 64

/* donors that can wait on one running or sleeping owner, see core/donor.h */
#define ATTACH_MAX 8

/*
 * Weights have ten bits more than kernel/sched/core.c sched_prio_to_weight[], as its own
 * scale_load() has them: a share of a share of a small cgroup must still be a number.
 */
#define WEIGHT_SHIFT 10
#define WEIGHT_NICE_0 (1024U << WEIGHT_SHIFT)

/* a context that counts in 1024ths, as group.own_nr has it */
#define GROUP_NR_ONE 1024ULL

/* speed of a CPU: the greatest (SCX_CPUPERF_ONE, SCHED_CAPACITY_SCALE) */
#define PERF_ONE 1024U

/* locks whose waits are timed at one time, at the most: see core/inversion.h */
#define LOCK_SLOT_BITS 13
#define LOCK_SLOTS (1 << LOCK_SLOT_BITS)

/* tasks of which `observe --beside` keeps something at one time, at the most: bpf/beside/state.h */
#define BESIDE_TASKS_MAX 32768

#endif /* PROXY_ABI_H */
