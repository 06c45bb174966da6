/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * cli_status.h: what a person sees on the terminal while a job runs, and after it.
 *
 * Thread: main. Reads the live fields of a record that the VM process is writing.
 */
#ifndef BVMM_VMM_CLI_STATUS_H
#define BVMM_VMM_CLI_STATUS_H

#include "base/base.h"
#include "base/record.h"
#include "vmm/launcher.h"

#include <stdio.h>

struct cli_status {
    FILE *to;
    uint64_t start_ns;
    uint64_t timeout_secs; /* 0: none */
    bool line;             /* a line that is written over: only on a terminal */
    bool verbose;          /* a line of its own for each phase, and the actors at the end */
    uint32_t phase;        /* shown last */
    size_t shown_chars;    /* of the line */
};

/* Whether and how the run is watched; an observer without a tick if not. */
struct launcher_observer cli_status_observer(struct cli_status *status);

/* Take the line away, before something else is written. */
void cli_status_clear(struct cli_status *status);

/* What each actor did (--verbose). The record is final. */
void cli_status_actors(struct cli_status *status, const struct record *record);

/* "running", "collecting results": what goes on after this point in time. */
const char *cli_phase_name(uint32_t phase);

#endif
