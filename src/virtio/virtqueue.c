/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * virtqueue.c: the device's side of a split virtqueue. See virtqueue.h.
 *
 * Thread: the device's actor. Nothing here blocks or allocates.
 */
#include "virtio/virtqueue.h"

#include <errno.h>
#include <string.h>

enum {
    DESC_BYTES = 16,
    DESC_F_NEXT = 1,
    DESC_F_WRITE = 2,
    DESC_F_INDIRECT = 4,

    AVAIL_FLAGS = 0,
    AVAIL_IDX = 2,
    AVAIL_RING = 4,
    AVAIL_F_NO_INTERRUPT = 1,

    USED_IDX = 2,
    USED_RING = 4,
    USED_ELEM_BYTES = 8,
};

struct descriptor {
    uint64_t address;
    uint32_t bytes;
    uint16_t flags;
    uint16_t next;
};
_Static_assert(sizeof(struct descriptor) == DESC_BYTES, "section 2.6.5");

static const char *const fault_texts[VIRTQ_FAULT_COUNT] = {
#define X(id, text) [VIRTQ_FAULT_##id] = (text),
    VIRTQ_FAULT_LIST(X)
#undef X
};

const char *virtq_fault_text(enum virtq_fault fault)
{
    return (unsigned)fault < VIRTQ_FAULT_COUNT ? fault_texts[fault] : "unknown fault";
}

static int virtq_fail(struct virtq *queue, enum virtq_fault fault, uint64_t detail)
{
    queue->fault = fault;
    queue->fault_detail = detail;
    queue->active = false;
    return -EINVAL;
}

void virtq_reset(struct virtq *queue)
{
    memset(queue, 0, sizeof(*queue));
}

/* ---- Rings ----------------------------------------------------------------------------------- */

/* Where the rings' fields are; the driver's size is fixed by now. */
static uint64_t avail_bytes(const struct virtq *queue)
{
    return AVAIL_RING + 2ULL * queue->size + 2; /* used_event */
}

static uint64_t used_bytes(const struct virtq *queue)
{
    return USED_RING + (uint64_t)USED_ELEM_BYTES * queue->size + 2; /* avail_event */
}

static const uint8_t *used_event(const struct virtq *queue)
{
    return queue->avail_host + AVAIL_RING + 2UL * queue->size;
}

static uint8_t *avail_event(const struct virtq *queue)
{
    return queue->used_host + USED_RING + (size_t)USED_ELEM_BYTES * queue->size;
}

int virtq_activate(struct virtq *queue, const struct guest_memory *memory, bool event_idx,
                   bool indirect)
{
    const uint16_t size = queue->size;

    if (size == 0 || size > VIRTQ_SIZE_MAX || (size & (size - 1)) != 0) {
        return virtq_fail(queue, VIRTQ_FAULT_BAD_SIZE, size);
    }
    if (!gpa_is_aligned(queue->desc, 16) || !gpa_is_aligned(queue->avail, 2) ||
        !gpa_is_aligned(queue->used, 4)) {
        return virtq_fail(queue, VIRTQ_FAULT_BAD_ALIGNMENT,
                          queue->desc.v | queue->avail.v | queue->used.v);
    }
    queue->desc_host = guest_memory_at(memory, queue->desc, (uint64_t)DESC_BYTES * size);
    queue->avail_host = guest_memory_at(memory, queue->avail, avail_bytes(queue));
    queue->used_host = guest_memory_at(memory, queue->used, used_bytes(queue));
    if (queue->desc_host == NULL || queue->avail_host == NULL || queue->used_host == NULL) {
        return virtq_fail(queue, VIRTQ_FAULT_RING_OUTSIDE,
                          queue->desc_host == NULL    ? queue->desc.v
                          : queue->avail_host == NULL ? queue->avail.v
                                                      : queue->used.v);
    }
    queue->event_idx = event_idx;
    queue->indirect = indirect;
    queue->active = true;
    return 0;
}

/* ---- Taking a chain apart -------------------------------------------------------------------- */

/* One copy of a descriptor; the checks that follow, and the use, are of this copy. */
static struct descriptor descriptor_copy(const uint8_t *table, unsigned index)
{
    struct descriptor copy;

