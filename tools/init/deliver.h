/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * deliver.h: sends what the command left: announcement, streams, announcement with digests, bye.
 *
 * Thread: init has but one. Blocks while the host takes the bytes, never longer than
 * LINK_PATIENCE_MS without progress.
 */
#ifndef BVMM_INIT_DELIVER_H
#define BVMM_INIT_DELIVER_H

#include "link.h"
#include "outputs.h"

struct results {
    int stdout_fd;
    int stderr_fd;
    const char *exit_code; /* decimal text */
    struct outputs *outputs;
    const uint64_t *limit_bytes; /* per enum stream_id */
};

/*
 * deliver - send it all, by whatever way works.
 * Return: 0, or -errno: there was no way to the host any more.
 */
int deliver(struct link *link, const struct results *results) must_check;

#endif
