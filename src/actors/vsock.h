/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * vsock.h: the virtio-vsock actor: results of the run, and bridges to UNIX sockets of the host.
 * Source: virtio 1.1, section 5.10. The outcomes of everything that a guest or a host program may
 * do are in docs/vsock.md.
 *
 *     vsock_packet.h   the wire format
 *     vsock.c          the actor: queues, sleeping, the end
 *     vsock_conn.c     connections: state machine and credit
 *     vsock_stream.c   ports 5000, 5001, 5002, 5005 and 5003: results, control
 *     vsock_bridge.c   other ports: UNIX sockets
 *
 * Offered: VERSION_1, EVENT_IDX, INDIRECT_DESC; stream sockets. Nothing is allocated after start.
 */
#ifndef BVMM_ACTORS_VSOCK_H
#define BVMM_ACTORS_VSOCK_H

#include "actors/collector.h"
#include "actors/virtio_actor.h"
#include "actors/vsock_conn.h"
#include "actors/vsock_stream.h"
#include "protocol/protocol.h"

struct vsock {
    struct virtio_actor virtio; /* first: virtio_actor.h */
    struct vsock_config config;
    struct vsock_table table;
    struct vsock_streams streams;
    struct vsock_bridge *bridge; /* NULL: ports without a service are refused */
    bool event_due;              /* TRANSPORT_RESET */
    unsigned polls_since_look;   /* at the bridge's sockets */
    struct virtq_chain chain;    /* the one being served: too large for the stack */
};

/*
 * vsock_init - before the machine starts.
 * @irq_eventfd: bound to the device's interrupt line.
 * @bridge: from vsock_bridge_new(), or NULL. Stays the caller's.
 */
void vsock_init(struct vsock *vsock, struct actor *self, int irq_eventfd,
                const struct guest_memory *memory, struct vsock_bridge *bridge);

/* For actor_table.c. */
extern const actor_handler_fn vsock_on[MSG_KIND_COUNT];
bool vsock_poll(struct actor *self, bool *worked);
int vsock_sleep(struct actor *self);
void vsock_stop(struct actor *self);
extern const struct policy vsock_policy;

#endif