    memcpy(&copy, table + (size_t)index * DESC_BYTES, sizeof(copy));
    /* Without this the compiler may read the table again where the copy is used. */
    __asm__ volatile("" : "+m"(copy));
    return copy;
}

static int chain_add(struct virtq *queue, const struct guest_memory *memory,
                     const struct descriptor *desc, struct virtq_chain *chain)
{
    const bool writable = (desc->flags & DESC_F_WRITE) != 0;
    const unsigned count = chain->readable_count + chain->writable_count;
    void *host = guest_memory_at(memory, gpa(desc->address), desc->bytes);

    if (desc->bytes == 0) {
        return virtq_fail(queue, VIRTQ_FAULT_BUFFER_EMPTY, desc->address);
    }
    if (host == NULL) {
        return virtq_fail(queue, VIRTQ_FAULT_BUFFER_OUTSIDE, desc->address);
    }
    if (!writable && chain->writable_count > 0) {
        return virtq_fail(queue, VIRTQ_FAULT_READ_AFTER_WRITE, desc->address);
    }
    chain->segments[count] = (struct virtq_segment){.host = host, .bytes = desc->bytes};
    if (writable) {
        chain->writable_count++;
        chain->writable_bytes += desc->bytes;
    } else {
        chain->readable_count++;
        chain->readable_bytes += desc->bytes;
    }
    return 0;
}

/* A table of descriptors: the queue's own, or an indirect one. */
struct table {
    const uint8_t *host;
    unsigned count;
    bool indirect;
};

static int table_indirect(struct virtq *queue, const struct guest_memory *memory,
                          const struct descriptor *desc, struct table *ret_table)
{
    if (!queue->indirect) {
        return virtq_fail(queue, VIRTQ_FAULT_INDIRECT_NOT_AGREED, desc->address);
    }
    if ((desc->flags & DESC_F_NEXT) != 0) {
        return virtq_fail(queue, VIRTQ_FAULT_INDIRECT_NESTED, desc->address);
    }
    if (desc->bytes == 0 || desc->bytes % DESC_BYTES != 0) {
        return virtq_fail(queue, VIRTQ_FAULT_INDIRECT_SIZE, desc->bytes);
    }
    ret_table->host = guest_memory_at(memory, gpa(desc->address), desc->bytes);
    if (ret_table->host == NULL) {
        return virtq_fail(queue, VIRTQ_FAULT_INDIRECT_OUTSIDE, desc->address);
    }
    ret_table->count = desc->bytes / DESC_BYTES;
    ret_table->indirect = true;
    return 0;
}

/* Follow a chain from `index`. Ends: each step adds a segment, and they are bounded. */
static int chain_walk(struct virtq *queue, const struct guest_memory *memory, unsigned index,
                      struct virtq_chain *chain)
{
    struct table table = {.host = queue->desc_host, .count = queue->size, .indirect = false};

    for (;;) {
        struct descriptor desc = descriptor_copy(table.host, index);
        int code = 0;

        if ((desc.flags & DESC_F_INDIRECT) != 0) {
            if (table.indirect) {
                return virtq_fail(queue, VIRTQ_FAULT_INDIRECT_NESTED, desc.address);
            }
            code = table_indirect(queue, memory, &desc, &table);
            if (code < 0) {
                return code;
            }
            index = 0;
            continue; /* once at most: the next table is indirect */
        }
        if (chain->readable_count + chain->writable_count >= queue->size) {
            return virtq_fail(queue, VIRTQ_FAULT_CHAIN_TOO_LONG, index);
        }
        code = chain_add(queue, memory, &desc, chain);
        if (code < 0 || (desc.flags & DESC_F_NEXT) == 0) {
            return code;
        }
        if (desc.next >= table.count) {
            return virtq_fail(queue, VIRTQ_FAULT_BAD_NEXT, desc.next);
        }
        index = desc.next;
    }
}

