/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * base.h: the handful of definitions that every file of bvmm may use.
 *
 * Knows nothing of the rest of the program. Thread: any. Nothing here blocks.
 */
#ifndef BVMM_BASE_BASE_H
#define BVMM_BASE_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define must_check __attribute__((warn_unused_result))
#define printf_like(fmt, args) __attribute__((format(printf, fmt, args)))

/* The unit of false sharing: fields of different writers are this far apart. */
#define CACHE_LINE_BYTES 64

#define KIB ((uint64_t)1 << 10)
#define MIB ((uint64_t)1 << 20)
#define GIB ((uint64_t)1 << 30)

#define NS_PER_SECOND 1000000000ULL
#define NS_PER_MS 1000000ULL

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Round up to a power-of-two alignment. The caller knows that it does not overflow. */
static inline uint64_t align_up(uint64_t value, uint64_t alignment)
{
    return (value + alignment - 1) & ~(alignment - 1);
}

/* CLOCK_MONOTONIC in nanoseconds. By vDSO: normally no system call. */
uint64_t clock_monotonic_ns(void);

/* CLOCK_REALTIME in nanoseconds. By vDSO. */
uint64_t clock_realtime_ns(void);

/*
 * fd_above_standard - a descriptor that is none of 0, 1 and 2, or what it was if it is none already.
 * In a program that has closed one of those, whatever is opened next would get its number: and then
 * what is meant for standard error, or becomes /dev/null in a child, hits it.
 * Return: the descriptor, close-on-exec; or -1 with errno set, also if fd was -1.
 */
int fd_above_standard(int fd) must_check;

/* The same for two. Return: 0, or -errno: then both are closed. */
int fd_pair_above_standard(int fds[2]) must_check;

/* CPU time that the calling thread has used, in nanoseconds. */
uint64_t clock_thread_cpu_ns(void);

#endif
