/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The policy as tests/interleave.rs runs it: bpf/core/host.c, compiled with clang's
 * -fsanitize=thread, whose calls before each access of memory come to the explorer instead
 * of to a race detector. Nothing of the policy is written for that. Besides: the lock of a
 * donor queue, and what its state must be when no callback is under way.
 */

/* of the explorer: @write, or a read; @where in the code */
struct explored_hooks {
	void (*access)(const void *at, unsigned long size, int write, const void *where);
	void (*lock)(const void *at, const void *where);
	void (*unlock)(const void *at);
};

static struct explored_hooks hooks;

#define WHERE __builtin_return_address(0)
#define queue_lock(q) hooks.lock(&(q)->lock, WHERE)
#define queue_unlock(q) hooks.unlock(&(q)->lock)

#include "core/host.c"

#include <stdarg.h>
#include <stdio.h>

/* what follows is the explorer's, and calls no hooks but where it says so */
#pragma clang attribute push(__attribute__((disable_sanitizer_instrumentation)), apply_to = function)

#define HOOK_PLAIN(name, size, write) \
	void __tsan_##name(void *at) { hooks.access(at, size, write, WHERE); }

HOOK_PLAIN(read1, 1, 0)
HOOK_PLAIN(read2, 2, 0)
HOOK_PLAIN(read4, 4, 0)
HOOK_PLAIN(read8, 8, 0)
HOOK_PLAIN(read16, 16, 0)
HOOK_PLAIN(write1, 1, 1)
HOOK_PLAIN(write2, 2, 1)
HOOK_PLAIN(write4, 4, 1)
HOOK_PLAIN(write8, 8, 1)
HOOK_PLAIN(write16, 16, 1)
HOOK_PLAIN(unaligned_read2, 2, 0)
HOOK_PLAIN(unaligned_read4, 4, 0)
HOOK_PLAIN(unaligned_read8, 8, 0)
HOOK_PLAIN(unaligned_read16, 16, 0)
HOOK_PLAIN(unaligned_write2, 2, 1)
HOOK_PLAIN(unaligned_write4, 4, 1)
HOOK_PLAIN(unaligned_write8, 8, 1)
HOOK_PLAIN(unaligned_write16, 16, 1)

void __tsan_init(void)
{
}

void *__tsan_memset(void *at, int byte, unsigned long size)
{
	hooks.access(at, size, 1, WHERE);
	return memset(at, byte, size);
}

void *__tsan_memcpy(void *to, const void *from, unsigned long size)
{
	hooks.access(from, size, 0, WHERE);
	hooks.access(to, size, 1, WHERE);
	return memcpy(to, from, size);
}

#define HOOK_ATOMIC(bits, type, name, expr)                                         \
	type __tsan_atomic##bits##_##name(type *at, type value, int order) \
	{                                                                           \
		type old;                                                           \
                                                                                    \
		hooks.access(at, sizeof(type), 1, WHERE);                           \
		old = *at;                                                          \
		*at = expr;                                                         \
		return old;                                                         \
	}

#define HOOK_ATOMICS(bits, type)                                                                    \
	HOOK_ATOMIC(bits, type, exchange, value)                                                    \
	HOOK_ATOMIC(bits, type, fetch_add, old + value)                                             \
	HOOK_ATOMIC(bits, type, fetch_sub, old - value)                                             \
	HOOK_ATOMIC(bits, type, fetch_or, old | value)                                              \
	HOOK_ATOMIC(bits, type, fetch_and, old &value)                                              \
	type __tsan_atomic##bits##_compare_exchange_val(type *at, type from, type to,        \
								int order, int or_else)             \
	{                                                                                           \
		type old;                                                                           \
                                                                                                    \
		hooks.access(at, sizeof(type), 1, WHERE);                                           \
		old = *at;                                                                          \
		if (old == from)                                                                    \
			*at = to;                                                                   \
		return old;                                                                         \
	}

