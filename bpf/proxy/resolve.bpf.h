/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * From a donor at the head of its queue to what its CPU does about it: walk the
 * chain as it stands now, then donate, migrate the donor, or let it wait where
 * the end of the chain is. Only ops.dispatch() calls this, since only there may
 * a task be moved between queues.
 */
#ifndef PROXY_PROXY_RESOLVE_H
#define PROXY_PROXY_RESOLVE_H

/* What ops.dispatch() does next. */
enum resolved {
	RESOLVED_NEXT = 0, /* this donor is elsewhere now: look at the next one */
	RESOLVED_OWNER,	   /* an owner is on the local DSQ, in its donor's context */
	RESOLVED_PREV,	   /* the previous task is the owner: it goes on, likewise */
	RESOLVED_WAIT,	   /* nothing to be done now: the donor is back on the queue */
};

/* One hop: who owns the lock that @pid sleeps on, and what that task does. */
enum hop_end {
	HOP_STALE = 0,	 /* @pid sleeps on no lock (any more) */
	HOP_NO_OWNER,
	HOP_BLOCKED,	 /* the owner sleeps on a lock itself: one further */
	HOP_RUNNABLE,	 /* the owner is on a run queue */
	HOP_ON_CPU,	 /* the owner runs, or is about to without our help */
	HOP_ASLEEP,	 /* the owner sleeps, and on no lock */
	HOP_OTHER_CLASS, /* the owner is not ours to schedule */
};

struct hop {
	u32 owner_pid;
	u32 end; /* enum hop_end */
};

static __always_inline u32 hop_owner_state(u32 pid)
{
	struct task_struct *o = bpf_task_from_pid(pid);
	struct task_ctx *octx;
	u32 end = HOP_NO_OWNER;

	if (!o)
		return end;
	octx = task_ctx_of(o);
	if (!octx || octx->place == PLACE_OTHER)
		end = HOP_OTHER_CLASS;
	else if (octx->place == PLACE_QUEUED)
		end = HOP_RUNNABLE;
	else if (octx->place == PLACE_RUNNING || octx->place == PLACE_LOCAL)
		end = HOP_ON_CPU;
	else
		end = edge_lock(o, octx) ? HOP_BLOCKED : HOP_ASLEEP;
	bpf_task_release(o);
	return end;
}

__noinline int chain_hop(u32 pid, struct hop *h)
{
	struct task_struct *p;
	struct task_ctx *tctx;
	u64 lock = 0;
	u32 owner = 0;

	if (!h)
		return 0;
	h->owner_pid = 0;
	h->end = HOP_STALE;
	p = bpf_task_from_pid(pid);
	if (!p)
		return 0;
	tctx = task_ctx_of(p);
	if (tctx)
		lock = edge_lock(p, tctx);
	if (lock) {
		owner = edge_owner_pid(lock);
		/* the waiter may have gone on, and its lock with it, while we read */
		if (edge_lock(p, tctx) != lock)
			lock = 0;
	}
	bpf_task_release(p);
	if (!lock)
		return 0;
	/* handed over to the waiter itself, which has only to wake */
	if (owner == pid)
		owner = 0;
	h->owner_pid = owner;
	h->end = owner ? hop_owner_state(owner) : HOP_NO_OWNER;
	return 0;
}

static __always_inline void stat_depth(u32 hops)
{
	stat_inc(hops <= 1 ? STAT_DEPTH_1 : hops == 2 ? STAT_DEPTH_2 :
		 hops <= 4 ? STAT_DEPTH_3_4 : hops <= 8 ? STAT_DEPTH_5_8 : STAT_DEPTH_9_UP);
}

