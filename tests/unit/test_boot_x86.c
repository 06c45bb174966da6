/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_boot_x86.c: what an x86_64 guest is told about its machine: MP table, CPUID, command line,
 * memory. Read back by small parsers of the test's own, from the specifications.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#if defined(__x86_64__)

#include "arch/arch.h"
#include "arch/x86_64/cpuid.h"
#include "arch/x86_64/layout.h"
#include "arch/x86_64/load.h"
#include "arch/x86_64/mptable.h"

#include <asm/kvm_para.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- MP table -------------------------------------------------------------------------------- */

static uint32_t le(const uint8_t *bytes, unsigned count)
{
    uint32_t value = 0;

    for (unsigned i = 0; i < count; i++) {
        value |= (uint32_t)bytes[i] << 8 * i;
    }
    return value;
}

static uint8_t sum(const uint8_t *bytes, size_t count)
{
    uint8_t value = 0;

    for (size_t i = 0; i < count; i++) {
        value = (uint8_t)(value + bytes[i]);
    }
    return value;
}

struct mp_seen {
    unsigned processors;
    unsigned boot_processors;
    unsigned buses;
    unsigned ioapics;
    unsigned lines;
    unsigned local_lines;
    uint64_t apic_ids; /* one bit each, the I/O APIC's too */
};

static void mp_entry(const uint8_t *entry, struct mp_seen *seen)
{
    switch (entry[0]) {
    case 0:
        assert_true(entry[3] & 1); /* usable */
        seen->boot_processors += (entry[3] & 2) != 0;
        assert_int_equal(entry[1], seen->processors);
        seen->apic_ids |= (uint64_t)1 << entry[1];
        seen->processors++;
        break;
    case 1:
        assert_memory_equal(entry + 2, "ISA   ", 6);
        seen->buses++;
        break;
    case 2:
        assert_false(seen->apic_ids >> entry[1] & 1); /* nobody else has this number */
        assert_true(entry[3] & 1);
        assert_int_equal(le(entry + 4, 4), 0xfec00000);
        seen->ioapics++;
        break;
    case 3:
        assert_int_equal(entry[1], 0);
        assert_int_equal(le(entry + 2, 2), 0); /* edge, active high */
        assert_int_equal(entry[5], seen->lines);
        assert_int_equal(entry[7], seen->lines);
        assert_int_equal(entry[6], seen->processors); /* the I/O APIC's number */
        seen->lines++;
        break;
    case 4:
        assert_int_equal(entry[1], seen->local_lines == 0 ? 3 : 1); /* ExtINT, then NMI */
        assert_int_equal(entry[7], seen->local_lines);
        seen->local_lines++;
        break;
    default:
        fail_msg("entry of type %u", entry[0]);
    }
}

static void check_mptable(unsigned vcpus)
{
    size_t bytes = mptable_bytes(vcpus);
    uint8_t *buffer = malloc(bytes);
    const uint8_t *table;
    const uint8_t *entry;
    struct mp_seen seen = {0};
    unsigned entries;

    assert_non_null(buffer);
    assert_true(bytes <= X86_MPTABLE_BYTES);
    mptable_build(buffer, X86_MPTABLE, vcpus);
    assert_memory_equal(buffer, "_MP_", 4);
    assert_int_equal(le(buffer + 4, 4), X86_MPTABLE + 16);
    assert_int_equal(buffer[8], 1);
    assert_int_equal(sum(buffer, 16), 0);
    table = buffer + 16;
    assert_memory_equal(table, "PCMP", 4);
    assert_int_equal(le(table + 4, 2), bytes - 16);
    assert_int_equal(sum(table, bytes - 16), 0);
    assert_int_equal(le(table + 36, 4), 0xfee00000);
    entries = le(table + 34, 2);
    entry = table + 44;
    for (unsigned i = 0; i < entries; i++) {
        assert_true(entry < buffer + bytes);
        mp_entry(entry, &seen);
        entry += entry[0] == 0 ? 20 : 8;
    }
    assert_ptr_equal(entry, buffer + bytes);
    assert_int_equal(seen.processors, vcpus);
    assert_int_equal(seen.boot_processors, 1);
    assert_int_equal(seen.buses, 1);
    assert_int_equal(seen.ioapics, 1);
    assert_int_equal(seen.lines, 24);
    assert_int_equal(seen.local_lines, 2);
    free(buffer);
}

