/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Binder transactions (drivers/android/binder.c, module binder_linux): no lock, but
 * the same thing. A client that waits for a reply waits for one thread of the
 * server, which serves no other client meanwhile.
 *
 * waiter -> transaction: tracepoint binder_transaction, in the client, which then
 * sleeps in binder_wait_for_work() until the reply is there. The transaction names
 * its client, and loses that name when it is answered (binder_pop_transaction_ilocked()):
 * one that does not name @p any more, or is not on top of the client's stack, is none
 * that @p waits for.
 * transaction -> server: .to_thread once a thread has taken it. Until then it is on
 * the work list of the thread that was chosen and woken for it, if one was idle;
 * binder lends that thread the client's nice value, but only once it runs.
 *
 * A thread is believed if it is of the process that the transaction is for.
 */
#ifndef PROXY_LOCK_BINDER_H
#define PROXY_LOCK_BINDER_H

#define BINDER_ONE_WAY 1U /* include/uapi/linux/android/binder.h TF_ONE_WAY */

struct binder_work___proxy {
	struct list_head entry;
} __attribute__((preserve_access_index));

struct binder_proc___proxy {
	int pid;
} __attribute__((preserve_access_index));

struct binder_transaction___proxy;

struct binder_thread___proxy {
	struct binder_proc___proxy *proc;
	int pid;
	struct binder_transaction___proxy *transaction_stack;
	struct list_head todo;
} __attribute__((preserve_access_index));

struct binder_transaction___proxy {
	struct binder_work___proxy work;
	struct binder_thread___proxy *from;
	struct binder_proc___proxy *to_proc;
	struct binder_thread___proxy *to_thread;
	unsigned int flags;
} __attribute__((preserve_access_index));

/* Whether this kernel has binder, as a module that is loaded; constant to the verifier. */
static __always_inline bool binder_readable(void)
{
	return bpf_core_type_exists(struct binder_transaction___proxy) &&
	       bpf_core_type_exists(struct binder_thread___proxy);
}

/* Edge word of the transaction that @p waits to be answered, 0 if none. */
static __always_inline u64 binder_waited_for(struct task_struct *p, const struct task_ctx *tctx)
{
	struct binder_transaction___proxy *t;
	struct binder_thread___proxy *th;

	if (!binder_readable() || lock_type(tctx->user_lock) != LOCK_BINDER)
		return 0;
	t = (void *)lock_address(tctx->user_lock);
	th = BPF_CORE_READ(t, from);
	/* on top of its stack: not while it serves a call itself, nor if sending this one failed */
	if ((u32)BPF_CORE_READ(th, pid) != (u32)p->pid || BPF_CORE_READ(th, transaction_stack) != t)
		return 0;
	return tctx->user_lock;
}

/* Pid of the thread to whose work list @entry, the head of a list, belongs; 0 if it is not one of @proc's. */
static __always_inline u32 binder_listed_pid(u64 entry, struct binder_proc___proxy *proc)
{
	struct binder_thread___proxy *th = NULL;

	th = (void *)(entry - bpf_core_field_offset(th->todo));
	return BPF_CORE_READ(th, proc) == proc ? BPF_CORE_READ(th, pid) : 0;
}

/* The pid of the thread that serves the transaction at @at, or is about to; 0 if none is known. */
static __always_inline u32 binder_server_pid(u64 at)
{
	struct binder_transaction___proxy *t = (void *)at;
	struct binder_thread___proxy *th;
	struct binder_proc___proxy *proc;
	struct task_struct *o;
	u32 pid;

	if (!binder_readable())
		return 0;
	proc = BPF_CORE_READ(t, to_proc);
	th = BPF_CORE_READ(t, to_thread);
	if (!proc)
		return 0;
	if (th) {
		pid = BPF_CORE_READ(th, pid);
	} else {
		pid = binder_listed_pid((u64)BPF_CORE_READ(t, work.entry.next), proc);
		if (!pid)
			pid = binder_listed_pid((u64)BPF_CORE_READ(t, work.entry.prev), proc);
	}
	o = pid ? bpf_task_from_pid(pid) : NULL;
	if (!o)
		return 0;
	if (o->tgid != BPF_CORE_READ(proc, pid)) {
		stat_inc(STAT_UNPROVEN);
		pid = 0;
	}
	bpf_task_release(o);
	return pid;
}

SEC("?tp_btf/binder_transaction")
int BPF_PROG(proxy_binder_transaction, bool reply, struct binder_transaction___proxy *t)
{
	struct task_ctx *tctx;

	if (!binder_readable() || reply || (BPF_CORE_READ(t, flags) & BINDER_ONE_WAY))
		return 0;
	tctx = task_ctx_of(bpf_get_current_task_btf());
	if (!tctx)
		return 0;
	/* the verifier wants no arithmetic on pointers: what is read back is a number to it */
	*(volatile u64 *)&tctx->user_lock = (u64)t;
	*(volatile u64 *)&tctx->user_lock |= LOCK_BINDER;
	return 0;
}

#endif /* PROXY_LOCK_BINDER_H */
