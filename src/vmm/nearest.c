/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* nearest.c: edit distance between short names. */
#include "vmm/nearest.h"

#include <ctype.h>
#include <string.h>

#define NAME_MAX_CHARS 40

static unsigned min_unsigned(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

static bool same(char a, char b)
{
    return tolower((unsigned char)a) == tolower((unsigned char)b);
}

/* Optimal string alignment distance; names that are too long to be compared are far away. */
static unsigned distance(const char *a, const char *b)
{
    unsigned rows[NAME_MAX_CHARS + 1][NAME_MAX_CHARS + 1];
    size_t a_length = strlen(a);
    size_t b_length = strlen(b);

    if (a_length > NAME_MAX_CHARS || b_length > NAME_MAX_CHARS) {
        return NAME_MAX_CHARS;
    }
    for (size_t i = 0; i <= a_length; i++) {
        rows[i][0] = (unsigned)i;
    }
    for (size_t j = 0; j <= b_length; j++) {
        rows[0][j] = (unsigned)j;
    }
    for (size_t i = 1; i <= a_length; i++) {
        for (size_t j = 1; j <= b_length; j++) {
            unsigned replaced = rows[i - 1][j - 1] + (same(a[i - 1], b[j - 1]) ? 0 : 1);
            unsigned moved = min_unsigned(rows[i - 1][j], rows[i][j - 1]) + 1;

            rows[i][j] = min_unsigned(replaced, moved);
            if (i > 1 && j > 1 && same(a[i - 1], b[j - 2]) && same(a[i - 2], b[j - 1])) {
                rows[i][j] = min_unsigned(rows[i][j], rows[i - 2][j - 2] + 1);
            }
        }
    }
    return rows[a_length][b_length];
}

const char *nearest_name(const char *word, const char *(*name_at)(const void *ctx, size_t i),
                         const void *ctx)
{
    /* One slip in three letters is a slip; more is another word. */
    unsigned best = min_unsigned((unsigned)strlen(word) / 3 + 1, NAME_MAX_CHARS - 1);
    const char *found = NULL;
    const char *name;

    for (size_t i = 0; (name = name_at(ctx, i)) != NULL; i++) {
        unsigned d = distance(word, name);

        if (d < best || (d == best && !found)) {
            best = d;
            found = name;
        }
    }
    return found;
}

static const char *array_at(const void *ctx, size_t i)
{
    const char *const *names = ctx;

    return names[i];
}

const char *nearest_in(const char *word, const char *const *names)
{
    return nearest_name(word, array_at, (const void *)names);
}
