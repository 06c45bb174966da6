/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* test_load_elf.c: a good vmlinux is loaded byte for byte; each broken field is named. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#if defined(__x86_64__)

#include "x86_kernels.h"

#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

static const void *at(const struct loaded *loaded, uint64_t address, uint64_t bytes)
{
    const void *host = guest_memory_at(&loaded->memory, gpa(address), bytes);

    assert_non_null(host);
    return host;
}

static void assert_filled(const struct loaded *loaded, uint64_t address, uint64_t bytes,
                          uint8_t value)
{
    const uint8_t *byte = at(loaded, address, bytes);

    for (uint64_t i = 0; i < bytes; i++) {
        assert_int_equal(byte[i], value);
    }
}

static void test_pvh(void **state)
{
    static const uint8_t first[] = "first!!"; /* 8 bytes */
    static const uint8_t second[] = "second"; /* 7 bytes */
    const struct arch_blob initrd[] = {{"a", first, -1, 5}, {"b", second, -1, 7}};
    const struct pvh_start_info *info;
    const struct pvh_module *module;
    const struct pvh_memory *map;
    struct small_elf elf;
    struct loaded loaded;

    (void)state;
    small_elf_make(&elf);
    load_bytes(&loaded, &elf, sizeof(elf), "console=ttyS0", initrd, 2);
    assert_string_equal(loaded.err.message, "");
    assert_int_equal(loaded.ret, 0);
    assert_int_equal(loaded.boot.entry, ARCH_ENTRY_PVH);
    assert_string_equal(loaded.boot.format, "elf-pvh");
    assert_int_equal(loaded.boot.pc.v, PVH_ENTRY);
    assert_int_equal(loaded.boot.kernel.base.v, TEXT_ADDRESS);
    assert_int_equal(loaded.boot.kernel.bytes, DATA_ADDRESS + DATA_MEMORY_BYTES - TEXT_ADDRESS);
    assert_filled(&loaded, TEXT_ADDRESS, TEXT_BYTES, 0x11);
    assert_filled(&loaded, TEXT_ADDRESS + TEXT_BYTES, TEXT_MEMORY_BYTES - TEXT_BYTES, 0);
    assert_filled(&loaded, DATA_ADDRESS, DATA_BYTES, 0x22);

    info = at(&loaded, loaded.boot.data.v, sizeof(*info));
    assert_int_equal(info->magic, 0x336ec578);
    assert_int_equal(info->version, 1);
    assert_string_equal((const char *)at(&loaded, info->cmdline, 14), "console=ttyS0");
    assert_int_equal(info->modules, 1);
    module = at(&loaded, info->module_list, sizeof(*module));
    assert_int_equal(module->address % 4096, 0);
    assert_int_equal(module->bytes, 8 + 7);
    assert_int_equal(module->address + 4096, KERNEL_MEMORY_BYTES);
    /* The second part begins at the next multiple of 4. */
    assert_memory_equal(at(&loaded, module->address, 15), "first\0\0\0second\0", 15);
    assert_int_equal(loaded.boot.initrd.base.v, module->address);

    assert_int_equal(info->memory_map_entries, 3);
    map = at(&loaded, info->memory_map, 3 * sizeof(*map));
    assert_int_equal(map[0].address, 0);
    assert_int_equal(map[0].bytes, 0x9fc00);
    assert_int_equal(map[0].type, E820_RAM);
    assert_int_equal(map[1].address, 0x9fc00);
    assert_int_equal(map[1].bytes, 0x100000 - 0x9fc00);
    assert_int_equal(map[1].type, E820_RESERVED);
    assert_int_equal(map[2].address, 0x100000);
    assert_int_equal(map[2].bytes, KERNEL_MEMORY_BYTES - 0x100000);
    assert_int_equal(map[2].type, E820_RAM);
    loaded_free(&loaded);
}

