/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The few words that the core borrows from the kernel, for compilers that have
 * no vmlinux.h: the host's.
 */
#ifndef PROXY_CORE_TYPES_H
#define PROXY_CORE_TYPES_H

#ifndef __bpf__
#include <stdbool.h>
#include <stddef.h>

typedef unsigned long long u64;
typedef long long s64;
typedef unsigned int u32;
typedef int s32;

#undef __always_inline
#define __always_inline inline __attribute__((always_inline))
#define __noinline __attribute__((noinline))
/* for the verifier: never NULL, and a task that stays */
#define __arg_trusted
#define barrier_var(x) ((void)(x))
#endif

/*
 * Functions that the verifier shall process once for all callers: global in
 * BPF, with numbers and pointers to plain structs as arguments. On the host the
 * core is one translation unit and needs none of that.
 */
#ifdef __bpf__
#define CORE_FN __noinline
#else
#define CORE_FN static __noinline
#endif

/* A loop whose bound is a constant of the machine (number of CPUs, of looks). */
#ifdef __bpf__
#define core_for(i, nr) bpf_for(i, 0, nr)
#else
#define core_for(i, nr) for (i = 0; i < (nr); i++)
#endif

#endif /* PROXY_CORE_TYPES_H */