/* Walk to the end of the chain of @donor_pid. Each refusal is counted here, once. */
static __always_inline void chain_end(u32 donor_pid, struct hop *h)
{
	struct walk w;
	u32 pid = donor_pid;

	walk_begin(&w, donor_pid);
	for (int i = 0; i <= HOPS_LIMIT; i++) {
		enum walk_end we;

		chain_hop(pid, h);
		if (!h->owner_pid)
			break;
		we = walk_hop(&w, h->owner_pid, cfg.hops_max);
		if (we != WALK_GOES_ON) {
			stat_inc(we == WALK_CYCLE ? STAT_CYCLE : STAT_TRUNCATED);
			h->owner_pid = 0;
			h->end = HOP_NO_OWNER;
			return;
		}
		if (h->end != HOP_BLOCKED)
			break;
		pid = h->owner_pid;
	}
	switch (h->end) {
	case HOP_STALE:
		stat_inc(STAT_STALE);
		break;
	case HOP_NO_OWNER:
		stat_inc(STAT_NO_OWNER);
		break;
	case HOP_OTHER_CLASS:
		stat_inc(STAT_OTHER_CLASS);
		break;
	default:
		stat_depth(w.hops);
		break;
	}
}

/* The context of the donor now belongs to the owner's run; false if it woke just now. */
static __always_inline bool donation_begin(struct task_ctx *octx, u32 owner_pid,
					   struct task_ctx *dctx, u32 donor_pid, u64 seq)
{
	octx->donor_seq = seq;
	octx->donor_pid = donor_pid;
	if (!token_cas(dctx, token_make(seq, TOKEN_MOVING, 0),
		       token_make(seq, TOKEN_ACTIVE, owner_pid))) {
		octx->donor_pid = 0;
		return false;
	}
	stat_inc(STAT_DONATION);
	return true;
}

/*
 * Move the owner from its run queue to the local DSQ of @cpu. Its affinity is
 * tested after the iterator exists: had it changed since, the owner would have
 * been queued anew, and the kernel would not move it on this iterator any more
 * (scx_dsq_move(), nldsq_cursor_lost_task()).
 */
enum moved { MOVED, MOVE_LOST, MOVE_REFUSED };

static __always_inline enum moved owner_move(struct task_struct *o, s32 from_cpu, s32 cpu)
{
	enum moved ret = MOVE_LOST;
	struct bpf_iter_scx_dsq it;

	if (!bpf_iter_scx_dsq_new(&it, run_queue(from_cpu), 0)) {
		if (!bpf_cpumask_test_cpu(cpu, o->cpus_ptr) ||
		    (is_migration_disabled(o) && scx_bpf_task_cpu(o) != cpu)) {
			ret = MOVE_REFUSED;
		} else {
			scx_bpf_dsq_move_set_slice(&it, cfg.slice_ns);
			if (scx_bpf_dsq_move(&it, o, SCX_DSQ_LOCAL, 0))
				ret = MOVED;
		}
	}
	bpf_iter_scx_dsq_destroy(&it);
	return ret;
}

/* The donor's context goes to the CPU where the owner may run. */
static __always_inline void donor_migrate(struct task_ctx *dctx, u32 donor_pid, u64 seq, s32 to)
{
	struct cpu_ctx *cctx = cpu_ctx_of(to);

	if (!cctx || !donor_put(donor_pid, seq, to))
		return;
	stat_inc(STAT_DONOR_MIGRATION);
	/* an idle CPU has no running key; a busy one is preempted for an earlier key only */
	if (!cctx->running_since_ns) {
		scx_bpf_kick_cpu(to, SCX_KICK_IDLE);
	} else if (key_before(dctx->wait_key, running_key_now(cctx, bpf_ktime_get_ns()))) {
		stat_inc(STAT_DONOR_KICK);
		scx_bpf_kick_cpu(to, SCX_KICK_PREEMPT);
	}
}

