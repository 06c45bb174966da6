/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * gic.h: KVM's Arm interrupt controller: version 3, or 2 on a host that has no better one.
 * Thread: start-up. Kind GIC.
 */
#ifndef BVMM_ARCH_AARCH64_GIC_H
#define BVMM_ARCH_AARCH64_GIC_H

#include "arch/aarch64/machine.h"

/*
 * gic_choose - which version this host's KVM can make.
 * Before the vCPUs, which version 2 has at most ARM64_GICV2_VCPUS_MAX of; nothing is made yet.
 * Return: 0; -ENOTSUP: neither, or too many vCPUs.
 */
int gic_choose(int vm_fd, unsigned vcpus, enum arm64_gic *ret_gic, struct bvmm_error *err)
    must_check;

/*
 * gic_create - make it, tell KVM where it lies, and start it. After the last vCPU was made: KVM
 * gives each of them its part of the controller then, and takes no new one afterwards.
 * @ret_fd: the device; the caller closes it.
 */
int gic_create(int vm_fd, enum arm64_gic gic, unsigned vcpus, int *ret_fd, struct bvmm_error *err)
    must_check;

#endif
