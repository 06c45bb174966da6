/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * seeded_random.h: random numbers for tests, from a seed that is printed, and that
 * BVMM_TEST_SEED=N in the environment repeats.
 */
#ifndef BVMM_TESTS_UNIT_SEEDED_RANDOM_H
#define BVMM_TESTS_UNIT_SEEDED_RANDOM_H

#include "base/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct seeded_random {
    uint64_t state;
};

/* splitmix64 */
static inline uint64_t random_u64(struct seeded_random *r)
{
    uint64_t z = (r->state += 0x9e3779b97f4a7c15ULL);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

/* From 0 to limit - 1. */
static inline size_t random_below(struct seeded_random *r, size_t limit)
{
    return (size_t)(random_u64(r) % limit);
}

static inline void random_fill(struct seeded_random *r, void *bytes, size_t count)
{
    uint8_t *to = bytes;

    for (size_t i = 0; i < count; i++) {
        to[i] = (uint8_t)random_u64(r);
    }
}

static inline struct seeded_random random_from_seed(const char *test)
{
    const char *given = getenv("BVMM_TEST_SEED");
    struct timespec now;
    uint64_t seed;

    clock_gettime(CLOCK_REALTIME, &now);
    seed = given ? strtoull(given, NULL, 0) : (uint64_t)now.tv_nsec ^ (uint64_t)now.tv_sec << 20;
    printf("%s: BVMM_TEST_SEED=%llu\n", test, (unsigned long long)seed);
    return (struct seeded_random){seed};
}

#endif
