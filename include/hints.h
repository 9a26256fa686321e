/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Hints: what the agent tells BPF, in maps that only the agent writes. A hint is
 * never trusted: it has an expiry, it names the waits that it was computed from,
 * and BPF compares those with the kernel's state before it acts (core/hint.h).
 */
#ifndef PROXY_HINTS_H
#define PROXY_HINTS_H

/* most waits that hints may be about at one time, of each kind */
#define HINTS_MAX 1024

enum hint_kind {
	HINT_NONE = 0,
	HINT_SKIP = 1,	/* the chain goes on, through waits too many for one walk, to to_pid */
	HINT_CYCLE = 2, /* the chain leads back to this wait: a deadlock */
};

/* keyed by the pid of a waiter */
struct wait_hint {
	unsigned long long wait_seq;	/* holds for this wait of that task only */
	unsigned long long to_wait_seq; /* HINT_SKIP: and for this wait of to_pid */
	unsigned long long expires_ns;	/* not from then on, bpf_ktime_get_ns() */
	unsigned long long hint_seq;	/* counts the agent's rounds */
	unsigned int to_pid;
	unsigned int kind; /* enum hint_kind */
	unsigned int pid;  /* the waiter itself: a map element may be used anew while it is read */
	unsigned int pad;
};

/* one for each enum lock_type */
struct return_hint {
	unsigned long long expires_ns;
	unsigned long long hint_seq;
	/* added to the lead that the owner's CPU needs over home, in ns of key; less: more to the owner's */
	long long owner_bias_ns;
};

#endif /* PROXY_HINTS_H */
