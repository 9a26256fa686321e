/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * From a donor at the head of its queue to what its CPU does about it: walk the
 * chain as it stands now, then donate, migrate the donor, or let it wait where
 * the end of the chain is.
 */
#ifndef PROXY_CORE_RESOLVE_H
#define PROXY_CORE_RESOLVE_H

/* What the pick does next. */
enum resolved {
	RESOLVED_NEXT = 0, /* this donor is elsewhere now: look at the next one */
	RESOLVED_OWNER,	   /* an owner is on the local DSQ, in its donor's context */
	RESOLVED_PREV,	   /* the previous task is the owner: it goes on, likewise */
	RESOLVED_WAIT,	   /* nothing more to be done for donors now */
	RESOLVED_LATER,	   /* nothing to be done for this donor: the pick holds it, look at the next one */
};

/* A walked chain: its end, and the waiters between the donor and that. */
struct chain {
	struct hop end;
	unsigned short hops;
	unsigned short has_guess; /* one of its owners at least is a guess */
	u32 last;	/* the waiter that the last hop started from */
	/* counts on; cpu_ctx.between keeps the last ones: the stack of a pick is nearly full */
	u32 nr_between;
	s32 cpu; /* that walks it */
};

static __always_inline void stat_depth(u32 hops)
{
	stat_inc(hops <= 1 ? STAT_DEPTH_1 :
		 hops == 2 ? STAT_DEPTH_2 :
		 hops <= 4 ? STAT_DEPTH_3_4 :
		 hops <= 8 ? STAT_DEPTH_5_8 :
			     STAT_DEPTH_9_UP);
}

/*
 * Follow the chain from waiter @pid; returns enum walk_end. WALK_GOES_ON: it
 * ended, c->end says how. Otherwise the walk was given up at waiter c->last.
 * walk_hop() bounds the loop; can_loop is there for the verifier, see heap.h.
 */
CORE_FN int chain_follow(u32 pid, struct chain *c)
{
	int we = WALK_GOES_ON;
	struct cpu_ctx *cctx;
	struct walk w;

	if (!c)
		return we;
	cctx = cpu_ctx_of(c->cpu);
	if (!cctx)
		return we;
	walk_begin(&w, pid);
	while (can_loop) {
		c->last = pid;
		chain_hop(pid, &c->end);
		if (c->end.is_guess && !c->end.owner_pid)
			hop_guess(pid, &c->end);
		c->has_guess |= c->end.is_guess;
		if (!c->end.owner_pid)
			break;
		we = walk_hop(&w, c->end.owner_pid, cfg.hops_max);
		if (we != WALK_GOES_ON || c->end.end != HOP_BLOCKED)
			break;
		pid = c->end.owner_pid;
		cctx->between[c->nr_between++ & (HOPS_LIMIT - 1)] = pid;
	}
	c->hops += w.hops;
	return we;
}

/* Walk to the end of the chain of @donor_pid. Each refusal is counted here, once. */
CORE_FN int chain_walk(u32 donor_pid, struct chain *c)
{
	u32 last, to;
	int we;

	if (!c)
		return 0;
	c->hops = 0;
	c->has_guess = 0;
	c->nr_between = 0;
	we = chain_follow(donor_pid, c);
	if (we == WALK_TRUNCATED) {
		last = c->last;
		to = cfg.hints ? hint_skip(last) : 0;
		if (to)
			we = chain_follow(to, c);
		else if (cfg.hints && hint_cycle(last))
			we = WALK_CYCLE;
		else
			event(EVENT_TRUNCATED, 0, donor_pid, last, 0, 0);
	}
	if (we == WALK_CYCLE && c->has_guess) {
		/* it is not known to be one */
		we = WALK_GOES_ON;
		c->end.owner_pid = 0;
		c->end.end = HOP_NO_OWNER;
	}
	if (we != WALK_GOES_ON) {
		stat_inc(we == WALK_CYCLE ? STAT_CYCLE : STAT_TRUNCATED);
		if (we == WALK_CYCLE)
			event(EVENT_CYCLE, 0, donor_pid, c->last, 0, 0);
		c->end.owner_pid = 0;
		c->end.end = HOP_NO_OWNER;
		return 0;
	}
	switch (c->end.end) {
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
		stat_depth(c->hops);
		break;
	}
	return 0;
}

