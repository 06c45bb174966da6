/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * launcher_policy.h: the system calls that the launcher may make, beside a running VM and after it.
 * Constant tables of the same form as the actors'. Thread: any.
 */
#ifndef BVMM_VMM_LAUNCHER_POLICY_H
#define BVMM_VMM_LAUNCHER_POLICY_H

#include "actors/policy.h"

enum launcher_state {
    LAUNCHER_WAITING, /* from the VM process's start to its end */
    LAUNCHER_WRITING, /* from then on: what the VM process left is read, the report is written */
    LAUNCHER_STATE_COUNT
};

struct launcher_def {
    const char *name;
    const char *owns; /* for people, as in struct actor_def */
    const struct policy *policy;
};

extern const struct launcher_def launcher_defs[LAUNCHER_STATE_COUNT];

#endif
