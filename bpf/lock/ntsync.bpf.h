/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Mutexes of Windows, for Wine (drivers/misc/ntsync.c, module ntsync, /dev/ntsync).
 *
 * waiter -> lock: ntsync_schedule(), which has the wait in hand, a struct ntsync_q. All waits
 * end there, also those that need not sleep. GCC changes its arguments and so its name, which
 * is beyond fentry: hence a kprobe, which believes its first argument to be a wait of the
 * current task only if that says so. Followed are waits for one object (and Wine's alert, which stands
 * behind the objects and is not counted), if that is a mutex. Nothing is noted at the end of a wait
 * (a kretprobe loses some when many sleep): while it lasts, its entry is on the list of the object.
 * lock -> owner: a number that a thread gave as its own. Whose it is, is learned from the waits
 * of that thread, of which one got it the mutex.
 *
 * A number is learned for a process and a device, and believed if it leads to a thread of the
 * waiter's process. So a task that forges its number misleads its own process only.
 *
 * A kprobe may not touch the state of donors: real-time waiters are not seen.
 */
#ifndef PROXY_LOCK_NTSYNC_H
#define PROXY_LOCK_NTSYNC_H

#define NTSYNC_UNSIGNALED (-1)
#define NTSYNC_OWNERS_MAX 4096

enum ntsync_type___proxy {
	NTSYNC_TYPE_MUTEX___proxy = 1,
};

struct ntsync_device___proxy;

struct ntsync_obj___proxy {
	enum ntsync_type___proxy type;
	struct ntsync_device___proxy *dev;
	union {
		struct {
			u32 count;
			int owner;
		} mutex;
	} u;
} __attribute__((preserve_access_index));

struct ntsync_q_entry___proxy {
	struct list_head node;
	struct ntsync_obj___proxy *obj;
} __attribute__((preserve_access_index));

struct ntsync_q___proxy {
	struct task_struct *task;
	u32 owner;
	atomic_t signaled;
	u32 count;
	struct ntsync_q_entry___proxy entries[];
} __attribute__((preserve_access_index));

struct ntsync_owner {
	u64 dev;
	u32 tgid;
	u32 id;
};

/* [ntsync_learn() writes] pid of the thread that last waited under this number; the least used are forgotten */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, NTSYNC_OWNERS_MAX);
	__type(key, struct ntsync_owner);
	__type(value, u32);
} ntsync_owners SEC(".maps");

/* Whether this kernel has ntsync, as a module that is loaded; constant to the verifier. */
static __always_inline bool ntsync_readable(void)
{
	return bpf_core_type_exists(struct ntsync_q___proxy) &&
	       bpf_core_type_exists(struct ntsync_q_entry___proxy) &&
	       bpf_core_type_exists(struct ntsync_obj___proxy);
}

/* Whether the wait at @wait is one of @task's for the object at @at, and lasts. It may be memory of others by now. */
static __noinline bool ntsync_waits(u64 wait, u64 task, u64 at)
{
	struct ntsync_q___proxy *q = (void *)wait;
	struct list_head *prev;

	if (!ntsync_readable() || (u64)BPF_CORE_READ(q, task) != task ||
	    (u64)BPF_CORE_READ(q, entries[0].obj) != at ||
	    BPF_CORE_READ(q, signaled.counter) != NTSYNC_UNSIGNALED)
		return false;
	prev = BPF_CORE_READ(q, entries[0].node.prev);
	return (u64)BPF_CORE_READ(prev, next) ==
	       wait + bpf_core_field_offset(struct ntsync_q___proxy, entries) +
		       bpf_core_field_offset(struct ntsync_q_entry___proxy, node);
}

/* Edge word of the mutex that @p waits for, 0 if none. */
static __always_inline u64 ntsync_waited_for(struct task_struct *p, const struct task_ctx *tctx)
{
	if (!ntsync_readable() || lock_type(tctx->user_lock) != LOCK_NTSYNC)
		return 0;
	return ntsync_waits(tctx->user_addr, (u64)p, lock_address(tctx->user_lock)) ?
		       tctx->user_lock :
		       0;
}

/* The pid of the owner of the mutex at @at for a waiter of process @tgid; 0 if no task proves to be it. */
static __noinline u32 ntsync_owner_pid(u64 at, u32 tgid)
{
	struct ntsync_obj___proxy *obj = (void *)at;
	struct ntsync_owner key = {};
	struct task_struct *o;
	u32 pid = 0, *found;

	if (!ntsync_readable() || !BPF_CORE_READ(obj, u.mutex.count))
		return 0;
	key.dev = (u64)BPF_CORE_READ(obj, dev);
	key.tgid = tgid;
	key.id = BPF_CORE_READ(obj, u.mutex.owner);
	if (!key.id)
		return 0;
	found = bpf_map_lookup_elem(&ntsync_owners, &key);
	o = found ? bpf_task_from_pid(*found) : NULL;
	if (o) {
		if (o->tgid == tgid)
			pid = o->pid;
		bpf_task_release(o);
	}
	if (!pid)
		stat_inc(STAT_UNPROVEN);
	return pid;
}

/* @p, current, calls itself @id on the device at @dev. */
static __always_inline void ntsync_learn(struct task_struct *p, u64 dev, u32 id)
{
	struct ntsync_owner key = { .dev = dev, .tgid = p->tgid, .id = id };
	u32 pid = p->pid, *known;

	known = bpf_map_lookup_elem(&ntsync_owners, &key);
	if (!known || *known != pid)
		bpf_map_update_elem(&ntsync_owners, &key, &pid, BPF_ANY);
}

static __always_inline void ntsync_wait(u64 wait)
{
	struct ntsync_q___proxy *q = (void *)wait;
	struct task_struct *p = bpf_get_current_task_btf();
	struct ntsync_obj___proxy *obj;
	struct task_ctx *tctx;

	if (!ntsync_readable() || (u64)BPF_CORE_READ(q, task) != (u64)p)
		return;
	/* a wait for no object at all, or for an alert only, has nothing to learn from */
	obj = BPF_CORE_READ(q, count) ? BPF_CORE_READ(q, entries[0].obj) : NULL;
	if (obj)
		ntsync_learn(p, (u64)BPF_CORE_READ(obj, dev), BPF_CORE_READ(q, owner));
	if (BPF_CORE_READ(q, signaled.counter) != NTSYNC_UNSIGNALED)
		return;
	tctx = task_ctx_of(p);
	if (!tctx)
		return;
	tctx->user_lock = 0;
	if (!obj || BPF_CORE_READ(q, count) != 1 ||
	    BPF_CORE_READ(obj, type) != NTSYNC_TYPE_MUTEX___proxy)
		return;
	tctx->user_addr = wait;
	tctx->user_lock = (u64)obj | LOCK_NTSYNC;
}

SEC("?kprobe/ntsync_schedule")
int BPF_KPROBE(proxy_ntsync_wait, u64 wait)
{
	ntsync_wait(wait);
	return 0;
}

/* as GCC calls it that has taken its second argument apart */
SEC("?kprobe/ntsync_schedule.isra.0")
int BPF_KPROBE(proxy_ntsync_isra, u64 wait)
{
	ntsync_wait(wait);
	return 0;
}

#endif /* PROXY_LOCK_NTSYNC_H */
