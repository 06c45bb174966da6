/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* string.h: what src/platform needs of it, for compiling where macOS's headers are not. */
#include <stddef.h>

int strcmp(const char *a, const char *b);
size_t strlen(const char *text);
