/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What asks for a lock, which gives the lock's class its name (enum proxy_site_kind).
 * Found on the waiter's stack, in its own context, before it sleeps; a lock's site is
 * remembered for a second, since stacks are slow to read and memory is used anew.
 */
#ifndef PROXY_OBS_SITE_H
#define PROXY_OBS_SITE_H

#define SITE_SLOT_BITS 12
#define SITE_FRESH_NS 1000000000ULL

/* Frames looked at, beginning with ours and the tracepoint's. */
#define SITE_FRAMES 16

/* Words of a user stack looked at, in one go and in all. */
#define SITE_WORDS 8
#define SITE_CHUNKS 16

/* bytes before a return address that hold the call: e8 rel32, or ff /2 with its operand */
#define CALL_BYTES 8
#define CALL_REL32 0xe8
#define CALL_INDIRECT 0xff

/* [the waiter; a torn entry gives one event a wrong name] */
struct site_slot {
	u64 lock;
	u64 site;
	u64 noted_at_ns;
	u32 kind;
	u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << SITE_SLOT_BITS);
	__type(key, u32);
	__type(value, struct site_slot);
} site_slots SEC(".maps");

/* kernel/sched/core.c in_sched_functions(), include/linux/spinlock.h in_lock_functions() */
extern const void __sched_text_start __ksym __weak;
extern const void __sched_text_end __ksym __weak;
extern const void __lock_text_start __ksym __weak;
extern const void __lock_text_end __ksym __weak;

/* A function of its own: inlined into the loop below, 6.16 runs it with another outcome than 6.18. */
__noinline int in_locking_code(u64 ip)
{
	return (ip >= (u64)&__sched_text_start && ip < (u64)&__sched_text_end) ||
	       (ip >= (u64)&__lock_text_start && ip < (u64)&__lock_text_end);
}

/*
 * The address on the kernel stack above the locking code, 0 if it is too far up. Some kernels show
 * functions of the scheduler below the tracepoint, too, on our own way here: the last one counts.
 */
static __noinline u64 site_in_kernel(void *ctx)
{
	u64 frames[SITE_FRAMES] = {};
	u64 site = 0;
	u32 i;

	if (!&__sched_text_start || !&__sched_text_end)
		return 0;
	if (bpf_get_stack(ctx, frames, sizeof(frames), 0) < 0)
		return 0;
	for (i = 0; i + 1 < SITE_FRAMES; i++) {
		if (in_locking_code(frames[i]) && !in_locking_code(frames[i + 1]))
			site = frames[i + 1];
	}
	return site;
}

/* Whether a call instruction of x86-64 ends before user address @ip. */
static __always_inline bool follows_call(u64 ip)
{
	u8 b[CALL_BYTES] = {};

	if (bpf_probe_read_user(b, sizeof(b), (void *)(ip - CALL_BYTES)))
		return false;
	/* lengths of ff /2: register 2, with displacement 3 or 6, with a SIB byte 4 or 7 */
	return b[3] == CALL_REL32 || (b[6] == CALL_INDIRECT && (b[7] & 0x38) == 0x10) ||
	       (b[5] == CALL_INDIRECT && (b[6] & 0x38) == 0x10) ||
	       (b[4] == CALL_INDIRECT && (b[5] & 0x38) == 0x10) ||
	       (b[2] == CALL_INDIRECT && (b[3] & 0x38) == 0x10) ||
	       (b[1] == CALL_INDIRECT && (b[2] & 0x38) == 0x10);
}

/*
 * The innermost address on the user stack that returns into the program itself, not
 * into a library; 0 if there is none near. Programs are built without frame pointers,
 * so words are looked at that point behind a call in the program's text.
 */
