/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* hex.c: SHA-256 digests to text and back. Pure. */
#include "vmm/hex.h"

#include <string.h>

void sha256_to_text(const uint8_t digest[SHA256_BYTES], char ret_text[SHA256_TEXT_BYTES])
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < SHA256_BYTES; i++) {
        ret_text[2 * i] = digits[digest[i] >> 4];
        ret_text[2 * i + 1] = digits[digest[i] & 15];
    }
    ret_text[SHA256_TEXT_BYTES - 1] = '\0';
}

static int digit_value(char c)
{
    static const char digits[] = "0123456789abcdefABCDEF";
    const char *found = c ? strchr(digits, c) : NULL;
    int position = found ? (int)(found - digits) : -1;

    return position > 15 ? position - 6 : position;
}

bool sha256_from_text(const char *text, uint8_t ret_digest[SHA256_BYTES])
{
    if (strlen(text) != SHA256_TEXT_BYTES - 1) {
        return false;
    }
    for (size_t i = 0; i < SHA256_BYTES; i++) {
        int high = digit_value(text[2 * i]);
        int low = digit_value(text[2 * i + 1]);

        if (high < 0 || low < 0) {
            return false;
        }
        ret_digest[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}
