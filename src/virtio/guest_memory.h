/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * guest_memory.h: the guest's RAM as bvmm sees it, and the only way from a guest address to a host
 * pointer.
 *
 * A guest address is a struct gpa, never a pointer and never a bare integer, so that nobody can
 * dereference it or mix it up with a length. Every access names its length, and passes one bounds
 * check (guest_memory_at) or fails.
 *
 * The guest may change its memory at any moment, also while we read it. So: copy once with
 * guest_memory_read(), check the copy, use the copy. What must be read in place (ring indices) is
 * read by the atomic loads below.
 *
 * Thread: guest_memory_init/fini belong to start-up and shutdown; everything else may be called by
 * any thread, because the table of regions never changes in between. Nothing here blocks.
 */
#ifndef BVMM_VIRTIO_GUEST_MEMORY_H
#define BVMM_VIRTIO_GUEST_MEMORY_H

#include "base/base.h"
#include "base/error.h"

#define GUEST_MEMORY_REGIONS_MAX 4

/* A guest physical address. */
struct gpa {
    uint64_t v;
};

static inline struct gpa gpa(uint64_t address)
{
    return (struct gpa){address};
}

/* A piece of guest physical address space. */
struct guest_range {
    struct gpa base;
    uint64_t bytes;
};

struct guest_region {
    struct guest_range range;
    uint8_t *host; /* where the range begins in our address space, 2 MiB aligned */
    void *mapping; /* host plus the guard pages around it */
    uint64_t mapping_bytes;
};

/* Regions are in ascending order and do not overlap. */
struct guest_memory {
    struct guest_region regions[GUEST_MEMORY_REGIONS_MAX];
    unsigned count;
};

/*
 * guest_memory_init - reserve memory for the ranges; pages are handed out when first touched.
 * @ranges: ascending, not overlapping, page-sized; arch_memory_layout() makes them.
 * Each region lies between inaccessible pages, so that running off its end is a SIGSEGV and never
 * another object, and is left out of core dumps.
 * Return: 0, or -errno with *err filled (kind MEMORY).
 */
int guest_memory_init(struct guest_memory *memory, const struct guest_range *ranges, unsigned count,
                      struct bvmm_error *err) must_check;

/* Unmap everything. A memory that is all zero, or was finished before, is left alone. */
void guest_memory_fini(struct guest_memory *memory);

/*
 * guest_memory_at - the host address of [address, address + bytes), or NULL.
 * NULL unless the whole of it lies in one region; bytes == 0 needs a valid address all the same.
 */
void *guest_memory_at(const struct guest_memory *memory, struct gpa address, uint64_t bytes)
    must_check;

/* Copy out of or into guest memory. Return: 0, or -EFAULT and nothing was copied. */
int guest_memory_read(const struct guest_memory *memory, struct gpa address, void *ret_data,
                      size_t bytes) must_check;
int guest_memory_write(const struct guest_memory *memory, struct gpa address, const void *data,
                       size_t bytes) must_check;

/* Bytes in all regions together. */
uint64_t guest_memory_total_bytes(const struct guest_memory *memory);

/*
 * Single little-endian values that the guest reads or writes at the same time. `host` comes from
 * guest_memory_at() and is aligned to the value's size: check the guest's address with
 * gpa_is_aligned() first. Each is exactly one load or one store.
 *
 * Acquire pairs with the guest's write barrier before it published an index; release pairs with the
 * guest's read barrier after it saw ours.
 */
static inline bool gpa_is_aligned(struct gpa address, uint64_t alignment)
{
    return (address.v & (alignment - 1)) == 0;
}

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "bvmm's hosts and guests are little-endian: add byte swaps here for another"
#endif

#define GUEST_VALUE_FUNCTIONS(bits)                                                                \
    static inline uint##bits##_t guest_le##bits##_load_relaxed(const void *host)                   \
    {                                                                                              \
        return __atomic_load_n((const uint##bits##_t *)host, __ATOMIC_RELAXED);                    \
    }                                                                                              \
    static inline uint##bits##_t guest_le##bits##_load_acquire(const void *host)                   \
    {                                                                                              \
        return __atomic_load_n((const uint##bits##_t *)host, __ATOMIC_ACQUIRE);                    \
    }                                                                                              \
    static inline void guest_le##bits##_store_relaxed(void *host, uint##bits##_t value)            \
    {                                                                                              \
        __atomic_store_n((uint##bits##_t *)host, value, __ATOMIC_RELAXED);                         \
    }                                                                                              \
    static inline void guest_le##bits##_store_release(void *host, uint##bits##_t value)            \
    {                                                                                              \
        __atomic_store_n((uint##bits##_t *)host, value, __ATOMIC_RELEASE);                         \
    }

GUEST_VALUE_FUNCTIONS(16)
GUEST_VALUE_FUNCTIONS(32)
GUEST_VALUE_FUNCTIONS(64)
#undef GUEST_VALUE_FUNCTIONS

#endif
