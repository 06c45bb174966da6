/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_boot_arm64.c: kernel file and device tree of an aarch64 guest, on any host: none of it needs
 * KVM. The tree is read back by libfdt and compared with what the bindings ask for.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "arch/aarch64/machine.h"
#include "seeded_random.h"

#include <errno.h>
#include <inttypes.h>
#include <libfdt.h>
#include <stdlib.h>
#include <string.h>

#define RAM_BYTES (64 * MIB)
#define FILE_BYTES 5000U
#define IMAGE_BYTES (3 * MIB)
#define FUZZ_ROUNDS 3000

/* ID_AA64MMFR0_EL1 of a processor with pages of 4 and 64 KiB; and with 16 KiB only. */
#define MMFR0_4K_64K 0x00001122ULL
#define MMFR0_16K_ONLY 0xff101122ULL

struct small_image {
    struct arm64_image_header header;
    uint8_t rest[FILE_BYTES - sizeof(struct arm64_image_header)];
};

static void image_make(struct small_image *image)
{
    memset(image, 0x5a, sizeof(*image));
    image->header = (struct arm64_image_header){
        .code0 = 0xd503201f, /* nop */
        .text_offset = 0,
        .image_size = IMAGE_BYTES,
        .flags = 1U << 1, /* little-endian, pages of 4 KiB */
        .magic = 0x644d5241,
    };
}

static struct arm64_machine machine_make(unsigned vcpus, enum arm64_gic gic)
{
    struct arm64_machine machine = {
        .vcpus = vcpus, .gic = gic, .mmfr0 = MMFR0_4K_64K, .serial = arch_platform.serial};

    for (unsigned i = 0; i < vcpus; i++) {
        machine.mpidr[i] = 0x80000000 | i % 16 | (uint64_t)(i / 16) << 8; /* as KVM numbers them */
    }
    memset(machine.seed, 0xa5, sizeof(machine.seed));
    return machine;
}

/* One loading, and what became of it. */
struct loaded {
    struct guest_memory memory;
    struct arch_boot boot;
    struct bvmm_error err;
    int ret;
};

static void load_into(struct loaded *loaded, const struct arm64_machine *machine, const void *file,
                      size_t bytes, const char *cmdline, const struct arch_blob *initrd,
                      unsigned initrd_parts)
{
    const struct guest_range ram = {gpa(ARM64_RAM), RAM_BYTES};
    const struct arch_blob kernel = {"kernel", file, -1, bytes};
    const struct arch_boot_request request = {
        .kernel = &kernel,
        .initrd = initrd,
        .initrd_parts = initrd_parts,
        .cmdline = cmdline,
        .virtio = arch_platform.virtio,
        .virtio_count = 3,
    };

    memset(loaded, 0, sizeof(*loaded));
    assert_int_equal(guest_memory_init(&loaded->memory, &ram, 1, &loaded->err), 0);
    loaded->ret =
        arm64_load_kernel(machine, &loaded->memory, &request, &loaded->boot, &loaded->err);
}

static void load(struct loaded *loaded, const void *file, size_t bytes, const char *cmdline,
                 const struct arch_blob *initrd, unsigned initrd_parts)
{
    const struct arm64_machine machine = machine_make(2, ARM64_GIC_V3);

    load_into(loaded, &machine, file, bytes, cmdline, initrd, initrd_parts);
}

static void unload(struct loaded *loaded)
{
    guest_memory_fini(&loaded->memory);
}

static const void *at(const struct loaded *loaded, uint64_t address, uint64_t bytes)
{
    const void *host = guest_memory_at(&loaded->memory, gpa(address), bytes);

    assert_non_null(host);
    return host;
}

/* ---- The kernel file ------------------------------------------------------------------------- */

static void test_image(void **state)
{
    struct small_image image;
    struct loaded loaded;

    (void)state;
    image_make(&image);
    image.header.text_offset = 0x80000;
    load(&loaded, &image, sizeof(image), "quiet", NULL, 0);
    assert_string_equal(loaded.err.message, "");
    assert_int_equal(loaded.ret, 0);
    assert_int_equal(loaded.boot.entry, ARCH_ENTRY_ARM64);
    assert_string_equal(loaded.boot.format, "image");
    assert_int_equal(loaded.boot.pc.v, 0x80280000);
    assert_int_equal(loaded.boot.data.v, 0x80000000);
    assert_int_equal(loaded.boot.kernel.base.v, 0x80280000);
    assert_int_equal(loaded.boot.kernel.bytes, IMAGE_BYTES);
    assert_int_equal(loaded.boot.initrd.bytes, 0);
    assert_memory_equal(at(&loaded, 0x80280000, sizeof(image)), &image, sizeof(image));
    assert_int_equal(*(const uint8_t *)at(&loaded, 0x80280000 + sizeof(image), 1), 0); /* bss */
    unload(&loaded);
}

