/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Words of bits that several CPUs change. A domain's word is exact. Its summary in
 * struct machine is set by whoever sets the first bit, and cleared by whoever finds
 * the word empty, which then looks again: so it is set at the latest when the setter
 * returns, whatever happens in between.
 */
#ifndef PROXY_PLACE_BITS_H
#define PROXY_PLACE_BITS_H

#define BIT64(nr) (1ULL << ((nr) & 63))

/*
 * Number of the lowest bit of @x, which is not 0. BPF has no such instruction. A function of
 * its own for the verifier, which would else follow every loop for each number.
 */
CORE_FN u32 bit_lowest(u64 x)
{
	u32 nr = 0;

	for (u32 step = 32; step; step >>= 1) {
		u32 skip = !(x & ((1ULL << step) - 1)) * step;

		x >>= skip;
		nr += skip;
	}
	return nr & 63;
}

/* The first bit of @x, which is not 0, from @from on; begins again at the end. */
static __always_inline u32 bit_from(u64 x, u32 from)
{
	u64 above = x & (~0ULL << (from & 63));

	return bit_lowest(above ? above : x);
}

/* The CPU at @bit of @d. The compiler knows that @bit is small; the verifier has to be shown. */
static __always_inline s32 domain_cpu(const struct domain *d, u32 bit)
{
	barrier_var(bit);
	return d->cpu_of[bit & (DOMAIN_CPUS - 1)];
}

static __always_inline u64 bits_read(const u64 *word)
{
	return *(volatile const u64 *)word;
}

static __always_inline void bits_set(u64 *word, u64 bits, u64 *summary, u32 domain)
{
	__sync_fetch_and_or(word, bits);
	if (!(bits_read(summary) & BIT64(domain)))
		__sync_fetch_and_or(summary, BIT64(domain));
}

/* @word was found empty: say so in the summary, unless it changes at this moment. */
static __always_inline void bits_found_empty(u64 *word, u64 *summary, u32 domain)
{
	__sync_fetch_and_and(summary, ~BIT64(domain));
	if (bits_read(word))
		__sync_fetch_and_or(summary, BIT64(domain));
}

#endif /* PROXY_PLACE_BITS_H */
