/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One hop of a chain: from a waiter to the task that it waits for. That is the
 * owner, as the lock itself says; in the moment in which a lock has none, its first waiter, or of a mutex of
 * user space, which knows none, its last owner; and of a lock of a program whose word names no owner, one of those
 * that used it before.
 */
#ifndef PROXY_CORE_HOP_H
#define PROXY_CORE_HOP_H

/* The task that a waiter waits for, and what that task does. */
enum hop_end {
	HOP_STALE = 0,	 /* the waiter sleeps on no lock (any more) */
	HOP_NO_OWNER,
	HOP_BLOCKED,	 /* the owner sleeps on a lock itself: one further */
	HOP_RUNNABLE,	 /* the owner is on a run queue */
	HOP_ON_CPU,	 /* the owner runs, or is about to without our help */
	HOP_ASLEEP,	 /* the owner sleeps, and on no lock */
	HOP_OTHER_CLASS, /* the owner is not ours to schedule */
};

struct hop {
	u32 owner_pid;
	/* two halves: the stack of a pick is nearly full */
	unsigned short end;	 /* enum hop_end */
	unsigned short is_guess; /* not named as the owner */
};

/* What the task of @pid does: HOP_NO_OWNER if there is none, or if it waits for @lock itself. */
CORE_FN u32 hop_look(u32 pid, u64 lock)
{
	struct task_struct *o = port_task_get(pid);
	u32 end = HOP_NO_OWNER;
	struct task_ctx *octx;
	u64 waits_for = 0;

	if (!o)
		return end;
	octx = task_ctx_of(o);
	if (octx && (octx->place == PLACE_OTHER || octx->place == PLACE_ASLEEP))
		waits_for = edge_lock(o, octx);
	if (waits_for)
		end = waits_for == lock ? HOP_NO_OWNER : HOP_BLOCKED;
	else if (!octx || octx->place == PLACE_OTHER)
		end = HOP_OTHER_CLASS;
	else if (octx->place == PLACE_QUEUED)
		end = HOP_RUNNABLE;
	else if (octx->place == PLACE_RUNNING || octx->place == PLACE_LOCAL)
		end = HOP_ON_CPU;
	else
		end = HOP_ASLEEP;
	port_task_put(o);
	return end;
}

/*
 * Between its release and the next acquisition a lock has no owner. Its first
 * waiter has been woken then, and has only to run to take it: it stands in for
 * the owner, since what keeps it off the CPU keeps the donor waiting.
 */
static __always_inline void hop_first_waiter(u32 pid, u32 first, struct hop *h)
{
	u32 end;

	if (first == pid)
		return;
	end = hop_look(first, 0);
	if (end != HOP_RUNNABLE && end != HOP_ON_CPU)
		return;
	stat_inc(STAT_FIRST_WAITER);
	h->owner_pid = first;
	h->end = end;
}

/* CPU time of a task that does not run, or was charged just now. */
CORE_FN u64 hop_exec_ns(u32 pid)
{
	struct task_struct *o = port_task_get(pid);
	u64 ns;

	if (!o)
		return 0;
	ns = port_exec_ns(o);
	port_task_put(o);
	return ns;
}

/* Whether @pid could use a donor's context: it is kept from running, or ran here until now. */
static __always_inline bool hop_is_able(u32 pid, u32 end)
{
	struct task_struct *curr;

	if (end == HOP_RUNNABLE)
		return true;
	if (end != HOP_ON_CPU)
		return false;
	curr = port_current();
	return curr && port_pid(curr) == pid;
}

/*
 * A mutex of user space names nobody from the release on, and whoever sleeps on it does so until the task that had
 * it calls FUTEX_WAKE. Preempted in between, or before the kernel has done that, that one stands in for the
 * owner, while it could run: for a moment, so that no more than some slices of its CPU time are lent to it.
 */
static __always_inline void hop_releaser(struct task_struct *p, struct task_ctx *tctx, u64 lock,
					 struct hop *h)
{
	u32 end, pid = tctx->named_owner;
	u64 exec_ns;

