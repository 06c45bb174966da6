/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * machine.h: an aarch64 machine as its kernel is to see it, and what describes it: kernel file and
 * device tree. Needs no KVM, so that tests can check it on any host. Thread: start-up.
 */
#ifndef BVMM_ARCH_AARCH64_MACHINE_H
#define BVMM_ARCH_AARCH64_MACHINE_H

#include "arch/aarch64/layout.h"
#include "arch/arch.h"
#include "arch/load.h"

enum arm64_gic {
    ARM64_GIC_V3,
    ARM64_GIC_V2,
};

#define ARM64_SEED_BYTES 64

struct arm64_machine {
    unsigned vcpus;
    uint64_t mpidr[ARM64_VCPUS_MAX]; /* as KVM gave them: the kernel compares */
    enum arm64_gic gic;
    bool has_pmu;
    bool has_steal_time;
    uint64_t mmfr0; /* ID_AA64MMFR0_EL1: which page sizes the processor has */
    struct arch_window serial;
    uint8_t seed[ARM64_SEED_BYTES]; /* for the kernel's random numbers */
};

/* ---- Image (image.c) ------------------------------------------------------------------------- */

/* The header of Linux's Image, all fields little-endian: Documentation/arm64/booting.rst. */
struct arm64_image_header {
    uint32_t code0;
    uint32_t code1;
    uint64_t text_offset; /* from a multiple of 2 MiB */
    uint64_t image_size;  /* in memory, bss included; 0 before Linux 3.17 */
    uint64_t flags;
    uint64_t reserved[3];
    uint32_t magic;
    uint32_t pe_offset;
};

#define ARM64_IMAGE_MAGIC 0x644d5241U /* "ARM\x64" */
#define ARM64_IMAGE_EXPECTED "an uncompressed Image for aarch64"

/* 0, or -errno with *err: not an Image (KERNEL_LOAD), or not readable (IO). */
int arm64_image_check(const struct arch_blob *kernel, struct bvmm_error *err) must_check;

/*
 * arm64_image_load - claim room for the kernel and read it there.
 * @mmfr0: of the processor; the kernel's page size must be among those that it has.
 * Return: 0, or -errno with *err of kind KERNEL_LOAD or IO.
 */
int arm64_image_load(struct load_map *map, const struct arch_blob *kernel, uint64_t mmfr0,
                     struct guest_range *ret_range, struct bvmm_error *err) must_check;

/* ---- Device tree (fdt.c) --------------------------------------------------------------------- */

/*
 * arm64_fdt_build - the flattened device tree of the machine.
 * @initrd: 0 bytes: none.
 * @ret_fdt: @size bytes, aligned to 8; fdt_totalsize() says how many are used.
 * Return: 0; -ENOMEM with *err (kind BOOT) if it does not fit.
 */
int arm64_fdt_build(const struct arm64_machine *machine, struct guest_range ram,
                    struct guest_range initrd, const struct arch_boot_request *request,
                    void *ret_fdt, size_t size, struct bvmm_error *err) must_check;

/* ---- All together (load.c) ------------------------------------------------------------------- */

/* arch_load_kernel() without a VM. */
int arm64_load_kernel(const struct arm64_machine *machine, const struct guest_memory *memory,
                      const struct arch_boot_request *request, struct arch_boot *ret_boot,
                      struct bvmm_error *err) must_check;

#endif