static void test_mptable(void **state)
{
    (void)state;
    for (unsigned vcpus = 1; vcpus <= arch_platform.vcpus_max; vcpus++) {
        check_mptable(vcpus);
    }
}

/* ---- CPUID ----------------------------------------------------------------------------------- */

#define SUBLEAVES KVM_CPUID_FLAG_SIGNIFCANT_INDEX

/* As KVM could give it on a machine with 64 logical processors, all bits set where it matters. */
static struct cpuid_table supported_intel(void)
{
    static const struct kvm_cpuid_entry2 entries[] = {
        {.function = 0, .eax = 0x1f, .ebx = 0x756e6547, .ecx = 0x6c65746e, .edx = 0x49656e69},
        {.function = 1, .ebx = 0x07400800, .ecx = 0x7fffffff, .edx = 0xffffffff},
        {.function = 4, .index = 0, .flags = SUBLEAVES, .eax = 0xfc004121},
        {.function = 4, .index = 1, .flags = SUBLEAVES, .eax = 0xfc004143},
        {.function = 4, .index = 2, .flags = SUBLEAVES, .eax = 0xfc1fc163},
        {.function = 4, .index = 3, .flags = SUBLEAVES, .eax = 0},
        {.function = 6, .eax = 0},
        {.function = 7, .index = 0, .flags = SUBLEAVES, .ebx = 0xffffffff, .ecx = 0xffffffff},
        {.function = 0xb, .index = 0, .flags = SUBLEAVES, .eax = 1, .ebx = 2, .ecx = 0x100},
        {.function = 0x12, .index = 0, .flags = SUBLEAVES, .eax = 1},
        {.function = 0x1f, .index = 0, .flags = SUBLEAVES, .eax = 1, .ebx = 2, .ecx = 0x100},
        {.function = 0x40000000, .eax = 0x40000001, .ebx = 0x4b4d564b},
        {.function = 0x40000001, .eax = 0xffffffff},
        {.function = 0x80000001, .ecx = 0x121, .edx = 0x2c100800},
        {.function = 0x80000008, .eax = 0x302e, .ecx = 0},
    };
    struct cpuid_table table = {.count = ARRAY_SIZE(entries)};

    memcpy(table.entries, entries, sizeof(entries));
    return table;
}

static struct cpuid_table supported_amd(void)
{
    static const struct kvm_cpuid_entry2 entries[] = {
        {.function = 0, .eax = 0x10, .ebx = 0x68747541, .ecx = 0x444d4163, .edx = 0x69746e65},
        {.function = 1, .ebx = 0x07400800, .ecx = 0x7fffffff, .edx = 0xffffffff},
        {.function = 0x80000001, .ecx = 0xffffffff, .edx = 0x2fd3fbff},
        {.function = 0x80000008, .eax = 0x3030, .ecx = 0x703f},
        {.function = 0x8000000a, .eax = 1},
        {.function = 0x8000001d, .index = 0, .flags = SUBLEAVES, .eax = 0x4121},
        {.function = 0x8000001d, .index = 3, .flags = SUBLEAVES, .eax = 0x3c163},
        {.function = 0x8000001e, .eax = 77, .ebx = 0x0107, .ecx = 0x0301},
    };
    struct cpuid_table table = {.count = ARRAY_SIZE(entries)};

    memcpy(table.entries, entries, sizeof(entries));
    return table;
}

static const struct kvm_cpuid_entry2 *leaf(const struct cpuid_table *table, uint32_t function,
                                           uint32_t subleaf)
{
    const struct kvm_cpuid_entry2 *entry = cpuid_find(table, function, subleaf);

    assert_non_null(entry);
    return entry;
}