/* Let the donor wait until the owner, seen at @place, stops running or wakes. */
static __always_inline enum resolved donor_attach(struct task_ctx *octx, u32 owner_pid,
						  struct task_ctx *dctx, u32 donor_pid, u64 seq,
						  s32 cpu, u32 place)
{
	if (!token_cas(dctx, token_make(seq, TOKEN_MOVING, 0),
		       token_make(seq, TOKEN_ATTACHED, owner_pid)))
		return RESOLVED_NEXT; /* woke */
	if (attached_add(octx, donor_pid)) {
		/* it stopped or woke before it could see us: take the donor back, look again */
		if (*(volatile u32 *)&octx->place != place)
			donor_take_back(donor_pid, owner_pid, TOKEN_ATTACHED, cpu);
		return RESOLVED_NEXT;
	}
	stat_inc(STAT_ATTACH_FULL);
	/* no room: its turn comes again one slice later */
	dctx->wait_key += key_cost(cfg.slice_ns, dctx->wait_weight);
	donor_take_back(donor_pid, owner_pid, TOKEN_ATTACHED, cpu);
	return RESOLVED_WAIT;
}

/* The donor looks again when it would have had its next slice. */
static __always_inline enum resolved donor_retry(struct task_ctx *dctx, u32 donor_pid, u64 seq,
						 s32 cpu)
{
	dctx->wait_key += key_cost(cfg.slice_ns, dctx->wait_weight);
	donor_put(donor_pid, seq, cpu);
	return RESOLVED_WAIT;
}

static __always_inline enum resolved owner_act(struct task_struct *o, struct task_ctx *octx,
					       struct task_ctx *dctx, u32 donor_pid, u64 seq,
					       s32 cpu, u32 prev_pid)
{
	u32 owner_pid = o->pid, place = *(volatile u32 *)&octx->place;
	s32 from;

	if (owner_pid == prev_pid) {
		if (!donation_begin(octx, owner_pid, dctx, donor_pid, seq))
			return RESOLVED_NEXT;
		return RESOLVED_PREV;
	}
	if (place != PLACE_QUEUED) {
		stat_inc(place == PLACE_ASLEEP ? STAT_OWNER_SLEEPING : STAT_OWNER_RUNNING);
		return donor_attach(octx, owner_pid, dctx, donor_pid, seq, cpu, place);
	}
	from = octx->dsq_cpu;
	switch (owner_move(o, from, cpu)) {
	case MOVED:
		queue_left(octx, PLACE_LOCAL);
		donation_begin(octx, owner_pid, dctx, donor_pid, seq);
		return RESOLVED_OWNER;
	case MOVE_REFUSED:
		stat_inc(STAT_AFFINITY_REFUSED);
		break;
	case MOVE_LOST:
		stat_inc(STAT_LOST_RACE);
		break;
	}
	/* where the owner is queued it will be found, also if it got away just now */
	if (from == cpu)
		return donor_retry(dctx, donor_pid, seq, cpu);
	donor_migrate(dctx, donor_pid, seq, from);
	return RESOLVED_NEXT;
}

/*
 * Decide for donor @donor_pid, just taken off the queue of @cpu with @token.
 * @prev_pid: the previous task on @cpu if it is still runnable, else 0.
 */
__noinline int donor_resolve(u32 donor_pid, u64 token, s32 cpu, u32 prev_pid)
{
	struct task_struct *d = bpf_task_from_pid(donor_pid), *o;
	struct task_ctx *dctx, *octx;
	int ret = RESOLVED_NEXT;
	u64 seq = token_seq(token);
	struct hop h = {};

	if (!d)
		return ret;
	dctx = task_ctx_of(d);
	if (!dctx || !token_cas(dctx, token, token_make(seq, TOKEN_MOVING, 0)))
		goto out; /* woke */
	chain_end(donor_pid, &h);
	if (!h.owner_pid || h.end == HOP_OTHER_CLASS || h.end == HOP_NO_OWNER) {
		ret = donor_retry(dctx, donor_pid, seq, cpu);
		goto out;
	}
	o = bpf_task_from_pid(h.owner_pid);
	octx = o ? task_ctx_of(o) : NULL;
	if (octx)
		ret = owner_act(o, octx, dctx, donor_pid, seq, cpu, prev_pid);
	else
		ret = donor_retry(dctx, donor_pid, seq, cpu);
	if (o)
		bpf_task_release(o);
out:
	bpf_task_release(d);
	return ret;
}

#endif /* PROXY_PROXY_RESOLVE_H */
