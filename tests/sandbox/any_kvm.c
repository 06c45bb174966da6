/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * any_kvm.c: makes of bvmm one that also runs on a KVM without hardware underneath, which interprets
 * plain instructions: for guests of a few of those. Linked with --wrap=arch_kvm_probe; all else is bvmm's.
 */
#include "arch/arch.h"

int __wrap_arch_kvm_probe(int kvm_fd, struct bvmm_error *err);

int __wrap_arch_kvm_probe(int kvm_fd, struct bvmm_error *err)
{
    (void)kvm_fd;
    (void)err;
    return 0;
}
