/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * outputs.h: finds the output files that the job names, when the command has ended.
 *
 * Thread: init has but one. Blocks on the guest's own files only; never on a pipe or device, which
 * are refused.
 */
#ifndef BVMM_INIT_OUTPUTS_H
#define BVMM_INIT_OUTPUTS_H

#include "protocol/manifest.h"

#define OUTPUTS_MISSING_MAX OUTPUT_FILES_MAX

struct output {
    char *path;
    int fd;
    uint64_t size_bytes; /* what is there */
    uint64_t sent_bytes; /* what fits into the limit: set by outputs_fit() */
};

struct outputs {
    struct output files[OUTPUT_FILES_MAX];
    size_t file_count;
    struct manifest_entry missing[OUTPUTS_MISSING_MAX];
    size_t missing_count;
    size_t manifest_bytes; /* what all that takes in the manifest, digests included */
    uint64_t copy_max_bytes;
    bool wanted; /* the job names output files: the stream is sent, even with none in it */
};

/*
 * @copy_max_bytes: files of /proc and /sys do not tell their size; so much of one is copied.
 */
void outputs_init(struct outputs *outputs, uint64_t copy_max_bytes);

/*
 * outputs_add - collect a file, or all that match a pattern.
 * @pattern: absolute; glob(7) if is_pattern, else a path as it stands.
 * What brings no file, or cannot be collected, is noted as missing with the reason. A file is
 * collected once, however many patterns match it.
 */
void outputs_add(struct outputs *outputs, const char *pattern, bool is_pattern);

/* Note that something of a path is missing, or may be. Said once for each path. */
void outputs_note_missing(struct outputs *outputs, const char *path, enum manifest_reason reason);

/*
 * outputs_fit - share the stream's limit out: the framing of all files first, then contents in
 * their order. Files that have not even room for their framing become missing.
 */
void outputs_fit(struct outputs *outputs, uint64_t limit_bytes);

/* The framed stream (section D of protocol.h): what is sent, or what it would be without limit. */
uint64_t outputs_stream_bytes(const struct outputs *outputs, bool without_limit);

void outputs_close(struct outputs *outputs);

#endif
