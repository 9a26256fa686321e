/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the kernel's debug dump says of us: on an error of the scheduler, a stall above all, and
 * on SysRq-D. The kernel names each CPU and each runnable task; donors sleep, so they stand with
 * the CPU on whose queue they are, and with the task that they wait on or lend to. Keys are
 * relative to the clock of their CPU, in ns. Nothing is locked here that the kernel has not
 * locked: a torn read is a wrong number in a report. Changes nothing.
 */
#ifndef PROXY_OBS_DUMP_H
#define PROXY_OBS_DUMP_H

/* donors of one queue that are shown, out of DONORS_PER_CPU */
#define DUMP_DONORS 4

/* arrays of bytes: a table of pointers would need relocations that BPF objects do not have */
static const char place_names[8][8] = { "asleep", "queued", "local", "running",
					"other",  "?",	    "?",     "?" };
static const char token_names[8][12] = { "none",   "queued", "attached", "active",
					 "moving", "limbo",  "?",	 "?" };
static const char lock_names[8][8] = { "mutex",	  "rwsem",  "rtmutex", "pthread",
				       "binder", "ntsync", "futex",  "yield" };
_Static_assert(WAIT_YIELD < 8, "a name for each kind of wait");

static __always_inline s64 dump_key(u64 key, s32 cpu)
{
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);

	return cctx ? (s64)(key - cctx->clock) : 0;
}

/* Milliseconds since @at_ns; 0 if that is not known, or later. */
static __always_inline u64 dump_ms_since(u64 at_ns)
{
	u64 now = port_now();

	return at_ns && at_ns < now ? (now - at_ns) / 1000000 : 0;
}

/* The wait of @tctx; to be called while it has a token. */
static __always_inline void dump_wait(const struct task_ctx *tctx)
{
	u64 token = tctx->token;
	u32 kind = token_kind(token) & 7, place = token_place(token);

	/* of a queue: its CPU; else the pid of the owner */
	if (kind == TOKEN_HEAP)
		place >>= 16;
	scx_bpf_dump(
		" wait=%llu token=%s@%u type=%s lock=%llx for=%llums key=%+lld@%d weight=%u urgency=%u\n",
		token_seq(token) >> 40, token_names[kind], place, lock_names[tctx->wait_type & 7],
		tctx->wait_lock, dump_ms_since(tctx->blocked_at_ns),
		dump_key(tctx->wait_key, tctx->wait_cpu), tctx->wait_cpu,
		tctx->wait_weight >> WEIGHT_SHIFT, tctx->wait_urgency);
}

/* A donor, by @pid; not static: verified once, not at each call */
__noinline int dump_donor(u32 pid)
{
	struct task_struct *p = pid ? port_task_get(pid) : NULL;
	struct task_ctx *tctx;

	if (!p)
		return 0;
	tctx = task_ctx_of(p);
	scx_bpf_dump("proxy: donor %s[%d]", p->comm, p->pid);
	if (tctx && tctx->token)
		dump_wait(tctx);
	else
		scx_bpf_dump(" waits no longer\n");
	port_task_put(p);
	return 0;
}

void BPF_STRUCT_OPS(proxy_dump, struct scx_dump_ctx *dctx)
{
	/* domains that may have any, a bit each */
	scx_bpf_dump("proxy: donating=%u nr_cpu_ids=%u idle=%llx work=%llx idle_with_donors=%llx\n",
		     port_donating(), cfg.nr_cpu_ids, bits_read(&machine.idle),
		     bits_read(&machine.work), bits_read(&machine.donors));
}

void BPF_STRUCT_OPS(proxy_dump_cpu, struct scx_dump_ctx *dctx, s32 cpu, bool idle)
{
	struct donor_queue *q = donor_queue_of(cpu);
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);
	u64 first;
	u32 i;

	if (!cctx || !q)
		return;
	first = donor_queue_top_key(cpu);
	/* the kernel leaves out idle CPUs of which nothing is said */
	if (idle && !nr_queued(cctx) && first == KEY_NONE)
		return;
	scx_bpf_dump(
		"proxy: clock=%llu running=%u key=%+lld weight=%u since=%llums queued=%u+%u+%u load=%llu perf=%u guard=%+lld@%llums",
		     cctx->clock, cctx->running_pid,
		     cctx->running_since_ns ? (s64)(cctx->running_key - cctx->clock) : 0,
		     cctx->running_weight >> WEIGHT_SHIFT, dump_ms_since(cctx->running_since_ns),
		cctx->nr_queued[REACH_ANY], cctx->nr_queued[REACH_SOME], cctx->nr_queued[REACH_ONE],
		cctx->queued_load, cctx->perf_told, (s64)(cctx->guard_key - cctx->clock),
		dump_ms_since(cctx->guard_at_ns));
	if (first == KEY_NONE) {
		scx_bpf_dump(" donors=0 tickless=%u\n", cctx->tickless);
		return;
	}
	scx_bpf_dump(" donors=%u first_donor_key=%+lld\n", cctx->nr_donors,
		     (s64)(first - cctx->clock));
	bpf_for(i, 0, DUMP_DONORS) {
		if (i >= q->heap.nr)
			break;
		dump_donor(heap_pid(heap_at(&q->heap, i)->who));
	}
}

void BPF_STRUCT_OPS(proxy_dump_task, struct scx_dump_ctx *dctx, struct task_struct *p)
{
	struct task_ctx *tctx = task_ctx_of(p);
	u32 i;

	if (!tctx)
		return;
	scx_bpf_dump("proxy: place=%s dsq_cpu=%d reach=%u key=%+lld@%d weight=%u queued=%llums\n",
		     place_names[tctx->place & 7], tctx->dsq_cpu, tctx->dsq_reach,
		     dump_key(tctx->vtime, tctx->vtime_cpu), tctx->vtime_cpu,
		     tctx->weight >> WEIGHT_SHIFT,
		     tctx->place == PLACE_QUEUED ? dump_ms_since(tctx->queued_at_ns) : 0);
	if (tctx->token) {
		scx_bpf_dump("proxy:");
		dump_wait(tctx);
	}
	if (tctx->donor_pid) {
		scx_bpf_dump("proxy: runs in the context of %u\n", tctx->donor_pid);
		dump_donor(tctx->donor_pid);
	}
	if (!tctx->has_attached)
		return;
	_Static_assert(ATTACH_MAX == 8, "all of attached[] is shown");
	scx_bpf_dump("proxy: attached %u %u %u %u %u %u %u %u\n", tctx->attached[0],
		     tctx->attached[1], tctx->attached[2], tctx->attached[3], tctx->attached[4],
		     tctx->attached[5], tctx->attached[6], tctx->attached[7]);
	bpf_for(i, 0, ATTACH_MAX) {
		dump_donor(tctx->attached[i & (ATTACH_MAX - 1)]);
	}
}

#endif /* PROXY_OBS_DUMP_H */
