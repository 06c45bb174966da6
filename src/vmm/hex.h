/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * hex.h: digests as text.
 *
 * Thread: any. Pure.
 */
#ifndef BVMM_VMM_HEX_H
#define BVMM_VMM_HEX_H

#include "base/base.h"
#include "base/record.h"

#define SHA256_TEXT_BYTES ((size_t)2 * SHA256_BYTES + 1)

void sha256_to_text(const uint8_t digest[SHA256_BYTES], char ret_text[SHA256_TEXT_BYTES]);

/* false: text is no SHA-256 in hexadecimal digits. */
bool sha256_from_text(const char *text, uint8_t ret_digest[SHA256_BYTES]);

#endif
