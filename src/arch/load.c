/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* load.c: claiming guest RAM, reading files into it, the initrd and the command line. */
#include "arch/load.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PAGE_BYTES 4096U
#define INITRD_ALIGNMENT 4U

static uint64_t range_end(struct guest_range range)
{
    return range.base.v + range.bytes;
}

static const struct load_claim *find_overlap(const struct load_map *map, struct guest_range range)
{
    for (unsigned i = 0; i < map->count; i++) {
        const struct guest_range *taken = &map->claims[i].range;

        if (range.base.v < range_end(*taken) && taken->base.v < range_end(range)) {
            return &map->claims[i];
        }
    }
    return NULL;
}

int load_claim(struct load_map *map, struct guest_range range, enum bvmm_error_kind kind,
               struct bvmm_error *err, const char *what, ...)
{
    struct guest_range ram = map->memory->regions[0].range;
    struct load_claim claim = {.range = range};
    const struct load_claim *other;
    va_list args;

    va_start(args, what);
    (void)vsnprintf(claim.what, sizeof(claim.what), what, args);
    va_end(args);
    if (range.bytes == 0) {
        return 0;
    }
    if (range.base.v < ram.base.v || range.base.v >= range_end(ram) ||
        range.bytes > range_end(ram) - range.base.v) {
        return error_set(
            err, kind, -ENOMEM,
            "%s: %s is to be at 0x%" PRIx64 ", 0x%" PRIx64 " bytes, but the guest's "
            "RAM goes from 0x%" PRIx64 " to 0x%" PRIx64 "; give it more memory, or check the file",
            map->kernel_name, claim.what, range.base.v, range.bytes, ram.base.v, range_end(ram));
    }
    other = find_overlap(map, range);
    if (other) {
        return error_set(err, kind, -EINVAL,
                         "%s: %s (0x%" PRIx64 ", 0x%" PRIx64 " bytes) overlaps %s (0x%" PRIx64
                         ", 0x%" PRIx64 " bytes)",
                         map->kernel_name, claim.what, range.base.v, range.bytes, other->what,
                         other->range.base.v, other->range.bytes);
    }
    if (map->count == LOAD_CLAIMS_MAX) {
        return error_set(err, kind, -E2BIG, "%s: has too many parts (more than %d)",
                         map->kernel_name, LOAD_CLAIMS_MAX);
    }
    map->claims[map->count++] = claim;
    return 0;
}

int load_claim_high(struct load_map *map, uint64_t bytes, uint64_t lowest, uint64_t limit,
                    const char *what, struct gpa *ret_base, struct bvmm_error *err)
{
    uint64_t top = min_u64(limit, range_end(map->memory->regions[0].range));

    /* Each turn goes below one more claim, so this ends. */
    while (top >= lowest && top - lowest >= bytes) {
        struct guest_range range = {gpa((top - bytes) & ~(uint64_t)(PAGE_BYTES - 1)), bytes};
        const struct load_claim *other = find_overlap(map, range);

        if (range.base.v < lowest) {
            break;
        }
        if (!other) {
            *ret_base = range.base;
            return load_claim(map, range, BVMM_ERROR_BOOT, err, "%s", what);
        }
        top = other->range.base.v;
    }
    return error_set(err, BVMM_ERROR_BOOT, -ENOMEM,
                     "%s of %" PRIu64 " KiB does not fit between 0x%" PRIx64 " and 0x%" PRIx64
                     " beside the kernel %s; give the guest more memory",
                     what, align_up(bytes, KIB) / KIB, lowest,
                     min_u64(limit, range_end(map->memory->regions[0].range)), map->kernel_name);
}

int blob_read(const struct arch_blob *blob, uint64_t offset, void *ret_data, uint64_t bytes,
              struct bvmm_error *err)
{
    uint8_t *to = ret_data;

