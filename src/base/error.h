/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * error.h: what went wrong, in a kind for programs and a sentence for people.
 *
 * Functions return 0 or -errno. Those that run at start-up also fill a struct bvmm_error when they
 * fail, because there the errno alone never tells a user what to do next.
 */
#ifndef BVMM_BASE_ERROR_H
#define BVMM_BASE_ERROR_H

#include "base/base.h"
#include "bvmm/error.h"

/*
 * error_set - fill *err (which may be NULL) and return code.
 * @code: 0 or negative errno, handed back so that `return error_set(err, ..., -EINVAL, ...)` works.
 */
int error_set(struct bvmm_error *err, enum bvmm_error_kind kind, int code, const char *fmt, ...)
    printf_like(4, 5);

/*
 * error_text, signal_text - what strerror() and strsignal() say, in English, whatever locale a program
 * that embeds the library has set. Those look for a translation then, which opens files and
 * maps them: in an actor's filter that would be the end, and the error would not be told.
 * @code: an errno, positive. Return: never NULL; static.
 */
const char *error_text(int code);
const char *signal_text(int number);

/* What error_set() adds, which a person can do about it wherever it happened. NULL: nothing. */
const char *error_hint(int code);

#endif
