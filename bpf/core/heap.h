/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The order of one CPU's donors: a binary heap over a fixed pool.
 *
 * Indexes instead of pointers, because a BPF map value cannot hold pointers
 * into itself, and because an index can be bounded with a mask where the
 * verifier wants proof. order[] is a permutation of the pool's indexes:
 * order[0 .. nr) is the heap, the rest are free slots, so nothing needs a free
 * list. Each entry knows its place in order[], which makes the removal of any
 * entry O(log n): a donor that wakes takes its entry along, and none go stale.
 *
 * Pure C; the caller holds the lock that protects the heap (the queue's spin
 * lock in BPF, nothing in a host test).
 */
#ifndef PROXY_CORE_HEAP_H
#define PROXY_CORE_HEAP_H

#include "abi.h"
#include "key.h"

#define HEAP_MASK (DONORS_PER_CPU - 1)

/* users are told apart by so many numbers; one may have half of a heap */
#define HEAP_USERS 64
#define HEAP_USER_MAX (DONORS_PER_CPU / 2)

/* a donor and its user in one word: pids have 22 bits at the most (PID_MAX_LIMIT) */
#define HEAP_PID_BITS 24
#define heap_who(pid, user) ((pid) | (unsigned int)(user) << HEAP_PID_BITS)
#define heap_pid(who) ((who) & ((1U << HEAP_PID_BITS) - 1))
#define heap_user(who) ((who) >> HEAP_PID_BITS & (HEAP_USERS - 1))

/*
 * The sifts end by themselves: one only moves up, the other only down, so they
 * take log2(DONORS_PER_CPU) steps at most. In BPF can_loop (may_goto, 6.9)
 * stands in for that proof; a counted loop would make the verifier go through
 * each step of each path.
 */
#ifndef can_loop
#define can_loop 1
#endif

struct heap_entry {
	key_u64 key;
	key_u64 seq; /* the wait that this entry belongs to; 0 when free */
	unsigned int who; /* heap_who() */
	unsigned int pos; /* where in order[] */
};

struct donor_heap {
	key_u64 top_key; /* KEY_NONE when empty; read without the lock */
	unsigned int nr;
	unsigned int pad;
	unsigned short nr_of[HEAP_USERS]; /* entries of each user */
	unsigned short order[DONORS_PER_CPU];
	struct heap_entry pool[DONORS_PER_CPU];
};

/* order[] holds index ^ place: a zeroed map is the identity and needs no set-up */
#define heap_idx(h, p) (((h)->order[(p) & HEAP_MASK] ^ (p)) & HEAP_MASK)
#define heap_at(h, p) (&(h)->pool[heap_idx(h, p)])

/* exchange two places of order[] and tell both entries */
static __attribute__((always_inline)) inline void heap_swap(struct donor_heap *h, unsigned int a,
							    unsigned int b)
{
	unsigned int ia = heap_idx(h, a), ib = heap_idx(h, b);

	h->order[a & HEAP_MASK] = (unsigned short)(ib ^ a);
	h->order[b & HEAP_MASK] = (unsigned short)(ia ^ b);
	h->pool[ib].pos = a;
	h->pool[ia].pos = b;
}

/* of equal keys the smaller pid of a user comes first, so that the order never depends on the past */
static __attribute__((always_inline)) inline int heap_less(struct donor_heap *h, unsigned int a,
							   unsigned int b)
{
	struct heap_entry *ea = heap_at(h, a), *eb = heap_at(h, b);

	return key_before(ea->key, eb->key) || (ea->key == eb->key && ea->who < eb->who);
}

static __attribute__((always_inline)) inline void heap_note_top(struct donor_heap *h)
{
	h->top_key = h->nr ? heap_at(h, 0)->key : KEY_NONE;
}

static __attribute__((always_inline)) inline void heap_up(struct donor_heap *h, unsigned int pos)
{
	while (can_loop) {
		unsigned int parent = (pos - 1) / 2;

		if (!pos || !heap_less(h, pos, parent))
			break;
		heap_swap(h, pos, parent);
		pos = parent;
	}
}

static __attribute__((always_inline)) inline void heap_down(struct donor_heap *h, unsigned int pos)
{
	while (can_loop) {
		unsigned int least = 2 * pos + 1;

		if (least >= h->nr)
			break;
		if (least + 1 < h->nr && heap_less(h, least + 1, least))
			least++;
		if (!heap_less(h, least, pos))
			break;
		heap_swap(h, pos, least);
		pos = least;
	}
}

/* The pool index that the next entry will have, -1 if there is no room for one of @who (heap_who()). */
static __attribute__((always_inline)) inline int heap_room(struct donor_heap *h, unsigned int who)
{
	if (h->nr >= DONORS_PER_CPU || h->nr_of[heap_user(who)] >= HEAP_USER_MAX)
		return -1;
	return (int)heap_idx(h, h->nr);
}

/* Returns the pool index of the new entry of @who, or -1 when there is no room. */
static __attribute__((always_inline)) inline int heap_push(struct donor_heap *h, key_u64 key,
							   key_u64 seq, unsigned int who)
{
	int idx = heap_room(h, who);
	struct heap_entry *e;

	if (idx < 0)
		return -1;
	e = &h->pool[idx & HEAP_MASK];
	e->key = key == KEY_NONE ? KEY_NONE - 1 : key;
	e->seq = seq;
	e->who = who;
	e->pos = h->nr;
	h->nr_of[heap_user(who)]++;
	h->nr++;
	heap_up(h, h->nr - 1);
	heap_note_top(h);
	return idx;
}

/*
 * Remove pool entry @idx if it still belongs to wait @seq of task @pid (wait
 * numbers are counted per task); 1 if it was removed.
 */
static __attribute__((always_inline)) inline int heap_remove(struct donor_heap *h, unsigned int idx,
							     key_u64 seq, unsigned int pid)
{
	struct heap_entry *e = &h->pool[idx & HEAP_MASK];
	unsigned int pos = e->pos, last;

	if (!seq || e->seq != seq || heap_pid(e->who) != pid || !h->nr || pos >= h->nr)
		return 0;
	last = h->nr - 1;
	if (pos != last)
		heap_swap(h, pos, last);
	h->nr = last;
	h->nr_of[heap_user(e->who)]--;
	e->seq = 0;
	if (pos < last) {
		heap_up(h, pos);
		heap_down(h, pos);
	}
	heap_note_top(h);
	return 1;
}

/* to be called on zeroed memory, before the first push */
static inline void heap_init(struct donor_heap *h)
{
	h->top_key = KEY_NONE;
}

#endif /* PROXY_CORE_HEAP_H */