static void test_linux64_without_note(void **state)
{
    const struct boot_params *params;
    const uint64_t *tables;
    struct small_elf elf;
    struct loaded loaded;

    (void)state;
    small_elf_make(&elf);
    elf.note.head.n_type = 1;
    load_bytes(&loaded, &elf, sizeof(elf), "quiet", NULL, 0);
    assert_int_equal(loaded.ret, 0);
    assert_int_equal(loaded.boot.entry, ARCH_ENTRY_LINUX64);
    assert_string_equal(loaded.boot.format, "elf-linux64");
    assert_int_equal(loaded.boot.pc.v, ELF_ENTRY);
    assert_int_equal(loaded.boot.initrd.bytes, 0);
    params = at(&loaded, loaded.boot.data.v, sizeof(*params));
    assert_int_equal(params->hdr.boot_flag, 0xaa55);
    assert_int_equal(params->hdr.header, 0x53726448);
    assert_int_equal(params->hdr.type_of_loader, 0xff);
    assert_int_equal(params->hdr.ramdisk_size, 0);
    assert_string_equal((const char *)at(&loaded, params->hdr.cmd_line_ptr, 6), "quiet");
    assert_int_equal(params->e820_entries, 3);
    assert_int_equal(params->e820_table[2].addr, 0x100000);
    assert_int_equal(params->sentinel, 0);

    /* Walk the tables for an address near 4 GiB: it maps to itself, in a page of 2 MiB. */
    tables = at(&loaded, X86_PAGE_TABLES, 4096);
    tables = at(&loaded, tables[0] & ~0xfffULL, 4096);
    tables = at(&loaded, tables[3] & ~0xfffULL, 4096);
    assert_int_equal(tables[511], 0xffe00000 | 0x83);
    loaded_free(&loaded);
}

/* A good ELF file with one field changed, and what the message must then say. */
struct broken {
    const char *what;
    size_t offset;
    size_t bytes;
    uint64_t value;
    const char *expected;
};

#define HEADER(field) offsetof(struct small_elf, header.field), sizeof(((Elf64_Ehdr *)0)->field)
#define SEGMENT(index, field)                                                                      \
    offsetof(struct small_elf, segments) + (index) * sizeof(Elf64_Phdr) +                          \
        offsetof(Elf64_Phdr, field),                                                               \
        sizeof(((Elf64_Phdr *)0)->field)
#define NOTE(field) offsetof(struct small_elf, note.field), 4

static void test_broken_fields(void **state)
{
    static const struct broken rows[] = {
        {"no magic", 0, 1, 0x7e, "is not a kernel"},
        {"32-bit", EI_CLASS, 1, 1, "EI_CLASS is 0x1"},
        {"big-endian", EI_DATA, 1, 2, "EI_DATA is 0x2"},
        {"another machine", HEADER(e_machine), EM_AARCH64, "e_machine is 0xb7"},
        {"a shared object", HEADER(e_type), ET_DYN, "e_type is 0x3"},
        {"phentsize", HEADER(e_phentsize), 55, "e_phentsize"},
        {"no program headers", HEADER(e_phnum), 0, "e_phnum is 0x0"},
        {"too many of them", HEADER(e_phnum), 65, "e_phnum is 0x41"},
        {"more than there are", HEADER(e_phnum), 7, "e_phoff"},
        {"phoff past the end", HEADER(e_phoff), 4096, "e_phoff is 0x1000"},
        {"phoff wraps", HEADER(e_phoff), UINT64_MAX - 8, "e_phoff"},
        {"offset past the end", SEGMENT(0, p_offset), 4096, "program header 0: p_offset"},
        {"offset wraps", SEGMENT(1, p_offset), UINT64_MAX - 15, "program header 1: p_offset"},
        {"file size too large", SEGMENT(1, p_filesz), DATA_BYTES + 1, "p_offset + p_filesz"},
        {"file size wraps", SEGMENT(0, p_filesz), UINT64_MAX, "p_offset + p_filesz"},
        {"bss is negative", SEGMENT(0, p_memsz), TEXT_BYTES - 1, "p_filesz is 0x40"},
        {"outside RAM", SEGMENT(0, p_paddr), KERNEL_MEMORY_BYTES,
         "0x1000 bytes, but the guest's RAM"},
        {"ends outside RAM", SEGMENT(0, p_paddr), KERNEL_MEMORY_BYTES - 0xfff,
         "program header 0 (p_paddr"},
        {"memory size wraps", SEGMENT(0, p_memsz), UINT64_MAX, "program header 0 (p_paddr"},
        {"address wraps", SEGMENT(0, p_paddr), UINT64_MAX - 1, "program header 0 (p_paddr"},
        {"in the hole", SEGMENT(0, p_paddr), X86_LAPIC, "guest's RAM"},
        {"each other", SEGMENT(1, p_paddr), TEXT_ADDRESS + 0xfff, "overlaps ELF program header 0"},
        {"by one byte", SEGMENT(1, p_paddr), TEXT_ADDRESS - DATA_MEMORY_BYTES + 1,
         "overlaps ELF program header 0"},
        {"on the zero page", SEGMENT(1, p_paddr), X86_ZERO_PAGE - 8, "overlaps"},
        {"on page tables", SEGMENT(1, p_paddr), X86_PAGE_TABLES + 0x5000,
         "overlaps the first page tables"},
        {"on the MP table", SEGMENT(1, p_paddr), X86_MPTABLE, "overlaps the MP table"},
        {"on the GDT", SEGMENT(1, p_paddr), 0x500, "overlaps the real-mode"},
        {"on the command line", SEGMENT(1, p_paddr), X86_CMDLINE, "the command line"},
        {"notes too large", SEGMENT(2, p_filesz), UINT64_MAX, "p_filesz (notes)"},
        {"notes past the end", SEGMENT(2, p_offset), sizeof(struct small_elf) - 8,
         "p_filesz (notes)"},
        {"note's name is long", NOTE(head.n_namesz), 0xfffffffe, "note's size"},
        {"note's desc is long", NOTE(head.n_descsz), 9, "note's size"},
        {"PVH entry outside", NOTE(entry), 0x100, "PVH note's entry is 0x100"},
        {"PVH entry in bss", NOTE(entry), TEXT_ADDRESS + TEXT_BYTES, "PVH note's entry"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct small_elf elf;
        struct loaded loaded;
        uint8_t *raw = (uint8_t *)&elf;

        small_elf_make(&elf);
        memcpy(raw + rows[i].offset, &rows[i].value, rows[i].bytes);
        load_bytes(&loaded, &elf, sizeof(elf), "quiet", NULL, 0);
        if (loaded.ret >= 0 || !strstr(loaded.err.message, rows[i].expected)) {
            fail_msg("%s: %d, '%s'", rows[i].what, loaded.ret, loaded.err.message);
        }
        loaded_free(&loaded);
    }
}

static void test_neighbours_do_not_overlap(void **state)
{
    static const uint64_t addresses[] = {TEXT_ADDRESS + TEXT_MEMORY_BYTES,
                                         TEXT_ADDRESS - DATA_MEMORY_BYTES};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(addresses); i++) {
        struct small_elf elf;
        struct loaded loaded;

        small_elf_make(&elf);
        elf.segments[1].p_paddr = addresses[i];
        load_bytes(&loaded, &elf, sizeof(elf), "quiet", NULL, 0);
        assert_string_equal(loaded.err.message, "");
        assert_int_equal(loaded.ret, 0);
        loaded_free(&loaded);
    }
}