static void test_broken_headers(void **state)
{
    static const struct {
        size_t offset;
        uint64_t value;
        const char *message[2];
    } rows[] = {
        {offsetof(struct arm64_image_header, flags), 1, {"flags is 0x1", "little-endian"}},
        {offsetof(struct arm64_image_header, flags), 2U << 1, {"16 KiB", "another page size"}},
        {offsetof(struct arm64_image_header, image_size), 0, {"image_size is 0x0", "3.17"}},
        {offsetof(struct arm64_image_header, image_size),
         FILE_BYTES - 1,
         {"image_size is 0x1387", "0x1388"}},
        {offsetof(struct arm64_image_header, image_size), RAM_BYTES, {"image_size", "more memory"}},
        {offsetof(struct arm64_image_header, image_size),
         UINT64_MAX,
         {"image_size", "more memory"}},
        {offsetof(struct arm64_image_header, text_offset),
         2 * MIB,
         {"text_offset is 0x200000", "2 MiB"}},
        {offsetof(struct arm64_image_header, text_offset),
         0x800,
         {"text_offset is 0x800", "4 KiB"}},
        {offsetof(struct arm64_image_header, text_offset),
         UINT64_MAX,
         {"text_offset is 0xf", "2 MiB"}},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct small_image image;
        struct loaded loaded;

        image_make(&image);
        memcpy((uint8_t *)&image + rows[i].offset, &rows[i].value, sizeof(rows[i].value));
        load(&loaded, &image, sizeof(image), "quiet", NULL, 0);
        assert_true(loaded.ret < 0);
        assert_int_equal(loaded.err.kind, BVMM_ERROR_KERNEL_LOAD);
        assert_non_null(strstr(loaded.err.message, "kernel"));
        for (size_t j = 0; j < ARRAY_SIZE(rows[i].message); j++) {
            if (!strstr(loaded.err.message, rows[i].message[j])) {
                fail_msg("row %zu: '%s' is not in: %s", i, rows[i].message[j], loaded.err.message);
            }
        }
        unload(&loaded);
    }
}

static void test_page_sizes(void **state)
{
    static const struct {
        uint64_t size; /* bits 1 and 2 of the flags */
        uint64_t mmfr0;
        bool taken;
    } rows[] = {
        {0, MMFR0_16K_ONLY, true}, /* not said */
        {1, MMFR0_4K_64K, true},   {1, MMFR0_16K_ONLY, false}, {2, MMFR0_4K_64K, false},
        {2, MMFR0_16K_ONLY, true}, {3, MMFR0_4K_64K, true},    {3, MMFR0_16K_ONLY, false},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct arm64_machine machine = machine_make(1, ARM64_GIC_V3);
        struct small_image image;
        struct loaded loaded;

        image_make(&image);
        image.header.flags = rows[i].size << 1;
        machine.mmfr0 = rows[i].mmfr0;
        load_into(&loaded, &machine, &image, sizeof(image), "", NULL, 0);
        assert_int_equal(loaded.ret, rows[i].taken ? 0 : -ENOEXEC);
        unload(&loaded);
    }
}

