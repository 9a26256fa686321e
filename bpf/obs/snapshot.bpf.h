/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * All waits that go on, read from the tasks themselves: for the agent, when watching
 * begins and when events were lost. Runs in the agent's own read(), changes nothing.
 */
#ifndef PROXY_OBS_SNAPSHOT_H
#define PROXY_OBS_SNAPSHOT_H

SEC("iter/task")
int proxy_snapshot(struct bpf_iter__task *ctx)
{
	struct task_struct *p = ctx->task;
	struct proxy_event e = {};
	struct task_ctx *tctx;
	u64 delay_ns;
	u32 owner;

	if (!p)
		return 0;
	tctx = task_ctx_of(p);
	if (!tctx || !tctx->token)
		return 0;
	e.lock = edge_lock(p, tctx);
	if (!e.lock)
		return 0;
	e.time_ns = tctx->blocked_at_ns;
	e.value = tctx->wait_seq;
	e.kind = EVENT_SNAPSHOT;
	e.cpu = tctx->wait_cpu;
	e.other = edge_owner_pid(p, tctx, e.lock);
	e.inverted_ns = inversion_so_far(tctx, port_now(), &owner, &delay_ns);
	event_fill_wait(&e, p, tctx);
	bpf_seq_write(ctx->meta->seq, &e, sizeof(e));
	return 0;
}

#endif /* PROXY_OBS_SNAPSHOT_H */