HOOK_ATOMICS(32, u32)
HOOK_ATOMICS(64, u64)

void explored_hook(const struct explored_hooks *to)
{
	hooks = *to;
}

/* Memory that callbacks share. Counters are left out: in the kernel each CPU has its own. */
struct explored_range {
	const void *at;
	unsigned long size;
};

void explored_memory(struct host_engine *e, struct explored_range *ranges)
{
	ranges[0] = (struct explored_range){ e->cpus, sizeof(*e) - offsetof(struct host_engine, cpus) };
	ranges[1] = (struct explored_range){ e->queues, e->config.nr_cpu_ids * sizeof(*e->queues) };
	ranges[2] = (struct explored_range){ e->ctxs, e->nr_tasks * sizeof(*e->ctxs) };
	ranges[3] = (struct explored_range){ e->stats, sizeof(e->stats) };
}

/* What tests look at of a task. */
struct explored_task {
	u64 token, wait_lock;
	u32 place, dsq_reach, donor_pid, counted;
	s32 dsq_cpu;
	u32 attached_to;  /* whether it stands in attached[] of the owner that its token names */
	u32 donates_true; /* whether the donor that it runs for lends to it */
	u32 yields_to;
};

static bool stands_in(const struct task_ctx *octx, u32 pid)
{
	for (int i = 0; i < ATTACH_MAX; i++)
		if (octx->attached[i] == pid)
			return octx->has_attached;
	return false;
}

void explored_task(const struct host_engine *e, u32 pid, struct explored_task *t)
{
	const struct task_ctx *ctx = &e->ctxs[pid];
	u32 place = token_place(ctx->token);

	*t = (struct explored_task){
		.token = ctx->token,
		.wait_lock = ctx->wait_lock,
		.place = ctx->place,
		.dsq_cpu = ctx->dsq_cpu,
		.dsq_reach = ctx->dsq_reach,
		.donor_pid = ctx->donor_pid,
		.counted = ctx->counted,
		.yields_to = ctx->yields_to,
	};
	if (token_kind(ctx->token) == TOKEN_ATTACHED && place < e->nr_tasks)
		t->attached_to = stands_in(&e->ctxs[place], pid);
	if (token_kind(ctx->token) == TOKEN_ACTIVE && place < e->nr_tasks)
		t->donates_true = e->ctxs[place].donor_pid == pid &&
				  e->ctxs[place].donor_seq == token_seq(ctx->token);
}

static char *why_text;

static int wrong(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(why_text, 200, format, args);
	va_end(args);
	return 0;
}

/* A heap is one, its entries are those of its donors' present waits, and its sums are right. */
static int queue_right(struct host_engine *e, u32 cpu)
{
	struct donor_heap *h = &e->queues[cpu].heap;
	u32 p, of_user = 0;

	if (e->cpus[cpu].nr_donors != h->nr)
		return wrong("CPU %u: nr_donors %u, %u queued", cpu, e->cpus[cpu].nr_donors, h->nr);
	if (h->top_key != (h->nr ? heap_at(h, 0)->key : KEY_NONE))
		return wrong("CPU %u: top_key is not that of the first donor", cpu);
	for (p = 0; p < HEAP_USERS; p++)
		of_user += h->nr_of[p];
	if (of_user != h->nr)
		return wrong("CPU %u: %u donors of all users, %u queued", cpu, of_user, h->nr);
	for (p = 0; p < h->nr; p++) {
		u32 idx = heap_idx(h, p), pid;
		struct heap_entry *entry = &h->pool[idx];

		pid = heap_pid(entry->who);
		if (entry->pos != p || !entry->seq || pid >= e->nr_tasks)
			return wrong("CPU %u: entry %u of task %u is no entry", cpu, p, pid);
		if (p && heap_less(h, p, (p - 1) / 2))
			return wrong("CPU %u: entry %u comes before its parent", cpu, p);
		if (e->ctxs[pid].token != token_make(entry->seq, TOKEN_HEAP, place_of_heap(cpu, idx)))
			return wrong("CPU %u: task %u is queued, its token says %llx", cpu, pid,
				     e->ctxs[pid].token);
		if (entry->key != e->ctxs[pid].wait_key)
			return wrong("CPU %u: task %u is queued by key %llx, and has %llx", cpu, pid,
				     entry->key, e->ctxs[pid].wait_key);
	}
	return 1;
}

