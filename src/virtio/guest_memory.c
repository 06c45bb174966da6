/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* guest_memory.c: reserving the guest's RAM, and the one bounds check for every access to it. */
#include "virtio/guest_memory.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Guards are this large, and regions this aligned, so that KVM and the host may use huge pages. */
#define REGION_ALIGNMENT (2 * MIB)

static int range_check(const struct guest_range *range, uint64_t previous_end,
                       struct bvmm_error *err)
{
    uint64_t page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t end;

    if (range->bytes == 0 || range->bytes % page_bytes != 0 || range->base.v % page_bytes != 0 ||
        range->bytes > (uint64_t)PTRDIFF_MAX - 3 * REGION_ALIGNMENT ||
        __builtin_add_overflow(range->base.v, range->bytes, &end) || range->base.v < previous_end) {
        return error_set(
            err, BVMM_ERROR_MEMORY, -EINVAL,
            "guest memory range 0x%llx, %llu bytes: expected whole pages, in ascending "
            "order, without overlap; this is a bug in bvmm's memory layout",
            (unsigned long long)range->base.v, (unsigned long long)range->bytes);
    }
    return 0;
}

static int region_map(struct guest_region *region, const struct guest_range *range,
                      struct bvmm_error *err)
{
    uint64_t mapping_bytes = align_up(range->bytes, REGION_ALIGNMENT) + 3 * REGION_ALIGNMENT;
    uint8_t *mapping =
        mmap(NULL, mapping_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    uint8_t *host;

    if (mapping == MAP_FAILED) {
        goto failed;
    }
    /* At least one alignment's worth of guard stays in front, and one behind. */
    host = mapping + REGION_ALIGNMENT;
    host += (REGION_ALIGNMENT - (uintptr_t)host % REGION_ALIGNMENT) % REGION_ALIGNMENT;
    if (mprotect(host, range->bytes, PROT_READ | PROT_WRITE) != 0 ||
        madvise(mapping, mapping_bytes, MADV_DONTDUMP) != 0) {
        int code = errno;

        (void)munmap(mapping, mapping_bytes);
        errno = code;
        goto failed;
    }
    *region = (struct guest_region){*range, host, mapping, mapping_bytes};
    return 0;

failed:
    return error_set(err, BVMM_ERROR_MEMORY, -errno,
                     "cannot reserve %llu MiB for the guest: %s; ask for less (memory_mib), or "
                     "raise the limit on address space (ulimit -v)",
                     (unsigned long long)(range->bytes / MIB), error_text(errno));
}

int guest_memory_init(struct guest_memory *memory, const struct guest_range *ranges, unsigned count,
                      struct bvmm_error *err)
{
    uint64_t previous_end = 0;

    *memory = (struct guest_memory){0};
    if (count == 0 || count > GUEST_MEMORY_REGIONS_MAX) {
        return error_set(err, BVMM_ERROR_MEMORY, -EINVAL,
                         "%u guest memory ranges: expected 1 to %d; this is a bug in bvmm's memory "
                         "layout",
                         count, GUEST_MEMORY_REGIONS_MAX);
    }
    for (unsigned i = 0; i < count; i++) {
        int ret = range_check(&ranges[i], previous_end, err);

        if (ret == 0) {
            ret = region_map(&memory->regions[i], &ranges[i], err);
        }
        if (ret != 0) {
            guest_memory_fini(memory);
            return ret;
        }
        memory->count = i + 1;
        previous_end = ranges[i].base.v + ranges[i].bytes;
    }
    return 0;
}

void guest_memory_fini(struct guest_memory *memory)
{
    for (unsigned i = 0; i < memory->count; i++) {
        (void)munmap(memory->regions[i].mapping, memory->regions[i].mapping_bytes);
    }
    *memory = (struct guest_memory){0};
}

void *guest_memory_at(const struct guest_memory *memory, struct gpa address, uint64_t bytes)
{
    for (unsigned i = 0; i < memory->count; i++) {
        const struct guest_region *region = &memory->regions[i];
        uint64_t offset = address.v - region->range.base.v; /* wraps if below: then it is large */

        /* Written so that nothing can overflow: offset is inside before it is subtracted. */
        if (offset < region->range.bytes) {
            return bytes <= region->range.bytes - offset ? region->host + offset : NULL;
        }
    }
    return NULL;
}

int guest_memory_read(const struct guest_memory *memory, struct gpa address, void *ret_data,
                      size_t bytes)
{
    const void *host = guest_memory_at(memory, address, bytes);

    if (host == NULL) {
        return -EFAULT;
    }
    memcpy(ret_data, host, bytes);
    /* The compiler must not look at guest memory again later in place of the copy. */
    __asm__ volatile("" : : "r"(ret_data) : "memory");
    return 0;
}

int guest_memory_write(const struct guest_memory *memory, struct gpa address, const void *data,
                       size_t bytes)
{
    void *host = guest_memory_at(memory, address, bytes);

    if (host == NULL) {
        return -EFAULT;
    }
    memcpy(host, data, bytes);
    return 0;
}

uint64_t guest_memory_total_bytes(const struct guest_memory *memory)
{
    uint64_t total_bytes = 0;

    for (unsigned i = 0; i < memory->count; i++) {
        total_bytes += memory->regions[i].range.bytes;
    }
    return total_bytes;
}
