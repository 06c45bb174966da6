/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* test_load_bzimage.c: a good bzImage is loaded by the 64-bit protocol; broken fields are named. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#if defined(__x86_64__)

#include "x86_kernels.h"

#include <errno.h>

static void test_good(void **state)
{
    static const uint8_t text[] = "initrd";
    const struct arch_blob initrd = {"i", text, -1, 6};
    const struct boot_params *params;
    const uint8_t *payload;
    struct small_bzimage image;
    struct loaded loaded;

    (void)state;
    small_bzimage_make(&image);
    load_bytes(&loaded, &image, sizeof(image), "console=ttyS0", &initrd, 1);
    assert_string_equal(loaded.err.message, "");
    assert_int_equal(loaded.ret, 0);
    assert_int_equal(loaded.boot.entry, ARCH_ENTRY_LINUX64);
    assert_string_equal(loaded.boot.format, "bzimage");
    assert_int_equal(loaded.boot.pc.v, TEXT_ADDRESS + 0x200);
    assert_int_equal(loaded.boot.kernel.bytes, BZIMAGE_INIT_BYTES);
    payload = guest_memory_at(&loaded.memory, gpa(TEXT_ADDRESS), BZIMAGE_INIT_BYTES);
    assert_non_null(payload);
    for (size_t i = 0; i < BZIMAGE_INIT_BYTES; i++) {
        assert_int_equal(payload[i], i < BZIMAGE_PAYLOAD_BYTES ? 0x33 : 0);
    }
    params = guest_memory_at(&loaded.memory, loaded.boot.data, sizeof(*params));
    assert_non_null(params);
    assert_int_equal(params->hdr.type_of_loader, 0xff);
    assert_int_equal(params->hdr.version, 0x020f); /* as in the file */
    assert_int_equal(params->hdr.code32_start, TEXT_ADDRESS);
    assert_int_equal(params->hdr.setup_data, 0);
    assert_int_equal(params->hdr.ramdisk_size, 6);
    assert_int_equal(params->hdr.ramdisk_image, loaded.boot.initrd.base.v);
    assert_string_equal(guest_memory_at(&loaded.memory, gpa(params->hdr.cmd_line_ptr), 14),
                        "console=ttyS0");
    assert_int_equal(params->e820_entries, 3);
    loaded_free(&loaded);
}

static void test_initrd_stays_below_its_limit(void **state)
{
    static const uint8_t text[] = "initrd";
    const struct arch_blob initrd = {"i", text, -1, 6};
    struct small_bzimage image;
    struct setup_header header;
    struct loaded loaded;

    (void)state;
    small_bzimage_make(&image);
    memcpy(&header, image.setup + BZIMAGE_HEADER, sizeof(header));
    header.initrd_addr_max = 0x7fffff;
    memcpy(image.setup + BZIMAGE_HEADER, &header, sizeof(header));
    load_bytes(&loaded, &image, sizeof(image), "", &initrd, 1);
    assert_int_equal(loaded.ret, 0);
    assert_int_equal(loaded.boot.initrd.base.v, 0x7ff000);
    loaded_free(&loaded);

    /* In the middle of the kernel: the initrd goes below it. */
    header.initrd_addr_max = TEXT_ADDRESS + 0x1000;
    memcpy(image.setup + BZIMAGE_HEADER, &header, sizeof(header));
    load_bytes(&loaded, &image, sizeof(image), "", &initrd, 1);
    assert_int_equal(loaded.ret, 0);
    assert_int_equal(loaded.boot.initrd.base.v, TEXT_ADDRESS - 0x1000);
    loaded_free(&loaded);

    header.initrd_addr_max = 0;
    memcpy(image.setup + BZIMAGE_HEADER, &header, sizeof(header));
    load_bytes(&loaded, &image, sizeof(image), "", &initrd, 1);
    assert_int_equal(loaded.ret, -ENOMEM);
    assert_int_equal(loaded.err.kind, BVMM_ERROR_BOOT);
    loaded_free(&loaded);
}

