/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * load.h: what loading a kernel has in common on all instruction sets. For src/arch/ only.
 *
 * Everything that is put into guest memory is first claimed in a load_map, which refuses what lies
 * outside RAM or on top of an earlier claim. So the bounds are checked in one place, whatever the
 * file format. Guest memory is expected to be fresh (all zero): nothing clears a kernel's bss.
 *
 * Thread: start-up.
 */
#ifndef BVMM_ARCH_LOAD_H
#define BVMM_ARCH_LOAD_H

#include "arch/arch.h"

#define LOAD_SEGMENTS_MAX 64
#define LOAD_CLAIMS_MAX (LOAD_SEGMENTS_MAX + 16)

struct load_claim {
    struct guest_range range;
    char what[40];
};

struct load_map {
    const struct guest_memory *memory; /* claims lie in its first region */
    const char *kernel_name;
    struct load_claim claims[LOAD_CLAIMS_MAX];
    unsigned count;
};

/*
 * load_claim - take a range of RAM for `what`.
 * Return: 0; -EINVAL (overlap), -ENOMEM (outside RAM), -E2BIG (too many), with *err of this kind.
 */
int load_claim(struct load_map *map, struct guest_range range, enum bvmm_error_kind kind,
               struct bvmm_error *err, const char *what, ...) must_check printf_like(5, 6);

/*
 * load_claim_high - take the highest free, page-aligned range that ends at or below `limit`.
 * Kind BOOT. For the initrd.
 */
int load_claim_high(struct load_map *map, uint64_t bytes, uint64_t lowest, uint64_t limit,
                    const char *what, struct gpa *ret_base, struct bvmm_error *err) must_check;

/* Read exactly so many bytes at the offset. -EIO, -ENODATA (shorter than it was), kind IO. */
int blob_read(const struct arch_blob *blob, uint64_t offset, void *ret_data, uint64_t bytes,
              struct bvmm_error *err) must_check;

/* The same into guest memory; the range must have been claimed. */
int blob_load(const struct arch_blob *blob, uint64_t offset, const struct guest_memory *memory,
              struct gpa address, uint64_t bytes, struct bvmm_error *err) must_check;

/* Is [offset, offset + bytes) within a file of this size? No overflow. */
static inline bool blob_has(const struct arch_blob *blob, uint64_t offset, uint64_t bytes)
{
    return offset <= blob->size_bytes && bytes <= blob->size_bytes - offset;
}

/*
 * load_initrd - claim room for all parts as high as possible and read them there.
 * @lowest, @limit: it lies in [lowest, limit).
 * @ret_range: 0 bytes if there are no parts.
 */
int load_initrd(struct load_map *map, const struct arch_boot_request *request, uint64_t lowest,
                uint64_t limit, struct guest_range *ret_range, struct bvmm_error *err) must_check;

/* Claim room for the command line and copy it there. @max_bytes: without NUL. Kind BOOT. */
int load_cmdline(struct load_map *map, const char *cmdline, struct gpa address, uint64_t max_bytes,
                 struct bvmm_error *err) must_check;

/*
 * cmdline_insert - add text to a command line, before a "--" (what follows it is init's).
 * @addition: begins with no space. Return: 0, or -E2BIG with *err (kind BOOT).
 */
int cmdline_insert(const char *cmdline, const char *addition, char *ret_text, size_t size,
                   struct bvmm_error *err) must_check;

/* Does a parameter of the kernel's (not one of init's, behind a "--") begin so? */
bool cmdline_has(const char *cmdline, const char *beginning);

/* Refuse a file that is no kernel for this machine, naming what it looks like instead. */
int load_refuse_format(const struct arch_blob *kernel, const char *expected, struct bvmm_error *err)
    must_check;

#endif
