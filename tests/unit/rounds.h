/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * rounds.h: how often a test does what it does many times. BVMM_TEST_ROUNDS=0.1 makes it a tenth, for
 * emulated machines.
 */
#ifndef BVMM_TESTS_UNIT_ROUNDS_H
#define BVMM_TESTS_UNIT_ROUNDS_H

#include <stdlib.h>

/* At least one. */
static inline unsigned rounds(unsigned usual)
{
    const char *given = getenv("BVMM_TEST_ROUNDS");
    const double share = given ? strtod(given, NULL) : 1;
    const double wanted = (double)usual * share;

    return wanted >= 1 && wanted < (double)usual ? (unsigned)wanted : wanted < 1 ? 1 : usual;
}

#endif