static void test_other_files(void **state)
{
    static const struct {
        const char *bytes;
        size_t count;
        const char *message;
    } rows[] = {
        {"\177ELF\2\1\1", 8, "arch/arm64/boot/Image"},
        {"\x1f\x8b\x08", 4, "gunzip"},
        {"\x28\xb5\x2f\xfd", 4, "unzstd"},
        {"MZ\0\0zimg", 8, "compressed EFI program"},
        {"MZ", 2, "a PE (EFI) program"},
        {"hello", 5, "begin with 68 65 6c 6c"},
        {"", 1, "begin with 00 00 00 00"},
    };
    struct small_image image;
    struct loaded loaded;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        uint8_t file[1024] = {0};
        const struct arch_blob blob = {"kernel", file, -1, sizeof(file)};
        struct bvmm_error err = {0};

        memcpy(file, rows[i].bytes, rows[i].count);
        assert_int_equal(arm64_image_check(&blob, &err), -ENOEXEC);
        assert_int_equal(err.kind, BVMM_ERROR_KERNEL_LOAD);
        if (!strstr(err.message, rows[i].message)) {
            fail_msg("'%s' is not in: %s", rows[i].message, err.message);
        }
    }
    /* Shorter than a header: nothing beyond its end is looked at. */
    image_make(&image);
    for (size_t bytes = 0; bytes < sizeof(image.header); bytes++) {
        uint8_t *exact = malloc(bytes + 1); /* not bytes: 0 may give NULL */

        assert_non_null(exact);
        memcpy(exact, &image, bytes);
        load(&loaded, exact, bytes, "", NULL, 0);
        assert_int_equal(loaded.ret, -ENOEXEC);
        unload(&loaded);
        free(exact);
    }
}

static void test_damaged_at_random(void **state)
{
    struct seeded_random random = random_from_seed("test_damaged_at_random");
    unsigned taken = 0;

    (void)state;
    for (unsigned i = 0; i < FUZZ_ROUNDS; i++) {
        struct small_image image;
        struct loaded loaded;

        image_make(&image);
        for (size_t j = random_below(&random, 4); j > 0; j--) {
            ((uint8_t *)&image)[random_below(&random, sizeof(image.header))] =
                (uint8_t)random_u64(&random);
        }
        load(&loaded, &image, sizeof(image) - random_below(&random, 200), "quiet", NULL, 0);
        if (loaded.ret == 0) {
            taken++;
            assert_true(loaded.boot.kernel.base.v >= ARM64_KERNEL);
            assert_non_null(
                guest_memory_at(&loaded.memory, loaded.boot.kernel.base, loaded.boot.kernel.bytes));
        } else {
            assert_int_equal(loaded.err.kind, BVMM_ERROR_KERNEL_LOAD);
            assert_int_not_equal(loaded.err.message[0], '\0');
        }
        unload(&loaded);
    }
    assert_in_range(taken, 1, FUZZ_ROUNDS - 1);
}

/* ---- Initrd and command line ----------------------------------------------------------------- */

static int node(const void *fdt, const char *path)
{
    const int offset = fdt_path_offset(fdt, path);

    if (offset < 0) {
        fail_msg("the tree has no %s: %s", path, fdt_strerror(offset));
    }
    return offset;
}

static const void *property(const void *fdt, const char *path, const char *name, size_t bytes)
{
    int found = 0;
    const void *value = fdt_getprop(fdt, node(fdt, path), name, &found);

    if (!value || (size_t)found != bytes) {
        fail_msg("%s: %s has %d bytes, expected %zu", path, name, found, bytes);
    }
    return value;
}

static uint32_t u32(const void *fdt, const char *path, const char *name)
{
    return fdt32_ld(property(fdt, path, name, 4));
}

static uint64_t u64(const void *fdt, const char *path, const char *name, unsigned index,
                    unsigned count)
{
    return fdt64_ld((const fdt64_t *)property(fdt, path, name, (size_t)count * 8) + index);
}

static void assert_text(const void *fdt, const char *path, const char *name, const char *expected)
{
    assert_string_equal(property(fdt, path, name, strlen(expected) + 1), expected);
}

static void assert_cells(const void *fdt, const char *path, const char *name,
                         const uint32_t *expected, size_t count)
{
    const fdt32_t *cells = property(fdt, path, name, count * 4);

    for (size_t i = 0; i < count; i++) {
        assert_int_equal(fdt32_ld(&cells[i]), expected[i]);
    }
}