	if (!pid || pid == port_pid(p) || tctx->candidate_slices >= RELEASED_SLICES ||
	    !edge_releaser_proven(p, tctx, lock, pid))
		return;
	end = hop_look(pid, 0);
	if (hop_is_able(pid, end)) {
		exec_ns = hop_exec_ns(pid);
		if (!tctx->candidate) {
			tctx->candidate = pid;
			tctx->candidate_exec_ns = exec_ns;
		} else if (exec_ns - tctx->candidate_exec_ns >= cfg.slice_ns) {
			tctx->candidate_slices++;
			tctx->candidate_exec_ns = exec_ns;
		}
		if (tctx->candidate_slices >= RELEASED_SLICES)
			return;
	} else if (end != HOP_ON_CPU) {
		return; /* whom it waits for itself is another matter */
	}
	stat_inc(STAT_RELEASER);
	h->owner_pid = pid;
	h->end = end;
	h->is_guess = 1;
}

/* Where no candidate is able: better one that runs, else one that waits for something else. */
static __always_inline void hop_second_best(struct hop *h, u32 pid, u32 end)
{
	if (h->end == HOP_ON_CPU || (h->end == HOP_BLOCKED && end != HOP_ON_CPU) ||
	    (end != HOP_ON_CPU && end != HOP_BLOCKED))
		return;
	h->owner_pid = pid;
	h->end = end;
}

/* The @nr-th user of what @p waits for, unless that is @present, or @p must not lend to it: then 0. */
static __always_inline u32 hop_user(struct task_struct *p, const struct task_ctx *tctx, u64 lock,
				    u32 nr, u32 present)
{
	u32 user = edge_candidate_pid(p, tctx, lock, nr);

	return user && user != present && user != port_pid(p) && edge_candidate_proven(p, user) ?
		       user :
		       0;
}

/* The task found a moment ago, with what it does now. False: nothing was looked for yet. */
static __always_inline bool hop_candidate_again(struct task_ctx *tctx, u64 lock, u64 now,
						struct hop *h)
{
	if (tctx->candidate_at_ns != now)
		return false;
	h->owner_pid = tctx->candidate_found;
	if (h->owner_pid)
		h->end = hop_look(h->owner_pid, lock);
	if (h->end == HOP_NO_OWNER)
		h->owner_pid = 0;
	return true;
}

/*
 * The next user in turn that is kept from running, which @present is not: the first that points at the
 * lock, else the first at all. Returns 0 if there is none, and the second best in @h unless the present one is
 * @able; and if only that one points at the lock.
 */
static __always_inline u32 hop_next_user(struct task_struct *p, struct task_ctx *tctx, u64 lock,
					 u32 nr, bool able, struct hop *h)
{
	u32 present = tctx->candidate, first = 0, next = tctx->candidate_next, i, user, end;
	bool seeks = (tctx->candidate_slices & (CANDIDATE_ROUND - 1)) < CANDIDATE_POINTING;

	core_for(i, CANDIDATE_LOOKS < nr ? CANDIDATE_LOOKS : nr) {
		user = hop_user(p, tctx, lock, tctx->candidate_next % nr, present);
		tctx->candidate_next = (tctx->candidate_next + 1) % nr;
		if (!user)
			continue;
		end = hop_look(user, lock);
		if (!hop_is_able(user, end)) {
			if (!able && !first)
				hop_second_best(h, user, end);
			continue;
		}
		if (!seeks || edge_candidate_points(tctx, lock, user))
			return user;
		if (!first) {
			first = user;
			next = tctx->candidate_next;
		}
	}
	if (!first || (able && edge_candidate_points(tctx, lock, present)))
		return 0;
	tctx->candidate_next = next;
	return first;
}

/*
 * Nobody is named as the owner of @lock, which @p waits for. Those that used it before
 * are lent to in turn, a slice each: the present one until it has run so long, then the
 * next that is kept from running. Of each round most slices go to those whose registers or
 * stack point at the lock, as those of a task that is going to release it often do. What is looked
 * at is bounded; the next look goes on from there. What is lent in one wait is bounded, too.
 *
 * All looks of one moment find the same: a walk that comes here twice is in a cycle.
 */
