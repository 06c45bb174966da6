/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * cli_status.h: what a person sees on the terminal while a job runs, and after it.
 *
 * Thread: main.
 */
#ifndef BVMM_VMM_CLI_STATUS_H
#define BVMM_VMM_CLI_STATUS_H

#include "base/base.h"
#include "base/record.h"
#include "bvmm/bvmm.h"

#include <stdio.h>

struct cli_status {
    FILE *to;
    bool line;          /* a line that is written over: only on a terminal */
    bool verbose;       /* a line of its own for each phase, and the actors at the end */
    const char *phase;  /* shown last; texts of the library, which stay */
    size_t shown_chars; /* of the line */
};

/* For bvmm_vm_set_progress(); @ctx: the struct cli_status. */
void cli_status_progress(void *ctx, const struct bvmm_progress *progress);

/* How often; 0: nobody watches. */
unsigned cli_status_interval_ms(const struct cli_status *status);

/* Take the line away, before something else is written. */
void cli_status_clear(struct cli_status *status);

/* What each actor did (--verbose). The record is final. */
void cli_status_actors(struct cli_status *status, const struct record *record);

#endif