/* Whether the task at the end can use a donor's context. */
static __always_inline bool chain_leads_on(const struct chain *c)
{
	return c->end.owner_pid && c->end.end != HOP_OTHER_CLASS && c->end.end != HOP_NO_OWNER;
}

/* The context of the donor now belongs to the owner's run; false if it woke just now. */
static __always_inline bool donation_begin(struct task_ctx *octx, u32 owner_pid,
					   struct task_ctx *dctx, u32 donor_pid, u64 seq, s32 cpu,
					   u32 hops)
{
	octx->donor_seq = seq;
	octx->donor_pid = donor_pid;
	if (!token_cas(dctx, token_make(seq, TOKEN_MOVING, 0),
		       token_make(seq, TOKEN_ACTIVE, owner_pid))) {
		octx->donor_pid = 0;
		return false;
	}
	group_count(octx, 0);
	stat_inc(STAT_DONATION);
	stat_inc(STAT_DONATION_MUTEX + dctx->wait_type);
	if (dctx->wait_type != WAIT_YIELD) /* of that no watcher has seen the beginning */
		event(EVENT_DONATE, cpu, donor_pid, owner_pid, 0, hops);
	return true;
}

/*
 * A waiter in the middle of a chain has a context of its own to lend, to the same
 * end: if it is queued elsewhere it comes along, instead of finding out by itself.
 */
CORE_FN int donor_follow(u32 pid, s32 to)
{
	struct task_struct *d = port_task_get(pid);
	struct task_ctx *dctx;
	u64 token, seq = 0;
	u32 place;

	if (!d)
		return 0;
	dctx = task_ctx_of(d);
	if (dctx) {
		token = dctx->token;
		place = token_place(token);
		if (token_kind(token) == TOKEN_HEAP && (s32)(place >> 16) != to &&
		    donor_queue_remove(place >> 16, place & 0xffff, token_seq(token), pid) &&
		    token_cas(dctx, token, token_make(token, TOKEN_MOVING, 0)))
			seq = token_seq(token);
	}
	port_task_put(d);
	if (!seq || !donor_put(pid, seq, to, 0))
		return 0;
	stat_inc(STAT_CHAIN_FOLLOWED);
	return 1;
}

/* The waiters between the donor and the end of its chain go to @to as well. */
CORE_FN int chain_migrate(struct chain *c, s32 to)
{
	struct cpu_ctx *cctx;
	u32 i = 0;

	if (!c)
		return 0;
	cctx = cpu_ctx_of(c->cpu);
	if (!cctx)
		return 0;
	while (can_loop) {
		if (i >= c->nr_between || i >= HOPS_LIMIT)
			break;
		donor_follow(cctx->between[i & (HOPS_LIMIT - 1)], to);
		i++;
	}
	return 0;
}

/* The donor's context goes to the CPU where the owner may run, with all between them. */
static __always_inline void donor_migrate(struct task_ctx *dctx, u32 donor_pid, u64 seq, s32 to,
					  struct chain *c)
{
	struct cpu_ctx *cctx = cpu_ctx_of(to);

	if (!cctx || !donor_put(donor_pid, seq, to, 0))
		return;
	stat_inc(STAT_DONOR_MIGRATION);
	if (dctx->wait_type != WAIT_YIELD)
		event(EVENT_MIGRATE, to, donor_pid, c->end.owner_pid, 0, 0);
	chain_migrate(c, to);
	/* an idle CPU has no running key; a busy one is preempted for an earlier key only */
	if (!cctx->running_since_ns) {
		port_kick(to, PORT_KICK_IDLE);
	} else if (key_before(dctx->wait_key, running_key_now(cctx, port_now()))) {
		stat_inc(STAT_DONOR_KICK);
		port_kick(to, PORT_KICK_PREEMPT);
	}
}

