/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * outcome.c: what can be said of a run only when its VM process is gone. See outcome.h.
 *
 * Thread: launcher. Never blocks.
 */
#include "vmm/outcome.h"

#include <inttypes.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PANIC_MARK "Kernel panic - not syncing: "

void outcome_set(struct record *record, enum run_status status, enum bvmm_error_kind kind,
                 const char *message)
{
    struct run_outcome *outcome = &record->outcome;

    outcome->status = (uint32_t)status;
    outcome->error_kind = (uint32_t)kind;
    (void)snprintf(outcome->error_message, sizeof(outcome->error_message), "%s", message);
}

/* Ends of the guest that a panic may look like. What somebody else decided, its console does not. */
static bool may_be_panic(const struct run_outcome *outcome)
{
    switch (outcome->status) {
    case RUN_COMPLETED: /* by a reset, when the exit code was there already */
    case RUN_GUEST_SHUTDOWN:
    case RUN_GUEST_RESET:
    case RUN_GUEST_TRIPLE_FAULT:
    case RUN_GUEST_PANIC:
        return outcome->console_decides != 0;
    default:
        return false;
    }
}

void outcome_look_for_panic(struct record *record)
{
    char message[BVMM_ERROR_MESSAGE_BYTES];
    uint64_t dropped_bytes = 0;
    size_t dropped_at = 0;
    size_t bytes = 0;
    char *text = NULL;
    const char *mark = NULL;

    if (!may_be_panic(&record->outcome) ||
        record_console_copy(record, &text, &bytes, &dropped_bytes, &dropped_at) < 0) {
        return;
    }
    mark = memmem(text, bytes, PANIC_MARK, strlen(PANIC_MARK));
    if (mark != NULL) {
        mark += strlen(PANIC_MARK); /* the text ends with NUL */
        (void)snprintf(message, sizeof(message), "the guest's kernel panicked: %.*s",
                       (int)strcspn(mark, "\r\n"), mark);
        outcome_set(record, RUN_GUEST_PANIC, BVMM_ERROR_BOOT, message);
    }
    free(text);
}

void outcome_explain_kill(struct record *record, uint64_t oom_kills, uint64_t limit_hits)
{
    if (oom_kills == UINT64_MAX || limit_hits == UINT64_MAX) {
        outcome_set(
            record, RUN_VM_KILLED, BVMM_ERROR_DEVICE,
            "the VM process was killed by signal 9 (Killed); by somebody outside, or by the "
            "host's kernel for want of memory: then its log (dmesg) has a line about it, and "
            "a smaller $.memory_mib would help");
    } else if (oom_kills == 0) {
        outcome_set(
            record, RUN_VM_KILLED, BVMM_ERROR_DEVICE,
            "the VM process was killed by signal 9 (Killed); by somebody outside, and not for "
            "want of memory");
    } else if (limit_hits > 0) {
        outcome_set(record, RUN_VM_KILLED, BVMM_ERROR_MEMORY,
                    "the VM process needed more host memory than its control group may have, and "
                    "the kernel killed it: a larger $.cgroup.memory_max_mib would help");
    } else {
        outcome_set(
            record, RUN_VM_KILLED, BVMM_ERROR_MEMORY,
            "the host ran out of memory, or a control group above the VM's reached its limit, "
            "and the kernel killed the VM process: a smaller $.memory_mib would help, or fewer "
            "programs beside it");
    }
}

void outcome_explain_violation(struct record *record)
{
    const struct record_violation *violation = &record->violation;
    const uint64_t *args = violation->args;
    char message[BVMM_ERROR_MESSAGE_BYTES];
    char *name = NULL;

    if (violation->seen == 0 || violation->actor >= record->actor_count) {
        outcome_set(record, RUN_SANDBOX_VIOLATION, BVMM_ERROR_SANDBOX,
                    "the VM process was killed for a system call that its sandbox forbids");
        return;
    }
    name = seccomp_syscall_resolve_num_arch(violation->arch, violation->syscall);
    (void)snprintf(message, sizeof(message),
                   "actor %s made the system call %s (%d; arguments 0x%" PRIx64 ", 0x%" PRIx64
                   ", 0x%" PRIx64 ", 0x%" PRIx64 ", 0x%" PRIx64 ", 0x%" PRIx64
                   "), which its sandbox forbids; the call was not executed",
                   record->actors[violation->actor].name, name != NULL ? name : "unknown",
                   violation->syscall, args[0], args[1], args[2], args[3], args[4], args[5]);
    free(name);
    outcome_set(record, RUN_SANDBOX_VIOLATION, BVMM_ERROR_SANDBOX, message);
}
