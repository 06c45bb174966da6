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
    unsigned faults_told; /* a driver that breaks the rules for ever is not news for ever */
};

/* At most this many DEVICE_BROKEN from one device: they share the lane with what cannot wait. */
#define VIRTIO_FAULTS_TOLD_MAX 4

extern const struct reg_region_def virtio_mmio_region;

/* Handlers of IO_READ, IO_WRITE, IO_WRITE_ACKED. */
void virtio_actor_on_read(struct actor *self, const struct msg *msg);
void virtio_actor_on_write(struct actor *self, const struct msg *msg);
void virtio_actor_on_write_acked(struct actor *self, const struct msg *msg);

/* For struct virtio_device_ops; device is the struct virtio_actor. */
void virtio_actor_interrupt(void *device);
void virtio_actor_broken(void *device, unsigned queue, enum virtq_fault fault, uint64_t detail);

#endif
