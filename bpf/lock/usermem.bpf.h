/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Words in the memory of any process, read from any context. A pick cannot fault
 * pages in, and the waiter's address space is not the one that is loaded; but the
 * page tables of the waiter are in the kernel's map of all memory, and so is the
 * page that they lead to. Each step is a fault-proof load, so a table that goes
 * away meanwhile yields garbage or nothing: the caller must prove what it got.
 *
 * x86-64 (arch/x86/include/asm/pgtable_64_types.h, pgtable_types.h). Only memory
 * that is present is found; what was swapped out, never touched, or is a device's, is
 * not.
 */
#ifndef PROXY_LOCK_USERMEM_H
#define PROXY_LOCK_USERMEM_H

#define PAGE_SHIFT 12
#define PAGE_BYTES (1UL << PAGE_SHIFT)
#define TABLE_BITS 9
#define SHIFT_LEVEL_5 48 /* pgdir_shift with 5-level page tables, */
#define SHIFT_LEVEL_4 39 /* and with 4 levels */
#define SHIFT_HUGE_MAX 30 /* the largest pages that one entry maps are of 1 GiB */

#define ENTRY_PRESENT 1ULL
#define ENTRY_HUGE 0x80ULL	       /* _PAGE_PSE */
#define ENTRY_SPECIAL 0x200ULL	       /* _PAGE_SPECIAL: no page of memory, perhaps a device's */
#define ENTRY_ADDRESS 0x000ffffffffff000ULL /* PTE_PFN_MASK */

/* variables of the kernel, known by address (kallsyms) */
extern const void page_offset_base __ksym __weak; /* where the map of all memory begins */
extern const void pgdir_shift __ksym __weak;
/* without the bits that say what is encrypted or shared */
extern const void physical_mask __ksym __weak;

static __always_inline u64 kernel_word(u64 at)
{
	u64 word = 0;

	bpf_probe_read_kernel(&word, sizeof(word), (void *)at);
	return word;
}

static __always_inline u32 kernel_half(u64 at)
{
	u32 half = 0;

	bpf_probe_read_kernel(&half, sizeof(half), (void *)at);
	return half;
}

/*
 * The kernel's address of what the page tables at @pgd (mm_struct.pgd) have at
 * user address @at, 0 if there is nothing now.
 */
__noinline u64 user_to_kernel(u64 pgd, u64 at)
{
	u64 base, mask = ENTRY_ADDRESS, entry = 0, within;
	u32 shift;

	if (!pgd || !&page_offset_base || !&pgdir_shift)
		return 0;
	base = kernel_word((u64)&page_offset_base);
	shift = kernel_word((u64)&pgdir_shift);
	if (&physical_mask)
		mask &= kernel_word((u64)&physical_mask);
	if (shift != SHIFT_LEVEL_5 && shift != SHIFT_LEVEL_4)
		return 0;
	/* the lower half is user space, the upper one the kernel's */
	if (at >> ((shift + TABLE_BITS - 1) & 63))
		return 0;
	while (can_loop) {
		entry = kernel_word(pgd +
				    ((at >> shift) & ((1 << TABLE_BITS) - 1)) * sizeof(entry));
		if (!(entry & ENTRY_PRESENT))
			return 0;
		if (shift <= PAGE_SHIFT || (shift <= SHIFT_HUGE_MAX && (entry & ENTRY_HUGE)))
			break;
		pgd = base + (entry & mask);
		shift -= TABLE_BITS;
	}
	if (entry & ENTRY_SPECIAL)
		return 0;
	within = (1ULL << (shift & 63)) - 1;
	return base + (entry & mask & ~within) + (at & within);
}

/* Page tables of @p, 0 if it has no address space of its own. */
static __always_inline u64 user_pgd(struct task_struct *p)
{
	return (u64)BPF_CORE_READ(p, mm, pgd);
}

#endif /* PROXY_LOCK_USERMEM_H */
