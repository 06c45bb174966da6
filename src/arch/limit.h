/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * limit.h: a time limit for a vCPU that the calling thread runs. For the probes of src/arch/ only:
 * actors are stopped by the supervisor.
 */
#ifndef BVMM_ARCH_LIMIT_H
#define BVMM_ARCH_LIMIT_H

#include "arch/kvm.h"

#include <signal.h>
#include <time.h>

struct kvm_limit {
    timer_t timer;
    struct sigaction old_action;
    sigset_t old_mask;
};

/*
 * kvm_limit_begin - from now on this thread's KVM_RUN of this vCPU fails with -EINTR when the limit
 * has passed, and run->immediate_exit is 1 then. Uses ARCH_PROBE_SIGNAL.
 * Return: 0, and kvm_limit_end() must follow on the same thread; or -errno with *err (kind KVM).
 */
int kvm_limit_begin(struct kvm_limit *limit, struct kvm_run *run, uint64_t limit_ns,
                    struct bvmm_error *err) must_check;

/* The signal's action and mask are again what they were. */
void kvm_limit_end(struct kvm_limit *limit);

#endif