static void test_initrd(void **state)
{
    static const uint8_t first[] = "first";
    static const uint8_t second[] = "second!";
    const struct arch_blob parts[] = {
        {"a", first, -1, 5},
        {"b", second, -1, 7},
    };
    struct small_image image;
    struct loaded loaded;
    const void *fdt;
    uint64_t start;

    (void)state;
    image_make(&image);
    load(&loaded, &image, sizeof(image), "quiet", parts, 2);
    assert_string_equal(loaded.err.message, "");
    assert_int_equal(loaded.ret, 0);
    fdt = at(&loaded, ARM64_FDT, ARM64_FDT_BYTES_MAX);
    start = u64(fdt, "/chosen", "linux,initrd-start", 0, 1);
    assert_int_equal(start, 0x80000000 + RAM_BYTES - 4096);
    assert_int_equal(u64(fdt, "/chosen", "linux,initrd-end", 0, 1), start + 8 + 7);
    assert_memory_equal(at(&loaded, start, 15), "first\0\0\0second!", 15);
    assert_int_equal(loaded.boot.initrd.base.v, start);
    assert_int_equal(loaded.boot.initrd.bytes, 15);
    unload(&loaded);
}

static void test_initrd_that_does_not_fit(void **state)
{
    const uint64_t free_bytes = RAM_BYTES - 2 * MIB - IMAGE_BYTES;
    uint8_t *bytes = calloc(1, RAM_BYTES);
    struct arch_blob part = {"a", bytes, -1, free_bytes};
    struct small_image image;
    struct loaded loaded;

    (void)state;
    assert_non_null(bytes);
    image_make(&image);
    load(&loaded, &image, sizeof(image), "quiet", &part, 1);
    assert_int_equal(loaded.ret, 0);
    assert_int_equal(loaded.boot.initrd.base.v, 0x80200000 + IMAGE_BYTES);
    unload(&loaded);
    part.size_bytes++;
    load(&loaded, &image, sizeof(image), "quiet", &part, 1);
    assert_int_equal(loaded.ret, -ENOMEM);
    assert_int_equal(loaded.err.kind, BVMM_ERROR_BOOT);
    assert_non_null(strstr(loaded.err.message, "more memory"));
    unload(&loaded);
    free(bytes);
}

static void test_cmdline(void **state)
{
    char text[2049];
    struct small_image image;
    struct loaded loaded;

    (void)state;
    image_make(&image);
    memset(text, 'x', sizeof(text) - 1);
    text[2048] = '\0';
    load(&loaded, &image, sizeof(image), text, NULL, 0);
    assert_int_equal(loaded.ret, -E2BIG);
    assert_int_equal(loaded.err.kind, BVMM_ERROR_BOOT);
    assert_non_null(strstr(loaded.err.message, "2048 bytes"));
    unload(&loaded);
    text[2047] = '\0';
    load(&loaded, &image, sizeof(image), text, NULL, 0);
    assert_int_equal(loaded.ret, 0);
    assert_text(at(&loaded, ARM64_FDT, ARM64_FDT_BYTES_MAX), "/chosen", "bootargs", text);
    unload(&loaded);
}

/* Devices are in the tree. What is added is the early console, where there is to be a console. */
static void test_what_the_cmdline_gets(void **state)
{
    static const char *const rows[][2] = {
        {"a -- b", "a -- b"},
        {"", ""},
        {"console=ttyS0", "console=ttyS0 earlycon"},
        {"console=ttyS0,115200 quiet", "console=ttyS0,115200 quiet earlycon"},
        {"a console=ttyS0 -- b", "a console=ttyS0 earlycon -- b"},
        {"a -- console=ttyS0", "a -- console=ttyS0"},
        {"xconsole=ttyS0", "xconsole=ttyS0"},
        {"console=hvc0", "console=hvc0"},
        {"a=\"b console=ttyS0\"", "a=\"b console=ttyS0\""},
        {"earlycon=ns16550a,mmio,0x40000000 console=ttyS0",
         "earlycon=ns16550a,mmio,0x40000000 console=ttyS0"},
        {"console=ttyS0 -- earlycon", "console=ttyS0 earlycon -- earlycon"},
    };
    struct bvmm_error err = {0};
    char text[256];

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        assert_int_equal(
            arch_cmdline(rows[i][0], arch_platform.virtio, 4, text, sizeof(text), &err), 0);
        assert_string_equal(text, rows[i][1]);
    }
    assert_int_equal(arch_cmdline("console=ttyS0", arch_platform.virtio, 4, text, 14, &err),
                     -E2BIG);
}

/* ---- The device tree ------------------------------------------------------------------------- */

