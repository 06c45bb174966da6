/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * image.c: the kernel file of aarch64. It is hostile: the header is copied once and checked, and
 * only the copy is used.
 */
#include "arch/aarch64/machine.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define FLAG_BIG_ENDIAN 1U
#define FLAG_PAGE_SIZE_SHIFT 1
#define FLAG_PAGE_SIZE_MASK 3U
#define PAGE_SIZE_4K 1U
#define PAGE_SIZE_16K 2U
#define PAGE_SIZE_64K 3U
#define TEXT_ALIGNMENT 4096U

/* Fields of ID_AA64MMFR0_EL1. */
#define MMFR0_TGRAN16_SHIFT 20
#define MMFR0_TGRAN64_SHIFT 24
#define MMFR0_TGRAN4_SHIFT 28
#define MMFR0_FIELD_MASK 0xfU
#define MMFR0_TGRAN_NONE 0xfU /* of the 4 KiB and 64 KiB fields; the one for 16 KiB says 0 */

static int field_error(const struct arch_blob *kernel, struct bvmm_error *err, const char *field,
                       uint64_t value, const char *expected)
{
    return error_set(err, BVMM_ERROR_KERNEL_LOAD, -ENOEXEC,
                     "%s: Image header: %s is 0x%" PRIx64 ", expected %s (the file has 0x%" PRIx64
                     " bytes)",
                     kernel->name, field, value, expected, kernel->size_bytes);
}

/* The header's copy, or what the file is instead. */
static int read_header(const struct arch_blob *kernel, struct arm64_image_header *ret_header,
                       struct bvmm_error *err)
{
    static const char elf_magic[4] = {'\177', 'E', 'L', 'F'};
    int ret = 0;

    memset(ret_header, 0, sizeof(*ret_header));
    if (kernel->size_bytes >= sizeof(*ret_header)) {
        ret = blob_read(kernel, 0, ret_header, sizeof(*ret_header), err);
    }
    if (ret != 0 || ret_header->magic == ARM64_IMAGE_MAGIC) {
        return ret;
    }
    if (memcmp(&ret_header->code0, elf_magic, sizeof(elf_magic)) == 0) {
        return error_set(err, BVMM_ERROR_KERNEL_LOAD, -ENOEXEC,
                         "%s is an ELF file: expected " ARM64_IMAGE_EXPECTED
                         "; a kernel's build leaves it in arch/arm64/boot/Image",
                         kernel->name);
    }
    return load_refuse_format(kernel, ARM64_IMAGE_EXPECTED, err);
}

int arm64_image_check(const struct arch_blob *kernel, struct bvmm_error *err)
{
    struct arm64_image_header header;

    return read_header(kernel, &header, err);
}

static int check_page_size(const struct arch_blob *kernel, uint64_t flags, uint64_t mmfr0,
                           struct bvmm_error *err)
{
    const uint64_t gran4 = mmfr0 >> MMFR0_TGRAN4_SHIFT & MMFR0_FIELD_MASK;
    const uint64_t gran16 = mmfr0 >> MMFR0_TGRAN16_SHIFT & MMFR0_FIELD_MASK;
    const uint64_t gran64 = mmfr0 >> MMFR0_TGRAN64_SHIFT & MMFR0_FIELD_MASK;
    const struct {
        unsigned kib;
        bool available;
    } sizes[] = {
        [0] = {0, true}, /* the file does not say: an old kernel */
        [PAGE_SIZE_4K] = {4, gran4 != MMFR0_TGRAN_NONE},
        [PAGE_SIZE_16K] = {16, gran16 != 0},
        [PAGE_SIZE_64K] = {64, gran64 != MMFR0_TGRAN_NONE},
    };
    const uint64_t size = flags >> FLAG_PAGE_SIZE_SHIFT & FLAG_PAGE_SIZE_MASK;

    if (!sizes[size].available) {
        return error_set(
            err, BVMM_ERROR_KERNEL_LOAD, -ENOEXEC,
            "%s: the kernel uses pages of %u KiB, which this host's processor does not "
            "offer to guests; use one built for another page size",
            kernel->name, sizes[size].kib);
    }
    return 0;
}

static int check_header(const struct arch_blob *kernel, const struct arm64_image_header *header,
                        uint64_t mmfr0, struct bvmm_error *err)
{
    if (header->flags & FLAG_BIG_ENDIAN) {
        return field_error(kernel, err, "flags", header->flags,
                           "bit 0 clear (a little-endian kernel)");
    }
    if (header->image_size == 0) {
        return field_error(kernel, err, "image_size", 0, "Linux 3.17 or later, which fills it in");
    }
    if (header->image_size < kernel->size_bytes) {
        return field_error(kernel, err, "image_size", header->image_size,
                           "at least the size of the file");
    }
    if (header->text_offset >= ARM64_KERNEL_ALIGNMENT ||
        header->text_offset % TEXT_ALIGNMENT != 0) {
        return field_error(kernel, err, "text_offset", header->text_offset,
                           "a multiple of 4 KiB below 2 MiB");
    }
    return check_page_size(kernel, header->flags, mmfr0, err);
}

int arm64_image_load(struct load_map *map, const struct arch_blob *kernel, uint64_t mmfr0,
                     struct guest_range *ret_range, struct bvmm_error *err)
{
    struct arm64_image_header header;
    struct guest_range range;
    int ret = read_header(kernel, &header, err);

    if (ret == 0) {
        ret = check_header(kernel, &header, mmfr0, err);
    }
    if (ret != 0) {
        return ret;
    }
    range = (struct guest_range){gpa(ARM64_KERNEL + header.text_offset), header.image_size};
    ret = load_claim(map, range, BVMM_ERROR_KERNEL_LOAD, err, "the kernel (image_size)");
    if (ret == 0) {
        ret = blob_load(kernel, 0, map->memory, range.base, kernel->size_bytes, err);
    }
    if (ret == 0) {
        *ret_range = range;
    }
    return ret;
}
