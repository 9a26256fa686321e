/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Locks of user space whose word names no owner: musl's normal mutexes, those of Rust and Go, glibc's
 * internal ones, a pthread_rwlock that readers hold. Only their users are known.
 *
 * waiter -> lock: FUTEX_WAIT (futex.bpf.h) at an address that has been used as a mutex is.
 * lock -> owner: not known. In place of an owner stand candidates (core/hop.h): threads of
 * the waiter's own process that were woken from there, and have the lock since then in most designs, or
 * that woke others from there, which had it. Lent to in turn, they get nothing that the process had not: a thread
 * may always lend its own share to its own process.
 *
 * What tells a mutex from a condition variable, an empty queue or a parked worker: a task that unlocks
 * has locked, and so waited there himself at some time. An address counts as that of a mutex
 * once a task that was woken from there wakes others from there. A waited-for value of 0 is no lock:
 * a lock that is held says so.
 * And what is lent must help. Slices that waits at an address lent in vain, to others than those that then woke
 * them, add up, and are made good by those that were not; while there are too many, waits there lend nothing.
 *
 * All of this is learned at wakeups that were waited for in futex() anyway: no program runs without sleepers.
 */
#ifndef PROXY_LOCK_USERS_H
#define PROXY_LOCK_USERS_H

#define FUTEX_SLOT_BITS 12
/* as long as it is used, a slot of a mutex is not given to another address */
#define FUTEX_SLOT_NS 1000000000ULL
/* neighbouring words are one: those of a pthread_rwlock belong together */
#define FUTEX_GRAIN_BITS 3

/* futex_slot.users: a pid, and what it was seen to do */
#define USER_WOKEN 0x80000000U
#define USER_PID_MASK 0x7fffffffU

/* slices lent in vain: beyond so many waits lend nothing; what one good slice makes up for; the most */
#define VAIN_ENOUGH 64
#define VAIN_GOOD (2 * CANDIDATES_MAX)
#define VAIN_MAX (4 * VAIN_ENOUGH)

/*
 * The users of the lock at an address of a process. [a task that wakes another one there, and waiters; all of
 * it is hints: a torn look costs a slice, lent to a thread of the same process]
 */
struct futex_slot {
	u64 grain; /* address, in units of 8 bytes */
	u64 used_at_ns;
	u32 tgid;
	u32 is_mutex;
	u32 vain;
	u32 busy; /* who learns; an entry must not be lost */
	u32 users[CANDIDATES_MAX]; /* the last first */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << FUTEX_SLOT_BITS);
	__type(key, u32);
	__type(value, struct futex_slot);
} futex_slots SEC(".maps");

static __always_inline struct futex_slot *futex_slot_at(u64 grain, u32 tgid)
{
	u32 key = (grain ^ (u64)tgid << 44) * 0x9e3779b97f4a7c15ULL >> (64 - FUTEX_SLOT_BITS);

	return bpf_map_lookup_elem(&futex_slots, &key);
}

/* What is known of address @addr of process @tgid, NULL if nothing. */
static __always_inline struct futex_slot *futex_slot_of(u64 addr, u32 tgid)
{
	struct futex_slot *slot = futex_slot_at(addr >> FUTEX_GRAIN_BITS, tgid);

	return slot && slot->grain == addr >> FUTEX_GRAIN_BITS && slot->tgid == tgid ? slot : NULL;
}

/* Likewise, from now on, unless another lock has its place. */
static __always_inline struct futex_slot *futex_slot_make(u64 addr, u32 tgid, u64 now)
{
	u64 grain = addr >> FUTEX_GRAIN_BITS;
	struct futex_slot *slot = futex_slot_at(grain, tgid);

	if (!slot || (slot->grain == grain && slot->tgid == tgid))
		return slot;
	if (slot->is_mutex && now - slot->used_at_ns < FUTEX_SLOT_NS)
		return NULL;
	__builtin_memset(slot, 0, sizeof(*slot));
	slot->grain = grain;
	slot->tgid = tgid;
	return slot;
}

/* @pid comes to be the last user. Returns what it was seen to do before. */
static __always_inline u32 futex_user_first(struct futex_slot *slot, u32 pid, u32 does)
{
	u32 i, user, carried = pid | does, before = 0;

	for (i = 0; i < CANDIDATES_MAX; i++) {
		user = slot->users[i];
		slot->users[i] = carried;
		carried = user;
		if ((user & USER_PID_MASK) == pid || !user) {
			before = user & ~USER_PID_MASK;
			break;
		}
	}
	slot->users[0] |= before;
	return before;
}

/* @waker has woken @woken from address @addr. */
static __noinline void futex_learn(u64 addr, u32 tgid, u32 waker, u32 woken)
{
	u64 now = scx_bpf_now();
	struct futex_slot *slot = futex_slot_make(addr, tgid, now);

	/* another CPU records a wakeup here: there will be others to record */
	if (!slot || __sync_val_compare_and_swap(&slot->busy, 0, 1))
		return;
	slot->used_at_ns = now;
	if (futex_user_first(slot, waker, 0) & USER_WOKEN)
		slot->is_mutex = 1;
	futex_user_first(slot, woken, USER_WOKEN);
	*(volatile u32 *)&slot->busy = 0;
}