/* Build the tree of a machine into a buffer of the size that it has in guest memory. */
static void *tree(const struct arm64_machine *machine, unsigned virtio_count)
{
    const struct guest_range ram = {gpa(ARM64_RAM), 5 * GIB};
    const struct arch_boot_request request = {
        .cmdline = "console=ttyS0", .virtio = arch_platform.virtio, .virtio_count = virtio_count};
    struct bvmm_error err = {0};
    void *fdt = malloc(ARM64_FDT_BYTES_MAX);

    assert_non_null(fdt);
    assert_int_equal(arm64_fdt_build(machine, ram, (struct guest_range){0}, &request, fdt,
                                     ARM64_FDT_BYTES_MAX, &err),
                     0);
    assert_int_equal(fdt_check_full(fdt, ARM64_FDT_BYTES_MAX), 0);
    return fdt;
}

static void test_tree(void **state)
{
    static const uint32_t timer[] = {1, 13, 4, 1, 14, 4, 1, 11, 4, 1, 10, 4};
    static const uint32_t serial[] = {0, 1, 1};
    const struct arm64_machine machine = machine_make(1, ARM64_GIC_V3);
    void *fdt = tree(&machine, 0);

    (void)state;
    assert_int_equal(u32(fdt, "/", "#address-cells"), 2);
    assert_int_equal(u32(fdt, "/", "#size-cells"), 2);
    assert_text(fdt, "/chosen", "bootargs", "console=ttyS0");
    assert_text(fdt, "/chosen", "stdout-path", "/serial@40000000");
    assert_memory_equal(property(fdt, "/chosen", "rng-seed", 64), machine.seed, 64);
    assert_null(fdt_getprop(fdt, node(fdt, "/chosen"), "linux,initrd-start", NULL));
    assert_text(fdt, "/memory@80000000", "device_type", "memory");
    assert_int_equal(u64(fdt, "/memory@80000000", "reg", 0, 2), 0x80000000);
    assert_int_equal(u64(fdt, "/memory@80000000", "reg", 1, 2), 5 * GIB);
    assert_memory_equal(property(fdt, "/psci", "compatible", 26), "arm,psci-1.0\0arm,psci-0.2", 26);
    assert_text(fdt, "/psci", "method", "hvc");
    assert_text(fdt, "/timer", "compatible", "arm,armv8-timer");
    assert_cells(fdt, "/timer", "interrupts", timer, ARRAY_SIZE(timer));
    assert_text(fdt, "/serial@40000000", "compatible", "ns16550a");
    assert_int_equal(u64(fdt, "/serial@40000000", "reg", 0, 2), 0x40000000);
    assert_int_equal(u64(fdt, "/serial@40000000", "reg", 1, 2), 8);
    assert_int_equal(u32(fdt, "/serial@40000000", "clock-frequency"), 115200 * 16);
    assert_cells(fdt, "/serial@40000000", "interrupts", serial, ARRAY_SIZE(serial));
    assert_int_equal(fdt_path_offset(fdt, "/pmu"), -FDT_ERR_NOTFOUND);
    assert_int_equal(fdt_num_mem_rsv(fdt), 0);
    free(fdt);
}

static void test_cpus(void **state)
{
    static const unsigned counts[] = {1, 2, 4, 16, 17, 32};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
        const struct arm64_machine machine = machine_make(counts[i], ARM64_GIC_V3);
        void *fdt = tree(&machine, 0);
        unsigned seen = 0;
        int cpu = 0;

        assert_int_equal(u32(fdt, "/cpus", "#address-cells"), 2);
        assert_int_equal(u32(fdt, "/cpus", "#size-cells"), 0);
        fdt_for_each_subnode(cpu, fdt, node(fdt, "/cpus"))
        {
            char path[64];

            assert_int_equal(fdt_get_path(fdt, cpu, path, sizeof(path)), 0);
            assert_text(fdt, path, "device_type", "cpu");
            assert_text(fdt, path, "compatible", "arm,armv8");
            assert_text(fdt, path, "enable-method", "psci");
            /* Without bit 31, which is not part of the affinity. */
            assert_int_equal(u64(fdt, path, "reg", 0, 1), seen % 16 + (seen / 16) * 256);
            seen++;
        }
        assert_int_equal(seen, counts[i]);
        free(fdt);
    }
}

