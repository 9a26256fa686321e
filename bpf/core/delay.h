/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Clocks of delay, of which inversion time is made (inversion.h): of a wait, how long the owner at the end of
 * its chain could have run and did not, whoever of the two is more important.
 *
 * No event tells a waiter that somebody else's owner is kept off a CPU, and looking
 * would cost more than it is worth. So each task has a clock that goes while
 * it could run and does not, and, while it waits itself, as fast as the clock of whom it
 * waits for. What a wait was delayed for is how far its owner's clock went
 * meanwhile: two readings, however long the chain.
 *
 * A lock changes hands during a wait. Therefore a slot for each lock that is waited for
 * keeps what its owners' clocks add up to; each wait that begins or ends there brings
 * it up to date, and looks who owns the lock now. Slots are found by a hash of the
 * lock: if two locks meet in one, the later one's waits are counted as untracked.
 *
 * Clocks count modulo 2^48 ns (three days); readings are only ever subtracted, and no
 * wait was delayed for longer than it lasted.
 */
#ifndef PROXY_CORE_DELAY_H
#define PROXY_CORE_DELAY_H

#define CLOCK_BITS 48
#define CLOCK_MASK ((1ULL << CLOCK_BITS) - 1)
/* what a slot remembers of a clock leaves room for a pid of 22 bits (PID_MAX_LIMIT) */
#define MARK_SHIFT 6
#define MARK_BITS (CLOCK_BITS - MARK_SHIFT)

static inline u64 owner_mark(u32 pid, u64 clock)
{
	return (u64)pid << MARK_BITS | (clock & CLOCK_MASK) >> MARK_SHIFT;
}

static inline u32 owner_mark_pid(u64 mark)
{
	return mark >> MARK_BITS;
}

static inline u64 owner_mark_clock(u64 mark)
{
	return mark << MARK_SHIFT & CLOCK_MASK;
}

/* how far a clock went from @then to @now; 0 if it seems to have gone back */
static inline u64 clock_since(u64 now, u64 then)
{
	u64 ns = (now - then) & CLOCK_MASK;

	return ns >> (CLOCK_BITS - 1) ? 0 : ns;
}

static inline u32 lock_slot_of_lock(u64 lock)
{
	return lock * 0x9e3779b97f4a7c15ULL >> (64 - LOCK_SLOT_BITS);
}

/* Since when @tctx's task could run and does not, 0 if that is not so; what a port knows better, it says itself. */
#ifndef port_off_since
#define port_off_since(tctx) (*(volatile u64 *)&(tctx)->off_since_ns)
#endif

/* It could run from now on, and does not. Caller: has the rq lock of the task, as for the next. */
static __always_inline void delay_begin(struct task_ctx *tctx, u64 now)
{
	tctx->off_since_ns = now;
}

/* What has come of it since @since. It may have executed for a part of that, by the kernel's own doing. */
static __always_inline u64 delay_since(struct task_struct *p, const struct task_ctx *tctx,
				       u64 since, u64 now)
{
	u64 ran;

	if (!since || now <= since)
		return 0;
	ran = port_core_ran_ns(p, tctx);
	return ran < now - since ? now - since - ran : 0;
}

static __always_inline void delay_end(struct task_struct *p, struct task_ctx *tctx, u64 now)
{
	u64 since = tctx->off_since_ns;

	tctx->off_since_ns = 0;
	tctx->delay_ns += delay_since(p, tctx, since, now);
}

/* The sum over a chain, and where it goes on. */
struct delay_sum {
	u64 clock;
	u32 next;
	u32 found;
};

/* One task's part of the sum; that of whom it waits for is added by the next call. */
CORE_FN int delay_hop(u32 pid, u64 now, struct delay_sum *sum)
{
	struct task_struct *p;
	struct lock_slot *slot;
	struct task_ctx *tctx;
	u64 lock, mark;

	if (!sum)
		return 0;
	sum->next = 0;
	sum->found = 0;
	p = port_task_get(pid);
	if (!p)
		return 0;
	tctx = task_ctx_of(p);
	if (tctx) {
		sum->found = 1;
		sum->clock += tctx->delay_ns + delay_since(p, tctx, port_off_since(tctx), now);
		lock = *(volatile u64 *)&tctx->wait_lock;
		slot = lock ? lock_slot_at(lock_slot_of_lock(lock)) : NULL;
		if (slot && slot->lock == lock) {
			mark = *(volatile u64 *)&slot->owner_mark;
			sum->clock += slot->delay_ns - tctx->wait_delay_ns;
			/* else the lock was handed to it, and it has only to wake */
			if (owner_mark_pid(mark) && owner_mark_pid(mark) != pid) {
				sum->clock -= owner_mark_clock(mark);
				sum->next = owner_mark_pid(mark);
			}
		}
	}
	port_task_put(p);
	return 0;
}

/*
 * What the clock of @pid says; false if that is not to be known: there is no such task, or its
 * chain has no end, or none within bounds.
 */
static __noinline bool delay_clock(u32 pid, u64 now, u64 *clock)
{
	struct delay_sum sum = { .next = pid };
	u32 hops = 0;

	while (can_loop) {
		if (!sum.next || hops++ > HOPS_LIMIT)
			break;
		delay_hop(sum.next, now, &sum);
		if (!sum.found)
			return false;
	}
	if (sum.next)
		return false;
	*clock = sum.clock & CLOCK_MASK;
	return true;
}

