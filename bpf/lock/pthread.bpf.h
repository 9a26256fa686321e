/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Mutexes of user space that name their owner:
 * - pthread_mutex_t of glibc on x86-64 and, of 32-bit programs, on i386, of all kinds but PTHREAD_PRIO_INHERIT
 *   (rtmutex.bpf.h) and PTHREAD_PRIO_PROTECT: the owner's TID stands beside the futex word;
 * - mutexes whose futex word is the owner's TID: glibc's robust ones, musl's recursive,
 *   error-checking and robust ones;
 * - pthread_rwlock_t of glibc, and with it std::shared_mutex, while a writer holds it: its TID
 *   stands behind the two futex words.
 *
 * waiter -> lock: FUTEX_WAIT (futex.bpf.h). Condition variables, semaphores, barriers, joins and
 * locks of other libraries wait there as well. What is a mutex shows in the value waited
 * for and in the waiter's memory. The value is that of a contended mutex of glibc; then the kind is one that
 * exists, and the owner's TID is that of a thread of the same process. Or the value is
 * itself the TID of such a thread, with FUTEX_WAITERS. All else is
 * counted (STAT_WAIT_FUTEX, STAT_UNPROVEN) and left alone.
 * lock -> owner: the TID in the mutex, read anew for each walk (usermem.bpf.h), which in a
 * pid namespace is a number there (pidns.bpf.h).
 *
 * Memory of a process proves nothing about others. So a TID is believed only if it
 * is a thread of the waiter's process, or, of a mutex shared by processes, a task
 * of the same pid namespace that has the same page at the same address.
 */
#ifndef PROXY_LOCK_PTHREAD_H
#define PROXY_LOCK_PTHREAD_H

#include "usermem.bpf.h"
#include "pidns.bpf.h"

/* nptl/pthreadP.h, sysdeps/nptl/bits/struct_mutex.h of glibc */
#define PTHREAD_CONTENDED 2U
#define PTHREAD_KIND_ROBUST 0x10U
#define PTHREAD_KIND_KNOWN 0x393U /* type, robust, shared, elision and its opposite */
#define PTHREAD_WORDS 6

/* src/internal/pthread_impl.h of musl: the mutex is its type and then the futex word */
#define MUSL_WORD_OFFSET 4U
#define MUSL_TYPE_MASK 15U
#define MUSL_NORMAL 16U /* EBUSY, in the word of a normal mutex (type 0): it names no owner */

/* include/uapi/linux/futex.h */
#define FUTEX_WAITERS 0x80000000U
#define FUTEX_OWNER_DIED 0x40000000U
#define FUTEX_TID_MASK 0x3fffffffU

/* include/linux/threads.h */
#define PID_MAX_LIMIT (4U * 1024 * 1024)

/* kernel/futex/futex.h */
#define FUTEX_FLAGS_SIZE 3U
#define FUTEX_FLAGS_SIZE_32 2U
#define FUTEX_FLAGS_SHARED 0x10U

/* task_ctx.user_flags: how the wait at user_addr is to be read */
#define USER_SHARED 1U	/* the owner may be of another process */
#define USER_IN_WORD 2U /* the futex word is the owner's TID */
#define USER_IN_PIDNS 4U /* TIDs are numbers of a pid namespace */
#define USER_RWLOCK 8U	 /* it is a pthread_rwlock_t */
#define USER_32 16U	 /* it is laid out as on i386 */

/* The beginning of a pthread_mutex_t. */
union pthread_words {
	struct {
		u32 lock, count;
		u32 owner, nusers;
		u32 kind, spins;
	};
	struct {
		u32 as_64[3], kind_32, nusers_32;
	};
	u32 word[PTHREAD_WORDS];
};

/* sysdeps/x86/nptl/bits/struct_rwlock.h, nptl/pthread_rwlock_common.c of glibc */
#define RWLOCK_WRPHASE_OFFSET 8U  /* where readers wait, and the first writer for readers */
#define RWLOCK_WRITERS_OFFSET 12U /* where further writers wait */
#define RWLOCK_HELD 3U /* waited for: 1, and PTHREAD_RWLOCK_FUTEX_USED */
#define RWLOCK_WRITER 3U /* in readers: PTHREAD_RWLOCK_WRPHASE, PTHREAD_RWLOCK_WRLOCKED */

