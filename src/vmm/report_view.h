/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * report_view.h: what a report says, as the structs of bvmm.h. report_render_view() fills them as it
 * makes the JSON, so that the two cannot differ. Bytes stay where they are, in the record; paths and
 * the console's text are copies.
 *
 * Thread: launcher.
 */
#ifndef BVMM_VMM_REPORT_VIEW_H
#define BVMM_VMM_REPORT_VIEW_H

#include "base/base.h"
#include "bvmm/bvmm.h"

struct report_view {
    struct bvmm_content streams[2]; /* by enum bvmm_stream */
    struct bvmm_content *files;
    size_t file_count;
    struct bvmm_missing_file *missing;
    size_t missing_count;
    struct bvmm_console console;
    struct bvmm_timings timings;
};

/* Both take what the caller made, with a copy of path. 0 or -ENOMEM. */
int report_view_add_file(struct report_view *view, const struct bvmm_content *content,
                         const void *path, size_t path_bytes) must_check;
int report_view_add_missing(struct report_view *view, const struct bvmm_missing_file *missing,
                            const void *path, size_t path_bytes) must_check;

void report_view_fini(struct report_view *view);

#endif
