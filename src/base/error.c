/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* error.c: names of error kinds, and how a message gets into a struct bvmm_error. */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const kind_names[] = {
#define X(id, name) [BVMM_ERROR_##id] = (name),
    BVMM_ERROR_LIST(X)
#undef X
};
_Static_assert(ARRAY_SIZE(kind_names) == BVMM_ERROR_COUNT, "one name each");

const char *bvmm_error_kind_name(enum bvmm_error_kind kind)
{
    /* The cast: a value from shared memory may be anything, and the enum may be signed. */
    return (unsigned)kind < BVMM_ERROR_COUNT ? kind_names[kind] : "Unknown";
}

/* What can be done about it is the same wherever it happened. */
static void add_hint(struct bvmm_error *err, int code)
{
    const size_t used = strlen(err->message);
    const char *hint = error_hint(code);

    if (hint != NULL) {
        (void)snprintf(err->message + used, sizeof(err->message) - used, "; %s", hint);
    }
}

int error_set(struct bvmm_error *err, enum bvmm_error_kind kind, int code, const char *fmt, ...)
{
    va_list args;

    if (!err) {
        return code;
    }
    err->kind = kind;
    va_start(args, fmt);
    /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): clang-tidy 14's mistake in 2nd target */
    if (vsnprintf(err->message, sizeof(err->message), fmt, args) < 0) {
        err->message[0] = '\0';
    }
    va_end(args);
    add_hint(err, code);
    /* A message is one line: a value that it quotes (a path, say) may hold a newline or an escape.
     */
    for (char *c = err->message; *c != '\0'; c++) {
        if ((unsigned char)*c < ' ' || *c == 0x7f) {
            *c = '?';
        }
    }
    return code;
}