/* The beginning of a pthread_rwlock_t. */
struct rwlock_words {
	u32 readers, writers;
	u32 wrphase_futex, writers_futex;
	u32 pad[2];
	u32 cur_writer, shared;
};

/* The TID that the rwlock at user address @addr names as its writer, 0 if there is none, or it is none. */
__noinline u32 rwlock_tid_at(u64 pgd, u64 addr)
{
	struct rwlock_words l = {};
	u64 at;

	/* across a border of pages: not worth the trouble */
	if ((addr & (PAGE_BYTES - 1)) > PAGE_BYTES - sizeof(l))
		return 0;
	at = user_to_kernel(pgd, addr);
	if (!at)
		return 0;
	bpf_probe_read_kernel(&l, sizeof(l), (void *)at);
	if ((l.readers & RWLOCK_WRITER) != RWLOCK_WRITER || !(l.wrphase_futex & 1) ||
	    !(l.writers_futex & 1) || (l.wrphase_futex | l.writers_futex) > RWLOCK_HELD)
		return 0;
	return l.pad[0] || l.pad[1] || l.shared > 1 ? 0 : l.cur_writer;
}

/* Where the rwlock begins, one of whose words may be the one at @addr. */
static __always_inline u64 rwlock_of_word(u64 addr)
{
	return addr - (addr & 4 ? RWLOCK_WRITERS_OFFSET : RWLOCK_WRPHASE_OFFSET);
}

/* The TID that the mutex names as its owner, 0 if it is free or no mutex. */
static __always_inline u32 pthread_owner_tid(const union pthread_words *m, u32 flags)
{
	u32 kind = flags & USER_32 ? m->kind_32 : m->kind;
	u32 nusers = flags & USER_32 ? m->nusers_32 : m->nusers;

	if (kind & (~PTHREAD_KIND_KNOWN | PTHREAD_KIND_ROBUST))
		return 0;
	/* 1: just taken by a task that does not know of the waiters */
	return nusers && m->lock && m->lock <= PTHREAD_CONTENDED ? m->owner : 0;
}

/* Whether @val, which is waited for, is a word that names its owner. */
static __always_inline bool pthread_in_word(u32 val)
{
	u32 tid = val & FUTEX_TID_MASK;

	/* its owner died; also what a reader of Rust's RwLock waits for, with a number that is no TID */
	if (val & FUTEX_OWNER_DIED)
		return false;
	return (val & FUTEX_WAITERS) && tid && tid <= PID_MAX_LIMIT;
}

/*
 * Whether a word of that value may be of a normal mutex of musl, whose type then says so. It may
 * also be of a thread with the TID 16, of which there are many: one in each container.
 */
static __always_inline bool musl_normal(struct task_struct *p, u64 addr, u32 val, u32 flags)
{
	u64 at;

	/* 64-bit code aligns mutexes to 8 bytes */
	if ((!(addr & MUSL_WORD_OFFSET) && !(flags & USER_32)) ||
	    (val & FUTEX_TID_MASK) != MUSL_NORMAL)
		return false;
	at = user_to_kernel(user_pgd(p), addr - MUSL_WORD_OFFSET);
	return !at || !(kernel_half(at) & MUSL_TYPE_MASK);
}

static __always_inline u64 pthread_waited_for(const struct task_ctx *tctx)
{
	return lock_type(tctx->user_lock) == LOCK_PTHREAD ? tctx->user_lock : 0;
}

/* Whether @p may lend to @o, whose TID its mutex at @addr names. */
static __always_inline bool pthread_believed(struct task_struct *p, struct task_struct *o, u64 addr,
					     u32 flags)
{
	u64 at;

	if (edge_tgid(o) == (u32)p->tgid)
		return true;
	/* pidns_pid() finds none but those of the waiter's own namespace */
	if (!(flags & USER_SHARED) || (!(flags & USER_IN_PIDNS) && pid_namespace_level(o)))
		return false;
	at = user_to_kernel(user_pgd(p), addr);
	return at && user_to_kernel(user_pgd(o), addr) == at;
}

