/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * kvm.h: KVM's ioctls with types, and with messages when they fail. Thin: one call, one ioctl
 * (kvm_open and kvm_create_vcpu make a few). Knows nothing of actors or devices.
 *
 * Thread: any. kvm_run() blocks, nothing else does. All return 0 or -errno; those with an err
 * fill it (kind KVM, VCPU for vCPUs, MEMORY for memory slots).
 */
#ifndef BVMM_ARCH_KVM_H
#define BVMM_ARCH_KVM_H

#include "arch/arch.h"
#include "base/base.h"
#include "base/error.h"
#include "virtio/guest_memory.h"

#include <linux/kvm.h>

/*
 * kvm_open - open the device, and check API version and the capabilities that bvmm needs.
 * @path: normally KVM_DEVICE_PATH. The message tells no such device, no permission (and the group
 * that would have it), wrong version and missing capability apart.
 */
#define KVM_DEVICE_PATH "/dev/kvm"
int kvm_open(const char *path, int *ret_kvm_fd, struct bvmm_error *err) must_check;

/* What kvm_open() insists on; kvm.c has the common ones, each ISA its own. */
struct kvm_capability {
    int id;
    const char *name;
};
extern const struct kvm_capability arch_kvm_capabilities[];
extern const size_t arch_kvm_capability_count;

/* KVM_CHECK_EXTENSION on /dev/kvm or a VM: 0 if it is not there, else its value. */
int kvm_extension(int fd, int capability);

/* @type: arch_vm_type(). The descriptor is close-on-exec, as all of KVM's are. */
int kvm_create_vm(int kvm_fd, unsigned long type, int *ret_vm_fd, struct bvmm_error *err)
    must_check;

/* One memory slot for each region of guest memory. */
int kvm_set_memory(int vm_fd, const struct guest_memory *memory, struct bvmm_error *err) must_check;

/* Writing to event_fd raises an edge on the line; no vCPU is involved. */
int kvm_irqfd(int vm_fd, int event_fd, uint32_t gsi, struct bvmm_error *err) must_check;

/*
 * kvm_ioeventfd - a guest's write of `bytes` bytes to this address signals event_fd instead of
 * leaving KVM_RUN. @bytes: 1, 2, 4, 8. @match: NULL for any value, else only this one.
 */
int kvm_ioeventfd(int vm_fd, int event_fd, enum arch_bus bus, uint64_t address, uint32_t bytes,
                  const uint64_t *match, struct bvmm_error *err) must_check;

struct kvm_vcpu_handle {
    int fd;
    struct kvm_run *run; /* shared with the kernel; only this vCPU's thread may touch it, except
                            immediate_exit, which a signal handler on that thread may set */
    size_t run_bytes;
};

int kvm_create_vcpu(int kvm_fd, int vm_fd, unsigned index, struct kvm_vcpu_handle *ret_vcpu,
                    struct bvmm_error *err) must_check;

/* Unmap and close. A handle that is {-1, NULL, 0} is left alone. */
void kvm_vcpu_close(struct kvm_vcpu_handle *vcpu);

/*
 * kvm_run - KVM_RUN. Return: 0 with run->exit_reason valid; -EINTR: a signal or immediate_exit;
 * -EAGAIN: call again; other -errno: this vCPU cannot go on.
 */
int kvm_run(const struct kvm_vcpu_handle *vcpu) must_check;

/*
 * kvm_failed - a call of KVM's failed: what it was, the system's word for it, and what can be done.
 * @invalid: what EINVAL, or another error that is this call's own, tells here; NULL: nothing.
 * Return: code.
 */
int kvm_failed(struct bvmm_error *err, enum bvmm_error_kind kind, int code, const char *invalid,
               const char *fmt, ...) printf_like(5, 6);

/* "KVM_EXIT_INTERNAL_ERROR", ...; "KVM_EXIT_?" for one that this build does not know. */
const char *kvm_exit_name(uint32_t exit_reason);

/*
 * One sentence on why a vCPU stopped with an exit that no device answers (INTERNAL_ERROR,
 * FAIL_ENTRY, SHUTDOWN, ...): kind VCPU, with suberror and instruction bytes where KVM gave them.
 */
void kvm_describe_exit(const struct kvm_run *run, unsigned index, struct bvmm_error *err);

#endif
