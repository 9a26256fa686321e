/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The token of a waiting donor: one word that says where its scheduling context
 * is, changed by compare-and-swap only. The CPU that moves it to TOKEN_MOVING owns
 * the context (wait_key, wait_cpu) until it publishes the next place. The donor
 * itself takes the token back with an unconditional swap when it wakes, so no
 * donation outlives its wait: every later step of a mover fails to match.
 *
 *   63      40 39  32 31        0
 *   +---------+------+-----------+
 *   | wait nr | kind | place     |
 *   +---------+------+-----------+
 *
 * wait nr: counts the waits of the task, so that an old place never matches a
 * new wait. place: HEAP: CPU << 16 | pool index; ATTACHED, ACTIVE: pid of the
 * owner; else 0.
 */
#ifndef PROXY_CORE_TOKEN_H
#define PROXY_CORE_TOKEN_H

enum token_kind {
	TOKEN_NONE = 0,	    /* not waiting */
	TOKEN_HEAP = 1,	    /* on a donor queue */
	TOKEN_ATTACHED = 2, /* waits on an owner that runs or sleeps */
	TOKEN_ACTIVE = 3,   /* an owner runs on this context */
	TOKEN_MOVING = 4,   /* between two of the above */
	TOKEN_LIMBO = 5,    /* waiting, but no room anywhere: no donation */
};

#define TOKEN_SEQ_MASK 0xffffff0000000000ULL
#define TOKEN_SEQ_ONE 0x0000010000000000ULL

static inline unsigned long long token_make(unsigned long long seq, enum token_kind kind,
					    unsigned int place)
{
	return (seq & TOKEN_SEQ_MASK) | (unsigned long long)kind << 32 | place;
}

static inline unsigned long long token_seq(unsigned long long token)
{
	return token & TOKEN_SEQ_MASK;
}

static inline enum token_kind token_kind(unsigned long long token)
{
	return (enum token_kind)(token >> 32 & 0xff);
}

static inline unsigned int token_place(unsigned long long token)
{
	return (unsigned int)token;
}

static inline unsigned int place_of_heap(unsigned int cpu, unsigned int idx)
{
	return cpu << 16 | (idx & 0xffff);
}

#endif /* PROXY_CORE_TOKEN_H */
