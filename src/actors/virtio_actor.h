/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * virtio_actor.h: what the actors of virtio devices have in common: their register region, and the
 * handlers that pass register accesses on to virtio_mmio.
 *
 * The state of such an actor begins with a struct virtio_actor.
 */
#ifndef BVMM_ACTORS_VIRTIO_ACTOR_H
#define BVMM_ACTORS_VIRTIO_ACTOR_H

#include "actors/actor.h"
#include "actors/irq.h"
#include "actors/regs.h"
#include "virtio/virtio_mmio.h"

struct virtio_actor {
    struct actor *self;
    struct irq irq;
    struct virtio_mmio mmio;
    unsigned used_queues; /* bit per queue: buffers were handed back, the driver was not told yet */
};

extern const struct reg_region_def virtio_mmio_region;

/* Handlers of IO_READ, IO_WRITE, IO_WRITE_ACKED. */
void virtio_actor_on_read(struct actor *self, const struct msg *msg);
void virtio_actor_on_write(struct actor *self, const struct msg *msg);
void virtio_actor_on_write_acked(struct actor *self, const struct msg *msg);

/*
 * virtio_actor_used - after virtq_push(): the driver is to be told, but not before the messages that
 * are there by now have been handled. So the poll that calls this returns true (more to do), and the
 * next one begins with virtio_actor_tell_used().
 *
 * Why: the driver's interrupt handler writes InterruptACK, then looks at the used ring. The ACK is
 * posted: it may wait in our mailbox while we push a buffer and set the status bit, and would then
 * clear a bit that stands for a buffer that the handler did not see: a lost interrupt. With the
 * order push, full fence, handle messages, set the bit, either the ACK is handled before the bit is
 * set, or the handler, which sent it before it looked, sees the buffer.
 */
void virtio_actor_used(struct virtio_actor *actor, unsigned queue);

/* Interrupt for what was pushed before the messages that have just been handled. */
void virtio_actor_tell_used(struct virtio_actor *actor);

/* For struct virtio_device_ops; device is the struct virtio_actor. */
void virtio_actor_interrupt(void *device);
void virtio_actor_broken(void *device, unsigned queue, enum virtq_fault fault, uint64_t detail);

#endif
