/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * bzimage.c: a compressed kernel. It unpacks itself: bvmm loads its protected-mode part and enters
 * it by the 64-bit boot protocol (the kernel's Documentation/x86/boot.rst).
 */
#include "arch/x86_64/layout.h"
#include "arch/x86_64/load.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define SECTOR_BYTES 512U
#define HEADER_OFFSET 0x1f1U /* where struct setup_header begins in the file */
#define SETUP_SECTORS_DEFAULT 4U
#define PARAGRAPH_BYTES 16U
#define ENTRY_64_OFFSET 0x200U

static int field_error(const struct arch_blob *file, struct bvmm_error *err, const char *field,
                       uint64_t value, const char *expected)
{
    return error_set(err, BVMM_ERROR_KERNEL_LOAD, -ENOEXEC,
                     "%s: bzImage header field %s is 0x%" PRIx64 ", expected %s", file->name, field,
                     value, expected);
}

bool bzimage_recognize(const struct arch_blob *file)
{
    struct setup_header header;

    return blob_has(file, HEADER_OFFSET, sizeof(header)) &&
           blob_read(file, HEADER_OFFSET, &header, sizeof(header), NULL) == 0 &&
           header.header == HEADER_MAGIC;
}

static int check_header(const struct arch_blob *file, const struct setup_header *header,
                        struct bvmm_error *err)
{
    if (header->boot_flag != BOOT_FLAG) {
        return field_error(file, err, "boot_flag", header->boot_flag, "0xaa55");
    }
    if (header->version < HEADER_VERSION) {
        return field_error(file, err, "version", header->version,
                           "at least 0x20c (Linux 3.8); use a newer kernel");
    }
    if (!(header->loadflags & LOADED_HIGH)) {
        return field_error(file, err, "loadflags", header->loadflags,
                           "bit 0 set (a bzImage, not a zImage)");
    }
    if (!(header->xloadflags & XLF_KERNEL_64)) {
        return field_error(file, err, "xloadflags", header->xloadflags,
                           "bit 0 set (a 64-bit kernel)");
    }
    if (header->pref_address < X86_HIGH_MEMORY) {
        return field_error(file, err, "pref_address", header->pref_address, "at least 0x100000");
    }
    return 0;
}

/* Where the protected-mode part lies in the file, checked against the header's own sizes. */
static int locate_payload(const struct arch_blob *file, const struct setup_header *header,
                          uint64_t *ret_offset, uint64_t *ret_bytes, struct bvmm_error *err)
{
    uint64_t sectors = header->setup_sects ? header->setup_sects : SETUP_SECTORS_DEFAULT;
    uint64_t offset = (sectors + 1) * SECTOR_BYTES;
    uint64_t bytes = (uint64_t)header->syssize * PARAGRAPH_BYTES;

    if (!blob_has(file, offset, ENTRY_64_OFFSET + 1)) {
        return field_error(file, err, "setup_sects", header->setup_sects,
                           "one that leaves a kernel in the file: cut short?");
    }
    if (bytes <= ENTRY_64_OFFSET || !blob_has(file, offset, bytes)) {
        return field_error(file, err, "syssize", header->syssize,
                           "a size in 16-byte units within the file: cut short?");
    }
    if ((uint64_t)header->payload_offset + header->payload_length > bytes) {
        return field_error(file, err, "payload_offset + payload_length",
                           (uint64_t)header->payload_offset + header->payload_length,
                           "at most 16 * syssize");
    }
    *ret_offset = offset;
    *ret_bytes = bytes;
    return 0;
}

int bzimage_load(struct load_map *map, const struct arch_blob *file, struct x86_kernel *ret_kernel,
                 struct bvmm_error *err)
{
    struct x86_kernel kernel = {.entry = ARCH_ENTRY_LINUX64, .format = "bzimage"};
    struct setup_header *header = &kernel.header;
    uint64_t offset = 0;
    uint64_t bytes = 0;
    int ret = blob_read(file, HEADER_OFFSET, header, sizeof(*header), err);

    if (ret == 0) {
        ret = check_header(file, header, err);
    }
    if (ret == 0) {
        ret = locate_payload(file, header, &offset, &bytes, err);
    }
    if (ret != 0) {
        return ret;
    }
    /* It unpacks itself where it stands: init_size is all that it needs from there on. */
    kernel.range = (struct guest_range){gpa(header->pref_address), header->init_size};
    if (kernel.range.bytes < bytes) {
        return field_error(file, err, "init_size", header->init_size, "at least 16 * syssize");
    }
    ret = load_claim(map, kernel.range, BVMM_ERROR_KERNEL_LOAD, err,
                     "the kernel (pref_address, init_size)");
    if (ret == 0) {
        ret = blob_load(file, offset, map->memory, kernel.range.base, bytes, err);
    }
    if (ret != 0) {
        return ret;
    }
    kernel.pc = gpa(header->pref_address + ENTRY_64_OFFSET);
    kernel.initrd_lowest = X86_HIGH_MEMORY;
    kernel.initrd_limit = min_u64((uint64_t)header->initrd_addr_max + 1, X86_HOLE);
    kernel.cmdline_max_bytes = header->cmdline_size;
    header->code32_start = (uint32_t)header->pref_address;
    *ret_kernel = kernel;
    return 0;
}
