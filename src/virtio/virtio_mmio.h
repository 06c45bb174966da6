/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * virtio_mmio.h: the registers of a virtio-mmio device, version 2: the state machine between a
 * driver that is not trusted and the device behind it.
 * Source: virtio 1.1, section 4.2.2 (registers), 2.1 (status), 3.1 (initialisation).
 *
 * Rules that the driver cannot get around here:
 *   - features can be set only before FEATURES_OK, and FEATURES_OK stays clear unless they are a
 *     subset of the offered ones with VERSION_1 among them;
 *   - a queue's size and addresses can be written only between FEATURES_OK and DRIVER_OK (that a
 *     size could change afterwards was CVE-2026-5747 of another VMM);
 *   - a queue selector out of range selects nothing: reads give 0, writes do nothing;
 *   - a queue that breaks the rules puts the device into NEEDS_RESET, and only a reset ends that.
 *
 * Thread: the device's actor. Nothing here blocks or allocates.
 */
#ifndef BVMM_VIRTIO_VIRTIO_MMIO_H
#define BVMM_VIRTIO_VIRTIO_MMIO_H

#include "base/base.h"
#include "virtio/guest_memory.h"
#include "virtio/virtqueue.h"

#define VIRTIO_MMIO_WINDOW_BYTES 0x1000
#define VIRTIO_MMIO_CONFIG_OFFSET 0x100
#define VIRTIO_QUEUES_MAX 3

enum virtio_device_id { VIRTIO_ID_BLOCK = 2, VIRTIO_ID_VSOCK = 19 };

#define VIRTIO_F_INDIRECT_DESC (1ULL << 28)
#define VIRTIO_F_EVENT_IDX (1ULL << 29)
#define VIRTIO_F_VERSION_1 (1ULL << 32)

/* Offsets, for the register table of the actors. */
enum virtio_mmio_register {
    VIRTIO_MMIO_MAGIC_VALUE = 0x000,
    VIRTIO_MMIO_VERSION = 0x004,
    VIRTIO_MMIO_DEVICE_ID = 0x008,
    VIRTIO_MMIO_VENDOR_ID = 0x00c,
    VIRTIO_MMIO_DEVICE_FEATURES = 0x010,
    VIRTIO_MMIO_DEVICE_FEATURES_SEL = 0x014,
    VIRTIO_MMIO_DRIVER_FEATURES = 0x020,
    VIRTIO_MMIO_DRIVER_FEATURES_SEL = 0x024,
    VIRTIO_MMIO_QUEUE_SEL = 0x030,
    VIRTIO_MMIO_QUEUE_NUM_MAX = 0x034,
    VIRTIO_MMIO_QUEUE_NUM = 0x038,
    VIRTIO_MMIO_QUEUE_READY = 0x044,
    VIRTIO_MMIO_QUEUE_NOTIFY = 0x050,
    VIRTIO_MMIO_INTERRUPT_STATUS = 0x060,
    VIRTIO_MMIO_INTERRUPT_ACK = 0x064,
    VIRTIO_MMIO_STATUS = 0x070,
    VIRTIO_MMIO_QUEUE_DESC_LOW = 0x080,
    VIRTIO_MMIO_QUEUE_DESC_HIGH = 0x084,
    VIRTIO_MMIO_QUEUE_DRIVER_LOW = 0x090,
    VIRTIO_MMIO_QUEUE_DRIVER_HIGH = 0x094,
    VIRTIO_MMIO_QUEUE_DEVICE_LOW = 0x0a0,
    VIRTIO_MMIO_QUEUE_DEVICE_HIGH = 0x0a4,
    VIRTIO_MMIO_SHM_LEN_LOW = 0x0b0,
    VIRTIO_MMIO_SHM_LEN_HIGH = 0x0b4,
    VIRTIO_MMIO_SHM_BASE_LOW = 0x0b8,
    VIRTIO_MMIO_SHM_BASE_HIGH = 0x0bc,
    VIRTIO_MMIO_CONFIG_GENERATION = 0x0fc,
};

enum virtio_status {
    VIRTIO_STATUS_ACKNOWLEDGE = 1,
    VIRTIO_STATUS_DRIVER = 2,
    VIRTIO_STATUS_DRIVER_OK = 4,
    VIRTIO_STATUS_FEATURES_OK = 8,
    VIRTIO_STATUS_NEEDS_RESET = 64,
    VIRTIO_STATUS_FAILED = 128,
};

/* What the device behind the registers is told. */
struct virtio_device_ops {
    /* DRIVER_OK: the queues are active. */
    void (*activate)(void *device);
    /* Status = 0: touch no ring any more. The queues are reset after this returns. */
    void (*reset)(void *device);
    /* An interrupt is due. */
    void (*interrupt)(void *device);
    /* A queue broke the rules: told once for each NEEDS_RESET. */
    void (*broken)(void *device, unsigned queue, enum virtq_fault fault, uint64_t detail);
};

struct virtio_mmio {
    /* Constant. */
    uint32_t device_id;
    uint64_t device_features;
    const uint8_t *config; /* device-specific configuration space, read-only */
    uint32_t config_bytes;
    unsigned queue_count;
    const struct guest_memory *memory;
    const struct virtio_device_ops *ops;
    void *device;

    /* Since the last reset. */
    uint32_t device_features_sel;
    uint32_t driver_features_sel;
    uint64_t driver_features;
    uint32_t queue_sel;
    uint32_t status;
    uint32_t interrupt_status;
    struct virtq queues[VIRTIO_QUEUES_MAX];
};

/* A register read. Anything but an aligned access of 4 bytes (config space: any) reads as 0. */
uint64_t virtio_mmio_read(struct virtio_mmio *mmio, uint32_t offset, unsigned width_bytes);

/* A register write. What is not allowed now is ignored. */
void virtio_mmio_write(struct virtio_mmio *mmio, uint32_t offset, unsigned width_bytes,
                       uint64_t value);

/* Whether a queue may be served now. */
bool virtio_mmio_queue_live(const struct virtio_mmio *mmio, unsigned queue);

/*
 * Used buffers are there: set the status bit and interrupt, if the driver wants it. Not right after
 * virtq_push(): see virtio_actor_used() for why messages must be handled in between.
 */
void virtio_mmio_notify_used(struct virtio_mmio *mmio, unsigned queue);

/* The queue has a fault: NEEDS_RESET, a configuration interrupt, and ops->broken. */
void virtio_mmio_fail(struct virtio_mmio *mmio, unsigned queue);

#endif
