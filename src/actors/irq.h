/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * irq.h: an interrupt line of a device: an eventfd that KVM turns into an edge (irqfd).
 *
 * No vCPU is involved in raising one. Thread: the device's actor. Never blocks.
 */
#ifndef BVMM_ACTORS_IRQ_H
#define BVMM_ACTORS_IRQ_H

#include <unistd.h>

#include "base/base.h"
#include "base/record.h"

struct irq {
    int eventfd;
    struct actor_stats *stats;
};

static inline void irq_raise(const struct irq *irq)
{
    const uint64_t one = 1;
    ssize_t n = write(irq->eventfd, &one, sizeof(one));

    (void)n; /* an eventfd's counter cannot overflow here: KVM drains it at once */
    irq->stats->interrupts++;
}

#endif
