/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Reader-writer semaphores (kernel/locking/rwsem.c).
 *
 * waiter -> lock: tracepoint lock:contention_begin, which rwsem_down_read_slowpath()
 * and rwsem_down_write_slowpath() emit before they sleep, and contention_end
 * (contention.bpf.h). task->blocker would name it as well, but not for killable
 * waits, and mmap() waits for its address space in one.
 * lock -> owner: rw_semaphore.owner, a task pointer whose low two bits are flags,
 * while bit 0 of .count says that a writer has it. While readers have it the word
 * is a hint at one of them, or at one of old: nobody is lent to, it is counted.
 * lock -> first waiter: .first_waiter (7.3), head of .wait_list before.
 *
 * On PREEMPT_RT an rwsem is made of an rt_mutex and has no such words: there its
 * waiters are seen as those of the rt_mutex.
 */
#ifndef PROXY_LOCK_RWSEM_H
#define PROXY_LOCK_RWSEM_H

/* kernel/locking/rwsem.c */
#define RWSEM_WRITER_LOCKED 1UL
#define RWSEM_READERS (~0xffUL)
#define RWSEM_READER_OWNED 1UL
#define RWSEM_OWNER_FLAGS 3UL

/* CO-RE flavours: the kernel that runs us need not have these fields */
struct rw_semaphore___proxy {
	atomic_long_t count;
	atomic_long_t owner;
} __attribute__((preserve_access_index));

struct rwsem_waiter___proxy {
	struct list_head list;
	struct task_struct *task;
} __attribute__((preserve_access_index));

struct rw_semaphore___first {
	struct rwsem_waiter___proxy *first_waiter;
} __attribute__((preserve_access_index));

struct rw_semaphore___list {
	struct list_head wait_list;
} __attribute__((preserve_access_index));

static __always_inline bool rwsem_readable(void)
{
	struct rw_semaphore___proxy *s = NULL;

	return bpf_core_field_exists(s->count) && bpf_core_field_exists(s->owner);
}

/* Edge word of the rwsem that @tctx's task sleeps on, 0 if none. */
static __always_inline u64 rwsem_waited_for(const struct task_ctx *tctx)
{
	u64 lock = tctx->contended_lock;

	return lock_type(lock) == LOCK_RWSEM ? lock : 0;
}

static __always_inline u64 rwsem_count(u64 at)
{
	struct rw_semaphore___proxy *s = (void *)at;

	return rwsem_readable() ? BPF_CORE_READ(s, count.counter) : 0;
}

/* Address of the writer that owns the rwsem at @at, 0 if none does. Not to be dereferenced. */
static __always_inline u64 rwsem_owner_word(u64 at)
{
	struct rw_semaphore___proxy *s = (void *)at;
	u64 count = rwsem_count(at), word;

	if (count & RWSEM_WRITER_LOCKED) {
		word = (u64)BPF_CORE_READ(s, owner.counter);
		/* the writer has not put its name there yet: it is the one of a reader before it */
		return word & RWSEM_READER_OWNED ? 0 : word & ~RWSEM_OWNER_FLAGS;
	}
	if (count & RWSEM_READERS)
		stat_inc(STAT_READER_OWNED);
	return 0;
}

/*
 * Address of the task that is first in line, 0 if there is none, or if readers
 * have the lock: then it is they who keep the donor waiting.
 */
static __always_inline u64 rwsem_first_waiter_word(u64 at)
{
	struct rw_semaphore___first *by_waiter = (void *)at;
	struct rw_semaphore___list *by_list = (void *)at;
	struct rwsem_waiter___proxy *w = NULL;
	u64 first;

	if (rwsem_count(at) & RWSEM_READERS)
		return 0;
	if (bpf_core_field_exists(by_waiter->first_waiter)) {
		w = BPF_CORE_READ(by_waiter, first_waiter);
	} else if (bpf_core_field_exists(by_list->wait_list)) {
		first = (u64)BPF_CORE_READ(by_list, wait_list.next);
		if (first == at + bpf_core_field_offset(by_list->wait_list))
			return 0;
		w = (void *)(first - bpf_core_field_offset(w->list));
	}
	return w ? (u64)BPF_CORE_READ(w, task) : 0;
}

#endif /* PROXY_LOCK_RWSEM_H */