/*
 * The donor looks again when it would have had its next slice: it paid nothing, so no further
 * ahead than that of @base, however often it is looked at. Of several the one that
 * was looked at longest ago comes first, hence the time. @base: the clock, or what else
 * competes: donors for which nothing can be done must not hold the clock back.
 */
static __always_inline u64 key_retried(const struct task_ctx *dctx, u64 was, u64 base, u64 now)
{
	u64 cost = donor_cost(dctx, cfg.slice_ns), key;
	u64 most = base + cost + (now >> 20 & 0xfffff);

	key = (key_before(was, base) ? base : was) + cost;
	if (!key_before(most, key))
		return key;
	return key_before(was, most) ? most : was;
}

/* Put a donor back for which nothing can be done now. The caller holds it (TOKEN_MOVING). */
CORE_FN int donor_retry(u32 donor_pid, u64 seq, s32 cpu)
{
	struct task_struct *d = port_task_get(donor_pid);
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);
	struct task_ctx *dctx;
	u64 base, key;

	if (!d)
		return 0;
	dctx = task_ctx_of(d);
	key = dctx ? *(volatile u64 *)&dctx->wait_key : 0;
	if (dctx && yield_over(dctx, seq)) {
		port_task_put(d);
		return 0;
	}
	if (dctx && cctx && dctx->token == token_make(seq, TOKEN_MOVING, 0)) {
		base = cctx->clock;
		if (cctx->least_key != KEY_NONE && key_before(base, cctx->least_key) &&
		    !dctx->wait_urgency)
			base = cctx->least_key;
		wait_key_set(dctx, key, key_retried(dctx, key, base, port_now()));
	}
	port_task_put(d);
	return donor_put(donor_pid, seq, cpu, 1);
}

/* Let the donor wait until the owner, seen at @place, stops running or wakes. */
static __always_inline enum resolved donor_attach(struct task_ctx *octx, u32 owner_pid,
						  struct task_ctx *dctx, u32 donor_pid, u64 seq,
						  s32 cpu, u32 place)
{
	stat_inc(place == PLACE_ASLEEP ? STAT_OWNER_SLEEPING : STAT_OWNER_RUNNING);
	if (!token_cas(dctx, token_make(seq, TOKEN_MOVING, 0),
		       token_make(seq, TOKEN_ATTACHED, owner_pid)))
		return RESOLVED_NEXT; /* woke */
	if (attached_add(octx, donor_pid)) {
		event(EVENT_PARK, cpu, donor_pid, owner_pid, 0, 0);
		/* it stopped or woke before it could see us: take the donor back, look again */
		if (*(volatile u32 *)&octx->place != place)
			donor_take_back(donor_pid, owner_pid, TOKEN_ATTACHED, cpu);
		return RESOLVED_NEXT;
	}
	stat_inc(STAT_ATTACH_FULL);
	/* no room: its turn comes again one slice later; those behind it fare no better */
	if (token_cas(dctx, token_make(seq, TOKEN_ATTACHED, owner_pid),
		      token_make(seq, TOKEN_MOVING, 0)))
		donor_retry(donor_pid, seq, cpu);
	return RESOLVED_WAIT;
}