static __noinline u64 site_in_program(struct task_struct *p)
{
	u64 from = BPF_CORE_READ(p, mm, start_code), to = BPF_CORE_READ(p, mm, end_code);
	struct pt_regs *regs = (void *)bpf_task_pt_regs(p);
	u64 words[SITE_WORDS], sp;
	u32 chunk, i;

	if (!regs || !to)
		return 0;
	sp = BPF_CORE_READ(regs, sp);
	bpf_for(chunk, 0, SITE_CHUNKS) {
		if (bpf_probe_read_user(words, sizeof(words), (void *)sp))
			return 0;
		for (i = 0; i < SITE_WORDS; i++) {
			if (words[i] > from && words[i] < to && follows_call(words[i]))
				return words[i];
		}
		sp += sizeof(words);
	}
	return 0;
}

static __always_inline bool is_own_mmap_lock(struct task_struct *p, u64 lock)
{
	u64 mm = (u64)BPF_CORE_READ(p, mm);

	return mm && lock == mm + bpf_core_field_offset(struct mm_struct, mmap_lock);
}

static __always_inline void site_set(struct task_ctx *tctx, u64 lock, u64 site, u32 kind)
{
	tctx->site_lock = lock;
	tctx->site = site;
	tctx->site_kind = kind;
}

static __always_inline struct site_slot *site_slot_of(u64 lock)
{
	u32 key = lock * 0x9e3779b97f4a7c15ULL >> (64 - SITE_SLOT_BITS);

	return bpf_map_lookup_elem(&site_slots, &key);
}

/* The site of the lock at @lock if it is known; notes it for @tctx's task. */
static __always_inline bool site_known(struct task_ctx *tctx, u64 lock, u64 now)
{
	struct site_slot *slot = site_slot_of(lock);

	if (!slot || slot->lock != lock || now - slot->noted_at_ns > SITE_FRESH_NS)
		return false;
	site_set(tctx, lock, slot->site, slot->kind);
	return true;
}

static __always_inline void site_remember(u64 lock, const struct task_ctx *tctx, u64 now)
{
	struct site_slot *slot = site_slot_of(lock);

	if (!slot)
		return;
	*(volatile u64 *)&slot->lock = 0;
	slot->site = tctx->site;
	slot->kind = tctx->site_kind;
	slot->noted_at_ns = now;
	*(volatile u64 *)&slot->lock = lock;
}

/*
 * Whether what asks for the lock at @lock has to be looked for, now at @now: somebody watches, and it is not known.
 * While nobody watches, what was noted of an earlier wait is forgotten: it is not of this one.
 */
static __always_inline bool site_wanted(struct task_ctx *tctx, u64 lock, u64 *now)
{
	if (!watching()) {
		tctx->site_lock = 0;
		return false;
	}
	*now = bpf_ktime_get_ns();
	return !site_known(tctx, lock, *now);
}

/* @p, current, is about to sleep on the kernel's lock at @lock. */
static __always_inline void site_note_kernel(void *ctx, struct task_struct *p,
					     struct task_ctx *tctx, u64 lock)
{
	u32 kind = SITE_KERNEL;
	u64 now, site;

	if (!site_wanted(tctx, lock, &now))
		return;
	if (is_own_mmap_lock(p, lock)) {
		site = p->tgid;
		kind = SITE_MMAP;
	} else {
		site = site_in_kernel(ctx);
		if (!site)
			kind = SITE_NONE;
	}
	site_set(tctx, lock, site, kind);
	site_remember(lock, tctx, now);
}

/*
 * @p is about to wait for a mutex of its own, known to us by address @lock. Of one that is not current, and so
 * waits already, the stack cannot be read.
 */
static __always_inline void site_note_user(struct task_struct *p, struct task_ctx *tctx, u64 lock)
{
	u64 now;

	if (!site_wanted(tctx, lock, &now) || p != bpf_get_current_task_btf())
		return;
	site_set(tctx, lock, site_in_program(p), SITE_USER);
	site_remember(lock, tctx, now);
}

#endif /* PROXY_OBS_SITE_H */
