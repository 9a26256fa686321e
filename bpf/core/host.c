/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The core for the host: plain functions around the inline ones, for
 * tests/core.rs. Not part of the BPF object.
 */
#include <stdlib.h>

#include "heap.h"
#include "key.h"
#include "token.h"
#include "walk.h"

struct donor_heap *host_heap_new(void)
{
	struct donor_heap *h = calloc(1, sizeof(*h));

	if (h)
		heap_init(h);
	return h;
}

void host_heap_free(struct donor_heap *h)
{
	free(h);
}

int host_heap_push(struct donor_heap *h, key_u64 key, key_u64 seq, unsigned int pid)
{
	return heap_push(h, key, seq, pid);
}

int host_heap_remove(struct donor_heap *h, unsigned int idx, key_u64 seq, unsigned int pid)
{
	return heap_remove(h, idx, seq, pid);
}

/* pool index of the first entry, -1 when there is none */
int host_heap_top(const struct donor_heap *h)
{
	return h->nr ? (int)heap_idx(h, 0) : -1;
}

key_u64 host_heap_top_key(const struct donor_heap *h)
{
	return h->top_key;
}

key_u64 host_key_cost(key_u64 ns, unsigned int weight)
{
	return key_cost(ns, weight);
}

key_u64 host_key_floor(key_u64 key, key_u64 clock, key_u64 lag)
{
	return key_floor(key, clock, lag);
}

key_u64 host_key_ceiling(key_u64 key, key_u64 clock, key_u64 starve_ns, key_u64 load)
{
	return key_ceiling(key, clock, starve_ns, load);
}

key_u64 host_key_min(key_u64 a, key_u64 b)
{
	return key_min(a, b);
}

unsigned int host_weight_of_nice(int nice)
{
	return weight_of_nice(nice);
}

unsigned long long host_token_make(unsigned long long seq, unsigned int kind, unsigned int place)
{
	return token_make(seq, (enum token_kind)kind, place);
}

unsigned int host_token_kind(unsigned long long token)
{
	return token_kind(token);
}

/* Walk pids[0] -> pids[1] -> ...; the number of hops, *end says why it ended. */
unsigned int host_walk(const unsigned int *pids, unsigned int nr, unsigned int hops_max, int *end)
{
	struct walk w;
	unsigned int i;

	walk_begin(&w, pids[0]);
	*end = WALK_GOES_ON;
	for (i = 1; i < nr && *end == WALK_GOES_ON; i++)
		*end = walk_hop(&w, pids[i], hops_max);
	return w.hops;
}