static int token_right(struct host_engine *e, u32 pid)
{
	struct task_ctx *ctx = &e->ctxs[pid];
	u32 place = token_place(ctx->token), cpu = place >> 16;
	struct heap_entry *entry;

	switch (token_kind(ctx->token)) {
	case TOKEN_MOVING:
		return wrong("the context of donor %u is held by nobody", pid);
	case TOKEN_HEAP:
		entry = cpu < e->config.nr_cpu_ids ?
				&e->queues[cpu].heap.pool[place & HEAP_MASK] : NULL;
		if (!entry || entry->seq != token_seq(ctx->token) || heap_pid(entry->who) != pid)
			return wrong("donor %u is not on the queue that its token names", pid);
		return 1;
	default:
		return 1;
	}
}

static int sums_right(struct host_engine *e, u32 cpu)
{
	struct cpu_ctx *cctx = &e->cpus[cpu];
	struct domain *d = &e->domains[cctx->domain];
	u32 nr[NR_REACH + 1] = {}, pid, reach;
	u64 load = 0;

	for (pid = 1; pid < e->nr_tasks; pid++) {
		struct task_ctx *ctx = &e->ctxs[pid];

		if (ctx->place != PLACE_QUEUED || ctx->dsq_cpu != (s32)cpu)
			continue;
		nr[ctx->dsq_reach]++;
		load += ctx->queued_weight;
	}
	for (reach = 0; reach < NR_REACH; reach++)
		if (cctx->nr_queued[reach] != nr[reach])
			return wrong("CPU %u: nr_queued[%u] %u, counted %u", cpu, reach,
				     cctx->nr_queued[reach], nr[reach]);
	if (cctx->nr_parked != nr[REACH_PARKED])
		return wrong("CPU %u: nr_parked %u, counted %u", cpu, cctx->nr_parked,
			     nr[REACH_PARKED]);
	if (cctx->queued_load != load)
		return wrong("CPU %u: load %llu, counted %llu", cpu, cctx->queued_load, load);
	for (reach = 0; reach < REACH_ONE; reach++) {
		if (nr[reach] && !(d->work[reach] & BIT64(cctx->bit)))
			return wrong("CPU %u: work waits, its bit is clear", cpu);
		if (d->work[reach] && !(e->machine.work & BIT64(cctx->domain)))
			return wrong("work waits in the domain, the machine's bit is clear");
	}
	if (d->idle && !(e->machine.idle & BIT64(cctx->domain)))
		return wrong("a CPU of the domain is idle, the machine's bit is clear");
	return 1;
}

/*
 * A slot counts those whose waits it times. It may time one for another lock that came to it at
 * the same moment: such a wait counts no inversion time (inversion_so_far()).
 */
static int slot_right(struct host_engine *e, u64 lock)
{
	u32 pid, nr = 0, nr_waiting = e->slots[lock_slot_of_lock(lock)].nr_waiting;

	for (pid = 1; pid < e->nr_tasks; pid++) {
		u64 waits = e->ctxs[pid].wait_lock;

		nr += waits && lock_slot_of_lock(waits) == lock_slot_of_lock(lock);
	}
	return nr_waiting == nr ? 1 : wrong("slot: %u wait, counted %u", nr_waiting, nr);
}

