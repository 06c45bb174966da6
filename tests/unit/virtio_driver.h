/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * virtio_driver.h: the driver's side of virtqueues and of virtio-mmio, for tests: well-behaved
 * unless a test makes it otherwise. Guest memory begins at guest address 0.
 */
#ifndef BVMM_TESTS_UNIT_VIRTIO_DRIVER_H
#define BVMM_TESTS_UNIT_VIRTIO_DRIVER_H

#include <stdlib.h>
#include <string.h>

#include "virtio/guest_memory.h"
#include "virtio/virtio_mmio.h"

#define DRIVER_QUEUE_MAX 256
#define DRIVER_DESC_NEXT 1U
#define DRIVER_DESC_WRITE 2U
#define DRIVER_DESC_INDIRECT 4U

struct driver_desc {
    uint64_t address;
    uint32_t bytes;
    uint16_t flags;
    uint16_t next;
};

struct driver_buffer {
    uint64_t address;
    uint32_t bytes;
    bool writable;
};

struct driver_queue {
    uint8_t *base; /* host address of guest address 0 */
    uint16_t size;
    bool event_idx;
    uint64_t desc, avail, used;
    uint64_t indirect; /* tables, DRIVER_TABLE_BYTES for each head; 0: none */
    uint16_t avail_idx;
    uint16_t kicked_idx; /* avail_idx when a kick was last considered */
    uint16_t last_used;
    unsigned in_flight;
    bool busy[DRIVER_QUEUE_MAX];             /* by descriptor */
    uint16_t chain_length[DRIVER_QUEUE_MAX]; /* by head; descriptors of the queue itself */
};

#define DRIVER_TABLE_BYTES (16U * 32)
/* desc, avail, used, tables; rounded up to a page */
#define DRIVER_QUEUE_BYTES (64U * 1024 + DRIVER_TABLE_BYTES * DRIVER_QUEUE_MAX)

static inline struct driver_desc *driver_desc_at(const struct driver_queue *queue, unsigned index)
{
    return (struct driver_desc *)(void *)(queue->base + queue->desc) + index;
}

static inline uint16_t *driver_u16(const struct driver_queue *queue, uint64_t address)
{
    return (uint16_t *)(void *)(queue->base + address);
}

static inline uint16_t *driver_avail_idx(const struct driver_queue *queue)
{
    return driver_u16(queue, queue->avail + 2);
}

static inline uint16_t *driver_used_event(const struct driver_queue *queue)
{
    return driver_u16(queue, queue->avail + 4 + 2ULL * queue->size);
}

static inline uint16_t driver_avail_event(const struct driver_queue *queue)
{
    return __atomic_load_n(driver_u16(queue, queue->used + 4 + 8ULL * queue->size),
                           __ATOMIC_RELAXED);
}

static inline void driver_queue_init(struct driver_queue *queue, uint8_t *base, uint64_t address,
                                     uint16_t size, bool event_idx, bool indirect)
{
    memset(queue, 0, sizeof(*queue));
    memset(base + address, 0, DRIVER_QUEUE_BYTES);
    queue->base = base;
    queue->size = size;
    queue->event_idx = event_idx;
    queue->desc = address;
    queue->avail = address + 16ULL * DRIVER_QUEUE_MAX;
    queue->used = queue->avail + 1024;
    queue->indirect = indirect ? address + 64 * 1024 : 0;
}

static inline uint16_t driver_take_desc(struct driver_queue *queue)
{
    for (uint16_t i = 0; i < queue->size; i++) {
        if (!queue->busy[i]) {
            queue->busy[i] = true;
            return i;
        }
    }
    abort();
}

static inline unsigned driver_free_descs(const struct driver_queue *queue)
{
    unsigned count = 0;

    for (unsigned i = 0; i < queue->size; i++) {
        count += queue->busy[i] ? 0 : 1;
    }
    return count;
}

static inline void driver_fill_desc(struct driver_desc *desc, const struct driver_buffer *buffer,
                                    bool last, uint16_t next)
{
    *desc = (struct driver_desc){
        .address = buffer->address,
        .bytes = buffer->bytes,
        .flags =
            (uint16_t)((buffer->writable ? DRIVER_DESC_WRITE : 0) | (last ? 0 : DRIVER_DESC_NEXT)),
        .next = next,
    };
}