static void test_entry_without_note_must_be_loaded(void **state)
{
    struct small_elf elf;
    struct loaded loaded;

    (void)state;
    small_elf_make(&elf);
    elf.note.head.n_type = 1;
    elf.header.e_entry = 0xffffffff81000000;
    load_bytes(&loaded, &elf, sizeof(elf), "quiet", NULL, 0);
    assert_int_equal(loaded.ret, -ENOEXEC);
    assert_int_equal(loaded.err.kind, BVMM_ERROR_KERNEL_LOAD);
    assert_non_null(strstr(loaded.err.message, "test-kernel: ELF e_entry is 0xffffffff81000000"));
    loaded_free(&loaded);
}

static void test_cut_short_anywhere(void **state)
{
    struct small_elf elf;

    (void)state;
    small_elf_make(&elf);
    for (size_t size = 0; size < sizeof(elf); size++) {
        struct loaded loaded;

        load_bytes(&loaded, &elf, size, "quiet", NULL, 0);
        if (loaded.ret >= 0 || loaded.err.kind != BVMM_ERROR_KERNEL_LOAD) {
            fail_msg("%zu bytes: %d, '%s'", size, loaded.ret, loaded.err.message);
        }
        loaded_free(&loaded);
    }
}

static void test_command_line_length(void **state)
{
    char cmdline[2049];
    struct small_elf elf;
    struct loaded loaded;

    (void)state;
    small_elf_make(&elf);
    memset(cmdline, 'x', sizeof(cmdline));
    cmdline[2047] = '\0';
    load_bytes(&loaded, &elf, sizeof(elf), cmdline, NULL, 0);
    assert_int_equal(loaded.ret, 0);
    loaded_free(&loaded);
    cmdline[2047] = 'x';
    cmdline[2048] = '\0';
    load_bytes(&loaded, &elf, sizeof(elf), cmdline, NULL, 0);
    assert_int_equal(loaded.ret, -E2BIG);
    assert_int_equal(loaded.err.kind, BVMM_ERROR_BOOT);
    loaded_free(&loaded);
}