static int group_right(struct host_engine *e, u32 nr)
{
	u64 load = 0, contexts = 0, counted = 0, tasks = 0;
	u32 cpu, pid;

	for (cpu = 0; cpu < e->config.nr_cpu_ids; cpu++) {
		load += e->group_loads[cpu][nr].load;
		contexts += e->group_loads[cpu][nr].nr;
		if (e->group_loads[cpu][nr].changes & 1)
			return wrong("group %u: CPU %u never ended its change", nr, cpu);
	}
	for (pid = 1; pid < e->nr_tasks; pid++) {
		if (e->ctxs[pid].group != nr || !e->ctxs[pid].counted)
			continue;
		counted += e->ctxs[pid].counted;
		tasks++;
	}
	if (load != counted || contexts != tasks)
		return wrong("group %u: load %llu of %llu, counted %llu of %llu", nr, load, contexts,
			     counted, tasks);
	return e->group_table.busy ? wrong("groups: a pass never ended") : 1;
}

/* Whether all is right with the state while no callback is under way; else @why, 200 bytes. */
int explored_right(struct host_engine *e, const u64 *locks, u32 nr_locks, u32 nr_groups,
			    char *why)
{
	u32 i;

	why_text = why;
	for (i = 0; i < e->config.nr_cpu_ids; i++)
		if (!queue_right(e, i) || !sums_right(e, i))
			return 0;
	for (i = 1; i < e->nr_tasks; i++)
		if (!token_right(e, i))
			return 0;
	for (i = 0; i < nr_locks; i++)
		if (!slot_right(e, locks[i]))
			return 0;
	for (i = 1; i <= nr_groups; i++)
		if (!group_right(e, i))
			return 0;
	return 1;
}

#define FIELD(name) { #name, offsetof(struct task_ctx, name) }

/* For reports: which field of which task @at is. */
void explored_name(const struct host_engine *e, const char *at, char *name)
{
	static const struct { const char *name; u32 offset; } fields[] = {
		FIELD(vtime), FIELD(vtime_cpu), FIELD(weight), FIELD(own_weight), FIELD(group),
		FIELD(counted), FIELD(charged_exec_ns), FIELD(charged_at_ns), FIELD(place),
		FIELD(dsq_cpu), FIELD(dsq_reach), FIELD(queued_weight), FIELD(queued_at_ns),
		FIELD(yielded), FIELD(yields_to), FIELD(parked_by), FIELD(slept), FIELD(swap_to), FIELD(pace),
		FIELD(pace_at_ns), FIELD(off_since_ns), FIELD(delay_ns), FIELD(wait_type),
		FIELD(token), FIELD(wait_seq), FIELD(wait_key), FIELD(wait_cpu), FIELD(wait_weight),
		FIELD(wait_urgency), FIELD(wait_user), FIELD(lent_cost), FIELD(woke_at_ns),
		FIELD(blocked_at_ns), FIELD(wait_lock), FIELD(wait_delay_ns), FIELD(return_choice),
		FIELD(return_cpu), FIELD(donor_pid), FIELD(has_attached), FIELD(donor_seq),
		FIELD(attached),
	};
	unsigned long offset = at - (const char *)e->ctxs;
	u32 i, best = 0;

	if (offset < e->nr_tasks * sizeof(*e->ctxs)) {
		for (i = 0; i < sizeof(fields) / sizeof(*fields); i++)
			if (fields[i].offset <= offset % sizeof(*e->ctxs) &&
			    fields[i].offset >= fields[best].offset)
				best = i;
		snprintf(name, 100, "task %lu %s", offset / sizeof(*e->ctxs), fields[best].name);
		return;
	}
	offset = at - (const char *)e->queues;
	if (offset < e->config.nr_cpu_ids * sizeof(*e->queues)) {
		snprintf(name, 100, "donor queue %lu+%lu", offset / sizeof(*e->queues),
			 offset % sizeof(*e->queues));
		return;
	}
	offset = at - (const char *)e->cpus;
	if (offset < sizeof(e->cpus))
		snprintf(name, 100, "CPU %lu+%lu", offset / sizeof(*e->cpus), offset % sizeof(*e->cpus));
	else
		snprintf(name, 100, "engine+%lu", offset);
}

#pragma clang attribute pop