    if (!blob_has(blob, offset, bytes)) {
        return error_set(err, BVMM_ERROR_IO, -ENODATA,
                         "%s: wanted %" PRIu64 " bytes at offset %" PRIu64 " of %" PRIu64,
                         blob->name, bytes, offset, blob->size_bytes);
    }
    if (blob->fd < 0) {
        memcpy(to, blob->bytes + offset, bytes);
        return 0;
    }
    while (bytes > 0) {
        ssize_t got = pread(blob->fd, to, bytes, (off_t)offset);

        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return error_set(err, BVMM_ERROR_IO, -errno, "cannot read %s at offset %" PRIu64 ": %s",
                             blob->name, offset, error_text(errno));
        }
        if (got == 0) {
            return error_set(err, BVMM_ERROR_IO, -ENODATA,
                             "%s ends at offset %" PRIu64 " but had %" PRIu64
                             " bytes when it was opened: is something writing to it?",
                             blob->name, offset, blob->size_bytes);
        }
        to += got;
        offset += (uint64_t)got;
        bytes -= (uint64_t)got;
    }
    return 0;
}

int blob_load(const struct arch_blob *blob, uint64_t offset, const struct guest_memory *memory,
              struct gpa address, uint64_t bytes, struct bvmm_error *err)
{
    void *host = guest_memory_at(memory, address, bytes);

    if (!host) {
        return error_set(err, BVMM_ERROR_BOOT, -EFAULT,
                         "%s: 0x%" PRIx64 ", %" PRIu64
                         " bytes, is not guest RAM; this is a bug in bvmm's loader",
                         blob->name, address.v, bytes);
    }
    return blob_read(blob, offset, host, bytes, err);
}

int load_initrd(struct load_map *map, const struct arch_boot_request *request, uint64_t lowest,
                uint64_t limit, struct guest_range *ret_range, struct bvmm_error *err)
{
    uint64_t ram_bytes = map->memory->regions[0].range.bytes;
    uint64_t total_bytes = 0;
    struct gpa next = {0};
    int ret;

    *ret_range = (struct guest_range){0};
    for (unsigned i = 0; i < request->initrd_parts; i++) {
        uint64_t part_bytes = request->initrd[i].size_bytes;

        if (part_bytes > ram_bytes) {
            return error_set(err, BVMM_ERROR_BOOT, -ENOMEM,
                             "%s: %" PRIu64 " bytes do not fit into %" PRIu64
                             " MiB of guest RAM; give the guest more memory",
                             request->initrd[i].name, part_bytes, ram_bytes / MIB);
        }
        total_bytes = align_up(total_bytes, INITRD_ALIGNMENT) + part_bytes;
    }
    if (total_bytes == 0) {
        return 0;
    }
    ret = load_claim_high(map, total_bytes, lowest, limit, "the initrd", &next, err);
    ret_range->base = next;
    for (unsigned i = 0; ret == 0 && i < request->initrd_parts; i++) {
        const struct arch_blob *part = &request->initrd[i];

        next.v = align_up(next.v, INITRD_ALIGNMENT);
        ret = blob_load(part, 0, map->memory, next, part->size_bytes, err);
        next.v += part->size_bytes;
    }
    ret_range->bytes = ret == 0 ? total_bytes : 0;
    return ret;
}

int load_cmdline(struct load_map *map, const char *cmdline, struct gpa address, uint64_t max_bytes,
                 struct bvmm_error *err)
{
    size_t bytes = strlen(cmdline);
    int ret;

    if (bytes > max_bytes) {
        return error_set(err, BVMM_ERROR_BOOT, -E2BIG,
                         "the kernel command line has %zu bytes with what the devices need, but "
                         "the kernel %s takes at most %" PRIu64 "; shorten it",
                         bytes, map->kernel_name, max_bytes);
    }
    ret = load_claim(map, (struct guest_range){address, bytes + 1}, BVMM_ERROR_BOOT, err,
                     "the command line");
    if (ret == 0) {
        ret = guest_memory_write(map->memory, address, cmdline, bytes + 1);
    }
    return ret;
}

