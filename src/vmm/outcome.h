/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * outcome.h: what can be said of a run only when its VM process is gone.
 *
 * Thread: launcher. The record has passed record_check().
 */
#ifndef BVMM_VMM_OUTCOME_H
#define BVMM_VMM_OUTCOME_H

#include "base/record.h"

/*
 * outcome_look_for_panic - if the guest ended by a reset or a fault, see whether its console says
 * that it was a panic; then that is the status, and Linux's message the error. Not for a VM process
 * that died otherwise than by its own decision: why it died is the status then.
 */
void outcome_look_for_panic(struct record *record);

/*
 * The VM process died by SIGKILL that was not ours. The numbers are its control group's
 * (cgroup_facts), UINT64_MAX where they are not known: they tell whose memory was at an end.
 */
void outcome_explain_kill(struct record *record, uint64_t oom_kills, uint64_t limit_hits);

/* The VM process died by SIGSYS: which actor, and which call. */
void outcome_explain_violation(struct record *record);

/* Set status and error, whatever was there. */
void outcome_set(struct record *record, enum run_status status, enum bvmm_error_kind kind,
                 const char *message);

#endif
