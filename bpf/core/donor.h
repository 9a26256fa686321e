/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The life of a donor: it blocks, its context moves between donor queues and
 * owners, it wakes. Each step is a change of its token (core/token.h).
 */
#ifndef PROXY_CORE_DONOR_H
#define PROXY_CORE_DONOR_H

static __always_inline bool token_cas(struct task_ctx *dctx, u64 from, u64 to)
{
	return __sync_val_compare_and_swap(&dctx->token, from, to) == from;
}

/*
 * The key of a donor on @cpu's queue. The caller holds its context (TOKEN_MOVING).
 * @later: there is nothing to be done for it now; an urgent one, whose key would
 * stay the first, has to let the others be looked at before, for about a slice of time.
 */
static __always_inline u64 donor_key_at(struct task_ctx *dctx, s32 cpu, const struct cpu_ctx *cctx,
					u32 later)
{
	struct cpu_ctx *from;
	u64 key = dctx->wait_key;

	if (dctx->wait_urgency)
		return later ? cctx->clock + key_cost(cfg.slice_ns, cctx->queued_load +
									    cctx->running_weight +
									    WEIGHT_NICE_0) :
			       key_urgent(cctx->clock, dctx->wait_urgency);
	if (dctx->wait_cpu != cpu) {
		from = cpu_ctx_of(dctx->wait_cpu);
		if (from)
			key = key_rebase(key, from->clock, cctx->clock);
	}
	return key_floor(key, cctx->clock, cfg.lag_ns);
}

/*
 * Put the context of donor @pid on the queue of @cpu. The caller holds it
 * (TOKEN_MOVING with @seq). If the donor wakes meanwhile nothing is left behind.
 */
CORE_FN int donor_put(u32 pid, u64 seq, s32 cpu, u32 later)
{
	struct task_struct *d = port_task_get(pid);
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);
	struct task_ctx *dctx;
	int ret = PUSH_WOKE;

	if (!d)
		return 0;
	dctx = task_ctx_of(d);
	if (!dctx || !cctx)
		goto out;
	ret = donor_queue_push(cpu, donor_key_at(dctx, cpu, cctx, later), seq,
			       heap_who(pid, dctx->wait_user), dctx);
	if (ret == PUSHED) {
		stat_inc(STAT_DONOR_QUEUED);
	} else if (ret == PUSH_FULL) {
		stat_inc(STAT_QUEUE_FULL);
		token_cas(dctx, token_make(seq, TOKEN_MOVING, 0), token_make(seq, TOKEN_LIMBO, 0));
	}
out:
	port_task_put(d);
	return ret == PUSHED;
}

/* The present candidate for the owner of what @dctx's task waits for has used a slice. */
static __always_inline void candidate_used(struct task_ctx *dctx)
{
	u32 i, pid = dctx->candidate;

	dctx->candidate_slices++;
	core_for(i, CANDIDATES_MAX) {
		struct candidate_turns *turns = &dctx->lent_to[i & (CANDIDATES_MAX - 1)];

		if (turns->pid && turns->pid != pid)
			continue;
		turns->pid = pid;
		turns->nr++;
		break;
	}
}

/*
 * @tctx's task was woken by @waker, which had what it waited for; 0: by a task that had not. Returns
 * how many of its slices others have used up.
 */
static __always_inline u32 candidates_missed(const struct task_ctx *tctx, u32 waker)
{
	u32 i, hits = 0;

	core_for(i, CANDIDATES_MAX) {
		const struct candidate_turns *turns = &tctx->lent_to[i & (CANDIDATES_MAX - 1)];

		if (turns->pid && turns->pid == waker)
			hits += turns->nr;
	}
	return tctx->candidate_slices > hits ? tctx->candidate_slices - hits : 0;
}

static __always_inline void candidates_forget(struct task_ctx *tctx)
{
	u32 i;

	tctx->candidate = 0;
	tctx->candidate_next = 0;
	tctx->candidate_at_ns = 0;
	tctx->candidate_slices = 0;
	if (!tctx->lent_to[0].pid)
		return;
	core_for(i, CANDIDATES_MAX)
		tctx->lent_to[i & (CANDIDATES_MAX - 1)] = (struct candidate_turns){};
}

/* The context that @p has now is to be lent: its next wait number, for the token. */
static __always_inline u64 context_begin(struct task_struct *p, struct task_ctx *tctx, s32 cpu,
					 u32 type)
{
	u64 seq = tctx->wait_seq + TOKEN_SEQ_ONE;

	if (!token_seq(seq))
		seq = TOKEN_SEQ_ONE; /* 0 marks a free entry in the heap */
	tctx->wait_seq = seq;
	tctx->wait_key = tctx->vtime;
	tctx->wait_cpu = cpu;
	tctx->wait_weight = tctx->weight;
	tctx->wait_user = port_user(p);
	tctx->wait_type = type;
	return seq;
}

