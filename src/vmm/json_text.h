/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * json_text.h: JSON as text into a descriptor, byte for byte what jansson's
 * json_dumpfd(json, fd, JSON_INDENT(2)) writes, and a line feed.
 *
 * Why not that: jansson looks at each character of a string by itself, at 100 MB/s. A report may hold
 * 75 MiB of output, and bvmm has to be gone 500 ms after the deadline. tests/bench/bench_report.c has
 * the figures; tests/unit/test_json_text.c holds the two against each other.
 *
 * Thread: launcher. Blocks on writing.
 */
#ifndef BVMM_VMM_JSON_TEXT_H
#define BVMM_VMM_JSON_TEXT_H

#include "base/base.h"

#include <jansson.h>

/* json_text_write - @json: an object or array. Return: 0, or -errno (-ENOMEM as well). */
int json_text_write(json_t *json, int fd) must_check;

#endif
