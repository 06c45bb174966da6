/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * report_parts.h: the sections of a report, one file each. For the report*.c files only.
 *
 * Every function returns a new reference, or NULL when out of memory.
 */
#ifndef BVMM_VMM_REPORT_PARTS_H
#define BVMM_VMM_REPORT_PARTS_H

#include "base/base.h"
#include "base/record.h"
#include "vmm/job.h"
#include "vmm/report_view.h"

#include <jansson.h>

struct report_builder {
    const struct job *job;
    struct record *record;
    struct report_view *view; /* to be filled besides; NULL: none */
    json_t *warnings;         /* array of strings: what the reader should know about this report */
    int large_dir_fd;         /* -1: not opened yet, or everything goes inline */
    bool large_dir_made;      /* by us, and nothing is in it yet */
    bool large_failed;        /* a file could not be written: the rest goes inline */
    bool brief;               /* leave out what takes long: see report_render_brief() */
    bool no_memory;           /* once set, the report is not to be used */
};

/* ---- Helpers --------------------------------------------------------------------------------- */

/* Add a member; takes the reference to value; a NULL value means out of memory. */
void report_set(struct report_builder *b, json_t *object, const char *key, json_t *value);

/* Add a null, and the reason to the object's "absent". */
void report_absent(struct report_builder *b, json_t *object, const char *key, const char *reason);

/* The object, with its "absent" (if any) moved behind all else, where a reader looks for it. */
json_t *report_end(struct report_builder *b, json_t *object);

void report_warn(struct report_builder *b, const char *fmt, ...) printf_like(2, 3);

/* Text of unknown origin: what is no UTF-8 is replaced. */
json_t *report_text(const char *text);
json_t *report_text_n(const void *text, size_t bytes);
json_t *report_text_or_null(const char *text);

/* A counter; JSON integers end at 2^63 - 1. */
json_t *report_u64(uint64_t value);

json_t *report_sha256(const uint8_t digest[SHA256_BYTES]);

/* {"number": 9, "name": "SIGKILL"} */
json_t *report_signal(int number);

/* ---- Sections -------------------------------------------------------------------------------- */

json_t *report_job(struct report_builder *b); /* report_facts.c */
json_t *report_host(struct report_builder *b);
json_t *report_kernel(struct report_builder *b);
json_t *report_sandbox(struct report_builder *b);
json_t *report_stream(struct report_builder *b, enum stream_id stream); /* report_streams.c */
json_t *report_output_files(struct report_builder *b, json_t **ret_missing);
json_t *report_output_transfer(struct report_builder *b);
json_t *report_console(struct report_builder *b);
json_t *report_timings(struct report_builder *b); /* report_counts.c */
json_t *report_exits(struct report_builder *b);
json_t *report_actors(struct report_builder *b);
json_t *report_device_faults(struct report_builder *b);

#endif