static void test_cpuid_identity(void **state)
{
    static const unsigned counts[] = {1, 2, 3, 4, 5, 31, 32};
    const struct cpuid_table supported = supported_intel();
    struct cpuid_table table;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
        unsigned vcpus = counts[i];
        unsigned bits = vcpus == 1 ? 0 : 32 - (unsigned)__builtin_clz(vcpus - 1);

        for (unsigned index = 0; index < vcpus; index++) {
            assert_int_equal(cpuid_for_vcpu(&supported, index, vcpus, true, &table), 0);
            assert_int_equal(leaf(&table, 1, 0)->ebx >> 24, index);
            assert_int_equal(leaf(&table, 1, 0)->ebx >> 16 & 0xff, 1U << bits);
            assert_int_equal(leaf(&table, 1, 0)->ebx & 0xffff, 0x0800);
            assert_int_equal(leaf(&table, 1, 0)->edx >> 28 & 1, vcpus > 1);
            for (uint32_t level = 0; level < 3; level++) {
                assert_int_equal(leaf(&table, 0xb, level)->edx, index);
                assert_int_equal(leaf(&table, 0xb, level)->ecx & 0xff, level);
            }
            /* A level of one thread, one of all cores, and the end. */
            assert_int_equal(leaf(&table, 0xb, 0)->ecx >> 8, 1);
            assert_int_equal(leaf(&table, 0xb, 0)->eax, 0);
            assert_int_equal(leaf(&table, 0xb, 0)->ebx, 1);
            assert_int_equal(leaf(&table, 0xb, 1)->ecx >> 8, 2);
            assert_int_equal(leaf(&table, 0xb, 1)->eax, bits);
            assert_int_equal(leaf(&table, 0xb, 1)->ebx, vcpus);
            assert_int_equal(leaf(&table, 0xb, 2)->ecx >> 8, 0);
            assert_int_equal(leaf(&table, 0xb, 2)->ebx, 0);
            /* The id's low bits reach just to the package: all are in package 0. */
            assert_int_equal(index >> leaf(&table, 0xb, 1)->eax, 0);
        }
    }
}

static void test_cpuid_features(void **state)
{
    const struct cpuid_table supported = supported_intel();
    struct cpuid_table table;

    (void)state;
    assert_int_equal(cpuid_for_vcpu(&supported, 1, 4, true, &table), 0);
    assert_int_equal(leaf(&table, 1, 0)->ecx >> 31 & 1, 1); /* hypervisor */
    assert_int_equal(leaf(&table, 1, 0)->ecx >> 24 & 1, 1); /* TSC deadline */
    assert_int_equal(leaf(&table, 1, 0)->ecx >> 5 & 1, 0);  /* VMX */
    assert_int_equal(leaf(&table, 1, 0)->ecx >> 13 & 1, 1); /* cmpxchg16b stays */
    assert_int_equal(leaf(&table, 6, 0)->eax & 4, 4);       /* ARAT */
    assert_int_equal(leaf(&table, 7, 0)->ebx, 0xffffffff & ~4U);
    assert_int_equal(leaf(&table, KVM_CPUID_FEATURES, 0)->eax,
                     ~(1U << KVM_FEATURE_ASYNC_PF | 1U << KVM_FEATURE_ASYNC_PF_VMEXIT |
                       1U << KVM_FEATURE_ASYNC_PF_INT));
    assert_null(cpuid_find(&table, 0x12, 0));
    assert_null(cpuid_find(&table, 0x1f, 0));
    assert_int_equal(leaf(&table, 0x80000008, 0)->ecx, 0); /* reserved on Intel */
    assert_int_equal(cpuid_physical_bits(&table), 0x2e);

    assert_int_equal(cpuid_for_vcpu(&supported, 1, 4, false, &table), 0);
    assert_int_equal(leaf(&table, 1, 0)->ecx >> 24 & 1, 0);
}

static void test_cpuid_intel_caches(void **state)
{
    const struct cpuid_table supported = supported_intel();
    struct cpuid_table table;

    (void)state;
    assert_int_equal(cpuid_for_vcpu(&supported, 0, 6, true, &table), 0);
    for (uint32_t i = 0; i < 3; i++) {
        uint32_t eax = leaf(&table, 4, i)->eax;

        assert_int_equal(eax >> 26, 7); /* room for 8 cores: 6 rounded up, less one */
        assert_int_equal(eax >> 14 & 0xfff, i == 2 ? 7 : 0);
        assert_int_equal(eax & 0x3fff, supported.entries[2 + i].eax & 0x3fff);
    }
    assert_int_equal(leaf(&table, 4, 3)->eax, 0);
}

