/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* x86_kernels.h: small well-formed kernel files, made in memory, for tests to load and to damage.
 */
#ifndef BVMM_TESTS_UNIT_X86_KERNELS_H
#define BVMM_TESTS_UNIT_X86_KERNELS_H

#include "arch/x86_64/layout.h"
#include "arch/x86_64/load.h"

#include <elf.h>
#include <stdlib.h>
#include <string.h>

#define KERNEL_MEMORY_BYTES (16 * MIB)
#define TEXT_ADDRESS (2 * MIB)
#define TEXT_BYTES 64U
#define TEXT_MEMORY_BYTES 0x1000U
#define DATA_ADDRESS (3 * MIB)
#define DATA_BYTES 32U
#define DATA_MEMORY_BYTES 0x300U
#define PVH_ENTRY (TEXT_ADDRESS + 8)
#define ELF_ENTRY (TEXT_ADDRESS + 16)

/* Header, three program headers, one PVH note, two segments; nothing after the last segment. */
struct small_elf {
    Elf64_Ehdr header;
    Elf64_Phdr segments[3];
    struct {
        Elf64_Nhdr head;
        char name[4];
        uint64_t entry;
    } note;
    uint8_t text[TEXT_BYTES];
    uint8_t data[DATA_BYTES];
};
_Static_assert(sizeof(struct small_elf) == 64 + 3 * 56 + 24 + 96, "without padding");

static inline void small_elf_make(struct small_elf *elf)
{
    *elf = (struct small_elf){
        .header = {.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, 1},
                   .e_type = ET_EXEC,
                   .e_machine = EM_X86_64,
                   .e_version = 1,
                   .e_entry = ELF_ENTRY,
                   .e_phoff = offsetof(struct small_elf, segments),
                   .e_ehsize = sizeof(Elf64_Ehdr),
                   .e_phentsize = sizeof(Elf64_Phdr),
                   .e_phnum = 3},
        .note = {.head = {4, 8, 18}, .name = "Xen", .entry = PVH_ENTRY},
    };
    elf->segments[0] = (Elf64_Phdr){.p_type = PT_LOAD,
                                    .p_flags = PF_R | PF_X,
                                    .p_offset = offsetof(struct small_elf, text),
                                    .p_paddr = TEXT_ADDRESS,
                                    .p_filesz = TEXT_BYTES,
                                    .p_memsz = TEXT_MEMORY_BYTES};
    elf->segments[1] = (Elf64_Phdr){.p_type = PT_LOAD,
                                    .p_flags = PF_R | PF_W,
                                    .p_offset = offsetof(struct small_elf, data),
                                    .p_paddr = DATA_ADDRESS,
                                    .p_filesz = DATA_BYTES,
                                    .p_memsz = DATA_MEMORY_BYTES};
    elf->segments[2] = (Elf64_Phdr){.p_type = PT_NOTE,
                                    .p_offset = offsetof(struct small_elf, note),
                                    .p_filesz = sizeof(elf->note),
                                    .p_align = 4};
    memset(elf->text, 0x11, sizeof(elf->text));
    memset(elf->data, 0x22, sizeof(elf->data));
}

#define BZIMAGE_SETUP_BYTES 1024U
#define BZIMAGE_PAYLOAD_BYTES 1024U
#define BZIMAGE_HEADER 0x1f1U
#define BZIMAGE_INIT_BYTES 0x4000U
#define BZIMAGE_CMDLINE_BYTES 255U

/* Setup code of two sectors with the header in it, then the protected-mode part. */
struct small_bzimage {
    uint8_t setup[BZIMAGE_SETUP_BYTES];
    uint8_t payload[BZIMAGE_PAYLOAD_BYTES];
};

static inline void small_bzimage_make(struct small_bzimage *image)
{
    struct setup_header header = {
        .setup_sects = 1,
        .syssize = BZIMAGE_PAYLOAD_BYTES / 16,
        .boot_flag = BOOT_FLAG,
        .jump = 0x66eb, /* jmp to 0x268 */
        .header = HEADER_MAGIC,
        .version = 0x020f,
        .loadflags = LOADED_HIGH,
        .code32_start = 0x100000,
        .initrd_addr_max = 0x7fffffff,
        .kernel_alignment = 0x200000,
        .relocatable_kernel = 1,
        .xloadflags = XLF_KERNEL_64,
        .cmdline_size = BZIMAGE_CMDLINE_BYTES,
        .payload_offset = 16,
        .payload_length = 64,
        .pref_address = TEXT_ADDRESS,
        .init_size = BZIMAGE_INIT_BYTES,
        .setup_data = 0x1234, /* must not reach the kernel */
    };

    memset(image, 0, sizeof(*image));
    memcpy(image->setup + BZIMAGE_HEADER, &header, sizeof(header));
    memset(image->payload, 0x33, sizeof(image->payload));
}

/* A loaded guest: memory and what the loader said. */
struct loaded {
    struct guest_memory memory;
    struct arch_boot boot;
    struct bvmm_error err;
    int ret;
};

/*
 * Load from a heap block of exactly this size, so that a sanitizer sees one byte too many. The
 * caller ends it with loaded_free().
 */
static inline void load_bytes(struct loaded *loaded, const void *bytes, size_t size,
                              const char *cmdline, const struct arch_blob *initrd,
                              unsigned initrd_parts)
{
    static const struct guest_range range = {{0}, KERNEL_MEMORY_BYTES};
    uint8_t *copy = malloc(size > 0 ? size : 1);
    struct arch_blob kernel = {.name = "test-kernel", .bytes = copy, .fd = -1, .size_bytes = size};
    struct arch_boot_request request = {
        .kernel = &kernel, .initrd = initrd, .initrd_parts = initrd_parts, .cmdline = cmdline};

    memset(loaded, 0, sizeof(*loaded));
    if (!copy || guest_memory_init(&loaded->memory, &range, 1, NULL) != 0) {
        abort();
    }
    memcpy(copy, bytes, size);
    loaded->ret = x86_load_kernel(2, &loaded->memory, &request, &loaded->boot, &loaded->err);
    free(copy);
}

static inline void loaded_free(struct loaded *loaded)
{
    guest_memory_fini(&loaded->memory);
}

#endif