/* A new wait of @p for @lock begins, with the context that it has now; its token says MOVING. */
static __always_inline u64 donor_begin(struct task_struct *p, struct task_ctx *tctx, u64 lock,
				       s32 cpu, u32 urgency)
{
	u64 seq = context_begin(p, tctx, cpu, lock & LOCK_TYPE_MASK);
	u32 owner = edge_owner_pid(p, tctx, lock);

	tctx->wait_urgency = urgency;
	tctx->blocked_at_ns = port_now();
	tctx->return_choice = RETURN_NONE;
	tctx->named_owner = owner;
	candidates_forget(tctx);
	stat_inc(STAT_EDGE);
	stat_inc(STAT_EDGE_MUTEX + tctx->wait_type);
	if (urgency)
		stat_inc(STAT_EDGE_URGENT);
	inversion_begin(tctx, port_pid(p), lock, owner ? owner : edge_first_waiter_pid(lock));
	event_wait(EVENT_BLOCK, cpu, p, tctx, owner, lock, seq, 0);
	tctx->token = token_make(seq, TOKEN_MOVING, 0);
	return seq;
}

/* @p went to sleep on @lock: its context stays schedulable. Caller: ops.quiescent(). */
static __always_inline void donor_block(struct task_struct *p, struct task_ctx *tctx, u64 lock,
					s32 cpu)
{
	u64 seq = donor_begin(p, tctx, lock, cpu, 0);

	if (donor_queue_push(cpu, tctx->wait_key, seq, heap_who(port_pid(p), tctx->wait_user),
			     tctx) == PUSHED) {
		stat_inc(STAT_DONOR_QUEUED);
	} else {
		stat_inc(STAT_QUEUE_FULL);
		tctx->token = token_make(seq, TOKEN_LIMBO, 0);
	}
}

/* @owner_pid runs on @cpu, and no longer in a donor's context: judge it by its own key. */
static __always_inline void running_note_own(s32 cpu, u32 owner_pid)
{
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);
	struct task_struct *o = port_task_get(owner_pid);
	struct task_ctx *octx = o ? task_ctx_of(o) : NULL;

	if (cctx && octx && cctx->running_pid == owner_pid && cctx->running_since_ns) {
		cctx->running_key = octx->vtime;
		cctx->running_weight = octx->weight;
		cctx->running_since_ns = port_now();
		cctx->awake_at_ns = 0; /* it was picked for another task */
		cctx->turn_over = 1;
	}
	if (o)
		port_task_put(o);
}

/* Virtual time lent at the weight that it had while it waited, in terms of the one that it has. */
static __always_inline u64 lent_cost_now(const struct task_ctx *tctx, u64 lent)
{
	return tctx->wait_urgency ? lent : key_reweight(lent, tctx->wait_weight, tctx->weight);
}

/*
 * What @tctx lent while it slept it has used. It lent on another CPU, perhaps,
 * whose clock went faster than the one that its key is in terms of: it owes no
 * more than it was behind there.
 */
static __always_inline void lent_settle(struct task_ctx *tctx)
{
	struct cpu_ctx *home, *away;
	u64 key;

	vtime_use(tctx, lent_cost_now(tctx, __sync_lock_test_and_set(&tctx->lent_cost, 0)),
		  port_now());
	home = tctx->vtime_cpu < 0 ? NULL : cpu_ctx_of(tctx->vtime_cpu);
	away = cpu_ctx_of(tctx->wait_cpu);
	if (!home || !away || home == away || tctx->wait_urgency)
		return;
	key = key_rebase(tctx->wait_key, away->clock, home->clock);
	if (key_before(key, tctx->vtime))
		tctx->vtime = key;
}

/*
 * The context of @p is its own again: what @token, just taken, named is left behind. Returns the CPU
 * where an owner runs in it right now, -1 if there is none.
 */
static __always_inline s32 context_end(struct task_struct *p, struct task_ctx *tctx, u64 token)
{
	s32 cpu = -1;

	switch (token_kind(token)) {
	case TOKEN_HEAP:
		donor_queue_remove(token_place(token) >> 16, token_place(token) & 0xffff,
				   token_seq(token), port_pid(p));
		break;
	case TOKEN_ACTIVE:
		cpu = tctx->wait_cpu;
		running_note_own(cpu, token_place(token));
		break;
	default:
		break;
	}
	return cpu;
}

/*
 * The wait of @p is over (task_runnable(), class change, exit): take the token
 * back, whatever it is, and pay for what ran on it. Returns the CPU where an
 * owner runs in its context right now, -1 if there is none.
 */