/* A wait lent so many slices, @missed of them in vain. */
static __always_inline void futex_judge(struct futex_slot *slot, u32 lent, u32 missed)
{
	u32 vain = slot->vain + missed, good = VAIN_GOOD * (lent - missed);

	vain = vain > good ? vain - good : 0;
	slot->vain = vain > VAIN_MAX ? VAIN_MAX : vain;
}

/* Whether waiters at @addr shall lend to its users. */
static __always_inline bool futex_trusted(u64 addr, u32 tgid)
{
	struct futex_slot *slot = futex_slot_of(addr, tgid);

	if (!slot || !slot->is_mutex)
		return false;
	if (slot->vain <= VAIN_ENOUGH)
		return true;
	/* after so many waits it is tried again */
	slot->vain--;
	return false;
}

static __always_inline u64 users_waited_for(const struct task_ctx *tctx)
{
	return lock_type(tctx->user_lock) == LOCK_FUTEX ? tctx->user_lock : 0;
}

/* The users of what @p waits for, NULL if they are not wanted, or not known. */
static __always_inline struct futex_slot *users_of_wait(struct task_struct *p,
							const struct task_ctx *tctx, u64 lock)
{
	if (!lock_followed(LOCK_FUTEX) || lock_type(lock) != LOCK_FUTEX)
		return NULL;
	return futex_slot_of(tctx->futex_at, p->tgid);
}

/* See core/ports.h. */
static __always_inline u32 edge_candidates(struct task_struct *p, const struct task_ctx *tctx,
					   u64 lock)
{
	struct futex_slot *slot = users_of_wait(p, tctx, lock);
	u32 i;

	if (!slot)
		return 0;
	for (i = 0; i < CANDIDATES_MAX; i++) {
		if (!slot->users[i])
			break;
	}
	return i;
}

static __always_inline u32 edge_candidate_pid(struct task_struct *p, const struct task_ctx *tctx,
					      u64 lock, u32 nr)
{
	struct futex_slot *slot = users_of_wait(p, tctx, lock);

	return slot ? slot->users[nr & (CANDIDATES_MAX - 1)] & USER_PID_MASK : 0;
}

/* A task lends only within its own process. */
static __always_inline bool edge_candidate_proven(struct task_struct *p, u32 pid)
{
	struct task_struct *c = bpf_task_from_pid(pid);
	bool proven;

	if (!c)
		return false;
	proven = c->tgid == p->tgid;
	bpf_task_release(c);
	return proven;
}

/*
 * Whether a thread points at a lock: by one of its registers, as it was stopped, or the nearest words of its
 * stack. A task that is going to unlock must have the address somewhere: a guard of C++ or Rust and a
 * defer of Go have it there. That of a global lock stands in the code alone: then all candidates are alike.
 */
#define POINTER_REGS 15 /* all but orig_ax and what the entry itself pushes */
/* the address of a lock, whose futex word is so many bytes into it at most */
#define POINTER_WITHIN 16

/* Whether one of the first @bytes of this CPU's words is an address at or a little before @addr. */
static __always_inline bool points_among(u32 bytes, u64 addr)
{
	return stack_has(bytes, addr - (POINTER_WITHIN - 1), POINTER_WITHIN);
}

/* As points_among(), of @bytes at user address @sp, which lie on one page. */
static __always_inline u32 points_on_page(u64 pgd, struct stack_words *w, u64 sp, u32 bytes,
					  u64 addr)
{
	u64 at = user_to_kernel(pgd, sp);

	if (!at || bytes > STACK_LOOK_BYTES || bpf_probe_read_kernel(w->word, bytes, (void *)at))
		return 0;
	return points_among(bytes, addr);
}

/* Whether thread @pid points at the lock of user address @addr. */
__noinline u32 user_points_at(u32 pid, u64 addr)
{
	struct stack_words *w = stack_words_here();
	struct task_struct *c = w ? bpf_task_from_pid(pid) : NULL;
	u64 pgd, sp;
	u32 bytes;

	if (!c)
		return 0;
	pgd = user_pgd(c);
	sp = ((struct pt_regs *)bpf_task_pt_regs(c))->sp & ~(sizeof(u64) - 1);
	bytes = bpf_probe_read_kernel(w->word, POINTER_REGS * sizeof(u64),
				      (void *)bpf_task_pt_regs(c)) ?
			0 :
			POINTER_REGS * sizeof(u64);
	bpf_task_release(c);
	if (points_among(bytes, addr))
		return 1;
	bytes = PAGE_BYTES - (sp & (PAGE_BYTES - 1));
	if (bytes >= STACK_LOOK_BYTES)
		return points_on_page(pgd, w, sp, STACK_LOOK_BYTES, addr);
	return points_on_page(pgd, w, sp, bytes, addr) ||
	       points_on_page(pgd, w, sp + bytes, STACK_LOOK_BYTES - bytes, addr);
}

/* See core/ports.h. Only of one that is proven to be of the waiter's process. */
static __always_inline bool edge_candidate_points(const struct task_ctx *tctx, u64 lock, u32 pid)
{
	return user_points_at(pid, tctx->futex_at);
}

#endif /* PROXY_LOCK_USERS_H */
