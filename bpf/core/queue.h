/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Donor queues: one per CPU, the donors whose context competes for that CPU,
 * ordered by the same keys as its run queue.
 *
 * Protected by the queue's own spin lock, which nests inside rq locks and
 * around nothing. top_key is also read without it: a late look costs one pick.
 */
#ifndef PROXY_CORE_QUEUE_H
#define PROXY_CORE_QUEUE_H

/* The one load that a pick without donors pays for. */
static __always_inline u64 donor_queue_top_key(s32 cpu)
{
	struct donor_queue *q = donor_queue_of(cpu);

	return q ? *(volatile u64 *)&q->heap.top_key : KEY_NONE;
}

/* The first key of @cpu's donors that competes for it: none while they are only observed. */
static __always_inline u64 donor_first_key(s32 cpu)
{
	return port_donating() ? donor_queue_top_key(cpu) : KEY_NONE;
}

static __always_inline void nr_donors_add(s32 cpu, int n)
{
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);

	if (cctx)
		__sync_fetch_and_add(&cctx->nr_donors, n);
}

enum pushed {
	PUSHED,
	PUSH_WOKE,
	PUSH_FULL
};

/*
 * Queue wait @seq of donor @who (heap_who()), whose token says MOVING: publish that in the token,
 * unless the donor woke, and push the entry. Both under the queue's lock: a CPU that pops
 * the entry finds a token that matches.
 *
 * A donor that wakes from here on has to take that lock, so key and CPU are written to this wait,
 * and to no later one.
 */
static __noinline int donor_queue_push(s32 cpu, u64 key, u64 seq, u32 who, struct task_ctx *dctx)
{
	struct donor_queue *q = donor_queue_of(cpu);
	u64 moving = token_make(seq, TOKEN_MOVING, 0), on_heap;
	int idx, ret = PUSHED;

	if (!q)
		return PUSH_FULL;
	queue_lock(q);
	idx = heap_room(&q->heap, who);
	on_heap = token_make(seq, TOKEN_HEAP, place_of_heap(cpu, idx));
	if (idx < 0) {
		ret = PUSH_FULL;
	} else if (__sync_val_compare_and_swap(&dctx->token, moving, on_heap) != moving) {
		ret = PUSH_WOKE;
	} else {
		dctx->wait_key = key;
		dctx->wait_cpu = cpu;
		heap_push(&q->heap, key, seq, who);
	}
	queue_unlock(q);
	if (ret == PUSHED)
		nr_donors_add(cpu, 1);
	return ret;
}

/* Take the entry of a donor that woke off the queue, if it is still there. */
CORE_FN int donor_queue_remove(s32 cpu, u32 idx, u64 seq, u32 pid)
{
	struct donor_queue *q = donor_queue_of(cpu);
	int removed;

	if (!q)
		return 0;
	queue_lock(q);
	removed = heap_remove(&q->heap, idx, seq, pid);
	queue_unlock(q);
	if (removed)
		nr_donors_add(cpu, -1);
	return removed;
}

/* What donor_queue_pop() took: the donor and the token it then has. */
struct popped_donor {
	u64 token;
	u32 pid;
	u32 pad;
};

/* Take the first donor off the queue of @cpu; pid is 0 when it is empty. */
CORE_FN int donor_queue_pop(s32 cpu, struct popped_donor *d)
{
	struct donor_queue *q = donor_queue_of(cpu);
	struct heap_entry *e;
	u32 idx;

	if (!d)
		return 0;
	d->pid = 0;
	if (!q)
		return 0;
	queue_lock(q);
	if (q->heap.nr) {
		idx = heap_idx(&q->heap, 0);
		e = &q->heap.pool[idx];
		d->pid = heap_pid(e->who);
		d->token = token_make(e->seq, TOKEN_HEAP, place_of_heap(cpu, idx));
		heap_remove(&q->heap, idx, e->seq, d->pid);
	}
	queue_unlock(q);
	if (d->pid)
		nr_donors_add(cpu, -1);
	return 0;
}

#endif /* PROXY_CORE_QUEUE_H */
