/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * virtio_actor.c: what the actors of virtio devices have in common.
 *
 * Thread: the device's actor. Never blocks. System calls: write (eventfd).
 */
#include "actors/virtio_actor.h"

/*
 * Which writes the driver cannot tell from immediate ones. Selectors, features and addresses of
 * queues take effect only at a later access, and that comes after them whichever vCPU makes it
 * (tickets: mailbox.h). Status and QueueReady are acknowledged: after writing 0 there, the driver
 * may use the rings' memory for something else.
 */
/* clang-format off */
static const struct reg_def virtio_mmio_regs[] = {
    {VIRTIO_MMIO_MAGIC_VALUE,         4, 0,          "MagicValue"       },
    {VIRTIO_MMIO_VERSION,             4, 0,          "Version"          },
    {VIRTIO_MMIO_DEVICE_ID,           4, 0,          "DeviceID"         },
    {VIRTIO_MMIO_VENDOR_ID,           4, 0,          "VendorID"         },
    {VIRTIO_MMIO_DEVICE_FEATURES,     4, 0,          "DeviceFeatures"   },
    {VIRTIO_MMIO_DEVICE_FEATURES_SEL, 4, REG_POSTED, "DeviceFeaturesSel"},
    {VIRTIO_MMIO_DRIVER_FEATURES,     4, REG_POSTED, "DriverFeatures"   },
    {VIRTIO_MMIO_DRIVER_FEATURES_SEL, 4, REG_POSTED, "DriverFeaturesSel"},
    {VIRTIO_MMIO_QUEUE_SEL,           4, REG_POSTED, "QueueSel"         },
    {VIRTIO_MMIO_QUEUE_NUM_MAX,       4, 0,          "QueueNumMax"      },
    {VIRTIO_MMIO_QUEUE_NUM,           4, REG_POSTED, "QueueNum"         },
    {VIRTIO_MMIO_QUEUE_READY,         4, 0,          "QueueReady"       },
    {VIRTIO_MMIO_QUEUE_NOTIFY,        4, REG_POSTED, "QueueNotify"      },
    {VIRTIO_MMIO_INTERRUPT_STATUS,    4, 0,          "InterruptStatus"  },
    {VIRTIO_MMIO_INTERRUPT_ACK,       4, REG_POSTED, "InterruptACK"     },
    {VIRTIO_MMIO_STATUS,              4, 0,          "Status"           },
    {VIRTIO_MMIO_QUEUE_DESC_LOW,      4, REG_POSTED, "QueueDescLow"     },
    {VIRTIO_MMIO_QUEUE_DESC_HIGH,     4, REG_POSTED, "QueueDescHigh"    },
    {VIRTIO_MMIO_QUEUE_DRIVER_LOW,    4, REG_POSTED, "QueueDriverLow"   },
    {VIRTIO_MMIO_QUEUE_DRIVER_HIGH,   4, REG_POSTED, "QueueDriverHigh"  },
    {VIRTIO_MMIO_QUEUE_DEVICE_LOW,    4, REG_POSTED, "QueueDeviceLow"   },
    {VIRTIO_MMIO_QUEUE_DEVICE_HIGH,   4, REG_POSTED, "QueueDeviceHigh"  },
    {VIRTIO_MMIO_CONFIG_GENERATION,   4, 0,          "ConfigGeneration" },
};
/* clang-format on */

const struct reg_region_def virtio_mmio_region = {
    .name = "virtio-mmio",
    .bytes = VIRTIO_MMIO_WINDOW_BYTES,
    .regs = virtio_mmio_regs,
    .reg_count = ARRAY_SIZE(virtio_mmio_regs),
};

void virtio_actor_on_read(struct actor *self, const struct msg *msg)
{
    struct virtio_actor *actor = self->state;
    struct msg answer = {.kind = MSG_IO_READ_DONE};

    answer.io.value = virtio_mmio_read(&actor->mmio, msg->io.offset_bytes, msg->io.width_bytes);
    actor_tell(self, msg->from, &answer);
}

void virtio_actor_on_write(struct actor *self, const struct msg *msg)
{
    struct virtio_actor *actor = self->state;

    virtio_mmio_write(&actor->mmio, msg->io.offset_bytes, msg->io.width_bytes, msg->io.value);
}

void virtio_actor_on_write_acked(struct actor *self, const struct msg *msg)
{
    virtio_actor_on_write(self, msg);
    actor_tell(self, msg->from, &(struct msg){.kind = MSG_IO_WRITE_DONE});
}

void virtio_actor_used(struct virtio_actor *actor, unsigned queue)
{
    actor->used_queues |= 1U << queue;
    /* Full; pairs with the exit and entry of the vCPU between its ACK and its look at the ring. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

void virtio_actor_tell_used(struct virtio_actor *actor)
{
    for (unsigned queue = 0; queue < actor->mmio.queue_count; queue++) {
        if ((actor->used_queues & (1U << queue)) != 0 &&
            virtio_mmio_queue_live(&actor->mmio, queue)) {
            virtio_mmio_notify_used(&actor->mmio, queue);
        }
    }
    actor->used_queues = 0;
}

void virtio_actor_interrupt(void *device)
{
    struct virtio_actor *actor = device;

    irq_raise(&actor->irq);
}

void virtio_actor_broken(void *device, unsigned queue, enum virtq_fault fault, uint64_t detail)
{
    struct virtio_actor *actor = device;

    if (actor->self->stats->queue_faults++ >= DEVICE_FAULTS_TOLD_MAX) {
        return; /* a driver that breaks the rules for ever is not news for ever */
    }
    actor_tell(
        actor->self, ACTOR_ID_SUPERVISOR,
        &(struct msg){
            .kind = MSG_DEVICE_BROKEN,
            .broken = {.detail = detail, .fault = (uint32_t)fault, .queue = (uint16_t)queue}});
}
