/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Arithmetic of keys. A key is a weighted virtual time: CPU time in ns scaled
 * by WEIGHT_NICE_0 / weight, so that at nice 0 it runs as fast as the CPU's own time.
 * Keys wrap; compare them with key_before() only, and only within one CPU's
 * clock (core/clock.h moves them between clocks).
 *
 * Pure C: no helpers, no kernel structs; also compiled for the host and tested
 * there (tests/core.rs).
 */
#ifndef PROXY_CORE_KEY_H
#define PROXY_CORE_KEY_H

typedef unsigned long long key_u64;
typedef long long key_s64;

#define WEIGHT_IDLE_POLICY (3U << WEIGHT_SHIFT)

/* the least there is; virtual time must not go so fast that keys wrap within a wait */
#define WEIGHT_MIN 16U

/* Reads as "no key": later than any key near the clock. Never a real key. */
#define KEY_NONE (~0ULL)

/* kernel/sched/core.c sched_prio_to_weight[]: 10 % of CPU per nice level */
static const unsigned int nice_to_weight[40] = {
	88761, 71755, 56483, 46273, 36291, 29154, 23254, 18705, 14949, 11916,
	 9548,  7620,  6100,  4904,  3906,  3121,  2501,  1991,  1586,  1277,
	 1024,   820,   655,   526,   423,   335,   272,   215,   172,   137,
	  110,    87,    70,    56,    45,    36,    29,    23,    18,    15,
};

static inline unsigned int weight_of_nice(int nice)
{
	unsigned int i = (unsigned int)(nice + 20);

	return i < 40 ? nice_to_weight[i] << WEIGHT_SHIFT : WEIGHT_NICE_0;
}

static inline int key_before(key_u64 a, key_u64 b)
{
	return (key_s64)(a - b) < 0;
}

/*
 * Keys of donors that are more urgent than any fair one (real-time, deadline):
 * so far behind the clock that no fair key is; the greater @urgency the earlier.
 */
#define KEY_URGENT_SPAN (1ULL << 61)
#define KEY_URGENCY_STEP (1ULL << 32)

static inline key_u64 key_urgent(key_u64 clock, unsigned int urgency)
{
	return clock - KEY_URGENT_SPAN - urgency * KEY_URGENCY_STEP;
}

static inline key_u64 key_min(key_u64 a, key_u64 b)
{
	if (a == KEY_NONE)
		return b;
	if (b == KEY_NONE)
		return a;
	return key_before(b, a) ? b : a;
}

/* virtual time that @ns of CPU time cost at @weight */
static inline key_u64 key_cost(key_u64 ns, key_u64 weight)
{
	return weight ? ns * WEIGHT_NICE_0 / weight : ns;
}

/* no key is further from its clock */
#define KEY_SPAN_MAX (1ULL << 60)

/* virtual time @span at weight @from in terms of weight @to: as much CPU time */
static inline key_u64 key_reweight(key_u64 span, unsigned int from, unsigned int to)
{
	key_u64 most;

	if (!from || !to)
		return span;
	most = KEY_SPAN_MAX / from;
	if (span <= most)
		return span * from / to;
	return span / to > most ? KEY_SPAN_MAX : span / to * from;
}

/* @key, ahead of @clock or behind, when its weight changes: as much CPU time */
static inline key_u64 key_rescale(key_u64 key, key_u64 clock, unsigned int from, unsigned int to)
{
	if (key_before(clock, key))
		return clock + key_reweight(key - clock, from, to);
	return clock - key_reweight(clock - key, from, to);
}

/* @key of one clock in terms of another: what lies between it and its clock stays */
static inline key_u64 key_rebase(key_u64 key, key_u64 from_clock, key_u64 to_clock)
{
	return to_clock + (key - from_clock);
}

/* no earlier than @lag behind the clock: sleepers cannot save up CPU time */
static inline key_u64 key_floor(key_u64 key, key_u64 clock, key_u64 lag)
{
	return key_before(key, clock - lag) ? clock - lag : key;
}

/*
 * No later than what @starve_ns of waiting pays for when @load (sum of weights)
 * competes: a task of very small weight behind very large ones must still run
 * before the kernel's stall watchdog takes it for starved.
 */
static inline key_u64 key_ceiling(key_u64 key, key_u64 clock, key_u64 starve_ns, key_u64 load)
{
	key_u64 span = starve_ns * WEIGHT_NICE_0 / (load ? load : WEIGHT_NICE_0);

	return key_before(clock + span, key) ? clock + span : key;
}

#endif /* PROXY_CORE_KEY_H */
