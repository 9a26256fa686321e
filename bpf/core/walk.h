/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Bounds of a chain walk: at most hops_max hops, and a cycle is told from a
 * long chain by Brent's algorithm (remember one task, move the memory forward
 * at powers of two), which needs no list of the tasks seen.
 *
 * Pure C; the caller reads the locks.
 */
#ifndef PROXY_CORE_WALK_H
#define PROXY_CORE_WALK_H

#include "abi.h"

enum walk_end {
	WALK_GOES_ON = 0,
	WALK_CYCLE,
	WALK_TRUNCATED,
};

struct walk {
	unsigned int hops;  /* locks followed so far */
	unsigned int mark;  /* pid remembered for the cycle test */
	unsigned int power; /* hops until the memory moves */
	unsigned int steps; /* hops since it moved */
};

static inline void walk_begin(struct walk *w, unsigned int donor_pid)
{
	w->hops = 0;
	w->mark = donor_pid;
	w->power = 1;
	w->steps = 0;
}

/* One lock further, to the owner @pid. */
static inline enum walk_end walk_hop(struct walk *w, unsigned int pid, unsigned int hops_max)
{
	w->hops++;
	if (pid == w->mark)
		return WALK_CYCLE;
	if (w->hops > hops_max || w->hops > HOPS_LIMIT)
		return WALK_TRUNCATED;
	if (++w->steps == w->power) {
		w->mark = pid;
		w->power *= 2;
		w->steps = 0;
	}
	return WALK_GOES_ON;
}

#endif /* PROXY_CORE_WALK_H */