/* Where the kernel stops reading: at the space before a lone --, or at the end. */
static size_t cmdline_kernel_part(const char *cmdline)
{
    bool quoted = false;
    bool word_start = true;

    for (size_t i = 0; cmdline[i] != '\0'; i++) {
        if (word_start && !quoted && strncmp(&cmdline[i], "--", 2) == 0 &&
            (cmdline[i + 2] == ' ' || cmdline[i + 2] == '\0')) {
            return i > 0 ? i - 1 : 0;
        }
        if (cmdline[i] == '"') {
            quoted = !quoted;
        }
        word_start = cmdline[i] == ' ' && !quoted;
    }
    return strlen(cmdline);
}

bool cmdline_has(const char *cmdline, const char *beginning)
{
    const size_t end = cmdline_kernel_part(cmdline);
    bool quoted = false;
    bool word_start = true;

    for (size_t i = 0; i < end; i++) {
        if (word_start && strncmp(&cmdline[i], beginning, strlen(beginning)) == 0) {
            return true;
        }
        if (cmdline[i] == '"') {
            quoted = !quoted;
        }
        word_start = cmdline[i] == ' ' && !quoted;
    }
    return false;
}

int cmdline_insert(const char *cmdline, const char *addition, char *ret_text, size_t size,
                   struct bvmm_error *err)
{
    size_t before = cmdline_kernel_part(cmdline);
    const char *rest = cmdline + before;
    int bytes;

    /* "a -- b" becomes "a ADDITION -- b", and "-- b" becomes "ADDITION -- b". */
    bytes = snprintf(ret_text, size, "%.*s%s%s%s%s", (int)before, cmdline,
                     before > 0 && addition[0] != '\0' ? " " : "", addition,
                     before == 0 && addition[0] != '\0' && rest[0] != '\0' ? " " : "", rest);
    if (bytes < 0 || (size_t)bytes >= size) {
        return error_set(err, BVMM_ERROR_BOOT, -E2BIG,
                         "the kernel command line would have %d bytes with what the devices need "
                         "(%zu), but at most %zu fit; shorten it",
                         bytes, strlen(addition), size - 1);
    }
    return 0;
}

int load_refuse_format(const struct arch_blob *kernel, const char *expected, struct bvmm_error *err)
{
    static const struct {
        size_t offset;
        size_t bytes;
        const char *magic;
        const char *what;
    } formats[] = {
        {0, 4, "\177ELF", "an ELF file for another machine"},
        {0x202, 4, "HdrS", "an x86 bzImage"},
        {0x38, 4, "ARM\x64", "an aarch64 Image"},
        {0, 2, "\x1f\x8b", "gzip data: unpack it (gunzip)"},
        {0, 4, "\x28\xb5\x2f\xfd", "zstd data: unpack it (unzstd)"},
        {0, 6, "\3757zXZ", "xz data: unpack it (unxz)"},
        {0, 4, "hsqs", "a squashfs image"},
        {0, 6, "070701", "a cpio archive (an initrd?)"},
        {4, 4, "zimg", "a compressed EFI program: unpack it"},
        {0, 2, "MZ", "a PE (EFI) program"},
    };
    uint8_t head[0x206] = {0};
    uint64_t head_bytes = min_u64(kernel->size_bytes, sizeof(head));
    int ret = blob_read(kernel, 0, head, head_bytes, err);

    if (ret != 0) {
        return ret;
    }
    for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
        if (memcmp(head + formats[i].offset, formats[i].magic, formats[i].bytes) == 0) {
            return error_set(err, BVMM_ERROR_KERNEL_LOAD, -ENOEXEC,
                             "%s is not a kernel for this machine: expected %s, found %s",
                             kernel->name, expected, formats[i].what);
        }
    }
    return error_set(err, BVMM_ERROR_KERNEL_LOAD, -ENOEXEC,
                     "%s is not a kernel: expected %s, found %" PRIu64
                     " bytes that begin with %02x %02x %02x %02x",
                     kernel->name, expected, kernel->size_bytes, head[0], head[1], head[2],
                     head[3]);
}