static void test_cpuid_amd(void **state)
{
    const struct cpuid_table supported = supported_amd();
    struct cpuid_table table;

    (void)state;
    assert_int_equal(cpuid_for_vcpu(&supported, 4, 5, true, &table), 0);
    assert_int_equal(leaf(&table, 0x80000001, 0)->ecx, 0xffffffff & ~4U); /* no SVM */
    assert_int_equal(leaf(&table, 0x80000008, 0)->eax, 0x3030);
    assert_int_equal(leaf(&table, 0x80000008, 0)->ecx, 0x3004);
    assert_null(cpuid_find(&table, 0x8000000a, 0));
    assert_int_equal(leaf(&table, 0x8000001d, 0)->eax >> 14 & 0xfff, 0);
    assert_int_equal(leaf(&table, 0x8000001d, 3)->eax >> 14 & 0xfff, 7);
    assert_int_equal(leaf(&table, 0x8000001e, 0)->eax, 4);
    assert_int_equal(leaf(&table, 0x8000001e, 0)->ebx, 4); /* core 4, one thread */
    assert_int_equal(leaf(&table, 0x8000001e, 0)->ecx, 0);
    assert_int_equal(leaf(&table, 0xb, 1)->ebx, 5);
    assert_int_equal(cpuid_for_vcpu(&supported, 0, 1, true, &table), 0);
    assert_int_equal(leaf(&table, 0x80000001, 0)->ecx & 2, 0); /* one core: no CmpLegacy */
    assert_int_equal(leaf(&table, 0x80000008, 0)->ecx, 0);
}

static void test_cpuid_impossible_tables(void **state)
{
    struct cpuid_table supported = supported_intel();
    struct cpuid_table table;

    (void)state;
    supported.entries[1].function = 2;
    assert_int_equal(cpuid_for_vcpu(&supported, 0, 1, true, &table), -EINVAL);
    supported.entries[1].function = 1;
    supported.count = CPUID_ENTRIES_MAX + 1;
    assert_int_equal(cpuid_for_vcpu(&supported, 0, 1, true, &table), -E2BIG);
    /* Full: three entries of leaf 0xb come, but only 0xb, 0x12 and 0x1f go. One more is too many.
     */
    supported = supported_intel();
    while (supported.count < CPUID_ENTRIES_MAX) {
        supported.entries[supported.count++] = (struct kvm_cpuid_entry2){.function = 0xd};
    }
    assert_int_equal(cpuid_for_vcpu(&supported, 0, 1, true, &table), 0);
    assert_int_equal(table.count, CPUID_ENTRIES_MAX);
    supported.entries[9].function = 2; /* was 0x12 */
    assert_int_equal(cpuid_for_vcpu(&supported, 0, 1, true, &table), -E2BIG);
}

/* ---- Command line ---------------------------------------------------------------------------- */

static void test_cmdline(void **state)
{
    static const struct {
        const char *user;
        unsigned devices;
        const char *expected;
    } rows[] = {
        {"quiet", 0, "quiet"},
        {"", 0, ""},
        {"quiet", 2, "quiet virtio_mmio.device=4K@0xc0001000:5 virtio_mmio.device=4K@0xc0002000:6"},
        {"", 1, "virtio_mmio.device=4K@0xc0001000:5"},
        {"a -- b c", 1, "a virtio_mmio.device=4K@0xc0001000:5 -- b c"},
        {"a --", 1, "a virtio_mmio.device=4K@0xc0001000:5 --"},
        {"-- b", 1, "virtio_mmio.device=4K@0xc0001000:5 -- b"},
        {"a --b c--", 1, "a --b c-- virtio_mmio.device=4K@0xc0001000:5"},
        {"a=\"x -- y\" -- b", 1, "a=\"x -- y\" virtio_mmio.device=4K@0xc0001000:5 -- b"},
        {"a -- b", 0, "a -- b"},
    };
    char text[2048];

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        assert_int_equal(arch_cmdline(rows[i].user, arch_platform.virtio, rows[i].devices, text,
                                      sizeof(text), NULL),
                         0);
        assert_string_equal(text, rows[i].expected);
    }
}

