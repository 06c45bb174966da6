/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * virtio_mmio.c: the registers of a virtio-mmio device. See virtio_mmio.h.
 *
 * Thread: the device's actor. Nothing here blocks or allocates.
 */
#include "virtio/virtio_mmio.h"

#include <string.h>

enum {
    MAGIC = 0x74726976, /* "virt" */
    VERSION = 2,
    VENDOR = 0x6d6d7662, /* "bvmm" */
    INTERRUPT_USED_BUFFER = 1,
    INTERRUPT_CONFIG_CHANGE = 2,
};

/* ---- Reading --------------------------------------------------------------------------------- */

static struct virtq *selected_queue(struct virtio_mmio *mmio)
{
    return mmio->queue_sel < mmio->queue_count ? &mmio->queues[mmio->queue_sel] : NULL;
}

static uint32_t feature_word(uint64_t features, uint32_t sel)
{
    return sel < 2 ? (uint32_t)(features >> (32 * sel)) : 0;
}

static uint64_t config_read(const struct virtio_mmio *mmio, uint32_t offset, unsigned width_bytes)
{
    uint64_t value = 0;

    if (width_bytes > sizeof(value) || offset > mmio->config_bytes ||
        width_bytes > mmio->config_bytes - offset) {
        return 0;
    }
    memcpy(&value, mmio->config + offset, width_bytes);
    return value;
}

uint64_t virtio_mmio_read(struct virtio_mmio *mmio, uint32_t offset, unsigned width_bytes)
{
    const struct virtq *queue = selected_queue(mmio);

    if (offset >= VIRTIO_MMIO_CONFIG_OFFSET) {
        return config_read(mmio, offset - VIRTIO_MMIO_CONFIG_OFFSET, width_bytes);
    }
    if (width_bytes != 4) {
        return 0; /* section 4.2.2.2: the driver must use 32-bit accesses */
    }
    switch (offset) {
    case VIRTIO_MMIO_MAGIC_VALUE:
        return MAGIC;
    case VIRTIO_MMIO_VERSION:
        return VERSION;
    case VIRTIO_MMIO_DEVICE_ID:
        return mmio->device_id;
    case VIRTIO_MMIO_VENDOR_ID:
        return VENDOR;
    case VIRTIO_MMIO_DEVICE_FEATURES:
        return feature_word(mmio->device_features, mmio->device_features_sel);
    case VIRTIO_MMIO_QUEUE_NUM_MAX:
        return queue != NULL ? VIRTQ_SIZE_MAX : 0;
    case VIRTIO_MMIO_QUEUE_READY:
        return queue != NULL && queue->ready ? 1 : 0;
    case VIRTIO_MMIO_INTERRUPT_STATUS:
        return mmio->interrupt_status;
    case VIRTIO_MMIO_STATUS:
        return mmio->status;
    case VIRTIO_MMIO_SHM_LEN_LOW:
    case VIRTIO_MMIO_SHM_LEN_HIGH:
    case VIRTIO_MMIO_SHM_BASE_LOW:
    case VIRTIO_MMIO_SHM_BASE_HIGH:
        return UINT32_MAX; /* there is no shared memory region */
    default:
        return 0; /* ConfigGeneration among them: the configuration never changes */
    }
}

/* ---- Status ---------------------------------------------------------------------------------- */

static void reset(struct virtio_mmio *mmio)
{
    mmio->ops->reset(mmio->device);
    mmio->device_features_sel = 0;
    mmio->driver_features_sel = 0;
    mmio->driver_features = 0;
    mmio->queue_sel = 0;
    mmio->status = 0;
    mmio->interrupt_status = 0;
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++) {
        virtq_reset(&mmio->queues[i]);
    }
}

static bool features_acceptable(const struct virtio_mmio *mmio)
{
    return (mmio->driver_features & ~mmio->device_features) == 0 &&
           (mmio->driver_features & VIRTIO_F_VERSION_1) != 0;
}

static void driver_ok(struct virtio_mmio *mmio)
{
    const bool event_idx = (mmio->driver_features & VIRTIO_F_EVENT_IDX) != 0;
    const bool indirect = (mmio->driver_features & VIRTIO_F_INDIRECT_DESC) != 0;

    for (unsigned i = 0; i < mmio->queue_count; i++) {
        if (mmio->queues[i].ready &&
            virtq_activate(&mmio->queues[i], mmio->memory, event_idx, indirect) < 0) {
            virtio_mmio_fail(mmio, i);
            return;
        }
    }
    mmio->ops->activate(mmio->device);
}

/* Bits may only be added, in the order of section 3.1.1; 0 resets. */
static void write_status(struct virtio_mmio *mmio, uint32_t value)
{
    const uint32_t writable = VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER |
                              VIRTIO_STATUS_DRIVER_OK | VIRTIO_STATUS_FEATURES_OK |
                              VIRTIO_STATUS_FAILED;
    const uint32_t added = value & writable & ~mmio->status;

    if (value == 0) {
        reset(mmio);
        return;
    }
    if ((added & (VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_FAILED)) != 0) {
        mmio->status |=
            added & (VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_FAILED);
    }
    if ((added & VIRTIO_STATUS_FEATURES_OK) != 0 && (mmio->status & VIRTIO_STATUS_DRIVER) != 0 &&
        features_acceptable(mmio)) {
        mmio->status |= VIRTIO_STATUS_FEATURES_OK;
    }
    if ((added & VIRTIO_STATUS_DRIVER_OK) != 0 && (mmio->status & VIRTIO_STATUS_FEATURES_OK) != 0 &&
        (mmio->status & VIRTIO_STATUS_NEEDS_RESET) == 0) {
        mmio->status |= VIRTIO_STATUS_DRIVER_OK;
        driver_ok(mmio);
    }
}

