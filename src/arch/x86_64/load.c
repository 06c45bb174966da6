/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* load.c: kernel, initrd and the first MiB of an x86_64 guest, put together. */
#include "arch/x86_64/load.h"

#include "arch/x86_64/layout.h"
#include "arch/x86_64/mptable.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define TYPE_OF_LOADER_UNDEFINED 0xff
#define PAGE_BYTES 4096U

#define PAGE_PRESENT 1U
#define PAGE_WRITABLE 2U
#define PAGE_LARGE 0x80U
#define PAGE_ENTRIES 512U
#define PAGE_DIRECTORIES 4U /* of 1 GiB each */

#define KERNEL_EXPECTED "an ELF vmlinux or a bzImage for x86_64"

/* What lies in the first MiB; the command line is claimed when its length is known. */
static int claim_boot_data(struct load_map *map, struct bvmm_error *err)
{
    static const struct {
        uint32_t start;
        uint32_t end;
        const char *what;
    } areas[] = {
        {0, X86_PVH_INFO, "the real-mode vectors and GDT"},
        {X86_PVH_INFO, X86_PVH_INFO + PAGE_BYTES, "the PVH start info"},
        {X86_ZERO_PAGE, X86_ZERO_PAGE + PAGE_BYTES, "the zero page"},
        {X86_PAGE_TABLES, X86_PAGE_TABLES + X86_PAGE_TABLES_BYTES, "the first page tables"},
        {X86_BASE_MEMORY_END, X86_HIGH_MEMORY, "the MP table and BIOS area"},
    };
    int ret = 0;

    for (size_t i = 0; ret == 0 && i < ARRAY_SIZE(areas); i++) {
        struct guest_range range = {gpa(areas[i].start), areas[i].end - areas[i].start};

        ret = load_claim(map, range, BVMM_ERROR_BOOT, err, "%s", areas[i].what);
    }
    return ret;
}

unsigned x86_memory_map(const struct guest_memory *memory,
                        struct boot_e820_entry ret_map[X86_E820_ENTRIES_MAX])
{
    unsigned count = 0;

    ret_map[count++] = (struct boot_e820_entry){0, X86_BASE_MEMORY_END, E820_RAM};
    ret_map[count++] = (struct boot_e820_entry){
        X86_BASE_MEMORY_END, X86_HIGH_MEMORY - X86_BASE_MEMORY_END, E820_RESERVED};
    for (unsigned i = 0; i < memory->count; i++) {
        struct guest_range range = memory->regions[i].range;

        if (range.base.v == 0) {
            range = (struct guest_range){gpa(X86_HIGH_MEMORY), range.bytes - X86_HIGH_MEMORY};
        }
        if (range.bytes > 0) {
            ret_map[count++] = (struct boot_e820_entry){range.base.v, range.bytes, E820_RAM};
        }
    }
    return count;
}

static int write_gdt(const struct guest_memory *memory)
{
    static const uint64_t gdt[X86_GDT_ENTRIES] = {
        [X86_SELECTOR_CODE / 8] = 0x00af9b000000ffffULL, /* 64-bit code, base 0, limit 4 GiB */
        [X86_SELECTOR_DATA / 8] = 0x00cf93000000ffffULL,
    };

    return guest_memory_write(memory, gpa(X86_GDT), gdt, sizeof(gdt));
}

/* Map the first 4 GiB one to one with pages of 2 MiB. */
static int write_page_tables(const struct guest_memory *memory)
{
    uint64_t *table = guest_memory_at(memory, gpa(X86_PAGE_TABLES), X86_PAGE_TABLES_BYTES);
    uint64_t *directory_pointers;
    uint64_t *directories;

    if (!table) {
        return -EFAULT;
    }
    directory_pointers = table + PAGE_ENTRIES;
    directories = directory_pointers + PAGE_ENTRIES;
    table[0] = (X86_PAGE_TABLES + PAGE_BYTES) | PAGE_PRESENT | PAGE_WRITABLE;
    for (uint64_t i = 0; i < PAGE_DIRECTORIES; i++) {
        directory_pointers[i] =
            (X86_PAGE_TABLES + (2 + i) * PAGE_BYTES) | PAGE_PRESENT | PAGE_WRITABLE;
    }
    for (uint64_t i = 0; i < (uint64_t)PAGE_DIRECTORIES * PAGE_ENTRIES; i++) {
        directories[i] = i * 2 * MIB | PAGE_PRESENT | PAGE_WRITABLE | PAGE_LARGE;
    }
    return 0;
}

int x86_write_long_mode_tables(const struct guest_memory *memory)
{
    int ret = write_gdt(memory);

    return ret == 0 ? write_page_tables(memory) : ret;
}

static int write_zero_page(const struct guest_memory *memory, const struct x86_kernel *kernel,
                           struct guest_range initrd)
{
    struct boot_params *params = guest_memory_at(memory, gpa(X86_ZERO_PAGE), sizeof(*params));

