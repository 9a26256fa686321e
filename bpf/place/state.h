/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * State of placement: which CPUs are near each other, which of them are idle, and where
 * work waits that another CPU may take. One bit per CPU, by domain: the CPUs that
 * share a last-level cache, DOMAIN_CPUS at most (src/loader/topology.rs makes them).
 *
 * A word per domain answers "is anything there" with one load; a word for the machine
 * answers it for all domains. The latter is a hint that may be set for nothing, never
 * clear for something: see bits.h.
 */
#ifndef PROXY_PLACE_STATE_H
#define PROXY_PLACE_STATE_H

/* how far a queued task could go; each has a run queue of its own per CPU */
enum reach {
	REACH_ANY = 0, /* any CPU may take it */
	REACH_SOME,    /* its affinity names some CPUs */
	REACH_ONE,     /* this CPU only: pinned, or migration disabled */
	NR_REACH,
	/* its cgroup has no budget (group/park.h): on a queue of its own, which is no run queue */
	REACH_PARKED = NR_REACH,
};

struct domain {
	/* [loader, before attach] */
	u64 cpus;  /* bits of the CPUs that are online */
	u64 pairs; /* lower bits of the cores with two threads; threads of a core are neighbours */
	u64 near;  /* domains of the same NUMA node, as bits of struct machine */
	u64 big;   /* CPUs that heavy tasks prefer: struct machine */
	unsigned short cpu_of[DOMAIN_CPUS];
	/* [atomic] */
	u64 idle __attribute__((aligned(64))); /* CPUs that are idle and not claimed */
	u64 work[REACH_ONE]; /* CPUs with such tasks on their run queues */
	u64 donors;	     /* CPUs that went idle with donors on their donor queues */
	u64 chores_at_ns;    /* when a tick last looked after this domain */
	/* [whoever did that] */
	u32 chores; /* counts the times */
} __attribute__((aligned(64)));

/* [atomic] domains that may have a bit set in the word of the same name */
struct machine {
	u64 idle;
	u64 work;
	u64 donors;
	u64 big; /* [loader, before attach] domains with big CPUs; 0 if all CPUs are alike */
} __attribute__((aligned(64)));

#endif /* PROXY_PLACE_STATE_H */