/* ---- Writing --------------------------------------------------------------------------------- */

static void write_driver_features(struct virtio_mmio *mmio, uint32_t value)
{
    const uint32_t sel = mmio->driver_features_sel;

    if (sel >= 2 || (mmio->status & VIRTIO_STATUS_FEATURES_OK) != 0) {
        return;
    }
    mmio->driver_features &= ~((uint64_t)UINT32_MAX << (32 * sel));
    mmio->driver_features |= (uint64_t)value << (32 * sel);
}

static void set_low(struct gpa *address, uint32_t value)
{
    address->v = (address->v & ~(uint64_t)UINT32_MAX) | value;
}

static void set_high(struct gpa *address, uint32_t value)
{
    address->v = (address->v & UINT32_MAX) | (uint64_t)value << 32;
}

/* Registers of the selected queue, which may be written only while the driver sets it up. */
static void write_queue(struct virtio_mmio *mmio, struct virtq *queue, uint32_t offset,
                        uint32_t value)
{
    const uint32_t setup = VIRTIO_STATUS_FEATURES_OK;

    if (offset == VIRTIO_MMIO_QUEUE_READY && value == 0) {
        queue->ready = false; /* always allowed: the device lets go of the rings */
        queue->active = false;
        return;
    }
    if ((mmio->status & (setup | VIRTIO_STATUS_DRIVER_OK | VIRTIO_STATUS_NEEDS_RESET)) != setup ||
        queue->ready) {
        return;
    }
    switch (offset) {
    case VIRTIO_MMIO_QUEUE_NUM:
        queue->size = value <= VIRTQ_SIZE_MAX ? (uint16_t)value : 0;
        break;
    case VIRTIO_MMIO_QUEUE_READY:
        queue->ready = value == 1;
        break;
    case VIRTIO_MMIO_QUEUE_DESC_LOW:
        set_low(&queue->desc, value);
        break;
    case VIRTIO_MMIO_QUEUE_DESC_HIGH:
        set_high(&queue->desc, value);
        break;
    case VIRTIO_MMIO_QUEUE_DRIVER_LOW:
        set_low(&queue->avail, value);
        break;
    case VIRTIO_MMIO_QUEUE_DRIVER_HIGH:
        set_high(&queue->avail, value);
        break;
    case VIRTIO_MMIO_QUEUE_DEVICE_LOW:
        set_low(&queue->used, value);
        break;
    case VIRTIO_MMIO_QUEUE_DEVICE_HIGH:
        set_high(&queue->used, value);
        break;
    default:
        break;
    }
}

void virtio_mmio_write(struct virtio_mmio *mmio, uint32_t offset, unsigned width_bytes,
                       uint64_t value64)
{
    const uint32_t value = (uint32_t)value64;
    struct virtq *queue = selected_queue(mmio);

    if (width_bytes != 4 || offset >= VIRTIO_MMIO_CONFIG_OFFSET) {
        return; /* the configuration spaces of our devices are read-only */
    }
    switch (offset) {
    case VIRTIO_MMIO_DEVICE_FEATURES_SEL:
        mmio->device_features_sel = value;
        break;
    case VIRTIO_MMIO_DRIVER_FEATURES_SEL:
        mmio->driver_features_sel = value;
        break;
    case VIRTIO_MMIO_DRIVER_FEATURES:
        write_driver_features(mmio, value);
        break;
    case VIRTIO_MMIO_QUEUE_SEL:
        mmio->queue_sel = value;
        break;
    case VIRTIO_MMIO_INTERRUPT_ACK:
        mmio->interrupt_status &= ~value;
        break;
    case VIRTIO_MMIO_STATUS:
        write_status(mmio, value);
        break;
    case VIRTIO_MMIO_QUEUE_NOTIFY:
        break; /* queues are looked at after every message; the doorbell did its work */
    default:
        if (queue != NULL) {
            write_queue(mmio, queue, offset, value);
        }
        break;
    }
}

/* ---- For the device -------------------------------------------------------------------------- */

bool virtio_mmio_queue_live(const struct virtio_mmio *mmio, unsigned queue)
{
    return (mmio->status & (VIRTIO_STATUS_DRIVER_OK | VIRTIO_STATUS_NEEDS_RESET)) ==
               VIRTIO_STATUS_DRIVER_OK &&
           mmio->queues[queue].active;
}

void virtio_mmio_notify_used(struct virtio_mmio *mmio, unsigned queue)
{
    if (virtq_should_interrupt(&mmio->queues[queue])) {
        mmio->interrupt_status |= INTERRUPT_USED_BUFFER;
        mmio->ops->interrupt(mmio->device);
    }
}

void virtio_mmio_fail(struct virtio_mmio *mmio, unsigned queue)
{
    const struct virtq *broken = &mmio->queues[queue];

    if ((mmio->status & VIRTIO_STATUS_NEEDS_RESET) != 0) {
        return;
    }
    mmio->status |= VIRTIO_STATUS_NEEDS_RESET;
    mmio->interrupt_status |= INTERRUPT_CONFIG_CHANGE;
    mmio->ops->broken(mmio->device, queue, broken->fault, broken->fault_detail);
    mmio->ops->interrupt(mmio->device);
}
