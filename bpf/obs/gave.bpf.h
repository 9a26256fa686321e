/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Time given by donors: who ran for how long in whose context. Sent only while somebody watches, since a
 * donated slice ends that often; the sum over all is counted anyway (STAT_DONATED_NS).
 */
#ifndef PROXY_OBS_GAVE_H
#define PROXY_OBS_GAVE_H

__noinline int event_gave_send(u64 cpu, u64 pids, u64 ns)
{
	struct proxy_event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	u32 donor_pid = pids >> 32, owner_pid = pids;

	if (!e) {
		stat_inc(STAT_EVENT_LOST);
		return 0;
	}
	*e = (struct proxy_event){
		.time_ns = bpf_ktime_get_ns(),
		.value = ns,
		.kind = EVENT_GAVE,
		.cpu = cpu,
		.pid = donor_pid,
		.other = owner_pid,
		.cgroup = cgroup_of_pid(donor_pid),
		.other_cgroup = cgroup_of_pid(owner_pid),
	};
	bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
	return 0;
}

static __always_inline void event_gave(u32 donor_pid, u32 owner_pid, u64 ns)
{
	if (watching())
		event_gave_send(port_this_cpu(), (u64)donor_pid << 32 | owner_pid, ns);
}

#endif /* PROXY_OBS_GAVE_H */
