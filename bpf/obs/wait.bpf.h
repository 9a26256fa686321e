/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Events of waits: those say also what asked for the lock, and whose cgroups are
 * involved, since a task may be gone when it is asked for.
 */
#ifndef PROXY_OBS_WAIT_H
#define PROXY_OBS_WAIT_H

/* What is told of a wait beside its task and lock. */
struct wait_facts {
	u64 value;
	u64 inverted_ns;
	u32 owner;
};

/* stands in task_ctx.site_lock for whatever rt_mutex is behind the PI mutex asked for last */
#define SITE_LOCK_PI 1ULL

/* What a wait is called by: where @tctx's task asked for @lock, if that was noted. */
static __always_inline void event_fill_site(struct proxy_event *e, const struct task_ctx *tctx)
{
	bool pi = lock_type(e->lock) == LOCK_RTMUTEX && tctx->site_lock == SITE_LOCK_PI;

	if (!e->lock || !(pi || tctx->site_lock == lock_address(e->lock)))
		return;
	e->site = tctx->site;
	e->site_kind = tctx->site_kind;
}

/* include/linux/cgroup-defs.h: the default hierarchy's; 0 if it cannot be read */
static __always_inline u64 cgroup_of(struct task_struct *p)
{
	return BPF_CORE_READ(p, cgroups, dfl_cgrp, kn, id);
}

static __always_inline u64 cgroup_of_pid(u32 pid)
{
	struct task_struct *p = pid ? edge_task_get(pid) : NULL;
	u64 id;

	if (!p)
		return 0;
	id = cgroup_of(p);
	edge_task_put(p);
	return id;
}

static __always_inline void event_fill_wait(struct proxy_event *e, struct task_struct *p,
					    const struct task_ctx *tctx)
{
	e->pid = p->pid;
	e->tgid = p->tgid;
	event_fill_site(e, tctx);
	e->cgroup = cgroup_of(p);
	e->other_cgroup = cgroup_of_pid(e->other);
}

static __noinline void event_wait_send(u64 kind_and_cpu, struct task_struct *p,
				       const struct task_ctx *tctx, u64 lock,
				       const struct wait_facts *facts)
{
	struct proxy_event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);

	if (!e) {
		stat_inc(STAT_EVENT_LOST);
		return;
	}
	*e = (struct proxy_event){
		.time_ns = bpf_ktime_get_ns(),
		.lock = lock,
		.value = facts->value,
		.kind = kind_and_cpu >> 32,
		.cpu = kind_and_cpu,
		.other = facts->owner,
		.inverted_ns = facts->inverted_ns,
	};
	event_fill_wait(e, p, tctx);
	bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
}

static __always_inline void event_wait(u32 kind, s32 cpu, struct task_struct *p,
				       const struct task_ctx *tctx, u32 owner, u64 lock, u64 value,
				       u64 inverted_ns)
{
	struct wait_facts facts = {
		.value = value,
		.inverted_ns = inverted_ns,
		.owner = owner,
	};

	if (watching())
		event_wait_send((u64)kind << 32 | (u32)cpu, p, tctx, lock, &facts);
}

#endif /* PROXY_OBS_WAIT_H */
