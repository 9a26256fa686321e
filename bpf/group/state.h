/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * State of cgroups. A group has a number below GROUPS_MAX; 0 is the root, which needs no state:
 * its tasks weigh what they weigh, and its child groups what cpu.weight says.
 *
 * What competes inside a group is summed up per CPU, so that no task that wakes or
 * sleeps writes a line that another CPU writes.
 */
#ifndef PROXY_GROUP_STATE_H
#define PROXY_GROUP_STATE_H

#define GROUPS_MAX 4096
#define GROUP_WORDS (GROUPS_MAX / 64)
#define GROUP_ROOT 0U

/* [written by its CPU, in callbacks of sched_ext] wraps; only the sum over the CPUs has a meaning */
struct group_load {
	u64 load;     /* weights of the contexts that compete */
	u64 load_acc; /* load_acc + load * now: integral of the load over time */
	u64 nr;	      /* number of the contexts that compete */
	u64 nr_acc;   /* likewise, of the number */
	u64 changes;  /* odd while they change: others read them without a lock */
};

struct group {
	/* [callbacks of cgroups, which the kernel calls one at a time] */
	u64 cgroup; /* the kernel's own; 0: the number is free */
	u64 id;	    /* of the cgroup, as in file handles and as its inode number */
	u32 parent;
	/* [the holder of group_table.busy] */
	u32 shares;   /* cpu.weight, as a weight: WEIGHT_NICE_0 at 100 */
	u64 at_ns;    /* when the averages below were last made; 0: nothing competed then */
	u64 load_sum; /* the integrals then */
	u64 nr_sum;
	u64 own_load; /* average load of its own contexts */
	u64 own_nr;   /* average number of them, in 1024ths */
	/* [as above; read where a context is weighed] */
	u64 load;     /* what competes inside: contexts and child groups */
	u64 weight;   /* what the whole of it weighs */
	/* [the holder of group_table.busy] what it may use in each period; 0: all */
	u64 quota_ns;
	u64 period_ns;
	u64 burst_ns;
	/* [atomic] what is left of that, or owed; when the period began, 0: not yet */
	s64 budget_ns;
	u64 period_at_ns;
	/* [atomic] tasks that were parked because of that, and for how long */
	u64 throttled;
	u64 throttled_ns;
	/* [atomic] sums over its child groups, and what itself has added to those of its parent */
	u64 child_load;
	u64 child_nr;
	u64 given;
	u64 given_nr;
};

/* cpu.max and cpu.max.burst, in ns; a quota of 0 is none */
struct group_limit {
	u64 quota_ns;
	u64 period_ns;
	u64 burst_ns;
};

struct group_table {
	/* [atomic] */
	u64 active[GROUP_WORDS]; /* groups in which something competes, or did just now */
	u64 any;		 /* there is a group besides the root */
	u64 limits;		 /* there was a group with a quota */
	u64 uncharged_ns;	 /* [ops.init()] what the other CPUs may have run without being charged */
	u64 pass_at_ns;		 /* when a tick last looked at the active groups */
	u32 busy;		 /* some CPU does */
	/* [the holder of busy] */
	u32 next;		 /* the group that the next pass begins with */
};

#endif /* PROXY_GROUP_STATE_H */
