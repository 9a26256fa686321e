/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Return migration: where a donor goes that wakes while no CPU is idle. Home,
 * where its caches are, or the CPU of its lock's owner: that one ran in the
 * donor's context, loses it now, and with it, most likely, its CPU.
 *
 * Pure: facts in, choice out. The facts are gathered in core/task.h.
 */
#ifndef PROXY_CORE_RETURN_H
#define PROXY_CORE_RETURN_H

enum return_policy {
	RETURN_POLICY_AUTO = 0, /* the rule below */
	RETURN_POLICY_HOME = 1, /* always home */
	RETURN_POLICY_OWNER = 2, /* the owner's CPU whenever the donor may run there */
};

struct return_facts {
	u64 waited_ns;
	s32 away;	   /* the CPU where it lends */
	bool owner_runs;   /* an owner runs in its context now ... */
	bool owner_allowed; /* ... on another CPU than home, where the donor may run */
	bool home_busy;	   /* a task of ours runs at home */
	bool shares_cache; /* home and the owner's CPU have a last-level cache in common */
	/* how far what runs there is ahead of its CPU's clock: more is easier to preempt */
	s64 home_lead;
	s64 owner_lead;
	s64 owner_bias_ns; /* of the agent: what it measured against the owner's CPU */
};

static inline enum return_choice return_choose(const struct return_facts *f, u32 policy,
					       u64 cold_ns, u64 margin_ns)
{
	s64 need = f->owner_bias_ns;

	if (policy == RETURN_POLICY_HOME || !f->owner_runs || !f->owner_allowed)
		return RETURN_HOME;
	if (policy == RETURN_POLICY_OWNER)
		return RETURN_OWNER;
	/* nothing to wait for at home */
	if (!f->home_busy)
		return RETURN_HOME;
	/* after a short wait its caches are warm at home; elsewhere they would be cold */
	if (f->waited_ns < cold_ns && !f->shares_cache)
		need += margin_ns;
	return f->owner_lead - f->home_lead > need ? RETURN_OWNER : RETURN_HOME;
}

#endif /* PROXY_CORE_RETURN_H */
