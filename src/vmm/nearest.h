/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * nearest.h: "did you mean": the known name that a mistyped one is closest to.
 *
 * Thread: any. Pure.
 */
#ifndef BVMM_VMM_NEAREST_H
#define BVMM_VMM_NEAREST_H

#include "base/base.h"

/*
 * nearest_name - by edit distance (insert, delete, replace, swap of neighbours), ignoring case.
 * @name_at: the i-th known name, or NULL past the last one.
 * Return: the nearest one, or NULL if none is near enough to be worth naming.
 */
const char *nearest_name(const char *word, const char *(*name_at)(const void *ctx, size_t i),
                         const void *ctx);

/* The same for a NULL-terminated array of names. */
const char *nearest_in(const char *word, const char *const *names);

#endif