static __always_inline enum resolved owner_act(struct task_struct *o, struct task_ctx *octx,
					       struct task_ctx *dctx, u32 donor_pid, u64 seq,
					       s32 cpu, u32 prev_pid, struct chain *c)
{
	u32 owner_pid = c->end.owner_pid, place = *(volatile u32 *)&octx->place;
	u32 reach;
	s32 from;

	if (owner_pid == prev_pid) {
		if (!donation_begin(octx, owner_pid, dctx, donor_pid, seq, cpu, c->hops))
			return RESOLVED_NEXT;
		return RESOLVED_PREV;
	}
	if (place != PLACE_QUEUED) {
		if (yield_over(dctx, seq))
			return RESOLVED_NEXT;
		return donor_attach(octx, owner_pid, dctx, donor_pid, seq, cpu, place);
	}
	/* no callback will say when it stops */
	if (port_core_runs(o)) {
		stat_inc(STAT_OWNER_RUNNING);
		return RESOLVED_LATER;
	}
	from = octx->dsq_cpu;
	reach = octx->dsq_reach;
	switch (owner_move(o, from, reach, cpu)) {
	case MOVED:
		queue_left(octx, PLACE_LOCAL);
		donation_begin(octx, owner_pid, dctx, donor_pid, seq, cpu, c->hops);
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
		return RESOLVED_LATER;
	donor_migrate(dctx, donor_pid, seq, from, c);
	return RESOLVED_NEXT;
}

/*
 * Decide for donor @donor_pid, just taken off the queue of @cpu with @token.
 * @prev_pid: the previous task on @cpu if it is still runnable, else 0. @head_pid: of
 * the run queues, 0 if they are empty; NOTHING_ELSE if there is no previous task either.
 * Only ops.dispatch() comes here: only there may a task be moved between queues.
 */
CORE_FN int donor_resolve(u32 donor_pid, u64 token, s32 cpu, u32 prev_pid, u32 head_pid)
{
	struct task_struct *d = port_task_get(donor_pid), *o;
	struct task_ctx *dctx, *octx;
	int ret = RESOLVED_NEXT;
	struct cpu_ctx *cctx;
	u64 seq = token_seq(token), key;
	struct chain c = { .cpu = cpu };

	if (!d)
		return ret;
	dctx = task_ctx_of(d);
	if (!dctx || !token_cas(dctx, token, token_make(seq, TOKEN_MOVING, 0)))
		goto out; /* woke */
	/* changes nothing but for tasks that waited while donors were only observed, and the clock went on */
	cctx = cpu_ctx_of(cpu);
	wait_weight_refresh(dctx);
	key = *(volatile u64 *)&dctx->wait_key;
	if (cctx && !dctx->wait_urgency && dctx->token == token_make(seq, TOKEN_MOVING, 0))
		wait_key_set(dctx, key, key_floor(key, cctx->clock, cfg.lag_ns));
	if (dctx->wait_urgency && head_pid != NOTHING_ELSE && urgent_stand_back(cpu, head_pid)) {
		ret = RESOLVED_LATER;
		goto out;
	}
	chain_walk(donor_pid, &c);
	o = chain_leads_on(&c) ? port_task_get(c.end.owner_pid) : NULL;
	octx = o ? task_ctx_of(o) : NULL;
	if (octx)
		ret = owner_act(o, octx, dctx, donor_pid, seq, cpu, prev_pid, &c);
	else
		ret = RESOLVED_LATER;
	if (o)
		port_task_put(o);
out:
	port_task_put(d);
	return ret;
}

/*
 * A donor of a higher class blocks on @cpu: it must not wait for that CPU to pick
 * one of ours, so its chain is walked at once and its context goes where the owner
 * is. Runs in the waiter itself, before it sleeps; nothing may be moved from here.
 */
CORE_FN int donor_block_urgent(u32 donor_pid, s32 cpu, u64 seq)
{
	struct task_struct *d = port_task_get(donor_pid), *o;
	struct task_ctx *dctx, *octx;
	struct chain c = { .cpu = cpu };
	u32 place;

	if (!d)
		return 0;
	dctx = task_ctx_of(d);
	if (!dctx)
		goto out;
	chain_walk(donor_pid, &c);
	o = chain_leads_on(&c) ? port_task_get(c.end.owner_pid) : NULL;
	octx = o ? task_ctx_of(o) : NULL;
	if (!octx) {
		/* not where it is: that CPU may be busy with its class for long */
		donor_put(donor_pid, seq, urgent_place(cpu), 0);
	} else {
		place = *(volatile u32 *)&octx->place;
		if (place == PLACE_QUEUED)
			donor_migrate(dctx, donor_pid, seq, octx->dsq_cpu, &c);
		else
			donor_attach(octx, c.end.owner_pid, dctx, donor_pid, seq, cpu, place);
	}
	if (o)
		port_task_put(o);
out:
	port_task_put(d);
	return 0;
}

#endif /* PROXY_CORE_RESOLVE_H */
