/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* driver.c: the driver's side of virtio-mmio and split virtqueues, as small as it can be. */
#include "guest.h"

#define ARENA_BYTES (256U * 1024)
/* Reading a register waits for the device's thread, which looks at its queues then: a few are enough. */
#define LOOKS_MAX 48
#define PATIENCE_MAX 3000 /* machine_pause() */

static _Alignas(4096) uint8_t arena[ARENA_BYTES];
static size_t arena_used;

void *arena_take(size_t bytes, size_t alignment)
{
    const size_t start = (arena_used + alignment - 1) & ~(alignment - 1);

    if (start + bytes > ARENA_BYTES) {
        say("the arena is too small\n");
        machine_restart();
    }
    arena_used = start + bytes;
    return arena + start;
}

void arena_reset(void)
{
    for (size_t i = 0; i < arena_used; i += sizeof(uint64_t)) {
        *(volatile uint64_t *)(arena + i) = 0;
    }
    arena_used = 0;
}

uint32_t reg_read(const struct device *device, uint32_t offset)
{
    return (uint32_t)mmio_read(device->base + offset, 4);
}

void reg_write(const struct device *device, uint32_t offset, uint32_t value)
{
    mmio_write(device->base + offset, 4, value);
}

void queue_new(struct queue *queue, uint16_t size)
{
    *queue = (struct queue){.size = size};
    queue->desc = (uint64_t)arena_take(16U * size, 4096);
    queue->avail = (uint64_t)arena_take(6 + 2U * size, 4096);
    queue->used = (uint64_t)arena_take(6 + 8U * size, 4096);
    queue->table = (volatile struct descriptor *)queue->desc;
}

void queue_set(struct queue *queue, unsigned index, const volatile void *buffer, uint32_t bytes,
               uint16_t flags, uint16_t next)
{
    queue->table[index].address = (uint64_t)buffer;
    queue->table[index].bytes = bytes;
    queue->table[index].flags = flags;
    queue->table[index].next = next;
}

void queue_publish(struct queue *queue, uint16_t head)
{
    volatile uint16_t *avail = (volatile uint16_t *)queue->avail;

    avail[2 + queue->avail_index % queue->size] = head;
    queue->avail_index++;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    avail[1] = queue->avail_index;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

uint16_t queue_used_index(const struct queue *queue)
{
    return ((volatile uint16_t *)queue->used)[1];
}

void device_end(const struct device *device)
{
    reg_write(device, REG_STATUS, 0);
}

bool device_begin(const struct device *device, uint64_t features)
{
    features |= 1ULL << 32; /* VERSION_1 */
    device_end(device);
    reg_write(device, REG_STATUS, 1);
    reg_write(device, REG_STATUS, 3);
    for (uint32_t word = 0; word < 2; word++) {
        reg_write(device, REG_DRIVER_FEATURES_SEL, word);
        reg_write(device, REG_DRIVER_FEATURES, (uint32_t)(features >> (32 * word)));
    }
    reg_write(device, REG_STATUS, 3 | STATUS_FEATURES_OK);
    return (reg_read(device, REG_STATUS) & STATUS_FEATURES_OK) != 0;
}

static void write_address(const struct device *device, uint32_t offset, uint64_t address)
{
    reg_write(device, offset, (uint32_t)address);
    reg_write(device, offset + 4, (uint32_t)(address >> 32));
}

void device_add_queue(const struct device *device, unsigned index, const struct queue *queue)
{
    reg_write(device, REG_QUEUE_SEL, index);
    reg_write(device, REG_QUEUE_NUM, queue->size);
    write_address(device, REG_QUEUE_DESC, queue->desc);
    write_address(device, REG_QUEUE_DRIVER, queue->avail);
    write_address(device, REG_QUEUE_DEVICE, queue->used);
    reg_write(device, REG_QUEUE_READY, 1);
}

void device_go(const struct device *device)
{
    reg_write(device, REG_STATUS, 3 | STATUS_FEATURES_OK | STATUS_DRIVER_OK);
}

void device_notify(const struct device *device, unsigned index)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    reg_write(device, REG_QUEUE_NOTIFY, index);
}

static bool needs_reset(const struct device *device)
{
    return (reg_read(device, REG_STATUS) & STATUS_NEEDS_RESET) != 0;
}

bool device_out_of_service(const struct device *device)
{
    for (unsigned i = 0; i < LOOKS_MAX; i++) {
        if (needs_reset(device)) {
            return true;
        }
    }
    return false;
}

bool queue_take_used(struct queue *queue, uint16_t count)
{
    if ((uint16_t)(queue_used_index(queue) - queue->used_seen) < count) {
        return false;
    }
    queue->used_seen = (uint16_t)(queue->used_seen + count);
    return true;
}

bool device_wait_used(const struct device *device, struct queue *queue, uint16_t count)
{
    for (unsigned i = 0; i < LOOKS_MAX; i++) {
        if (queue_take_used(queue, count)) {
            return true;
        }
        if (needs_reset(device)) {
            return false;
        }
    }
    return false;
}

bool queue_wait_used(struct queue *queue, uint16_t count)
{
    for (unsigned i = 0; i < PATIENCE_MAX; i++) {
        if (queue_take_used(queue, count)) {
            return true;
        }
        machine_pause();
    }
    return false;
}

/* With F_EVENT_IDX: whether the device asked to be told of the last one that was published. */
bool queue_wants_notification(const struct queue *queue)
{
    const volatile uint16_t *avail_event =
        (volatile uint16_t *)(queue->used + 4 + 8U * queue->size);

    return *avail_event == (uint16_t)(queue->avail_index - 1);
}

/* ---- virtio-blk ------------------------------------------------------------------------------ */

struct blk_request *blk_request_new(struct queue *queue)
{
    struct blk_request *request = arena_take(sizeof(*request), 64);

    *request = (struct blk_request){.status = 0xff};
    queue_set(queue, 0, &request->header, sizeof(request->header), D_NEXT, 1);
    queue_set(queue, 1, request->data, SECTOR_BYTES, D_NEXT | D_WRITE, 2);
    queue_set(queue, 2, &request->status, 1, D_WRITE, 0);
    return request;
}

bool blk_works(const struct device *blk, uint64_t *ret_digest)
{
    struct blk_request *request = NULL;
    struct queue queue;
    bool works = false;

    device_end(blk); /* before its rings' memory is used for something else */
    arena_reset();
    queue_new(&queue, 8);
    request = blk_request_new(&queue);
    if (!device_begin(blk, F_INDIRECT | F_EVENT_IDX)) {
        return false;
    }
    device_add_queue(blk, 0, &queue);
    device_go(blk);
    queue_publish(&queue, 0);
    device_notify(blk, 0);
    works = device_wait_used(blk, &queue, 1) && *(volatile uint8_t *)&request->status == 0;
    device_end(blk);
    *ret_digest = digest(request->data, SECTOR_BYTES);
    return works;
}
