/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * virtqueue.h: the device's side of a split virtqueue, for a driver that is not trusted.
 * Source: virtio 1.1, section 2.6 (split virtqueues), 2.6.5.3 (indirect), 2.6.7, 2.6.8 (event index).
 *
 * The driver may write to ring and descriptors at any time, also while we look. So every index and
 * every descriptor is copied once, the copy is checked, and only the copy is used. Whatever breaks
 * the rules becomes a fault: the queue is out of service from then on, and the device that owns it
 * goes into NEEDS_RESET. A fault never ends the process.
 *
 * Addresses in a chain are host pointers that passed guest_memory_at() with their whole length.
 *
 * Thread: the device's actor. Nothing here blocks or allocates.
 */
#ifndef BVMM_VIRTIO_VIRTQUEUE_H
#define BVMM_VIRTIO_VIRTQUEUE_H

#include "base/base.h"
#include "virtio/guest_memory.h"

#define VIRTQ_SIZE_MAX 256
/* A chain may not be longer than the queue, also not by an indirect table (2.6.5.3.1). */
#define VIRTQ_SEGMENTS_MAX VIRTQ_SIZE_MAX

/* What a driver can do wrong. The report names it. */
/* clang-format off */
#define VIRTQ_FAULT_LIST(X)                                                                        \
    X(NONE, "none")                                                                                \
    X(BAD_SIZE, "queue size is not a power of two up to the maximum")                              \
    X(BAD_ALIGNMENT, "a ring is not aligned as section 2.6 asks")                                  \
    X(RING_OUTSIDE, "a ring does not lie in guest memory")                                         \
    X(AVAIL_JUMP, "the available index ran ahead by more than the queue's size")                   \
    X(BAD_HEAD, "a descriptor index in the available ring is out of range")                        \
    X(BAD_NEXT, "a descriptor's next index is out of range")                                       \
    X(CHAIN_TOO_LONG, "a chain is longer than the queue, or loops")                                \
    X(INDIRECT_NOT_AGREED, "an indirect table without VIRTIO_F_INDIRECT_DESC")                     \
    X(INDIRECT_NESTED, "an indirect table within an indirect table, or one that has a next")       \
    X(INDIRECT_SIZE, "an indirect table's length is not a number of descriptors")                  \
    X(INDIRECT_OUTSIDE, "an indirect table does not lie in guest memory")                          \
    X(BUFFER_OUTSIDE, "a buffer does not lie in guest memory")                                     \
    X(BUFFER_EMPTY, "a buffer has no bytes")                                                       \
    X(READ_AFTER_WRITE, "a buffer to read comes after one to write")                               \
    X(BAD_REQUEST, "a request is shorter than its header")
/* clang-format on */

enum virtq_fault {
#define X(id, text) VIRTQ_FAULT_##id,
    VIRTQ_FAULT_LIST(X)
#undef X
        VIRTQ_FAULT_COUNT
};
const char *virtq_fault_text(enum virtq_fault fault);

struct virtq {
    /* As the driver set it up by registers; fixed once `active`. */
    uint16_t size;
    bool ready;
    struct gpa desc, avail, used;

    /* From virtq_activate() on. */
    bool active;
    bool event_idx; /* VIRTIO_F_EVENT_IDX was agreed */
    bool indirect;  /* VIRTIO_F_INDIRECT_DESC was agreed */
    const uint8_t *desc_host;
    uint8_t *avail_host;
    uint8_t *used_host;
    uint16_t next_avail;    /* free-running: the next entry of the available ring to take */
    uint16_t next_used;     /* free-running: the next entry of the used ring to fill */
    uint16_t signaled_used; /* next_used when the driver was last considered for an interrupt */

    enum virtq_fault fault;
    uint64_t fault_detail;
};

struct virtq_segment {
    void *host;
    uint32_t bytes;
};

/* A request: first what the device may read, then what it may write. */
struct virtq_chain {
    uint16_t head;
    unsigned readable_count;
    unsigned writable_count;
    uint64_t readable_bytes;
    uint64_t writable_bytes;
    struct virtq_segment segments[VIRTQ_SEGMENTS_MAX];
};

/* Back to the state after a device reset. */
void virtq_reset(struct virtq *queue);

/* The driver says DRIVER_OK: check the rings' size, alignment and place. 0, or -EINVAL and fault set. */
int virtq_activate(struct virtq *queue, const struct guest_memory *memory, bool event_idx,
                   bool indirect) must_check;

/*
 * virtq_pop - the next request.
 * Return: 1 and *ret_chain filled; 0 if there is none; -EINVAL if the driver broke a rule (fault set).
 */
int virtq_pop(struct virtq *queue, const struct guest_memory *memory, struct virtq_chain *ret_chain)
    must_check;

/* Take the last virtq_pop() back: it comes again. */
void virtq_unpop(struct virtq *queue);

/* virtq_push - hand a request back. @written_bytes: how much of its writable part was filled. */
void virtq_push(struct virtq *queue, uint16_t head, uint32_t written_bytes);

/* Whether the driver wants an interrupt for what was pushed since the last call. */
bool virtq_should_interrupt(struct virtq *queue) must_check;

/*
 * virtq_want_notification - from now on the driver is to notify us of new requests.
 * Return: true if there are some already: do not sleep.
 */
bool virtq_want_notification(struct virtq *queue) must_check;

/* Copy out of the readable part, from `offset` on. Return: bytes copied (less at its end). */
size_t virtq_chain_read(const struct virtq_chain *chain, uint64_t offset, void *ret_data,
                        size_t bytes);

/* Copy into the writable part, from `offset` on. Return: bytes copied (less at its end). */
size_t virtq_chain_write(const struct virtq_chain *chain, uint64_t offset, const void *data,
                         size_t bytes);

#endif