static void test_cmdline_that_does_not_fit(void **state)
{
    struct bvmm_error err = {0};
    char text[42];

    (void)state;
    assert_int_equal(arch_cmdline("123456", arch_platform.virtio, 1, text, sizeof(text), &err), 0);
    assert_int_equal(strlen(text), 41);
    assert_int_equal(arch_cmdline("1234567", arch_platform.virtio, 1, text, sizeof(text), &err),
                     -E2BIG);
    assert_int_equal(err.kind, BVMM_ERROR_BOOT);
}

/* ---- Memory and devices ---------------------------------------------------------------------- */

static void test_memory_layout(void **state)
{
    struct guest_range ranges[GUEST_MEMORY_REGIONS_MAX];

    (void)state;
    assert_int_equal(arch_memory_layout(512 * MIB, ranges), 1);
    assert_int_equal(ranges[0].base.v, 0);
    assert_int_equal(ranges[0].bytes, 512 * MIB);
    assert_int_equal(arch_memory_layout(3 * GIB, ranges), 1);
    assert_int_equal(arch_memory_layout(3 * GIB + MIB, ranges), 2);
    assert_int_equal(ranges[0].bytes, 3 * GIB);
    assert_int_equal(ranges[1].base.v, 4 * GIB);
    assert_int_equal(ranges[1].bytes, MIB);
}

static void test_memory_map_around_the_hole(void **state)
{
    struct guest_range ranges[GUEST_MEMORY_REGIONS_MAX];
    struct boot_e820_entry map[X86_E820_ENTRIES_MAX];
    struct guest_memory memory;
    unsigned count = arch_memory_layout(5 * GIB, ranges);
    uint64_t ram_bytes = 0;

    (void)state;
    assert_int_equal(guest_memory_init(&memory, ranges, count, NULL), 0);
    count = x86_memory_map(&memory, map);
    assert_int_equal(count, 4);
    for (unsigned i = 0; i < count; i++) {
        ram_bytes += map[i].type == E820_RAM ? map[i].size : 0;
        if (i > 0) {
            assert_true(map[i - 1].addr + map[i - 1].size <= map[i].addr);
        }
    }
    assert_int_equal(ram_bytes, 5 * GIB - (X86_HIGH_MEMORY - X86_BASE_MEMORY_END));
    assert_int_equal(map[2].addr + map[2].size, 3 * GIB);
    assert_int_equal(map[3].addr, 4 * GIB);
    guest_memory_fini(&memory);
}

static void test_devices_do_not_share(void **state)
{
    uint64_t lines = 1 << 0 | 1 << 2; /* timer and cascade */
    uint64_t next = X86_HOLE;

    (void)state;
    for (unsigned i = 0; i < ARCH_VIRTIO_DEVICES_MAX; i++) {
        const struct arch_window *window = &arch_platform.virtio[i];

        assert_int_equal(window->bus, ARCH_BUS_MMIO);
        assert_true(window->base >= next);
        next = window->base + window->bytes;
        assert_true(window->gsi < X86_IRQ_LINES);
        assert_false(lines >> window->gsi & 1);
        lines |= (uint64_t)1 << window->gsi;
    }
    assert_true(next <= X86_IOAPIC);
    assert_false(lines >> arch_platform.serial.gsi & 1);
    assert_false(lines >> arch_platform.i8042.gsi & 1);
    assert_false(lines >> arch_platform.i8042_aux.gsi & 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mptable),
        cmocka_unit_test(test_cpuid_identity),
        cmocka_unit_test(test_cpuid_features),
        cmocka_unit_test(test_cpuid_intel_caches),
        cmocka_unit_test(test_cpuid_amd),
        cmocka_unit_test(test_cpuid_impossible_tables),
        cmocka_unit_test(test_cmdline),
        cmocka_unit_test(test_cmdline_that_does_not_fit),
        cmocka_unit_test(test_memory_layout),
        cmocka_unit_test(test_memory_map_around_the_hole),
        cmocka_unit_test(test_devices_do_not_share),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

#include <stdio.h>

int main(void)
{
    (void)puts("skipped: this is x86_64's boot data");
    return 77;
}

#endif