static void test_gic_v3(void **state)
{
    static const char path[] = "/interrupt-controller@3fff0000";
    const struct arm64_machine machine = machine_make(32, ARM64_GIC_V3);
    void *fdt = tree(&machine, 0);

    (void)state;
    assert_text(fdt, path, "compatible", "arm,gic-v3");
    assert_int_equal(u32(fdt, path, "#interrupt-cells"), 3);
    assert_int_equal(u32(fdt, path, "phandle"), u32(fdt, "/", "interrupt-parent"));
    assert_int_equal(u64(fdt, path, "reg", 0, 4), 0x3fff0000);
    assert_int_equal(u64(fdt, path, "reg", 1, 4), 0x10000);
    assert_int_equal(u64(fdt, path, "reg", 2, 4), 0x3fff0000 - 32 * 0x20000);
    assert_int_equal(u64(fdt, path, "reg", 3, 4), 32 * 0x20000);
    free(fdt);
}

static void test_gic_v2(void **state)
{
    static const char path[] = "/interrupt-controller@3fff0000";
    static const uint32_t timer[] = {1, 13, 0x704, 1, 14, 0x704, 1, 11, 0x704, 1, 10, 0x704};
    const struct arm64_machine machine = machine_make(3, ARM64_GIC_V2);
    void *fdt = tree(&machine, 0);

    (void)state;
    assert_text(fdt, path, "compatible", "arm,gic-400");
    assert_int_equal(u64(fdt, path, "reg", 1, 4), 0x1000);
    assert_int_equal(u64(fdt, path, "reg", 2, 4), 0x3ffe0000);
    assert_int_equal(u64(fdt, path, "reg", 3, 4), 0x2000);
    assert_cells(fdt, "/timer", "interrupts", timer, ARRAY_SIZE(timer)); /* for all three CPUs */
    free(fdt);
}

static void test_what_the_host_may_have(void **state)
{
    static const uint32_t pmu[] = {1, 7, 4};
    struct arm64_machine machine = machine_make(2, ARM64_GIC_V3);
    struct small_image image;
    struct loaded loaded;
    uint64_t address = 0;
    uint64_t bytes = 0;
    void *fdt;

    (void)state;
    machine.has_pmu = true;
    machine.has_steal_time = true;
    fdt = tree(&machine, 0);
    assert_text(fdt, "/pmu", "compatible", "arm,armv8-pmuv3");
    assert_cells(fdt, "/pmu", "interrupts", pmu, ARRAY_SIZE(pmu));
    assert_int_equal(fdt_num_mem_rsv(fdt), 1);
    assert_int_equal(fdt_get_mem_rsv(fdt, 0, &address, &bytes), 0);
    assert_int_equal(address, ARM64_STEAL_TIME);
    assert_true(bytes >= ARM64_VCPUS_MAX * 64);
    free(fdt);
    /* Neither the kernel nor the tree comes to lie there. */
    image_make(&image);
    load_into(&loaded, &machine, &image, sizeof(image), "", NULL, 0);
    assert_int_equal(loaded.ret, 0);
    assert_true(loaded.boot.kernel.base.v >= address + bytes);
    assert_true(loaded.boot.data.v + ARM64_FDT_BYTES_MAX <= address);
    unload(&loaded);
}

static void test_virtio(void **state)
{
    const struct arm64_machine machine = machine_make(1, ARM64_GIC_V3);
    void *fdt = tree(&machine, ARCH_VIRTIO_DEVICES_MAX);
    unsigned seen = 0;
    int child = 0;

    (void)state;
    fdt_for_each_subnode(child, fdt, 0)
    {
        char path[64];

        assert_int_equal(fdt_get_path(fdt, child, path, sizeof(path)), 0);
        if (fdt_node_check_compatible(fdt, child, "virtio,mmio") == 0) {
            const uint32_t interrupts[] = {0, 16 + seen, 1};

            /* In the order of the slots: the first block device is /dev/vda. */
            assert_int_equal(u64(fdt, path, "reg", 0, 2), 0x40001000 + seen * 0x1000);
            assert_int_equal(u64(fdt, path, "reg", 1, 2), 0x1000);
            assert_cells(fdt, path, "interrupts", interrupts, 3);
            (void)property(fdt, path, "dma-coherent", 0);
            seen++;
        }
    }
    assert_int_equal(seen, 16);
    free(fdt);
}

struct range {
    uint64_t start;
    uint64_t end;
};

