/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* utf8.c: checks and mends text. Source: Unicode 15, table 3-7. Pure. */
#include "vmm/utf8.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char replacement[] = "\xef\xbf\xbd"; /* U+FFFD */
#define REPLACEMENT_BYTES 3

/* A row of the table of well-formed byte sequences: first byte, bounds of the second, length. */
struct form {
    uint8_t first_min;
    uint8_t first_max;
    uint8_t second_min;
    uint8_t second_max;
    uint8_t length;
};

static const struct form forms[] = {
    {0x01, 0x7f, 0x00, 0x00, 1}, {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
    {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
    {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
};

static const struct form *find_form(uint8_t first)
{
    for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
        if (first >= forms[i].first_min && first <= forms[i].first_max) {
            return &forms[i];
        }
    }
    return NULL;
}

/* How many of the bytes, at most form->length, go with the form. */
static size_t matching(const struct form *form, const uint8_t *bytes, size_t count)
{
    size_t matched = 1;

    while (matched < form->length && matched < count) {
        uint8_t low = matched == 1 ? form->second_min : 0x80;
        uint8_t high = matched == 1 ? form->second_max : 0xbf;

        if (bytes[matched] < low || bytes[matched] > high) {
            break;
        }
        matched++;
    }
    return matched;
}

/* Length of the character that begins here; 0: none does. */
static size_t character_bytes(const uint8_t *bytes, size_t count)
{
    const struct form *form = find_form(bytes[0]);

    return form && matching(form, bytes, count) == form->length ? form->length : 0;
}

size_t utf8_text_bytes(const uint8_t *bytes, size_t count)
{
    size_t at = 0;

    while (at < count) {
        size_t length;

        if (bytes[at] >= 0x01 && bytes[at] <= 0x7f) {
            at++; /* the usual case, without the table */
            continue;
        }
        length = character_bytes(bytes + at, count - at);
        if (length == 0) {
            break;
        }
        at += length;
    }
    return at;
}

bool utf8_is_cut(const uint8_t *bytes, size_t count)
{
    const struct form *form = count > 0 ? find_form(bytes[0]) : NULL;

    return form && count < form->length && matching(form, bytes, count) == count;
}

int utf8_mend(const void *bytes, size_t count, char **ret_text, size_t *ret_text_bytes,
              uint64_t *ret_mended)
{
    const uint8_t *from = bytes;
    uint64_t mended = 0;
    size_t used = 0;
    char *text;
    size_t room;

    /* Worst case: nothing but bytes to be replaced. */
    if (__builtin_mul_overflow(count, (size_t)REPLACEMENT_BYTES, &room) || room == SIZE_MAX) {
        return -ENOMEM;
    }
    text = malloc(room + 1);
    if (!text) {
        return -ENOMEM;
    }
    for (size_t at = 0; at < count;) {
        size_t good = utf8_text_bytes(from + at, count - at);

        memcpy(text + used, from + at, good);
        used += good;
        at += good;
        if (at < count) {
            memcpy(text + used, replacement, REPLACEMENT_BYTES);
            used += REPLACEMENT_BYTES;
            at++;
            mended++;
        }
    }
    text[used] = '\0';
    *ret_text = text;
    *ret_text_bytes = used;
    *ret_mended = mended;
    return 0;
}
