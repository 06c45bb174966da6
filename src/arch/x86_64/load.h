/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * load.h: kernel files of x86_64 and what bvmm leaves in the first MiB for them. Needs no KVM, so
 * that tests can throw broken files at it anywhere. Thread: start-up.
 */
#ifndef BVMM_ARCH_X86_64_LOAD_H
#define BVMM_ARCH_X86_64_LOAD_H

#include "arch/arch.h"
#include "arch/load.h"

#include <asm/bootparam.h>

/* Of struct setup_header. */
#define HEADER_MAGIC 0x53726448U /* "HdrS" */
#define HEADER_VERSION 0x020cU   /* 2.12, Linux 3.8: the first with xloadflags */
#define BOOT_FLAG 0xaa55U

/* What a kernel file asks for, and where it went. */
struct x86_kernel {
    enum arch_entry entry;
    const char *format;
    struct gpa pc;
    struct guest_range range; /* all of it, bss included */
    uint64_t initrd_lowest;   /* ... begins at or above this one */
    uint64_t initrd_limit;    /* the initrd ends at or below this address */
    uint64_t cmdline_max_bytes;
    struct setup_header header; /* bzImage: as in the file; ELF: the least that Linux looks at */
};

/* ELF vmlinux (elf.c), and bzImage (bzimage.c): claim and load. Kinds KERNEL_LOAD, IO. */
bool elf_recognize(const struct arch_blob *file);
int elf_load(struct load_map *map, const struct arch_blob *file, struct x86_kernel *ret_kernel,
             struct bvmm_error *err) must_check;
bool bzimage_recognize(const struct arch_blob *file);
int bzimage_load(struct load_map *map, const struct arch_blob *file, struct x86_kernel *ret_kernel,
                 struct bvmm_error *err) must_check;

/* PVH's entry structure, Xen's arch-x86/hvm/start_info.h. */
#define PVH_MAGIC 0x336ec578U

struct pvh_start_info {
    uint32_t magic;
    uint32_t version; /* 1: with a memory map */
    uint32_t flags;
    uint32_t modules;
    uint64_t module_list;
    uint64_t cmdline;
    uint64_t rsdp;
    uint64_t memory_map;
    uint32_t memory_map_entries;
    uint32_t reserved;
};

struct pvh_module {
    uint64_t address;
    uint64_t bytes;
    uint64_t cmdline;
    uint64_t reserved;
};

struct pvh_memory {
    uint64_t address;
    uint64_t bytes;
    uint32_t type; /* as e820 */
    uint32_t reserved;
};

#define E820_RAM 1U
#define E820_RESERVED 2U
#define X86_E820_ENTRIES_MAX (GUEST_MEMORY_REGIONS_MAX + 2)

/* The memory map that the kernel is told. Return: how many entries. */
unsigned x86_memory_map(const struct guest_memory *memory,
                        struct boot_e820_entry ret_map[X86_E820_ENTRIES_MAX]);

/* arch_load_kernel() without a VM. */
int x86_load_kernel(unsigned vcpus, const struct guest_memory *memory,
                    const struct arch_boot_request *request, struct arch_boot *ret_boot,
                    struct bvmm_error *err) must_check;

/* GDT and page tables for ARCH_ENTRY_LINUX64. -EFAULT if the memory is too small. */
int x86_write_long_mode_tables(const struct guest_memory *memory) must_check;

/* The descriptors that both ways of booting start with: null, null, flat code, flat data. */
#define X86_GDT_ENTRIES 4
#define X86_SELECTOR_CODE 0x10
#define X86_SELECTOR_DATA 0x18

#endif
