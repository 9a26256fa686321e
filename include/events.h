/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Events: what the agent (src/agent) learns of edges and donors, through a ring
 * buffer. Append-only: a kind keeps its number, a field its place. Events that
 * find the ring full are counted (STAT_EVENT_LOST) and gone; the agent then asks
 * for a snapshot of all waits.
 */
#ifndef PROXY_EVENTS_H
#define PROXY_EVENTS_H

enum proxy_event_kind {
	EVENT_BLOCK = 1,     /* pid sleeps on lock, owned by other (0: nobody); value: wait number */
	EVENT_WAKE = 2,	     /* its wait for lock is over; value: ns that it lasted, other: its last owner */
	EVENT_DONATE = 3,    /* owner other runs in the context of donor pid on cpu; value: locks between */
	EVENT_MIGRATE = 4,   /* donor pid's context went to cpu, where owner other may run */
	EVENT_PARK = 5,	     /* donor pid waits for other to stop or wake */
	EVENT_TRUNCATED = 6, /* the walk from donor pid was given up at waiter other */
	EVENT_CYCLE = 7,     /* the walk from donor pid came to other twice */
	EVENT_RETURN = 8,    /* pid, woken value ns ago, runs on cpu; other: enum return_choice, | RETURN_MOVED; lock: enum lock_type */
	EVENT_SNAPSHOT = 9,  /* like EVENT_BLOCK, for a wait that goes on; time_ns: when it began */
	EVENT_SWITCH = 10,   /* value 1: donation is on from here, 0: off (--observe) */
	EVENT_RESTART = 11,  /* [record only, BPF sends none] the scheduler came back; value: ns without it */
	EVENT_GAVE = 12,     /* [while somebody watches] owner other ran value ns in the context of donor pid, who paid */
};

/* in EVENT_RETURN's other: it ran somewhere else than where the choice sent it */
#define RETURN_MOVED 0x100

/* where a donor that woke was sent */
enum return_choice {
	RETURN_NONE = 0,
	RETURN_IDLE = 1,  /* an idle CPU */
	RETURN_HOME = 2,  /* the CPU that it blocked on */
	RETURN_OWNER = 3, /* the CPU where the owner of its lock runs */
	NR_RETURN_CHOICES,
};

/* what asked for a lock, for its name */
enum proxy_site_kind {
	SITE_NONE = 0,	 /* not known */
	SITE_KERNEL = 1, /* site: kernel address that the call into the locking code returns to */
	SITE_USER = 2,	 /* site: likewise in the program's own text, of process tgid; 0: not found there */
	SITE_MMAP = 3,	 /* the lock is the mmap_lock of process site */
};

struct proxy_event {
	unsigned long long time_ns; /* bpf_ktime_get_ns() */
	unsigned long long lock;    /* edge word (locks.h), 0 if it has nothing to do with one */
	unsigned long long value;
	unsigned int kind;
	unsigned int cpu;
	unsigned int pid;
	unsigned int other;
	/* of EVENT_BLOCK, EVENT_WAKE, EVENT_SNAPSHOT; 0 in all else, but for the cgroups of EVENT_GAVE */
	unsigned long long site;	 /* see enum proxy_site_kind */
	unsigned long long cgroup;	 /* id of pid's cgroup: the inode number of its folder */
	unsigned long long other_cgroup; /* of other's */
	unsigned long long inverted_ns;	 /* inversion time of the wait so far, see core/inversion.h */
	unsigned int site_kind;
	unsigned int tgid;		 /* process of pid */
};

#endif /* PROXY_EVENTS_H */
