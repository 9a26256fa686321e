/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Counters. One copy per CPU; the CPU that runs the program is the only writer of
 * its copy, the stats server sums them (src/stats). Never read by a decision.
 */
#ifndef PROXY_OBS_STAT_H
#define PROXY_OBS_STAT_H

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, NR_PROXY_STATS);
	__type(key, u32);
	__type(value, u64);
} proxy_stats SEC(".maps");

static __always_inline void stat_add(u32 stat, u64 n)
{
	u64 *count = bpf_map_lookup_elem(&proxy_stats, &stat);

	if (count)
		*count += n;
}

static __always_inline void stat_inc(u32 stat)
{
	stat_add(stat, 1);
}

#endif /* PROXY_OBS_STAT_H */
