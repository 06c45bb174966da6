/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * cpuid.h: what a vCPU says about itself. Pure: what KVM supports goes in, a vCPU's table comes
 * out.
 *
 * The guest is to see the host's processor as it is (a benchmark asks for its caches and
 * instruction sets), with one socket, `vcpus` cores and one thread a core, and without what it
 * cannot use: nested virtualization, SGX, asynchronous page faults.
 */
#ifndef BVMM_ARCH_X86_64_CPUID_H
#define BVMM_ARCH_X86_64_CPUID_H

#include "base/base.h"

#include <linux/kvm.h>

#define CPUID_ENTRIES_MAX 256

/* Laid out as struct kvm_cpuid2, with room for the entries: an argument of KVM's ioctls. */
struct cpuid_table {
    uint32_t count;
    uint32_t padding;
    struct kvm_cpuid_entry2 entries[CPUID_ENTRIES_MAX];
};
_Static_assert(offsetof(struct cpuid_table, count) == offsetof(struct kvm_cpuid2, nent) &&
                   offsetof(struct cpuid_table, entries) == offsetof(struct kvm_cpuid2, entries),
               "KVM reads and writes this");

/*
 * cpuid_for_vcpu - the table of one vCPU.
 * @supported: as KVM_GET_SUPPORTED_CPUID gave it.
 * @tsc_deadline: KVM_CAP_TSC_DEADLINE_TIMER, which the supported table leaves out.
 * Return: 0; -E2BIG if the entries do not fit; -EINVAL if the leaf 1 is missing.
 */
int cpuid_for_vcpu(const struct cpuid_table *supported, unsigned index, unsigned vcpus,
                   bool tsc_deadline, struct cpuid_table *ret_table) must_check;

/* One entry; subleaf 0 where a leaf has none. NULL if it is not there. */
const struct kvm_cpuid_entry2 *cpuid_find(const struct cpuid_table *table, uint32_t function,
                                          uint32_t subleaf);

/* What KVM supports, as arch_vm_new() read it. Belongs to the VM. */
struct arch_vm;
const struct cpuid_table *x86_vm_cpuid(const struct arch_vm *vm);

/* Width of a guest physical address. */
unsigned cpuid_physical_bits(const struct cpuid_table *table);

#endif