    if (!params) {
        return -EFAULT;
    }
    params->hdr = kernel->header;
    params->hdr.type_of_loader = TYPE_OF_LOADER_UNDEFINED;
    params->hdr.cmd_line_ptr = X86_CMDLINE;
    params->hdr.ramdisk_image = (uint32_t)initrd.base.v;
    params->hdr.ramdisk_size = (uint32_t)initrd.bytes;
    /* What the file had here was meant for boot loaders; a pointer to data that is not there. */
    params->hdr.setup_data = 0;
    params->e820_entries = (uint8_t)x86_memory_map(memory, params->e820_table);
    return 0;
}

static int write_pvh_info(const struct guest_memory *memory, struct guest_range initrd)
{
    struct {
        struct pvh_start_info info;
        struct pvh_module initrd;
        struct pvh_memory memory_map[X86_E820_ENTRIES_MAX];
    } page = {
        .info = {.magic = PVH_MAGIC, .version = 1, .cmdline = X86_CMDLINE},
        .initrd = {.address = initrd.base.v, .bytes = initrd.bytes},
    };
    struct boot_e820_entry map[X86_E820_ENTRIES_MAX];

    page.info.modules = initrd.bytes > 0 ? 1 : 0;
    page.info.module_list = X86_PVH_INFO + offsetof(__typeof__(page), initrd);
    page.info.memory_map = X86_PVH_INFO + offsetof(__typeof__(page), memory_map);
    page.info.memory_map_entries = x86_memory_map(memory, map);
    for (unsigned i = 0; i < page.info.memory_map_entries; i++) {
        page.memory_map[i] = (struct pvh_memory){map[i].addr, map[i].size, map[i].type, 0};
    }
    return guest_memory_write(memory, gpa(X86_PVH_INFO), &page, sizeof(page));
}

static int write_mptable(const struct guest_memory *memory, unsigned vcpus)
{
    size_t bytes = mptable_bytes(vcpus);
    uint8_t *table =
        bytes <= X86_MPTABLE_BYTES ? guest_memory_at(memory, gpa(X86_MPTABLE), bytes) : NULL;

    if (!table) {
        return -EFAULT;
    }
    mptable_build(table, X86_MPTABLE, vcpus);
    return 0;
}

static int write_boot_data(unsigned vcpus, const struct guest_memory *memory,
                           const struct x86_kernel *kernel, struct guest_range initrd,
                           struct bvmm_error *err)
{
    int ret = x86_write_long_mode_tables(memory);

    if (ret == 0) {
        ret = write_mptable(memory, vcpus);
    }
    if (ret == 0 && kernel->entry == ARCH_ENTRY_PVH) {
        ret = write_pvh_info(memory, initrd);
    }
    if (ret == 0 && kernel->entry == ARCH_ENTRY_LINUX64) {
        ret = write_zero_page(memory, kernel, initrd);
    }
    if (ret != 0) {
        return error_set(err, BVMM_ERROR_BOOT, ret,
                         "the boot data does not fit into the guest's first MiB");
    }
    return 0;
}

static int load_kernel_file(struct load_map *map, const struct arch_blob *file,
                            struct x86_kernel *ret_kernel, struct bvmm_error *err)
{
    if (elf_recognize(file)) {
        return elf_load(map, file, ret_kernel, err);
    }
    if (bzimage_recognize(file)) {
        return bzimage_load(map, file, ret_kernel, err);
    }
    return load_refuse_format(file, KERNEL_EXPECTED, err);
}

int x86_load_kernel(unsigned vcpus, const struct guest_memory *memory,
                    const struct arch_boot_request *request, struct arch_boot *ret_boot,
                    struct bvmm_error *err)
{
    struct load_map map = {.memory = memory, .kernel_name = request->kernel->name};
    struct x86_kernel kernel = {0};
    struct guest_range initrd = {0};
    int ret = claim_boot_data(&map, err);

    if (ret == 0) {
        ret = load_kernel_file(&map, request->kernel, &kernel, err);
    }
    if (ret != 0) {
        return ret;
    }
    ret =
        load_cmdline(&map, request->cmdline, gpa(X86_CMDLINE),
                     min_u64(kernel.cmdline_max_bytes, X86_BASE_MEMORY_END - X86_CMDLINE - 1), err);
    if (ret == 0) {
        ret = load_initrd(&map, request, kernel.initrd_lowest, kernel.initrd_limit, &initrd, err);
    }
    if (ret == 0) {
        ret = write_boot_data(vcpus, memory, &kernel, initrd, err);
    }
    if (ret != 0) {
        return ret;
    }
    *ret_boot = (struct arch_boot){
        .entry = kernel.entry,
        .pc = kernel.pc,
        .data = gpa(kernel.entry == ARCH_ENTRY_PVH ? X86_PVH_INFO : X86_ZERO_PAGE),
        .kernel = kernel.range,
        .initrd = initrd,
        .format = kernel.format,
    };
    return 0;
}

int arch_kernel_check(const struct arch_blob *kernel, struct bvmm_error *err)
{
    if (elf_recognize(kernel) || bzimage_recognize(kernel)) {
        return 0;
    }
    return load_refuse_format(kernel, KERNEL_EXPECTED, err);
}
