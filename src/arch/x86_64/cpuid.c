/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * cpuid.c: one row per leaf that differs from what KVM supports.
 *
 * Numbers of leaves and bits: Intel SDM volume 2A, CPUID; AMD APM volume 3, appendix E; for
 * 0x4000000x the kernel's Documentation/virt/kvm/x86/cpuid.rst.
 */
#include "arch/x86_64/cpuid.h"

#include <asm/kvm_para.h>
#include <errno.h>
#include <string.h>

#define BIT(n) ((uint32_t)1 << (n))

struct context {
    unsigned index; /* also the APIC id */
    unsigned vcpus;
    unsigned core_bits; /* so many low bits of an APIC id number the core */
    bool tsc_deadline;
    bool amd;
};

static void set_field(uint32_t *reg, unsigned high, unsigned low, uint32_t value)
{
    uint32_t mask = (uint32_t)((BIT(high - low) << 1) - 1) << low;

    *reg = (*reg & ~mask) | ((value << low) & mask);
}

static void set_bit(uint32_t *reg, unsigned bit, bool value)
{
    *reg = value ? *reg | BIT(bit) : *reg & ~BIT(bit);
}

/* Leaf 1: features, and the identity that the oldest software reads. */
static void leaf_features(struct kvm_cpuid_entry2 *entry, const struct context *context)
{
    set_field(&entry->ebx, 31, 24, context->index);
    set_field(&entry->ebx, 23, 16, BIT(context->core_bits));
    set_bit(&entry->ecx, 5, false); /* VMX */
    set_bit(&entry->ecx, 24, context->tsc_deadline);
    set_bit(&entry->ecx, 27, false); /* OSXSAVE: follows CR4, KVM sets it */
    set_bit(&entry->ecx, 31, true);  /* running under a hypervisor */
    set_bit(&entry->edx, 28, context->vcpus > 1);
}

/* Leaf 4 (Intel) and 0x8000001d (AMD): who shares each cache. */
static void leaf_caches(struct kvm_cpuid_entry2 *entry, const struct context *context)
{
    unsigned type = entry->eax & 0x1f;
    unsigned level = (entry->eax >> 5) & 7;

    if (type == 0) {
        return;
    }
    /* First and second level belong to one core, the others to all. */
    set_field(&entry->eax, 25, 14, level >= 3 ? BIT(context->core_bits) - 1 : 0);
    if (!context->amd) {
        set_field(&entry->eax, 31, 26, BIT(context->core_bits) - 1);
    }
}

/* Leaf 6: the local APIC timer always runs, so that no other timer is needed (ARAT). */
static void leaf_power(struct kvm_cpuid_entry2 *entry, const struct context *context)
{
    (void)context;
    set_bit(&entry->eax, 2, true);
}

static void leaf_structured(struct kvm_cpuid_entry2 *entry, const struct context *context)
{
    (void)context;
    if (entry->index == 0) {
        set_bit(&entry->ebx, 2, false);  /* SGX */
        set_bit(&entry->ecx, 30, false); /* SGX launch control */
    }
}

/* 0x40000001: KVM's own features. A page fault must not be turned into a context switch. */
static void leaf_kvm(struct kvm_cpuid_entry2 *entry, const struct context *context)
{
    (void)context;
    set_bit(&entry->eax, KVM_FEATURE_ASYNC_PF, false);
    set_bit(&entry->eax, KVM_FEATURE_ASYNC_PF_VMEXIT, false);
    set_bit(&entry->eax, KVM_FEATURE_ASYNC_PF_INT, false);
}

static void leaf_extended(struct kvm_cpuid_entry2 *entry, const struct context *context)
{
    set_bit(&entry->ecx, 2, false); /* SVM */
    if (context->amd) {
        set_bit(&entry->ecx, 1, context->vcpus > 1); /* the logical processors are cores */
    }
}

/* 0x80000008: AMD counts its cores here. */
static void leaf_address_sizes(struct kvm_cpuid_entry2 *entry, const struct context *context)
{
    if (context->amd) {
        set_field(&entry->ecx, 7, 0, context->vcpus - 1);
        set_field(&entry->ecx, 15, 12, context->core_bits);
    }
}

/* 0x8000001e: AMD's topology. One node, one thread a core. */
static void leaf_amd_topology(struct kvm_cpuid_entry2 *entry, const struct context *context)
{
    entry->eax = context->index;
    entry->ebx = context->index & 0xff;
    entry->ecx = 0;
    entry->edx = 0;
}

