/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Mutexes of user space: pthread_mutex_t of glibc on x86-64, of all kinds but
 * PTHREAD_PRIO_INHERIT (rtmutex.bpf.h) and PTHREAD_PRIO_PROTECT.
 *
 * waiter -> lock: FUTEX_WAIT (futex.bpf.h). Condition variables, semaphores, barriers, joins and
 * locks of other libraries wait there as well. What is a mutex shows in the waiter's
 * memory: the value waited for is the one of a contended mutex, the kind is one that
 * exists, and the owner's TID is that of a thread of the same process. All else is
 * counted (STAT_WAIT_FUTEX, STAT_UNPROVEN) and left alone.
 * lock -> owner: the TID in the mutex, read anew for each walk (usermem.bpf.h).
 *
 * Memory of a process proves nothing about others. So a TID is believed only if it
 * is a thread of the waiter's process, or, of a mutex shared by processes, a task
 * that has the same page at the same address. Processes in a pid namespace of
 * their own write TIDs that mean something else out here: not believed.
 */
#ifndef PROXY_LOCK_PTHREAD_H
#define PROXY_LOCK_PTHREAD_H

#include "usermem.bpf.h"

/* nptl/pthreadP.h, sysdeps/nptl/bits/struct_mutex.h of glibc */
#define PTHREAD_CONTENDED 2U
#define PTHREAD_KIND_ROBUST 0x10U
#define PTHREAD_KIND_KNOWN 0x393U /* type, robust, shared, elision and its opposite */
#define PTHREAD_WORDS 3

/* include/uapi/linux/futex.h */
#define FUTEX_WAITERS 0x80000000U
#define FUTEX_TID_MASK 0x3fffffffU

/* include/linux/threads.h */
#define PID_MAX_LIMIT (4U * 1024 * 1024)

/* kernel/futex/futex.h */
#define FUTEX_FLAGS_SIZE 3U
#define FUTEX_FLAGS_SIZE_32 2U
#define FUTEX_FLAGS_SHARED 0x10U

/* The beginning of a pthread_mutex_t. */
union pthread_words {
	struct {
		u32 lock, count;
		u32 owner, nusers;
		u32 kind, spins;
	};
	u64 word[PTHREAD_WORDS];
};

/* The TID that the mutex names as its owner, 0 if it is free or no mutex. */
static __always_inline u32 pthread_owner_tid(const union pthread_words *m)
{
	if (m->kind & ~PTHREAD_KIND_KNOWN)
		return 0;
	if (m->kind & PTHREAD_KIND_ROBUST)
		return m->lock & FUTEX_TID_MASK;
	/* 1: taken just now by somebody who does not know of the waiters */
	return m->nusers && m->lock && m->lock <= PTHREAD_CONTENDED ? m->owner : 0;
}

/* Whether a task that waits for @val may wait for a mutex: a contended one, or a robust one's TID. */
static __always_inline bool pthread_waits_for(u32 val)
{
	u32 tid = val & FUTEX_TID_MASK;

	return val == PTHREAD_CONTENDED || ((val & FUTEX_WAITERS) && tid && tid <= PID_MAX_LIMIT);
}

static __always_inline u64 pthread_waited_for(const struct task_ctx *tctx)
{
	return lock_type(tctx->user_lock) == LOCK_PTHREAD ? tctx->user_lock : 0;
}

static __always_inline u32 pid_namespace_level(struct task_struct *p)
{
	return BPF_CORE_READ(p, thread_pid, level);
}

/* Whether @p may lend to @o, whose TID its mutex at @addr names. */
static __always_inline bool pthread_believed(struct task_struct *p, struct task_struct *o,
					     u64 addr, u32 flags)
{
	u64 at;

	if (o->tgid == p->tgid)
		return true;
	if (!(flags & FUTEX_FLAGS_SHARED) || pid_namespace_level(o))
		return false;
	at = user_to_kernel(user_pgd(p), addr);
	return at && user_to_kernel(user_pgd(o), addr) == at;
}

/* The TID in the mutex at user address @addr now, 0 if it names none. */
__noinline u32 pthread_tid_at(u64 pgd, u64 addr)
{
	union pthread_words m = {};
	u64 at = 0;
	u32 i;

	bpf_for(i, 0, PTHREAD_WORDS) {
		/* it may lie across a border of pages */
		if (!i || !((addr + i * 8) & (PAGE_BYTES - 1)))
			at = user_to_kernel(pgd, addr + i * 8);
		if (!at || i >= PTHREAD_WORDS)
			return 0;
		m.word[i] = kernel_word(at);
		at += 8;
	}
	return pthread_owner_tid(&m);
}

/* The pid of the owner of the mutex that @p waits for, 0 if nobody proves to be it. */
static __always_inline u32 pthread_owner_pid(struct task_struct *p, const struct task_ctx *tctx)
{
	u32 tid = pthread_tid_at(user_pgd(p), tctx->user_addr);
	struct task_struct *o = tid ? bpf_task_from_pid(tid) : NULL;

	if (!tid)
		return 0;
	if (!o || !pthread_believed(p, o, tctx->user_addr, tctx->user_flags)) {
		stat_inc(STAT_UNPROVEN);
		tid = 0;
	}
	if (o)
		bpf_task_release(o);
	return tid;
}

/* What @p, current, waits for: an edge word, 0 if it is no mutex that can be followed. */
static __always_inline u64 pthread_edge(struct task_struct *p, struct task_ctx *tctx, u64 addr,
					u32 val, bool shared)
{
	u64 at;

	/* a mutex of 64-bit code begins with a word of 8 bytes */
	if (!pthread_waits_for(val) || (addr & LOCK_TYPE_MASK))
		return 0;
	if (pid_namespace_level(p))
		return 0;
	tctx->user_addr = addr;
	tctx->user_flags = shared ? FUTEX_FLAGS_SHARED : 0;
	if (!pthread_owner_pid(p, tctx))
		return 0;
	at = user_to_kernel(user_pgd(p), addr);
	return at ? at | LOCK_PTHREAD : 0;
}

#endif /* PROXY_LOCK_PTHREAD_H */
