/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Reader-writer semaphores (kernel/locking/rwsem.c).
 *
 * waiter -> lock: tracepoint lock:contention_begin, which rwsem_down_read_slowpath()
 * and rwsem_down_write_slowpath() emit before they sleep, and contention_end
 * (contention.bpf.h). Should the former have been skipped, task->blocker names it as well (6.17), but not for
 * killable waits, and mmap() waits for its address space in one.
 * lock -> owner: rw_semaphore.owner, a task pointer whose low two bits are flags,
 * while bit 0 of .count says that a writer has it. While readers have it the word names the
 * last that came. Kernels that tell hung tasks which task they wait for (6.18) clear it when that one goes, even
 * if others stay; on others it may be one of old, and is not believed. A reader must also be where it can
 * have the lock: asleep, or stopped inside the kernel. A task in user mode has none. Nobody else is lent to, which is counted.
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

struct task_struct___blocker {
	unsigned long blocker;
} __attribute__((preserve_access_index));

/* include/linux/hung_task.h: in the low bits of task->blocker */
#define BLOCKER_MASK 3UL
#define BLOCKER_RWSEM 2UL /* or 3: a reader, a writer */

/* of kernels that clear the name of a reader that goes (CONFIG_DETECT_HUNG_TASK_BLOCKER) */
extern const void is_rwsem_reader_owned __ksym __weak;

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

/* Edge word of the rwsem that @p sleeps on, 0 if none. */
static __always_inline u64 rwsem_waited_for(struct task_struct *p, const struct task_ctx *tctx)
{
	struct task_struct___blocker *t = (void *)p;
	u64 lock = tctx->contended_lock;

	if (lock_type(lock) == LOCK_RWSEM)
		return lock;
	/* of other classes only what the tracepoint has seen begin, and not end */
	if (!bpf_core_field_exists(t->blocker) || edge_by_tracepoint(tctx))
		return 0;
	lock = t->blocker;
	return (lock & BLOCKER_MASK) >= BLOCKER_RWSEM ? (lock & ~BLOCKER_MASK) | LOCK_RWSEM : 0;
}

static __always_inline u64 rwsem_count(u64 at)
{
	struct rw_semaphore___proxy *s = (void *)at;

	return rwsem_readable() ? BPF_CORE_READ(s, count.counter) : 0;
}

/* The pid of the reader that @word names, 0 unless that one has the lock. */
static __always_inline u32 rwsem_reader_pid(u64 word)
{
	u32 pid;

	if (!&is_rwsem_reader_owned || !(word & RWSEM_READER_OWNED))
		return 0;
	pid = edge_task_pid(word & ~RWSEM_OWNER_FLAGS);
	return pid && stack_is_in_kernel(pid) ? pid : 0;
}

/* The pid of the owner of the rwsem at @at, 0 if it has none, or none that is proven. */
static __always_inline u32 rwsem_owner_pid(u64 at)
{
	struct rw_semaphore___proxy *s = (void *)at;
	u64 count = rwsem_count(at), word;
	u32 pid;

	if (!(count & (RWSEM_WRITER_LOCKED | RWSEM_READERS)))
		return 0;
	word = (u64)BPF_CORE_READ(s, owner.counter);
	/* else the writer has not put its name there yet: it is the one of a reader before it */
	if (count & RWSEM_WRITER_LOCKED)
		return word & RWSEM_READER_OWNED ? 0 : edge_task_pid(word & ~RWSEM_OWNER_FLAGS);
	pid = rwsem_reader_pid(word);
	if (!pid)
		stat_inc(STAT_READER_OWNED);
	return pid;
}

/*
 * Address of the task that is first in line, 0 if there is none, or if readers
 * have the lock: then the donor waits for them.
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
