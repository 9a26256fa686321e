/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Events for the agent (include/events.h). A full ring loses them, counted; no
 * decision waits for one. Nobody is woken either: the agent comes by itself, since
 * a wakeup from under a run queue's lock would cost more than the event. Those of
 * waits say more: wait.bpf.h.
 *
 * While nobody watches (watched.bpf.h), only what the agent itself works with is sent: walks that were given up, and
 * of some returns what came of them.
 */
#ifndef PROXY_OBS_EVENT_H
#define PROXY_OBS_EVENT_H

/* max_entries in bytes: set by the loader */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 12);
} events SEC(".maps");

/* of so many returns one is told while nobody watches: means are made of them (src/agent/outcomes.rs) */
#define RETURNS_FOR_ONE 16

static __always_inline bool event_wanted(u32 kind)
{
	if (kind == EVENT_TRUNCATED || kind == EVENT_CYCLE || watching())
		return true;
	return kind == EVENT_RETURN && !(bpf_get_prandom_u32() % RETURNS_FOR_ONE);
}

/* a BPF function has five arguments at the most */
__noinline int event_send(u64 kind_and_cpu, u64 pids, u64 lock, u64 value)
{
	u32 kind = kind_and_cpu >> 32;
	struct proxy_event *e;

	if (!event_wanted(kind))
		return 0;
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		stat_inc(STAT_EVENT_LOST);
		return 0;
	}
	*e = (struct proxy_event){
		.time_ns = bpf_ktime_get_ns(),
		.lock = lock,
		.value = value,
		.kind = kind,
		.cpu = kind_and_cpu,
		.pid = pids >> 32,
		.other = pids,
	};
	bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
	return 0;
}

static __always_inline void event(u32 kind, s32 cpu, u32 pid, u32 other, u64 lock, u64 value)
{
	if (cfg.events)
		event_send((u64)kind << 32 | (u32)cpu, (u64)pid << 32 | other, lock, value);
}

#endif /* PROXY_OBS_EVENT_H */