static __always_inline s32 donor_wake(struct task_struct *p, struct task_ctx *tctx)
{
	struct lock_slot *slot;
	u64 token, inverted_ns, waited_ns, lock = tctx->wait_lock, delay;
	u32 owner;
	s32 cpu;

	if (!tctx->token)
		return -1;
	tctx->woke_at_ns = port_now();
	token = __sync_lock_test_and_set(&tctx->token, 0);
	if (!token)
		return -1; /* it became ours, and was interrupted, at the same moment */
	stat_inc(STAT_EDGE_WOKEN);
	inverted_ns = inversion_so_far(tctx, tctx->woke_at_ns, &owner, &delay);
	waited_ns = tctx->woke_at_ns - tctx->blocked_at_ns;
	stat_add(STAT_WAITED_NS, waited_ns);
	stat_add(STAT_INVERTED_NS, inverted_ns);
	cpu = context_end(p, tctx, token);
	lent_settle(tctx);
	event_wait(EVENT_WAKE, cpu, p, tctx, owner, lock, waited_ns, inverted_ns);
	slot = inversion_end(tctx, delay);
	/* the remaining waiters wait for its next owner, in all likelihood this one */
	if (lock && slot && slot->nr_waiting && *(volatile u64 *)&slot->lock == lock)
		slot_turn(slot, lock_next_owner(p, tctx, lock), 0, tctx->woke_at_ns);
	return cpu;
}

/*
 * Whether wait @seq of a donor, whose token says MOVING, is a directed yield (core/yield.h), which is for one
 * look and one slice: then it is over.
 */
static __always_inline bool yield_over(struct task_ctx *dctx, u64 seq)
{
	if (!*(volatile u32 *)&dctx->yields_to)
		return false;
	token_cas(dctx, token_make(seq, TOKEN_MOVING, 0), 0);
	return true;
}

/* Take donor @pid back from @owner_pid (TOKEN_ATTACHED or TOKEN_ACTIVE), onto @cpu's queue. */
CORE_FN int donor_take_back(u32 pid, u32 owner_pid, u32 kind, s32 cpu)
{
	struct task_struct *d = port_task_get(pid);
	struct task_ctx *dctx;
	u64 token, seq = 0;

	if (!d)
		return 0;
	dctx = task_ctx_of(d);
	if (dctx) {
		token = dctx->token;
		if (token_kind(token) == kind && token_place(token) == owner_pid &&
		    token_cas(dctx, token, token_make(token, TOKEN_MOVING, 0)) &&
		    !yield_over(dctx, token_seq(token)))
			seq = token_seq(token);
	}
	port_task_put(d);
	return seq ? donor_put(pid, seq, cpu, 0) : 0;
}

/* @octx does not run in a donor's context any more: its own competes again. */
static __always_inline void donation_over(struct task_ctx *octx)
{
	octx->donor_pid = 0;
	group_count(octx, 1);
}

/*
 * All donors that waited for @owner to stop or wake go onto the queue of @cpu;
 * false if there were none. The exchange is also the barrier between the new
 * place of the owner, stored before, and this look; donor_attach() has the
 * mirror image, so that one of the two sees the other.
 */
static __always_inline bool attached_release(struct task_ctx *octx, u32 owner_pid, s32 cpu)
{
	if (!__sync_lock_test_and_set(&octx->has_attached, 0))
		return false;
	for (int i = 0; i < ATTACH_MAX; i++) {
		u32 pid = __sync_lock_test_and_set(&octx->attached[i], 0);

		if (pid)
			donor_take_back(pid, owner_pid, TOKEN_ATTACHED, cpu);
	}
	return true;
}

/* Let donor @pid wait on an owner; false when it has no room. */
static __always_inline bool attached_add(struct task_ctx *octx, u32 pid)
{
	for (int i = 0; i < ATTACH_MAX; i++) {
		if (!__sync_val_compare_and_swap(&octx->attached[i], 0, pid)) {
			__sync_lock_test_and_set(&octx->has_attached, 1);
			return true;
		}
	}
	return false;
}

/*
 * The donors of @p, the one it runs for and those that wait for it, are free to
 * be picked; false if there were none.
 */
static __always_inline bool donors_release(struct task_struct *p, struct task_ctx *tctx, s32 cpu)
{
	u32 donor = tctx->donor_pid;

	if (donor) {
		donation_over(tctx);
		donor_take_back(donor, port_pid(p), TOKEN_ACTIVE, cpu);
	}
	return attached_release(tctx, port_pid(p), cpu) || donor;
}

/*
 * An owner that lost its donor must not go on in the donor's slice. If it runs
 * for a donor that woke, its CPU picks again, unless the donor goes there
 * anyway and is tested against the owner's own key.
 */
static __always_inline void donated_slice_end(struct task_struct *p, s32 owner_cpu)
{
	struct cpu_ctx *cctx = cpu_ctx_of(owner_cpu);

	if (!cctx || !nr_queued(cctx) || owner_cpu == port_task_cpu(p))
		return;
	stat_inc(STAT_RETURN_PREEMPT);
	port_kick(owner_cpu, PORT_KICK_PREEMPT);
}

#endif /* PROXY_CORE_DONOR_H */
