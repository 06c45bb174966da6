/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * error.h: what went wrong, in a kind for programs and a sentence for people.
 *
 * Functions return 0 or -errno. Those that run at start-up also fill a struct bvmm_error when they
 * fail, because there the errno alone never tells a user what to do next.
 */
#ifndef BVMM_BASE_ERROR_H
#define BVMM_BASE_ERROR_H

#include "base/base.h"

/* The kinds of SEED.md, plus JOB for a job that was refused before anything was touched. */
#define BVMM_ERROR_LIST(X)                                                                         \
    X(NONE, "None")                                                                                \
    X(KVM, "Kvm")                           /* /dev/kvm or one of its ioctls */                    \
    X(MEMORY, "Memory")                     /* guest memory could not be had or mapped */          \
    X(BOOT, "Boot")                         /* the guest could not be started */                   \
    X(DEVICE, "Device")                     /* a device could not be set up, or failed */          \
    X(VCPU, "Vcpu")                         /* a vCPU could not be made, or cannot go on */        \
    X(GIC, "Gic")                           /* Arm interrupt controller */                         \
    X(IO, "Io")                             /* a host file or descriptor */                        \
    X(KERNEL_LOAD, "KernelLoad")            /* the kernel file is none, or does not fit */         \
    X(UNSUPPORTED_ARCH, "UnsupportedArch")  /* neither x86_64 nor aarch64 */                       \
    X(UNSUPPORTED_PLATFORM, "UnsupportedPlatform") /* not Linux */                                 \
    X(TIMEOUT, "Timeout")                   /* the job's deadline passed */                        \
    X(SANDBOX, "Sandbox")                   /* a layer of the sandbox could not be put up */       \
    X(JOB, "Job")                           /* the job file is wrong */

enum bvmm_error_kind {
#define X(id, name) BVMM_ERROR_##id,
    BVMM_ERROR_LIST(X)
#undef X
        BVMM_ERROR_COUNT
};

#define BVMM_ERROR_MESSAGE_BYTES 1024

struct bvmm_error {
    enum bvmm_error_kind kind;
    char message[BVMM_ERROR_MESSAGE_BYTES]; /* one sentence, no newline, NUL-terminated */
};

/* The name that reports carry ("KernelLoad"); "Unknown" for a value out of range. */
const char *bvmm_error_kind_name(enum bvmm_error_kind kind);

/*
 * error_set - fill *err (which may be NULL) and return code.
 * @code: 0 or negative errno, handed back so that `return error_set(err, ..., -EINVAL, ...)` works.
 */
int error_set(struct bvmm_error *err, enum bvmm_error_kind kind, int code, const char *fmt, ...)
    printf_like(4, 5);

#endif
