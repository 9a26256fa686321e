/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Words of stacks, looked through for addresses. A stack that is in use changes under the reader, and has
 * words of old in it: what is found is a hint. What is not found anywhere is not there: that is a proof.
 */
#ifndef PROXY_LOCK_STACK_H
#define PROXY_LOCK_STACK_H

#define STACK_LOOK_BYTES 1024

/* [its CPU: a torn look is a wrong guess] */
struct stack_words {
	u64 word[STACK_LOOK_BYTES / sizeof(u64)];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct stack_words);
} stack_words SEC(".maps");

static __always_inline struct stack_words *stack_words_here(void)
{
	u32 key = 0;

	return bpf_map_lookup_elem(&stack_words, &key);
}

/* Whether one of the first @bytes of this CPU's words is at @from, or less than @span behind it. */
__noinline u32 stack_has(u32 bytes, u64 from, u64 span)
{
	struct stack_words *w = stack_words_here();
	u32 i;

	if (!w)
		return 0;
	bpf_for(i, 0, bytes / sizeof(u64)) {
		if (i < STACK_LOOK_BYTES / sizeof(u64) && w->word[i] - from < span)
			return 1;
	}
	return 0;
}

/* kernel/entry/common.c: what a task is in that leaves the kernel and is preempted on the way */
extern const void exit_to_user_mode_loop __ksym __weak;
/* longer than that function is anywhere: what lies behind it counts as if it were in it */
#define EXIT_LOOP_BYTES 1024
/* how far below the user registers its frame may be: system calls begin at a random offset of 1 KiB at most */
#define EXIT_LOOP_LOOKS 2

/*
 * Whether the task of @pid, which does not run, is inside the kernel, and not on its way out. It is unless the
 * function that is on that way has a frame on its stack, one of the first below the user registers. A task
 * that is deep in the kernel may have a word of old there: then it counts as if it were on its way out.
 */
__noinline u32 stack_is_in_kernel(u32 pid)
{
	struct stack_words *w = stack_words_here();
	struct task_struct *p = w ? bpf_task_from_pid(pid) : NULL;
	u32 flags, i;
	u64 regs;

	if (!p)
		return 0;
	flags = p->flags;
	regs = (u64)bpf_task_pt_regs(p);
	bpf_task_release(p);
	if (flags & PF_NO_SYSCALL)
		return 1;
	if (!&exit_to_user_mode_loop)
		return 0;
	for (i = 0; i < EXIT_LOOP_LOOKS; i++) {
		regs -= STACK_LOOK_BYTES;
		if (bpf_probe_read_kernel(w->word, STACK_LOOK_BYTES, (void *)regs) ||
		    stack_has(STACK_LOOK_BYTES, (u64)&exit_to_user_mode_loop, EXIT_LOOP_BYTES))
			return 0;
	}
	return 1;
}

#endif /* PROXY_LOCK_STACK_H */
