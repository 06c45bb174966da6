/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * utf8.h: which bytes are text.
 *
 * Thread: any. Pure.
 */
#ifndef BVMM_VMM_UTF8_H
#define BVMM_VMM_UTF8_H

#include "base/base.h"

/*
 * utf8_text_bytes - how many bytes at the beginning are text: well-formed UTF-8 (no overlong forms,
 * no surrogates, nothing above U+10FFFF) without U+0000.
 */
size_t utf8_text_bytes(const uint8_t *bytes, size_t count);

/* Could these bytes be the beginning of one character, cut off? (1 to 3 bytes) */
bool utf8_is_cut(const uint8_t *bytes, size_t count);

/*
 * utf8_mend - the same text with U+FFFD for each byte that is none.
 * @ret_text: malloc'ed, NUL-terminated; the caller frees.
 * @ret_mended: how many bytes were replaced.
 * Return: 0, or -ENOMEM.
 */
int utf8_mend(const void *bytes, size_t count, char **ret_text, size_t *ret_text_bytes,
              uint64_t *ret_mended) must_check;

#endif