/* Build a chain. The caller sees to it that there are descriptors. Return: its head. */
static inline uint16_t driver_chain(struct driver_queue *queue, const struct driver_buffer *buffers,
                                    unsigned count, bool indirect)
{
    uint16_t index = driver_take_desc(queue);
    const uint16_t head = index;

    queue->chain_length[head] = indirect ? 1 : (uint16_t)count;
    if (indirect) {
        const uint64_t table = queue->indirect + (uint64_t)head * DRIVER_TABLE_BYTES;

        for (unsigned i = 0; i < count; i++) {
            driver_fill_desc((struct driver_desc *)(void *)(queue->base + table) + i, &buffers[i],
                             i + 1 == count, (uint16_t)(i + 1));
        }
        *driver_desc_at(queue, head) = (struct driver_desc){
            .address = table, .bytes = 16 * count, .flags = DRIVER_DESC_INDIRECT};
        return head;
    }
    for (unsigned i = 0; i < count; i++) {
        const bool last = i + 1 == count;
        const uint16_t next = last ? 0 : driver_take_desc(queue);

        driver_fill_desc(driver_desc_at(queue, index), &buffers[i], last, next);
        index = next;
    }
    return head;
}

/* Put a head into the available ring, and publish it. */
static inline void driver_offer(struct driver_queue *queue, uint16_t head)
{
    *driver_u16(queue, queue->avail + 4 + 2ULL * (queue->avail_idx % queue->size)) = head;
    queue->avail_idx++;
    __atomic_store_n(driver_avail_idx(queue), queue->avail_idx, __ATOMIC_RELEASE);
    queue->in_flight++;
}

/* Whether the device asked to be notified of what was offered since the last call. */
static inline bool driver_must_kick(struct driver_queue *queue)
{
    const uint16_t now = queue->avail_idx;
    const uint16_t before = queue->kicked_idx;

    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    queue->kicked_idx = now;
    if (!queue->event_idx) {
        return now != before;
    }
    return (uint16_t)(now - driver_avail_event(queue) - 1) < (uint16_t)(now - before);
}

/* The next chain that the device has handed back. False: none. */
static inline bool driver_take_used(struct driver_queue *queue, uint16_t *ret_head,
                                    uint32_t *ret_bytes)
{
    const uint16_t device_idx =
        __atomic_load_n(driver_u16(queue, queue->used + 2), __ATOMIC_ACQUIRE);
    const uint64_t elem = queue->used + 4 + 8ULL * (queue->last_used % queue->size);
    uint16_t index = 0;
    unsigned length = 0;

    if (device_idx == queue->last_used) {
        return false;
    }
    *ret_head = *driver_u16(queue, elem);
    memcpy(ret_bytes, queue->base + elem + 4, sizeof(*ret_bytes));
    queue->last_used++;
    queue->in_flight--;
    index = *ret_head;
    for (length = queue->chain_length[*ret_head]; length > 0; length--) {
        queue->busy[index] = false;
        index = driver_desc_at(queue, index)->next;
    }
    return true;
}

/* Ask for an interrupt at the next used buffer. True: there is one already. */
static inline bool driver_want_interrupt(struct driver_queue *queue)
{
    if (queue->event_idx) {
        __atomic_store_n(driver_used_event(queue), queue->last_used, __ATOMIC_RELAXED);
    }
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return __atomic_load_n(driver_u16(queue, queue->used + 2), __ATOMIC_RELAXED) !=
           queue->last_used;
}

/* ---- Registers, by whatever way `write` takes ------------------------------------------------ */

typedef void (*driver_write_fn)(void *context, uint32_t offset, uint32_t value);

static inline void driver_setup_queue(driver_write_fn write, void *context, unsigned index,
                                      const struct driver_queue *queue)
{
    write(context, VIRTIO_MMIO_QUEUE_SEL, index);
    write(context, VIRTIO_MMIO_QUEUE_NUM, queue->size);
    write(context, VIRTIO_MMIO_QUEUE_DESC_LOW, (uint32_t)queue->desc);
    write(context, VIRTIO_MMIO_QUEUE_DESC_HIGH, (uint32_t)(queue->desc >> 32));
    write(context, VIRTIO_MMIO_QUEUE_DRIVER_LOW, (uint32_t)queue->avail);
    write(context, VIRTIO_MMIO_QUEUE_DRIVER_HIGH, (uint32_t)(queue->avail >> 32));
    write(context, VIRTIO_MMIO_QUEUE_DEVICE_LOW, (uint32_t)queue->used);
    write(context, VIRTIO_MMIO_QUEUE_DEVICE_HIGH, (uint32_t)(queue->used >> 32));
    write(context, VIRTIO_MMIO_QUEUE_READY, 1);
}

static inline void driver_agree(driver_write_fn write, void *context, uint64_t features)
{
    write(context, VIRTIO_MMIO_STATUS, 0);
    write(context, VIRTIO_MMIO_STATUS, VIRTIO_STATUS_ACKNOWLEDGE);
    write(context, VIRTIO_MMIO_STATUS, VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER);
    write(context, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
    write(context, VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)features);
    write(context, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
    write(context, VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)(features >> 32));
    write(context, VIRTIO_MMIO_STATUS,
          VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_FEATURES_OK);
}

static inline void driver_go(driver_write_fn write, void *context)
{
    write(context, VIRTIO_MMIO_STATUS,
          VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_FEATURES_OK |
              VIRTIO_STATUS_DRIVER_OK);
}

#endif
