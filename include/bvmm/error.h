/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * error.h: what went wrong, in a kind for programs and a sentence for people.
 * Part of the public interface: include bvmm/bvmm.h.
 */
#ifndef BVMM_ERROR_H
#define BVMM_ERROR_H

#ifdef __cplusplus
extern "C" {
#endif

/* clang-format off */
#define BVMM_ERROR_LIST(X)                                                                         \
    X(NONE, "None")                                                                                \
    X(KVM, "Kvm")                                  /* /dev/kvm or one of its ioctls */             \
    X(MEMORY, "Memory")                            /* guest memory could not be had or mapped */   \
    X(BOOT, "Boot")                                /* the guest could not be started */            \
    X(DEVICE, "Device")                            /* a device could not be set up, or failed */   \
    X(VCPU, "Vcpu")                                /* a vCPU could not be made, or cannot go on */ \
    X(GIC, "Gic")                                  /* Arm interrupt controller */                  \
    X(IO, "Io")                                    /* a host file or descriptor */                 \
    X(KERNEL_LOAD, "KernelLoad")                   /* the kernel file is none, or does not fit */  \
    X(UNSUPPORTED_ARCH, "UnsupportedArch")         /* neither x86_64 nor aarch64 */                \
    X(UNSUPPORTED_PLATFORM, "UnsupportedPlatform") /* not Linux */                                 \
    X(TIMEOUT, "Timeout")                          /* the job's deadline passed */                 \
    X(SANDBOX, "Sandbox") /* a layer of the sandbox could not be put up, or held */                \
    X(JOB, "Job")         /* the job or configuration is wrong */
/* clang-format on */

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
#if defined(__GNUC__) && !defined(_WIN32)
__attribute__((visibility("default")))
#endif
const char *
bvmm_error_kind_name(enum bvmm_error_kind kind);

#ifdef __cplusplus
}
#endif

#endif
