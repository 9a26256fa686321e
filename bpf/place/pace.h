/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Pace: how much virtual time a task has used of late. Keys say whose turn it is on one
 * CPU; they say nothing across CPUs, whose clocks go at different speeds. Tasks that get
 * their fair share have the same pace, wherever they run and whatever they weigh.
 *
 * Old use is forgotten at a rate of 1 / PACE_NS, so a pace is at most PACE_NS of CPU time,
 * weighted, and bounded whatever happened before.
 *
 * Pure C, no ports.
 */
#ifndef PROXY_PLACE_PACE_H
#define PROXY_PLACE_PACE_H

#define PACE_SHIFT 30
#define PACE_NS (1ULL << PACE_SHIFT) /* 1.07 s */

/* What is left of @pace after @ns. */
static inline u64 pace_after(u64 pace, u64 ns)
{
	return ns >= PACE_NS ? 0 : pace - (pace >> (PACE_SHIFT / 2)) * (ns >> (PACE_SHIFT / 2));
}

/*
 * By how much CPU time, at the weight of the task that runs, a waiting one must be behind for a
 * CPU to give way to it: 1 / 24 of full speed, 45 ms. A pace has just gone up by what the last
 * slice cost, which is the more the lighter the task is, and slices end when ticks come: with a
 * memory of a quarter of that, what one late tick did was taken for an unfair share.
 */
#define PACE_MARGIN_NS (PACE_NS / 24)

/* ... if it comes from another domain, and leaves its caches behind */
#define PACE_MARGIN_FAR_NS (PACE_NS >> 2)

#endif /* PROXY_PLACE_PACE_H */