static void test_initrd_that_does_not_fit(void **state)
{
    static uint8_t bytes[KERNEL_MEMORY_BYTES];
    struct arch_blob initrd = {"big.cpio", bytes, -1, 0};
    struct small_elf elf;
    struct loaded loaded;

    (void)state;
    small_elf_make(&elf);
    /* All that is free above the kernel, to the page. */
    initrd.size_bytes = KERNEL_MEMORY_BYTES - (DATA_ADDRESS + 0x1000);
    load_bytes(&loaded, &elf, sizeof(elf), "quiet", &initrd, 1);
    assert_int_equal(loaded.ret, 0);
    assert_int_equal(loaded.boot.initrd.base.v, DATA_ADDRESS + 0x1000);
    loaded_free(&loaded);
    initrd.size_bytes++;
    load_bytes(&loaded, &elf, sizeof(elf), "quiet", &initrd, 1);
    assert_int_equal(loaded.ret, -ENOMEM);
    assert_int_equal(loaded.err.kind, BVMM_ERROR_BOOT);
    assert_non_null(strstr(loaded.err.message, "initrd"));
    loaded_free(&loaded);
    initrd.size_bytes = UINT64_MAX;
    load_bytes(&loaded, &elf, sizeof(elf), "quiet", &initrd, 1);
    assert_int_equal(loaded.ret, -ENOMEM);
    loaded_free(&loaded);
}

static int memory_file(const void *bytes, size_t size)
{
    int fd = memfd_create("kernel", MFD_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, size), size);
    return fd;
}

static void test_from_a_file(void **state)
{
    static const struct guest_range range = {{0}, KERNEL_MEMORY_BYTES};
    struct small_elf elf;
    struct guest_memory memory;
    struct arch_boot boot;
    struct bvmm_error err = {0};
    struct arch_blob kernel = {.name = "vmlinux", .size_bytes = sizeof(elf)};
    struct arch_boot_request request = {.kernel = &kernel, .cmdline = ""};

    (void)state;
    small_elf_make(&elf);
    kernel.fd = memory_file(&elf, sizeof(elf));
    assert_int_equal(guest_memory_init(&memory, &range, 1, NULL), 0);
    assert_int_equal(x86_load_kernel(1, &memory, &request, &boot, &err), 0);
    assert_memory_equal(guest_memory_at(&memory, gpa(DATA_ADDRESS), DATA_BYTES), elf.data,
                        DATA_BYTES);
    guest_memory_fini(&memory);

    /* Somebody cuts it while we read. */
    assert_int_equal(ftruncate(kernel.fd, sizeof(elf) - 1), 0);
    assert_int_equal(guest_memory_init(&memory, &range, 1, NULL), 0);
    assert_int_equal(x86_load_kernel(1, &memory, &request, &boot, &err), -ENODATA);
    assert_int_equal(err.kind, BVMM_ERROR_IO);
    guest_memory_fini(&memory);
    assert_int_equal(close(kernel.fd), 0);
}

static void test_other_files_are_told_apart(void **state)
{
    static const struct {
        const char *bytes;
        size_t size;
        const char *expected;
    } rows[] = {
        {"\x1f\x8b\x08", 3, "gzip"}, {"hsqs....", 8, "squashfs"},
        {"070701.....", 11, "cpio"}, {"#!/bin/sh", 9, "begin with 23 21 2f 62"},
        {"", 0, "found 0 bytes"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct bvmm_error err = {0};
        struct arch_blob file = {.name = "f",
                                 .bytes = (const uint8_t *)rows[i].bytes,
                                 .fd = -1,
                                 .size_bytes = rows[i].size};

        assert_int_equal(arch_kernel_check(&file, &err), -ENOEXEC);
        assert_int_equal(err.kind, BVMM_ERROR_KERNEL_LOAD);
        if (!strstr(err.message, rows[i].expected)) {
            fail_msg("'%s' lacks '%s'", err.message, rows[i].expected);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pvh),
        cmocka_unit_test(test_linux64_without_note),
        cmocka_unit_test(test_broken_fields),
        cmocka_unit_test(test_neighbours_do_not_overlap),
        cmocka_unit_test(test_entry_without_note_must_be_loaded),
        cmocka_unit_test(test_cut_short_anywhere),
        cmocka_unit_test(test_command_line_length),
        cmocka_unit_test(test_initrd_that_does_not_fit),
        cmocka_unit_test(test_from_a_file),
        cmocka_unit_test(test_other_files_are_told_apart),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

#include <stdio.h>

int main(void)
{
    (void)puts("skipped: vmlinux is the x86_64 kernel format");
    return 77;
}

#endif