/* The TID in the mutex at user address @addr now, 0 if it names none. */
__noinline u32 pthread_tid_at(u64 pgd, u64 addr, u32 flags)
{
	u64 at = user_to_kernel(pgd, addr);
	union pthread_words m = {};
	u32 i;

	if (!at)
		return 0;
	if (flags & USER_IN_WORD)
		return kernel_half(at) & FUTEX_TID_MASK;
	if ((addr & (PAGE_BYTES - 1)) <= PAGE_BYTES - sizeof(m)) {
		bpf_probe_read_kernel(&m, sizeof(m), (void *)at);
		return pthread_owner_tid(&m, flags);
	}
	/* it lies across a border of pages */
	bpf_for(i, 0, PTHREAD_WORDS) {
		if (!((addr + i * 4) & (PAGE_BYTES - 1)))
			at = user_to_kernel(pgd, addr + i * 4);
		if (!at || i >= PTHREAD_WORDS)
			return 0;
		m.word[i] = kernel_half(at);
		at += 4;
	}
	return pthread_owner_tid(&m, flags);
}

/* The pid of the owner of the mutex that @p waits for, 0 if no task proves to be it. */
static __always_inline u32 pthread_owner_pid(struct task_struct *p, const struct task_ctx *tctx)
{
	u32 flags = tctx->user_flags;
	u64 pgd = user_pgd(p);
	u32 tid = flags & USER_RWLOCK ? rwlock_tid_at(pgd, tctx->user_addr) :
					pthread_tid_at(pgd, tctx->user_addr, flags);
	struct task_struct *o;
	u32 pid = tid;

	if (!tid)
		return 0;
	if (flags & USER_IN_PIDNS)
		pid = pidns_pid((u64)BPF_CORE_READ(p, thread_pid), tid);
	o = pid ? edge_task_get(pid) : NULL;
	if (!o || !pthread_believed(p, o, tctx->user_addr, flags)) {
		stat_inc(STAT_UNPROVEN);
		pid = 0;
	}
	if (o)
		edge_task_put(o);
	return pid;
}

/*
 * See core/ports.h. Memory of the waiter is proof of nothing: who is lent to is told as an owner is, but for a process of
 * another pid namespace, since a pid that was remembered may have been given again. Not of an rwlock: readers that have
 * it are not named either.
 */
static __always_inline bool edge_releaser_proven(struct task_struct *p, const struct task_ctx *tctx,
						 u64 lock, u32 pid)
{
	struct task_struct *o;
	bool believed;

	if (!lock_followed(LOCK_PTHREAD) || lock_type(lock) != LOCK_PTHREAD ||
	    (tctx->user_flags & USER_RWLOCK))
		return false;
	o = edge_task_get(pid);
	if (!o)
		return false;
	believed = pthread_believed(p, o, tctx->user_addr, tctx->user_flags & ~USER_IN_PIDNS);
	edge_task_put(o);
	return believed;
}

/*
 * What @p, current, waits for at @addr: an edge word, 0 if it is no mutex that can be followed.
 * @flags: USER_SHARED, USER_32.
 */
static __always_inline u64 pthread_edge(struct task_struct *p, struct task_ctx *tctx, u64 addr,
					u32 val, u32 flags)
{
	u64 at;

	if (pthread_in_word(val)) {
		if (musl_normal(p, addr, val, flags))
			return 0;
		flags |= USER_IN_WORD;
	} else if (val == RWLOCK_HELD && !(addr & 3) && !(flags & USER_32)) {
		flags |= USER_RWLOCK;
		addr = rwlock_of_word(addr);
	} else if (val != PTHREAD_CONTENDED || (!(flags & USER_32) && (addr & LOCK_TYPE_MASK))) {
		return 0; /* a mutex of 64-bit code begins with a word of 8 bytes */
	}
	if (pid_namespace_level(p))
		flags |= USER_IN_PIDNS;
	tctx->user_addr = addr;
	tctx->user_flags = flags;
	if (!pthread_owner_pid(p, tctx))
		return 0;
	at = user_to_kernel(user_pgd(p), addr);
	return at ? (at & ~LOCK_TYPE_MASK) | LOCK_PTHREAD : 0;
}

#endif /* PROXY_LOCK_PTHREAD_H */