static __always_inline void hop_candidate(struct task_struct *p, struct task_ctx *tctx, u64 lock,
					  struct hop *h)
{
	u32 user = tctx->candidate, end, nr = edge_candidates(p, tctx, lock);
	bool able = false;

	/* an empty queue that looked like a lock, perhaps */
	if (!nr || tctx->candidate_slices >= CANDIDATE_SLICES ||
	    hop_candidate_again(tctx, lock, port_now(), h))
		return;
	if (user && edge_candidate_proven(p, user)) {
		end = hop_look(user, lock);
		able = hop_is_able(user, end);
		if (able) {
			h->owner_pid = user;
			h->end = end;
			if (hop_exec_ns(user) - tctx->candidate_exec_ns < cfg.slice_ns)
				return;
			candidate_used(tctx);
		} else {
			hop_second_best(h, user, end);
		}
	}
	user = hop_next_user(p, tctx, lock, nr, able, h);
	if (user) {
		h->owner_pid = user;
		h->end = hop_look(user, lock);
		able = true;
	}
	tctx->candidate_at_ns = port_now();
	tctx->candidate_found = h->owner_pid;
	if (able) {
		tctx->candidate = h->owner_pid;
		tctx->candidate_exec_ns = hop_exec_ns(h->owner_pid);
	}
}

/* Goes on where chain_hop() found that the lock names no owner: a function of its own, for the sake of the stack. */
CORE_FN int hop_guess(u32 pid, struct hop *h)
{
	struct task_struct *p;
	struct task_ctx *tctx;
	u64 lock;

	if (!h)
		return 0;
	p = port_task_get(pid);
	if (!p)
		return 0;
	tctx = task_ctx_of(p);
	lock = tctx ? edge_lock(p, tctx) : 0;
	/* should it have gone on meanwhile, this is a thread of its process all the same */
	if (lock)
		hop_candidate(p, tctx, lock, h);
	port_task_put(p);
	return 0;
}

CORE_FN int chain_hop(u32 pid, struct hop *h)
{
	struct task_struct *p;
	struct task_ctx *tctx;
	u64 lock = 0;
	u32 owner = 0, first = 0, candidates = 0;

	if (!h)
		return 0;
	h->owner_pid = 0;
	h->end = HOP_STALE;
	h->is_guess = 0;
	p = port_task_get(pid);
	if (!p)
		return 0;
	tctx = task_ctx_of(p);
	if (tctx && tctx->yields_to) {
		owner = tctx->yields_to;
		port_task_put(p);
		/* if it sleeps now, what on was not meant, and may be a lock of the one that yields */
		if (hop_look(owner, 0) == HOP_RUNNABLE) {
			h->owner_pid = owner;
			h->end = HOP_RUNNABLE;
		}
		return 0;
	}
	if (tctx)
		lock = edge_lock(p, tctx);
	if (lock) {
		owner = edge_owner_pid(p, tctx, lock);
		if (!owner)
			first = edge_first_waiter_pid(lock);
		if (!owner && !first)
			candidates = edge_candidates(p, tctx, lock);
		if (owner && owner != tctx->named_owner) {
			tctx->named_owner = owner;
			/* hop_releaser(): it has not released the lock yet */
			tctx->candidate = 0;
			tctx->candidate_slices = 0;
		}
		/* the waiter may have gone on, and its lock with it, while we read */
		if (edge_lock(p, tctx) != lock)
			lock = 0;
		h->end = lock ? HOP_NO_OWNER : HOP_STALE;
		h->is_guess = lock && candidates;
		if (lock && !owner && !first)
			hop_releaser(p, tctx, lock, h);
	}
	port_task_put(p);
	if (!lock)
		return 0;
	/* else handed over to the waiter itself, which has only to wake */
	if (owner && owner != pid) {
		h->owner_pid = owner;
		h->end = hop_look(owner, 0);
	} else if (!owner && first) {
		hop_first_waiter(pid, first, h);
	}
	return 0;
}

#endif /* PROXY_CORE_HOP_H */