int virtq_pop(struct virtq *queue, const struct guest_memory *memory, struct virtq_chain *ret_chain)
{
    uint16_t head = 0;
    uint16_t waiting = 0;
    int code = 0;

    if (!queue->active) {
        return 0;
    }
    /* acquire; pairs with the driver's barrier between filling the ring and moving the index */
    waiting =
        (uint16_t)(guest_le16_load_acquire(queue->avail_host + AVAIL_IDX) - queue->next_avail);
    if (waiting == 0) {
        return 0;
    }
    if (waiting > queue->size) {
        return virtq_fail(queue, VIRTQ_FAULT_AVAIL_JUMP, waiting);
    }
    head = guest_le16_load_relaxed(queue->avail_host + AVAIL_RING +
                                   2UL * (queue->next_avail % queue->size));
    if (head >= queue->size) {
        return virtq_fail(queue, VIRTQ_FAULT_BAD_HEAD, head);
    }
    ret_chain->head = head;
    ret_chain->readable_count = 0;
    ret_chain->writable_count = 0;
    ret_chain->readable_bytes = 0;
    ret_chain->writable_bytes = 0;
    code = chain_walk(queue, memory, head, ret_chain);
    if (code < 0) {
        return code;
    }
    queue->next_avail++;
    return 1;
}

void virtq_unpop(struct virtq *queue)
{
    queue->next_avail--;
}

/* ---- Handing back ---------------------------------------------------------------------------- */

void virtq_push(struct virtq *queue, uint16_t head, uint32_t written_bytes)
{
    uint8_t *elem = NULL;

    if (!queue->active) {
        return;
    }
    elem =
        queue->used_host + USED_RING + (size_t)USED_ELEM_BYTES * (queue->next_used % queue->size);
    guest_le32_store_relaxed(elem, head);
    guest_le32_store_relaxed(elem + 4, written_bytes);
    queue->next_used++;
    /* release; pairs with the driver's barrier between reading the index and the element */
    guest_le16_store_release(queue->used_host + USED_IDX, queue->next_used);
}

bool virtq_should_interrupt(struct virtq *queue)
{
    const uint16_t before = queue->signaled_used;
    const uint16_t now = queue->next_used;

    if (!queue->active || before == now) {
        return false;
    }
    queue->signaled_used = now;
    /* Full; pairs with the driver's: it writes used_event, then looks at the used index. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (!queue->event_idx) {
        return (guest_le16_load_relaxed(queue->avail_host + AVAIL_FLAGS) & AVAIL_F_NO_INTERRUPT) ==
               0;
    }
    /* Did the used index pass the one that the driver asked to be told of? (2.6.7.2) */
    const uint16_t event = guest_le16_load_relaxed(used_event(queue));
    return (uint16_t)(now - event - 1) < (uint16_t)(now - before);
}

bool virtq_want_notification(struct virtq *queue)
{
    if (!queue->active) {
        return false;
    }
    if (queue->event_idx) {
        guest_le16_store_relaxed(avail_event(queue), queue->next_avail);
    }
    /* Full; pairs with the driver's: it moves the available index, then looks at avail_event. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return guest_le16_load_relaxed(queue->avail_host + AVAIL_IDX) != queue->next_avail;
}

/* ---- Bytes of a chain ------------------------------------------------------------------------ */

static size_t segments_copy(const struct virtq_segment *segments, unsigned count, uint64_t offset,
                            void *out, const void *in, size_t bytes)
{
    size_t done = 0;

    for (unsigned i = 0; i < count && done < bytes; i++) {
        const struct virtq_segment *segment = &segments[i];
        size_t part = 0;

        if (offset >= segment->bytes) {
            offset -= segment->bytes;
            continue;
        }
        part = (size_t)min_u64(segment->bytes - offset, bytes - done);
        if (out != NULL) {
            memcpy((uint8_t *)out + done, (const uint8_t *)segment->host + offset, part);
        } else {
            memcpy((uint8_t *)segment->host + offset, (const uint8_t *)in + done, part);
        }
        offset = 0;
        done += part;
    }
    return done;
}

size_t virtq_chain_read(const struct virtq_chain *chain, uint64_t offset, void *ret_data,
                        size_t bytes)
{
    return segments_copy(chain->segments, chain->readable_count, offset, ret_data, NULL, bytes);
}

size_t virtq_chain_write(const struct virtq_chain *chain, uint64_t offset, const void *data,
                         size_t bytes)
{
    return segments_copy(chain->segments + chain->readable_count, chain->writable_count, offset,
                         NULL, data, bytes);
}