/* The registers of all devices and RAM: nothing lies upon anything else. */
static void test_nothing_overlaps(void **state)
{
    const struct arm64_machine machine = machine_make(ARM64_VCPUS_MAX, ARM64_GIC_V3);
    void *fdt = tree(&machine, ARCH_VIRTIO_DEVICES_MAX);
    struct range ranges[64];
    unsigned count = 0;
    int child = 0;

    (void)state;
    fdt_for_each_subnode(child, fdt, 0)
    {
        int bytes = 0;
        const fdt64_t *reg = fdt_getprop(fdt, child, "reg", &bytes);

        for (int i = 0; reg && i + 1 < bytes / 8; i += 2) {
            assert_true(count < ARRAY_SIZE(ranges));
            ranges[count].start = fdt64_ld(&reg[i]);
            ranges[count].end = ranges[count].start + fdt64_ld(&reg[i + 1]);
            count++;
        }
    }
    assert_int_equal(count, 1 + 2 + 1 + 16); /* memory, GIC, serial, virtio */
    for (unsigned i = 0; i < count; i++) {
        assert_true(ranges[i].start < ranges[i].end);
        for (unsigned j = 0; j < i; j++) {
            assert_true(ranges[i].end <= ranges[j].start || ranges[j].end <= ranges[i].start);
        }
    }
    free(fdt);
}

static void test_tree_that_does_not_fit(void **state)
{
    const struct arm64_machine machine = machine_make(ARM64_VCPUS_MAX, ARM64_GIC_V3);
    const struct guest_range ram = {gpa(ARM64_RAM), GIB};
    const struct arch_boot_request request = {
        .cmdline = "quiet", .virtio = arch_platform.virtio, .virtio_count = 16};
    void *whole = tree(&machine, 16);
    const size_t needed = fdt_totalsize(whole);
    uint8_t *small = malloc(needed);
    struct bvmm_error err = {0};

    (void)state;
    free(whole);
    assert_non_null(small);
    assert_in_range(needed, 1024, ARM64_FDT_BYTES_MAX / 2); /* the largest tree has room to spare */
    for (size_t bytes = 0; bytes < 1024; bytes += 4) {
        assert_int_equal(
            arm64_fdt_build(&machine, ram, (struct guest_range){0}, &request, small, bytes, &err),
            -ENOMEM);
        assert_int_equal(err.kind, BVMM_ERROR_BOOT);
    }
    free(small);
}

/* ---- The machine ----------------------------------------------------------------------------- */

static void test_platform(void **state)
{
    struct guest_range ranges[GUEST_MEMORY_REGIONS_MAX];
    uint64_t lines = (uint64_t)1 << arch_platform.serial.gsi;

    (void)state;
    assert_string_equal(arch_platform.isa, "aarch64");
    assert_int_equal(arch_memory_layout(300 * GIB, ranges), 1);
    assert_int_equal(ranges[0].base.v, 2 * GIB);
    assert_int_equal(ranges[0].bytes, 300 * GIB);
    assert_int_equal(arch_platform.i8042.bus, ARCH_BUS_NONE);
    assert_int_equal(arch_platform.serial.bus, ARCH_BUS_MMIO);
    for (unsigned i = 0; i < ARCH_VIRTIO_DEVICES_MAX; i++) {
        const struct arch_window *window = &arch_platform.virtio[i];

        assert_int_equal(window->bus, ARCH_BUS_MMIO);
        assert_true(window->gsi < ARM64_GIC_INTERRUPTS - 32); /* SPIs that the GIC has */
        assert_false(lines >> window->gsi & 1);
        lines |= (uint64_t)1 << window->gsi;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_image),
        cmocka_unit_test(test_broken_headers),
        cmocka_unit_test(test_page_sizes),
        cmocka_unit_test(test_other_files),
        cmocka_unit_test(test_damaged_at_random),
        cmocka_unit_test(test_initrd),
        cmocka_unit_test(test_initrd_that_does_not_fit),
        cmocka_unit_test(test_cmdline),
        cmocka_unit_test(test_what_the_cmdline_gets),
        cmocka_unit_test(test_tree),
        cmocka_unit_test(test_cpus),
        cmocka_unit_test(test_gic_v3),
        cmocka_unit_test(test_gic_v2),
        cmocka_unit_test(test_what_the_host_may_have),
        cmocka_unit_test(test_virtio),
        cmocka_unit_test(test_nothing_overlaps),
        cmocka_unit_test(test_tree_that_does_not_fit),
        cmocka_unit_test(test_platform),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