/* Leaves 0xb and 0x1f are made afresh: see put_topology(). The rest is for nested guests or SGX. */
static const uint32_t dropped_leaves[] = {0xb, 0x12, 0x1f, 0x8000000a};

static const struct leaf_change {
    uint32_t function;
    void (*change)(struct kvm_cpuid_entry2 *entry, const struct context *context);
} leaf_changes[] = {
    {0x1, leaf_features},
    {0x4, leaf_caches},
    {0x6, leaf_power},
    {0x7, leaf_structured},
    {KVM_CPUID_FEATURES, leaf_kvm},
    {0x80000001, leaf_extended},
    {0x80000008, leaf_address_sizes},
    {0x8000001d, leaf_caches},
    {0x8000001e, leaf_amd_topology},
};

static bool is_dropped(uint32_t function)
{
    for (size_t i = 0; i < ARRAY_SIZE(dropped_leaves); i++) {
        if (dropped_leaves[i] == function) {
            return true;
        }
    }
    return false;
}

static void change_entry(struct kvm_cpuid_entry2 *entry, const struct context *context)
{
    for (size_t i = 0; i < ARRAY_SIZE(leaf_changes); i++) {
        if (leaf_changes[i].function == entry->function) {
            leaf_changes[i].change(entry, context);
        }
    }
}

/*
 * Extended topology: a thread level with one thread, a core level with all, then an end marker.
 * Only where leaf 0 admits leaf 0xb: else the guest would read another leaf's values.
 */
static int put_topology(struct cpuid_table *table, const struct context *context)
{
    static const struct {
        uint32_t type;
        bool all;
    } levels[] = {{1, false}, {2, true}, {0, false}};
    const struct kvm_cpuid_entry2 *base = cpuid_find(table, 0, 0);

    if (!base || base->eax < 0xb) {
        return 0;
    }
    if (table->count + ARRAY_SIZE(levels) > CPUID_ENTRIES_MAX) {
        return -E2BIG;
    }
    for (uint32_t i = 0; i < ARRAY_SIZE(levels); i++) {
        table->entries[table->count++] = (struct kvm_cpuid_entry2){
            .function = 0xb,
            .index = i,
            .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
            .eax = levels[i].all ? context->core_bits : 0,
            .ebx = levels[i].type == 0 ? 0
                   : levels[i].all     ? context->vcpus
                                       : 1,
            .ecx = i | levels[i].type << 8,
            .edx = context->index,
        };
    }
    return 0;
}

static bool vendor_is_amd(const struct cpuid_table *table)
{
    const struct kvm_cpuid_entry2 *base = cpuid_find(table, 0, 0);

    /* "AuthenticAMD" and "HygonGenuine", the first four letters of each. */
    return base && (base->ebx == 0x68747541 || base->ebx == 0x6f677948);
}

int cpuid_for_vcpu(const struct cpuid_table *supported, unsigned index, unsigned vcpus,
                   bool tsc_deadline, struct cpuid_table *ret_table)
{
    struct context context = {
        .index = index,
        .vcpus = vcpus,
        .tsc_deadline = tsc_deadline,
        .amd = vendor_is_amd(supported),
    };

    if (supported->count > CPUID_ENTRIES_MAX) {
        return -E2BIG;
    }
    if (!cpuid_find(supported, 1, 0)) {
        return -EINVAL;
    }
    while (BIT(context.core_bits) < vcpus) {
        context.core_bits++;
    }
    ret_table->count = 0;
    for (uint32_t i = 0; i < supported->count; i++) {
        struct kvm_cpuid_entry2 entry = supported->entries[i];

        if (is_dropped(entry.function)) {
            continue;
        }
        change_entry(&entry, &context);
        ret_table->entries[ret_table->count++] = entry;
    }
    return put_topology(ret_table, &context);
}

const struct kvm_cpuid_entry2 *cpuid_find(const struct cpuid_table *table, uint32_t function,
                                          uint32_t subleaf)
{
    for (uint32_t i = 0; i < table->count; i++) {
        const struct kvm_cpuid_entry2 *entry = &table->entries[i];

        if (entry->function == function &&
            (entry->index == subleaf || !(entry->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX))) {
            return entry;
        }
    }
    return NULL;
}

unsigned cpuid_physical_bits(const struct cpuid_table *table)
{
    const struct kvm_cpuid_entry2 *sizes = cpuid_find(table, 0x80000008, 0);

    return sizes ? sizes->eax & 0xff : 36;
}