static void test_broken_fields(void **state)
{
#define FIELD(field) offsetof(struct setup_header, field), sizeof(((struct setup_header *)0)->field)
    static const struct {
        const char *what;
        size_t offset;
        size_t bytes;
        uint64_t value;
        const char *expected;
    } rows[] = {
        {"no boot flag", FIELD(boot_flag), 0xaa54, "boot_flag is 0xaa54"},
        {"no magic", FIELD(header), 0x12345678, "is not a kernel"},
        {"old protocol", FIELD(version), 0x20b, "version is 0x20b"},
        {"zImage", FIELD(loadflags), 0x80, "loadflags is 0x80"},
        {"32-bit kernel", FIELD(xloadflags), 2, "xloadflags is 0x2"},
        {"loaded in low memory", FIELD(pref_address), 0x90000, "pref_address is 0x90000"},
        {"outside RAM", FIELD(pref_address), KERNEL_MEMORY_BYTES, "guest's RAM"},
        {"address wraps", FIELD(pref_address), UINT64_MAX - 0xfff, "guest's RAM"},
        {"runs out of RAM", FIELD(init_size), 0xffffffff, "pref_address, init_size"},
        {"init_size too small", FIELD(init_size), 1023, "init_size is 0x3ff"},
        {"setup past the end", FIELD(setup_sects), 3, "setup_sects is 0x3"},
        {"all setup", FIELD(setup_sects), 255, "setup_sects is 0xff"},
        {"default setup size", FIELD(setup_sects), 0, "setup_sects is 0x0"},
        {"larger than the file", FIELD(syssize), 65, "syssize is 0x41"},
        {"syssize wraps", FIELD(syssize), 0xffffffff, "syssize is 0xffffffff"},
        {"no 64-bit entry", FIELD(syssize), 32, "syssize is 0x20"},
        {"payload past the end", FIELD(payload_length), 1009, "payload_length is 0x401"},
        {"payload wraps", FIELD(payload_offset), 0xffffffff, "payload_offset"},
        {"short command line", FIELD(cmdline_size), 4, "at most 4"},
    };
#undef FIELD

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct small_bzimage image;
        struct loaded loaded;

        small_bzimage_make(&image);
        memcpy(image.setup + BZIMAGE_HEADER + rows[i].offset, &rows[i].value, rows[i].bytes);
        load_bytes(&loaded, &image, sizeof(image), "quiet", NULL, 0);
        if (loaded.ret >= 0 || !strstr(loaded.err.message, rows[i].expected)) {
            fail_msg("%s: %d, '%s'", rows[i].what, loaded.ret, loaded.err.message);
        }
        loaded_free(&loaded);
    }
}

static void test_cut_short_anywhere(void **state)
{
    struct small_bzimage image;

    (void)state;
    small_bzimage_make(&image);
    for (size_t size = 0; size < sizeof(image); size++) {
        struct loaded loaded;

        load_bytes(&loaded, &image, size, "quiet", NULL, 0);
        if (loaded.ret >= 0 || loaded.err.kind != BVMM_ERROR_KERNEL_LOAD) {
            fail_msg("%zu bytes: %d, '%s'", size, loaded.ret, loaded.err.message);
        }
        loaded_free(&loaded);
    }
}

static void test_bytes_behind_are_ignored(void **state)
{
    struct {
        struct small_bzimage image;
        uint8_t signature[100];
    } file;
    const uint8_t *behind;
    struct loaded loaded;

    (void)state;
    memset(&file, 0x44, sizeof(file));
    small_bzimage_make(&file.image);
    load_bytes(&loaded, &file, sizeof(file), "quiet", NULL, 0);
    assert_int_equal(loaded.ret, 0);
    behind = guest_memory_at(&loaded.memory, gpa(TEXT_ADDRESS + BZIMAGE_PAYLOAD_BYTES), 1);
    assert_non_null(behind);
    assert_int_equal(*behind, 0);
    loaded_free(&loaded);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_initrd_stays_below_its_limit),
        cmocka_unit_test(test_broken_fields),
        cmocka_unit_test(test_cut_short_anywhere),
        cmocka_unit_test(test_bytes_behind_are_ignored),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

#include <stdio.h>

int main(void)
{
    (void)puts("skipped: bzImage is an x86_64 kernel format");
    return 77;
}

#endif
