/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * policy.h: the system calls that an actor may make: a table beside each actor, and nothing common to
 * all. What is in no row kills the process, and the report names actor and call. The launcher has
 * tables of the same form.
 *
 * A row pins arguments: a descriptor by its value, an ioctl by its number. Values that are known only
 * when the machine is assembled (which number a doorbell has) are named here, and filled in by
 * vmm/machine.c. vmm/filter.c makes filters of the rows; `bvmm sandbox --print` shows them.
 *
 * Constant tables. Thread: any.
 */
#ifndef BVMM_ACTORS_POLICY_H
#define BVMM_ACTORS_POLICY_H

#include "base/base.h"
#include "base/record.h"

/* What an argument must be. */
/* clang-format off */
#define POLICY_VALUE_LIST(X)                                                                       \
    X(ANY, "any")                                                                                  \
    X(CONSTANT, "constant")         /* the row's own number */                                     \
    X(OWN_DOORBELL, "own doorbell") /* the eventfd that the actor sleeps on */                     \
    X(DOORBELLS, "doorbells of those it sends to, and of those that wait for room")                \
    X(IRQ, "own interrupt eventfd")                                                                \
    X(IMAGE, "own image")                                                                          \
    X(VCPU, "own vCPU")                                                                            \
    X(TIMER, "deadline timer")                                                                     \
    X(SIGNALS, "signalfd")                                                                         \
    X(PROCESS, "own process id")                                                                   \
    X(HOST_SOCKETS, "host sockets of the bridge")                                                  \
    X(BRIDGE_LIST, "list of what the bridge sleeps on")                                            \
    /* of the launcher: vmm/launcher_policy.c */                                                   \
    X(VM_PIDFD, "the VM process (a pidfd)")                                                        \
    X(VM_SOCKET, "socket to the VM process")                                                       \
    X(CANCEL, "the event that cancels")                                                            \
    X(BROKER, "socket to the bridge's actor")                                                      \
    X(CGROUP_BASE, "directory of the VM's control group")                                          \
    X(CGROUP_READ, "counters of the VM's control group")                                           \
    X(KERNEL_FILE, "the job's kernel")                                                             \
    X(REPORT_DIRS, "directories of the report and of large outputs")                               \
    X(LARGE_DIR, "number kept for the directory of large outputs")                                 \
    X(NEXT_FILTER, "the narrower filter")
/* clang-format on */

enum policy_value {
#define X(id, text) POLICY_##id,
    POLICY_VALUE_LIST(X)
#undef X
        POLICY_VALUE_COUNT
};
const char *policy_value_text(enum policy_value value);

struct policy_arg {
    uint8_t index; /* 0 to 5 */
    enum policy_value value;
    uint64_t constant;
};

#define POLICY_ARGS_MAX 4

/* `only_if` says when the row is needed at all; ANY: always. A value that the machine does not have
 * (no bridge, so no host sockets) takes its rows away. */
struct policy_rule {
    const char *syscall;
    struct policy_arg args[POLICY_ARGS_MAX];
    unsigned arg_count;
    enum policy_value only_if;
    const char *why;
};

struct policy {
    const struct policy_rule *rules;
    unsigned rule_count;
};

/* The numbers behind the names, for one actor of one machine. */
#define POLICY_NUMBERS_MAX (ACTORS_MAX + 2)
struct policy_numbers {
    uint64_t numbers[POLICY_VALUE_COUNT][POLICY_NUMBERS_MAX];
    unsigned count[POLICY_VALUE_COUNT];
};

void policy_add_number(struct policy_numbers *numbers, enum policy_value value, uint64_t number);

/* Rows that most tables write the same way; each table still lists its own. */
#define POLICY_READ_DOORBELL                                                                       \
    {                                                                                              \
        "read", {{0, POLICY_OWN_DOORBELL, 0}}, 1, POLICY_ANY, "sleep until the doorbell rings"     \
    }
#define POLICY_RING_DOORBELLS                                                                      \
    {                                                                                              \
        "write", {{0, POLICY_DOORBELLS, 0}}, 1, POLICY_ANY, "wake a sleeping receiver or sender"   \
    }
#define POLICY_RAISE_IRQ                                                                           \
    {                                                                                              \
        "write", {{0, POLICY_IRQ, 0}}, 1, POLICY_ANY, "interrupt the guest (irqfd)"                \
    }
#define POLICY_CLOCK_CPU                                                                           \
    {                                                                                              \
        "clock_gettime", {{0, POLICY_CONSTANT, CLOCK_THREAD_CPUTIME_ID}}, 1, POLICY_ANY,           \
            "CPU time of the thread, at its end"                                                   \
    }
#define POLICY_CLOCK_MONOTONIC                                                                     \
    {                                                                                              \
        "clock_gettime", {{0, POLICY_CONSTANT, CLOCK_MONOTONIC}}, 1, POLICY_ANY,                   \
            "time stamps, where the host's clock is not readable without a call"                   \
    }
#define POLICY_EXIT_THREAD                                                                         \
    {                                                                                              \
        "exit", {{0, POLICY_ANY, 0}}, 0, POLICY_ANY, "end of the thread"                           \
    }

#endif
