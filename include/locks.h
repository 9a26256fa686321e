/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Lock types. An edge is one word: the address of the lock, and in its low three
 * bits the type, which are free since every lock begins with a word of 8 bytes.
 * Append-only: a type keeps its number (events are written to files).
 */
#ifndef PROXY_LOCKS_H
#define PROXY_LOCKS_H

enum lock_type {
	LOCK_MUTEX = 0,	  /* mutex, and the base of a ww_mutex */
	LOCK_RWSEM = 1,	  /* rw_semaphore */
	LOCK_RTMUTEX = 2, /* rt_mutex: PI futexes; on PREEMPT_RT also mutexes, rwsems, spinlocks */
	LOCK_PTHREAD = 3, /* pthread_mutex_t of glibc, at its address in the kernel's map of memory */
	LOCK_BINDER = 4,  /* binder transaction: who waits for the reply -> who serves it */
	LOCK_NTSYNC = 5,  /* mutex of /dev/ntsync */
	LOCK_FUTEX = 6,	  /* lock of a program whose futex word names no owner; as pthread, 8 bytes with it in them */
	NR_LOCK_TYPES,
};

#define LOCK_TYPE_MASK 7ULL

/* bit of a type in proxy_config.locks */
#define LOCK_BIT(type) (1U << (type))

#endif /* PROXY_LOCKS_H */