/*
 * The owner of the slot's lock is @owner from now on; what the last one's clock says is added up.
 * @blocks: who begins to wait for the lock now. If it was thought to own it, since it was woken
 * for it, somebody else was faster, and what kept it from running kept nobody waiting.
 */
static __noinline void slot_turn(struct lock_slot *slot, u32 owner, u32 blocks, u64 now)
{
	u64 mark = *(volatile u64 *)&slot->owner_mark, last = 0, next = 0;
	u32 pid = owner_mark_pid(mark);
	bool known = pid && pid != blocks && delay_clock(pid, now, &last);

	if (owner == pid && known)
		next = last;
	else if (owner && !delay_clock(owner, now, &next))
		owner = 0; /* and its clock says nothing: next is 0 still */
	next = owner_mark(owner, next);
	/* somebody else did it just now: no worse */
	if (__sync_val_compare_and_swap(&slot->owner_mark, mark, next) != mark || !known)
		return;
	last = owner_mark_clock(owner_mark(0, last));
	__sync_fetch_and_add(&slot->delay_ns, clock_since(last, owner_mark_clock(mark)));
}

/* The slot for one more wait for @lock, NULL if another lock has it. */
static __always_inline struct lock_slot *slot_enter(u64 lock)
{
	struct lock_slot *slot = lock_slot_at(lock_slot_of_lock(lock));
	u64 other;

	if (!slot)
		return NULL;
	other = *(volatile u64 *)&slot->lock;
	if (other != lock) {
		if (*(volatile u32 *)&slot->nr_waiting ||
		    __sync_val_compare_and_swap(&slot->lock, other, lock) != other)
			return NULL;
		slot->owner_mark = 0;
	}
	__sync_fetch_and_add(&slot->nr_waiting, 1);
	if (*(volatile u64 *)&slot->lock == lock)
		return slot;
	__sync_fetch_and_add(&slot->nr_waiting, -1);
	return NULL;
}

/* The slot of the wait that @tctx's task is in, NULL if that is not tracked. */
static __always_inline struct lock_slot *slot_of_wait(const struct task_ctx *tctx)
{
	return tctx->wait_lock ? lock_slot_at(lock_slot_of_lock(tctx->wait_lock)) : NULL;
}

/* A wait of @pid for @lock, owned by @owner, begins. Caller: as donor_begin(). */
static __always_inline void inversion_begin(struct task_ctx *tctx, u32 pid, u64 lock, u32 owner)
{
	struct lock_slot *slot;

	if (!lock)
		return; /* it has just got it */
	slot = slot_enter(lock);
	if (!slot) {
		stat_inc(STAT_INVERSION_UNTRACKED);
		return;
	}
	slot_turn(slot, owner, pid, port_now());
	tctx->wait_delay_ns = slot->delay_ns;
	tctx->wait_lock = lock;
}

/* What the clocks of its owners went on by since the wait of @tctx's task began. */
static __always_inline u64 wait_delay(const struct task_ctx *tctx, const struct lock_slot *slot,
				      u64 now)
{
	u64 mark = *(volatile u64 *)&slot->owner_mark, clock = 0, delay = slot->delay_ns, ns;
	u32 pid = owner_mark_pid(mark);

	if (pid && delay_clock(pid, now, &clock))
		delay += clock_since(clock, owner_mark_clock(mark));
	/* a new wait may have begun since somebody else looked at the time */
	if (now <= tctx->blocked_at_ns)
		return 0;
	ns = clock_since(delay, tctx->wait_delay_ns);
	return ns > now - tctx->blocked_at_ns ? now - tctx->blocked_at_ns : ns;
}

/* The wait is over, and what it was delayed for is part of its own delay. Returns its slot. */
static __always_inline struct lock_slot *inversion_end(struct task_ctx *tctx, u64 delay)
{
	struct lock_slot *slot = slot_of_wait(tctx);

	tctx->delay_ns += delay;
	tctx->wait_lock = 0;
	if (slot)
		__sync_fetch_and_add(&slot->nr_waiting, -1);
	return slot;
}

/* Who has @lock, from which @p was woken, or is about to. */
static __always_inline u32 lock_next_owner(struct task_struct *p, struct task_ctx *tctx, u64 lock)
{
	u32 pid = edge_owner_pid(p, tctx, lock);

	if (!pid)
		pid = edge_first_waiter_pid(lock);
	return pid ? pid : port_pid(p);
}

/* Whether @tctx's task comes before owner @pid of the lock that it waits for: inversion.h, beside/wait.bpf.h. */
static bool waiter_comes_first(const struct task_ctx *tctx, u32 pid);

/*
 * Inversion time of the wait that @tctx's task is in, so far; *@owner: the lock's owner as far
 * as its waiters know. @delay: likewise whatever the keys are.
 */
static __noinline u64 inversion_so_far(const struct task_ctx *tctx, u64 now, u32 *owner, u64 *delay)
{
	struct lock_slot *slot = slot_of_wait(tctx);

	*owner = 0;
	*delay = 0;
	if (!slot || slot->lock != tctx->wait_lock)
		return 0;
	*owner = owner_mark_pid(slot->owner_mark);
	*delay = wait_delay(tctx, slot, now);
	return *delay && waiter_comes_first(tctx, *owner) ? *delay : 0;
}

#endif /* PROXY_CORE_DELAY_H */
