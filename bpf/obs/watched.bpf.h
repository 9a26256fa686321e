/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Whether anybody watches. What only watchers want to know is neither sent nor computed while nobody does: events of
 * waits and donations, and what asked for a lock.
 */
#ifndef PROXY_OBS_WATCHED_H
#define PROXY_OBS_WATCHED_H

/* [the agent writes] 1: somebody follows the events, or the agent itself, to find a hint that was asked for */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u32);
} watched SEC(".maps");

static __always_inline bool watching(void)
{
	u32 key = 0, *on;

	if (!cfg.events)
		return false;
	on = bpf_map_lookup_elem(&watched, &key);
	return on && *(volatile u32 *)on;
}

#endif /* PROXY_OBS_WATCHED_H */
